package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowdConfig has short timeouts, so that the test sees them pass.
const crowdConfig = plainConfig + `imageapi:
  limits: {bodytimeout: 4s, writetimeout: 4s}
  auth: {kubeconfigfile: DIR/kubeconfig, rbacfile: DIR/rbac.yml}
`

// crowdRules let everybody do everything, so that nothing but the limits stops a
// hostile client.
const crowdRules = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everybody}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: registry-admin}
subjects: [{kind: Group, name: "system:unauthenticated"}]
`

// crowd is a hostile client: everything that it does comes from one address, which is
// not the other clients'.
type crowd struct {
	s      *server
	dialer *net.Dialer

	mu    sync.Mutex
	conns []net.Conn
}

func newCrowd(t *testing.T, s *server) *crowd {
	c := &crowd{s: s, dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: time.Minute}}
	t.Cleanup(c.leave)
	return c
}

// say opens a connection, sends text and keeps it open.
func (c *crowd) say(text string) (net.Conn, error) {
	conn, err := c.dialer.Dial("tcp", c.s.addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	_, err = io.WriteString(conn, text)
	return conn, err
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// status reads the status of an answer.
func status(conn net.Conn) (int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// many does something n times, 50 at a time.
func many(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	slots, failed := make(chan struct{}, 50), atomic.Pointer[error]{}
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(i); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

// others pushes, reads and watches as ordinary clients do until the test ends, and
// fails it if any of that fails.
type others struct {
	t      *testing.T
	s      *server
	client *http.Client
	rounds atomic.Int64
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func startOthers(t *testing.T, s *server) *others {
	ctx, stop := context.WithCancel(t.Context())
	o := &others{t: t, s: s, client: &http.Client{Timeout: 30 * time.Second}, stop: stop}
	o.done.Go(func() {
		for ctx.Err() == nil {
			if err := o.round(); err != nil {
				t.Errorf("another client, in round %d: %v", o.rounds.Load(), err)
				return
			}
			o.rounds.Add(1)
		}
	})
	t.Cleanup(o.end)
	return o
}

func (o *others) end() {
	o.stop()
	o.done.Wait()
}

// waitForRounds returns when n more rounds have gone well.
func (o *others) waitForRounds(n int64) {
	o.t.Helper()
	for goal := o.rounds.Load() + n; o.rounds.Load() < goal && !o.t.Failed(); {
		time.Sleep(10 * time.Millisecond)
	}
}

// round pushes an image, sees it come by in a watch, reads it and lists.
func (o *others) round() error {
	get := func(path string) (*http.Response, error) {
		response, err := o.client.Get(o.s.url(path))
		if err == nil && response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(response.Body)
			return nil, errors.Join(fmt.Errorf("GET %s: %s %s", path, response.Status, body), response.Body.Close())
		}
		return response, err
	}
	repository := fmt.Sprintf("others/app%d", o.rounds.Load())
	events, err := get(api + "/images?watch=1&timeoutSeconds=60&fieldSelector=repository%3D" + strings.ReplaceAll(repository, "/", "%2F"))
	if err != nil {
		return err
	}
	defer events.Body.Close()
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"round":"%s"}}`, repository)
	request, err := http.NewRequest(http.MethodPut, o.s.url("/v2/"+repository+"/manifests/v1"), strings.NewReader(manifest))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	pushed, err := o.client.Do(request)
	if err != nil {
		return err
	}
	if err := pushed.Body.Close(); err != nil || pushed.StatusCode != http.StatusCreated {
		return fmt.Errorf("push: %s, %w", pushed.Status, err)
	}
	if line, err := bufio.NewReader(events.Body).ReadString('\n'); err != nil || !strings.Contains(line, `"ADDED"`) {
		return fmt.Errorf("watch: %.200s, %w", line, err)
	}
	for _, path := range []string{api + "/images/" + pushed.Header.Get("Docker-Content-Digest"), api + "/images?limit=5", "/v2/" + repository + "/manifests/v1", "/readyz"} {
		response, err := get(path)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		response.Body.Close()
	}
	return nil
}

