package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/storage/redis/redistest"
)

// outageConfig caches blob descriptors in the same Redis, so that distribution
// meets the outage too.
const outageConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: DIR/registry}, cache: {blobdescriptor: redis}, delete: {enabled: true}}
http: {addr: ADDR}
redis: {addrs: [REDIS], maxretries: -1}
imageapi:
  onstorefailure: POLICY
  auth: {kubeconfigfile: DIR/kubeconfig}
`

func outageServer(t *testing.T, redis *redistest.Server, policy string, env ...string) *server {
	t.Helper()
	return startWithConfig(t, strings.NewReplacer("REDIS", redis.Addr, "POLICY", policy).Replace(outageConfig), env...)
}

// TestRedisOutage: without Redis pulls go on, pushes follow onstorefailure, the API answers
// 503, /readyz/store fails, /readyz and /livez stay up. When Redis is back so is
// everything, without a restart.
func TestRedisOutage(t *testing.T) {
	for _, policy := range []string{"defer", "reject"} {
		t.Run(policy, func(t *testing.T) {
			redis := redistest.Start(t, "redis-server", redistest.Durable...)
			s := outageServer(t, redis, policy)
			before := pushSmallImage(s, "app", "before")
			list, err := s.images().List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			redis.Kill()
			eventually(t, "the store is not ready", func() error { return s.status("/readyz/store", http.StatusInternalServerError) })
			if got := s.request(http.MethodGet, "/readyz/store", "", nil); !strings.Contains(got.body, "[-]store failed") {
				t.Errorf("/readyz/store says %s", got.body)
			}
			must(t, "readiness of the registry", s.status("/readyz", http.StatusOK))
			must(t, "liveness", s.status("/livez", http.StatusOK))
			if got := s.request(http.MethodGet, "/apis/image.openshift.io/v1/images", "", nil); got.code != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || strings.Contains(got.body, "127.0.0.1") || strings.Contains(got.body, "dial") {
				t.Errorf("LIST: %d %v %s", got.code, got.header, got.body)
			}
			if got := s.manifest("app", "latest"); !strings.Contains(got, "schemaVersion") {
				t.Errorf("a pull got %s", got)
			}
			during := checkPush(t, s, policy)
			redis.Run(t)
			eventually(t, "the store is back", func() error { return s.status("/readyz/store", http.StatusOK) })
			if policy == "reject" {
				pushSmallImage(s, "app", "during") // as the client does on 503
			}
			eventually(t, "the push is recorded", func() error {
				_, err := s.images().Get(t.Context(), during, metav1.GetOptions{})
				return err
			})
			s.image(before)
			for event := nextEvent(t, w); nameOf(event) != during; event = nextEvent(t, w) {
				if event.Type == watch.Error {
					t.Fatalf("the watch, which missed nothing, ended with %v", event.Object)
				}
			}
		})
	}
}

// checkPush pushes without Redis: it succeeds or is refused as policy says.
func checkPush(t *testing.T, s *server, policy string) string {
	t.Helper()
	if policy == "defer" {
		return pushSmallImage(s, "app", "during")
	}
	name, err := pushAndRead(s, "app", "during")
	if err == nil || !strings.Contains(err.Error(), "push: 503") || !strings.Contains(err.Error(), "try again") {
		t.Errorf("a push with reject: %v", err)
	}
	return name
}

// TestRedisEmptied: a Redis that loses everything is filled again from the registry's content,
// without a restart, and watching clients are told to list again.
func TestRedisEmptied(t *testing.T) {
	redis := redistest.Start(t, "redis-server")
	s := outageServer(t, redis, "defer")
	var all []string
	for i := range 5 {
		all = append(all, pushSmallImage(s, fmt.Sprint("app", i), fmt.Sprint("image ", i)))
	}
	w, err := s.images().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for range all {
		nextEvent(t, w)
	}
	redis.Command(t, "FLUSHALL")
	for event := nextEvent(t, w); event.Type != watch.Error; event = nextEvent(t, w) {
		t.Errorf("the watch goes on with %s %s", event.Type, nameOf(event))
	}
	eventually(t, "the images are back", func() error {
		for i, name := range all {
			if err := s.lives(name, fmt.Sprint("app", i), fmt.Sprintf("app%d:latest", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if !strings.Contains(s.logText(), "content is missing from the image store") {
		t.Error("the loss is not in the log")
	}
}

// TestRedisConfiguration: errors in the configuration of Redis name the key, and secrets stay
// out of them.
func TestRedisConfiguration(t *testing.T) {
	locked := redistest.Start(t, "redis-server", "--requirepass", "hunter2-right")
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	writeFile(t, good, "hunter2-right\n")
	writeFile(t, bad, "hunter2-wrong\n")
	for name, test := range map[string]struct{ section, want string }{
		"no address":      {"imageapi: {store: {type: redis}}", "imageapi.store.type: redis needs redis.addrs"},
		"no such type":    {"imageapi: {store: {type: etcd}}", `imageapi.store.type: "etcd" is not valid: want auto, bolt or redis`},
		"no port":         {"redis: {addrs: [localhost]}", `redis.addrs[0]: "localhost" is not valid: want host:port`},
		"typo":            {"imageapi: {store: {redis: {prefx: a}}}", `unknown key "imageapi.store.redis.prefx" (did you mean "prefix"?)`},
		"prefix":          {"imageapi: {store: {redis: {prefix: '{a}'}}}", "imageapi.store.redis.prefix"},
		"half of tls":     {"redis: {addrs: ['a:1'], tls: {certificate: /x}}", "redis.tls: certificate and key go together"},
		"no such ca":      {"redis: {addrs: ['a:1'], tls: {rootcas: [/nonexistent]}}", "redis.tls.rootcas[0]"},
		"no password":     {"redis: {addrs: [REDIS]}", "NOAUTH"},
		"wrong password":  {"redis: {addrs: [REDIS]}\nimageapi: {store: {redis: {passwordfile: " + bad + "}}}", "WRONGPASS"},
		"both passwords":  {"redis: {addrs: [REDIS], password: hunter2-x}\nimageapi: {store: {redis: {passwordfile: " + bad + "}}}", "want one of the two"},
		"no such file":    {"redis: {addrs: [REDIS]}\nimageapi: {store: {redis: {passwordfile: /nonexistent}}}", "imageapi.store.redis.passwordfile"},
		"WAITAOF missing": {"redis: {addrs: [REDIS]}\nimageapi: {store: {redis: {aof: true, passwordfile: " + good + "}}}", "imageapi.store.redis.aof is set"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yml")
			writeFile(t, path, "version: 0.1\nstorage: {filesystem: {rootdirectory: "+dir+"}}\nhttp: {addr: '127.0.0.1:0'}\n"+
				strings.ReplaceAll(test.section, "REDIS", locked.Addr)+"\n")
			out, err := tryTallyman(t, "serve", path)
			if err == nil || !strings.Contains(out, test.want) || strings.Contains(out, "hunter2") || strings.Contains(out, "goroutine") {
				t.Errorf("%v\n%s\nwant %q", err, out, test.want)
			}
		})
	}
	debug := freeAddress(t)
	s := startWithConfig(t, strings.NewReplacer("DEBUG", debug, "REDIS", locked.Addr, "FILE", good).Replace(`version: 0.1
storage: {filesystem: {rootdirectory: DIR}}
http: {addr: ADDR, debug: {addr: DEBUG}}
redis: {addrs: [REDIS]}
imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, store: {redis: {passwordfile: FILE}}}
`))
	pushSmallImage(s, "app", "one")
	vars := s.request(http.MethodGet, "http://"+debug+"/debug/vars", "", nil)
	if vars.code != http.StatusOK || !strings.Contains(vars.body, `"redis"`) || strings.Contains(vars.body+s.logText(), "hunter2") {
		t.Errorf("/debug/vars or the log has the password in it, or nothing: %d", vars.code)
	}
	shown, err := tryTallyman(t, "config", "show", filepath.Join(s.dir, "config.yml"))
	if err != nil || strings.Contains(shown, "hunter2") {
		t.Errorf("%v\n%s", err, shown)
	}
}

// tryTallyman runs the binary to its end.
func tryTallyman(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := tryCommand(t, nil, binary, args...)
	if len(out) == 0 && err == nil {
		return "", errors.New("no output")
	}
	return out, err
}
