package e2e

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"tallyman/storage/redis/redistest"
)

// replicaConfig is a replica's: content and Redis are shared, its own files are in DIR.
const replicaConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: SHARED}, delete: {enabled: true}}
http: {addr: ADDR, secret: shared by the replicas}
REDIS
imageapi:
  registryhost: registry.example.com
  shutdowndelay: 1500ms
  auth: {kubeconfigfile: DIR/kubeconfig}
`

// startReplicas starts n processes over one blob directory and one Redis, which
// redisSection says where it is.
func startReplicas(t *testing.T, n int, redisSection func(replica int) string, env ...string) []*server {
	t.Helper()
	shared := t.TempDir()
	var all []*server
	for i := range n {
		all = append(all, startWithConfig(t, strings.NewReplacer("SHARED", shared, "REDIS", redisSection(i)).Replace(replicaConfig), env...))
	}
	return all
}

func redisAt(addrs ...string) func(int) string {
	return func(int) string { return "redis: {addrs: [" + strings.Join(addrs, ", ") + "]}" }
}

// TestReplicas: a push through one process is read at once through another, and seen by a
// watch on the third.
func TestReplicas(t *testing.T) {
	for _, flavor := range redistest.Flavors {
		t.Run(flavor, func(t *testing.T) {
			replicas := startReplicas(t, 3, redisAt(redistest.Start(t, flavor, redistest.Durable...).Addr))
			w, err := replicas[2].images().Watch(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			for i := range 12 {
				pusher, reader := replicas[i%3], replicas[(i+1)%3]
				repository := fmt.Sprintf("app%d", i)
				manifest := pushSmallImage(pusher, repository, fmt.Sprint("content ", i))
				image := reader.image(manifest)
				list, err := replicas[(i+2)%3].images().List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + manifest})
				if err != nil || len(list.Items) != 1 || list.Items[0].ResourceVersion != image.ResourceVersion {
					t.Fatalf("the list of the third replica: %v, %v", list, err)
				}
				event := nextEvent(t, w)
				if event.Type != watch.Added || nameOf(event) != manifest {
					t.Fatalf("the watch saw %s %s, want %s", event.Type, nameOf(event), manifest)
				}
				if got := reader.request(http.MethodDelete, "/v2/"+repository+"/manifests/"+manifest, "", nil); got.code != http.StatusAccepted {
					t.Fatalf("delete: %d %s", got.code, got.body)
				}
				if got := pusher.request(http.MethodGet, "/apis/image.openshift.io/v1/images/"+manifest, "", nil); got.code != http.StatusNotFound {
					t.Fatalf("after the deletion through another replica: %d", got.code)
				}
				for event.Type != watch.Deleted {
					event = nextEvent(t, w)
				}
			}
		})
	}
}

const smallManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
	`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`

func metaOf(event watch.Event) metav1.Object {
	accessor, ok := event.Object.(metav1.Object)
	if !ok {
		return &metav1.ObjectMeta{Name: fmt.Sprint(event.Object)}
	}
	return accessor
}

func nameOf(event watch.Event) string { return metaOf(event).GetName() }

// pushSmallImage pushes an image without layers by plain requests, and returns
// its digest.
func pushSmallImage(s *server, repository, content string) string {
	s.t.Helper()
	config, manifest := smallImage(content)
	s.pushBlob(repository, []byte(config))
	if got := s.putManifest(repository, "latest", "application/vnd.oci.image.manifest.v1+json", manifest); got.code != http.StatusCreated {
		s.t.Fatalf("push: %d %s", got.code, got.body)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
}

// balancer is a load balancer over replicas: it asks each for its readiness, and
// passes requests to those that are ready in turn.
type balancer struct {
	addr    string
	mu      sync.Mutex
	ready   []*server
	next    int
	done    chan struct{}
	refused atomic.Int64 // requests that no replica took
}

func startBalancer(t *testing.T, replicas []*server) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{addr: listener.Addr().String(), done: make(chan struct{}), ready: replicas}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			target, err := url.Parse(b.pick().url(""))
			if err != nil {
				panic(err)
			}
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			b.refused.Add(1)
			http.Error(w, "bad gateway: "+err.Error(), http.StatusBadGateway)
		},
	}
	front := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = front.Serve(listener) }()
	var checks sync.WaitGroup
	checks.Go(func() { b.check(replicas) })
	t.Cleanup(func() {
		close(b.done)
		_ = front.Close()
		checks.Wait()
	})
	return b
}

func (b *balancer) check(replicas []*server) {
	for {
		var ready []*server
		for _, s := range replicas {
			if s.status("/readyz", http.StatusOK) == nil {
				ready = append(ready, s)
			}
		}
		b.mu.Lock()
		b.ready = ready
		b.mu.Unlock()
		select {
		case <-b.done:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *balancer) pick() *server {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.ready[b.next%len(b.ready)]
}

// TestRollingRestart: replicas are stopped and started one after the other while
// clients push, read and watch through a load balancer. No request fails; watches
// end well and go on where they were.
func TestRollingRestart(t *testing.T) {
	replicas := startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
	underLoad(t, replicas, func() {
		for _, s := range replicas {
			s.stop()
			s.start()
			time.Sleep(300 * time.Millisecond) // the balancer finds it
		}
	})
}

// underLoad runs fn while clients push, read and watch through a balancer, and wants
// no request to fail, and pushes to go on after it.
func underLoad(t *testing.T, replicas []*server, fn func()) {
	t.Helper()
	b := startBalancer(t, replicas)
	front := &server{t: t, addr: b.addr, kubeconfig: filepath.Join(t.TempDir(), "none")}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var pushed, watched atomic.Int64
	for c := range 3 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name, err := pushAndRead(front, fmt.Sprintf("app%d", c), fmt.Sprintf("client %d image %d", c, i))
				if err != nil {
					t.Errorf("image %s: %v", name, err)
					return
				}
				pushed.Add(1)
			}
		})
	}
	clients.Go(func() { followThrough(t, b.addr, stop, &watched) })
	fn()
	last := pushed.Load()
	eventually(t, "pushes go on", func() error {
		if pushed.Load() == last {
			return fmt.Errorf("still %d", last)
		}
		return nil
	})
	close(stop)
	clients.Wait()
	if b.refused.Load() > 0 {
		t.Errorf("%d requests reached no replica", b.refused.Load())
	}
	t.Logf("%d pushes and reads, %d watch events", pushed.Load(), watched.Load())
}

// pushAndRead pushes an image and reads it, and returns the first error.
func pushAndRead(s *server, repository, content string) (string, error) {
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","author":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, content)
	start, err := s.want(http.StatusAccepted, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return "", fmt.Errorf("start of an upload: %w", err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(config)))
	location := start.header.Get("Location") + "&digest=" + digest
	if _, err := s.want(http.StatusCreated, http.MethodPut, location, config, nil); err != nil {
		return "", fmt.Errorf("upload: %w", err)
	}
	manifest := fmt.Sprintf(smallManifest, digest, len(config))
	name := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
	header := http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	if _, err := s.want(http.StatusCreated, http.MethodPut, "/v2/"+repository+"/manifests/latest", manifest, header); err != nil {
		return name, fmt.Errorf("push: %w", err)
	}
	if _, err := s.want(http.StatusOK, http.MethodGet, "/apis/image.openshift.io/v1/images/"+name, "", nil); err != nil {
		return name, fmt.Errorf("read after push: %w", err)
	}
	return name, nil
}

// want is try for a request that is to be answered with code.
func (s *server) want(code int, method, target, body string, header http.Header) (answer, error) {
	got, err := s.try(method, target, body, header)
	if err == nil && got.code != code {
		err = fmt.Errorf("%d %s", got.code, got.body)
	}
	return got, err
}

// followThrough lists Images and watches them, going on from the last event each
// time a watch ends. No change may be missed, and none told as an error.
func followThrough(t *testing.T, addr string, stop <-chan struct{}, events *atomic.Int64) {
	client := imageclientFor(t, &rest.Config{Host: "http://" + addr, QPS: -1})
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	seen := map[string]string{}
	for _, image := range list.Items {
		seen[image.Name] = image.ResourceVersion
	}
	version := list.ResourceVersion
	for {
		w, err := client.Watch(t.Context(), metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			t.Errorf("watch from %s: %v", version, err)
			return
		}
		for open := true; open; {
			select {
			case <-stop:
				w.Stop()
				final, err := client.List(t.Context(), metav1.ListOptions{ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
				if err != nil || len(final.Items) != len(seen) {
					t.Errorf("at %s there are %d images, the watch knows %d, %v", version, len(final.Items), len(seen), err)
				}
				return
			case event, ok := <-w.ResultChan():
				if open = ok; !ok {
					continue
				}
				if event.Type == watch.Error {
					t.Errorf("the watch ended with %v", event.Object)
					return
				}
				events.Add(1)
				version = metaOf(event).GetResourceVersion()
				seen[nameOf(event)] = version
			}
		}
	}
}