// TestCrowd: a client that opens thousands of connections and watches, sends huge and slow
// bodies and reads slowly harms no other, and gets clear errors about its excess. The binary
// is as users have it: with the race detector there cannot be as many goroutines.
func TestCrowd(t *testing.T) {
	const crowdSize = 5000
	program := filepath.Join(t.TempDir(), "tallyman")
	build := exec.Command("go", "build", "-o", program, "../../cmd/tallyman")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir, addr := t.TempDir(), freeAddress(t)
	writeFile(t, filepath.Join(dir, "rbac.yml"), crowdRules)
	writeFile(t, filepath.Join(dir, "config.yml"), strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(crowdConfig))
	s := &server{t: t, program: program, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"),
		args: []string{"serve", "--data-dir", dir, filepath.Join(dir, "config.yml")}}
	s.start()
	c := newCrowd(t, s)
	o := startOthers(t, s)
	o.waitForRounds(3)
	http1 := func(method, path, more string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: " + s.addr + "\r\n" + more + "\r\n"
	}

	t.Run("idle connections", func(t *testing.T) {
		before := residentMiB(t, s)
		many(t, crowdSize, func(i int) error {
			_, err := c.say([]string{"", "\x16\x03\x01", "GET / HT"}[i%3]) // nothing, half a handshake, half a request
			return err
		})
		o.waitForRounds(5)
		t.Logf("%d idle connections take %.0f MiB", crowdSize, residentMiB(t, s)-before)
	})
	c.leave()
	t.Run("watches", func(t *testing.T) {
		before := residentMiB(t, s)
		var watching, refused atomic.Int64
		many(t, crowdSize+100, func(int) error {
			conn, err := c.say(http1("GET", api+"/images?watch=1&fieldSelector=repository%3Dnone", ""))
			if err != nil {
				return err
			}
			switch code, err := status(conn); {
			case err != nil:
				return err
			case code == http.StatusOK:
				watching.Add(1)
			case code == http.StatusTooManyRequests:
				refused.Add(1)
			default:
				return fmt.Errorf("a watch is answered %d", code)
			}
			return nil
		})
		if watching.Load() != crowdSize || refused.Load() != 100 {
			t.Errorf("%d watches, and %d refused", watching.Load(), refused.Load())
		}
		o.waitForRounds(5)
		t.Logf("%d watches take %.0f MiB", crowdSize, residentMiB(t, s)-before)
	})
	c.leave()
	t.Run("huge bodies", func(t *testing.T) {
		for _, target := range [][2]string{{"POST", api + "/images"}, {"PUT", "/v2/a/manifests/v1"}, {"GET", api + "/images"}, {"PUT", "/extensions/v2/a/signatures/sha256:" + strings.Repeat("a", 64)}} {
			request, err := http.NewRequest(target[0], s.url(target[1]), io.LimitReader(zeros{}, 100<<20))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			before := residentMiB(t, s)
			// The connection may be closed before the client has read the answer: it is
			// still sending.
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				if target[0] != "GET" && (response.StatusCode < 400 || response.StatusCode >= 500) {
					t.Errorf("%s %s with 100 MiB: %s", target[0], target[1], response.Status)
				}
				response.Body.Close()
			}
			if grown := residentMiB(t, s) - before; grown > 64 {
				t.Errorf("%s %s with 100 MiB takes %.0f MiB of memory", target[0], target[1], grown)
			}
		}
		o.waitForRounds(5)
	})
	t.Run("slow bodies", func(t *testing.T) {
		answers := slowBodies(t, c, http1("POST", api+"/images", "Content-Type: application/json\r\nContent-Length: 1000\r\n"), 300, o)
		// Those that time out make room for others: on a slow machine more than 100 are 408.
		late, excess := answers[http.StatusRequestTimeout], answers[http.StatusTooManyRequests]
		if late < 100 || excess == 0 || late+excess != 300 {
			t.Errorf("slow bodies are answered %v, want at least 100 times 408, and 429 for all others", answers)
		}
	})
	t.Run("slow uploads", func(t *testing.T) {
		for range 500 {
			if _, err := c.say(http1("PUT", "/v2/a/manifests/v1", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 1000\r\n") + "{"); err != nil {
				t.Fatal(err)
			}
		}
		o.waitForRounds(5)
	})
	c.leave()
	t.Run("slow readers", func(t *testing.T) {
		s.growList(t, c)
		answers := map[int]int{}
		for answers[http.StatusTooManyRequests] < 50 && answers[http.StatusOK] < 2000 {
			conn, err := c.say(http1("GET", api+"/images", ""))
			if err != nil {
				t.Fatal(err)
			}
			code, err := firstLine(conn)
			if err != nil {
				t.Fatal(err)
			}
			if code == http.StatusTooManyRequests && answers[http.StatusOK] < 100 {
				t.Fatalf("429 with %d requests in flight, want it with 100", answers[http.StatusOK])
			}
			answers[code]++
		}
		// Readers that stop for too long are dropped and make room for others.
		if answers[http.StatusTooManyRequests] != 50 || len(answers) != 2 {
			t.Errorf("slow readers are answered %v, want 200 and, with 100 in flight, 429", answers)
		}
		o.waitForRounds(5)
		eventually(t, "the slow readers are gone", func() error {
			conn, err := c.say(http1("GET", api+"/images", ""))
			if err != nil {
				return err
			}
			defer conn.Close()
			if code, err := firstLine(conn); err != nil || code != http.StatusOK {
				return fmt.Errorf("%d, %w", code, err)
			}
			return nil
		})
	})
	c.leave()
	o.end()
	t.Logf("%d rounds of other clients", o.rounds.Load())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// firstLine reads an answer's first line and nothing more.
func firstLine(conn net.Conn) (code int, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(conn, line); err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(string(line), "HTTP/1.1 %d", &code)
	return code, err
}

// slowBodies sends the header n times and then next to nothing of the body, and counts
// the answers.
func slowBodies(t *testing.T, c *crowd, header string, n int, o *others) map[int]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[int]int{}
	for range n {
		conn, err := c.say(header + "{")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			code, err := status(conn)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[code]++
		})
	}
	o.waitForRounds(3)
	wg.Wait()
	return answers
}

// growList makes the list of all Images too large for the buffers of a connection.
func (s *server) growList(t *testing.T, c *crowd) {
	t.Helper()
	filler := strings.Repeat("x", 200<<10)
	for i := range 100 {
		body := fmt.Sprintf(`{"kind":"Image","apiVersion":"image.openshift.io/v1","metadata":{"name":"sha256:%064d"},"dockerImageReference":"a","dockerImageConfig":%q}`, i, filler)
		conn, err := c.say(fmt.Sprintf("POST %s/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", api, len(body), body))
		if err != nil {
			t.Fatal(err)
		}
		if code, err := status(conn); err != nil || code != http.StatusCreated {
			t.Fatalf("%d, %v", code, err)
		}
		conn.Close()
	}
}
