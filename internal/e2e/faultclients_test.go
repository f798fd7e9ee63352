package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	imageclientset "github.com/openshift/client-go/image/clientset/versioned"
	imageclient "github.com/openshift/client-go/image/clientset/versioned/typed/image/v1"
	imageinformers "github.com/openshift/client-go/image/informers/externalversions"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/storage/redis"
)

// tally counts the events of a fault run.
type tally struct {
	faults, acknowledged, uncertain, events, expired, violations atomic.Int64
}

func (c *tally) violation(t *testing.T, format string, args ...any) {
	c.violations.Add(1)
	t.Errorf(format, args...)
}

// runFaults makes rounds faults, one of each kind in turn, under load, and compares the
// knowledge of all clients after each.
func runFaults(t *testing.T, replicas []*server, store redis.Options, rounds int, kinds []fault) {
	t.Helper()
	count := &tally{}
	group := openGroups(t, store, count)
	random := rand.New(rand.NewPCG(uint64(rounds), 11))
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	var informers []imageinformers.SharedInformerFactory
	var observers []*observer
	for _, s := range replicas {
		set, err := imageclientset.NewForConfig(s.restConfig())
		if err != nil {
			t.Fatal(err)
		}
		factory := imageinformers.NewSharedInformerFactory(set, 0)
		factory.Image().V1().Images().Informer()
		factory.Start(ctx.Done())
		informers = append(informers, factory)
		o := &observer{t: t, count: count, client: s.images(), state: map[string]int{}}
		observers = append(observers, o)
		background.Go(func() { o.run(ctx) })
	}
	background.Go(func() { group.follow(ctx) })
	var writers []*writer
	for i := range 2 * len(replicas) {
		writers = append(writers, &writer{id: i, t: t, count: count, replicas: replicas, truth: map[string]int{}, versions: map[string]string{}})
	}
	for i := range rounds {
		kind := kinds[i%len(kinds)]
		work, stop := context.WithCancel(ctx)
		var writing sync.WaitGroup
		for _, w := range writers {
			writing.Go(func() { w.run(work) })
		}
		writing.Go(func() { group.write(work) })
		time.Sleep(100 * time.Millisecond)
		kind.make(t, random)
		count.faults.Add(1)
		time.Sleep(100 * time.Millisecond)
		stop()
		writing.Wait()
		truth := map[string]int{}
		for _, w := range writers {
			w.settle(ctx)
			maps.Copy(truth, w.truth)
		}
		group.settle(ctx)
		converge(t, count, kind.name, func() error {
			return errors.Join(group.compare(), compareAll(t, truth, replicas, informers, observers))
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d faults, %d writes acknowledged (%d of five keys), %d uncertain, %d watch events, %d times told 410, %d violations",
		count.faults.Load(), count.acknowledged.Load(), group.step, count.uncertain.Load(), count.events.Load(), count.expired.Load(), count.violations.Load())
}

// converge waits until everybody knows the truth, which compare tells.
func converge(t *testing.T, count *tally, after string, compare func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = compare(); err == nil {
			return
		}
	}
	count.violation(t, "not converged a minute after %q: %v", after, err)
}

// compareAll compares the lists, informers and watches of every replica with truth.
func compareAll(t *testing.T, truth map[string]int, replicas []*server, informers []imageinformers.SharedInformerFactory, observers []*observer) error {
	for i, s := range replicas {
		list, err := s.images().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list of replica %d: %w", i, err)
		}
		listed := map[string]int{}
		for j := range list.Items {
			listed[list.Items[j].Name] = step(&list.Items[j])
		}
		if !maps.Equal(listed, truth) {
			return fmt.Errorf("replica %d lists %v, the truth is %v", i, listed, truth)
		}
		cached, err := informers[i].Image().V1().Images().Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		informed := map[string]int{}
		for _, image := range cached {
			informed[image.Name] = step(image)
		}
		if !maps.Equal(informed, truth) {
			return fmt.Errorf("the informer at replica %d knows %v, the truth is %v", i, informed, truth)
		}
		if seen := observers[i].known(); !maps.Equal(seen, truth) {
			return fmt.Errorf("the watch at replica %d knows %v, the truth is %v", i, seen, truth)
		}
	}
	return nil
}

// step is the number of the write that an Image is from. Each write of an Image
// has the next one, so a gap between two that a watch saw is a change it missed.
func step(image *imagev1.Image) int {
	n, _ := strconv.Atoi(image.Labels["step"])
	return n
}

// writer owns some Images and knows their state.
type writer struct {
	id       int
	t        *testing.T
	count    *tally
	replicas []*server
	n        int
	truth    map[string]int // of its Images, the last step that is known
	versions map[string]string
	doubt    string // the Image of a write whose outcome is not known
	tried    int    // the result that the write would have had; 0 for a deletion
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if w.doubt != "" && !w.resolve(ctx) {
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		w.write(ctx)
	}
}

// settle ends all doubt, once Redis is there again.
func (w *writer) settle(ctx context.Context) {
	for w.doubt != "" && ctx.Err() == nil {
		if !w.resolve(ctx) {
			sleep(ctx, 50*time.Millisecond)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// client is the one that the writer writes through: while its replica is cut off,
// other writers go on.
func (w *writer) client() imageclient.ImageInterface {
	return w.replicas[w.id%len(w.replicas)].images()
}

// write makes the next change. It ends acknowledged, or in doubt.
func (w *writer) write(ctx context.Context) {
	w.n++
	name := fmt.Sprintf("sha256:%064x", w.id*100+w.n%5)
	image := newImage(name)
	now := w.truth[name]
	next := now + 1
	image.Labels, image.ResourceVersion = map[string]string{"step": strconv.Itoa(next)}, w.versions[name]
	// The request goes to its end, through all faults.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var got *imagev1.Image
	var err error
	switch {
	case now == 0:
		got, err = w.client().Create(ctx, image, metav1.CreateOptions{})
	case w.n%7 == 0:
		next = 0
		err = w.client().Delete(ctx, name, metav1.DeleteOptions{})
	default:
		got, err = w.client().Update(ctx, image, metav1.UpdateOptions{})
	}
	if err == nil {
		w.count.acknowledged.Add(1)
		w.set(name, next, got)
		return
	}
	w.count.uncertain.Add(1)
	w.doubt, w.tried = name, next
	sleep(ctx, 20*time.Millisecond)
}

func (w *writer) set(name string, now int, image *imagev1.Image) {
	delete(w.truth, name)
	delete(w.versions, name)
	if now != 0 {
		w.truth[name], w.versions[name] = now, image.ResourceVersion
	}
}

// resolve reads the Image in doubt: it is as it was acknowledged last, or as the
// write in doubt made it.
func (w *writer) resolve(ctx context.Context) bool {
	w.n++
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	image, err := w.replicas[w.n%len(w.replicas)].images().Get(ctx, w.doubt, metav1.GetOptions{})
	now := 0
	switch {
	case err == nil:
		now = step(image)
	case !apierrors.IsNotFound(err):
		return false
	}
	if now != w.truth[w.doubt] && now != w.tried {
		w.count.violation(w.t, "%s is at %d: acknowledged was %d, tried %d", w.doubt, now, w.truth[w.doubt], w.tried)
	}
	w.set(w.doubt, now, image)
	w.doubt = ""
	return true
}

// observer lists and watches by itself, without an informer's second list, so that it sees
// exactly the server's events and gaps.
type observer struct {
	t      *testing.T
	count  *tally
	client imageclient.ImageInterface

	mu    sync.Mutex
	state map[string]int
}

func (o *observer) known() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.state)
}

func (o *observer) run(ctx context.Context) {
	version := ""
	for ctx.Err() == nil {
		if version == "" {
			list, err := o.client.List(ctx, metav1.ListOptions{})
			if err != nil {
				sleep(ctx, 50*time.Millisecond)
				continue
			}
			o.relist(list)
			version = list.ResourceVersion
		}
		next, err := o.watch(ctx, version)
		version = next
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			o.count.expired.Add(1)
			version = ""
		}
	}
}

func (o *observer) relist(list *imagev1.ImageList) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = map[string]int{}
	for i := range list.Items {
		o.state[list.Items[i].Name] = step(&list.Items[i])
	}
}

// watch watches from version until the watch ends, and returns where to go on
// and the error that it ended with.
func (o *observer) watch(ctx context.Context, version string) (string, error) {
	w, err := o.client.Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
	if err != nil {
		sleep(ctx, 50*time.Millisecond)
		return version, err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		image, ok := event.Object.(*imagev1.Image)
		if !ok {
			return version, apierrors.FromObject(event.Object)
		}
		if older(image.ResourceVersion, version) {
			o.count.violation(o.t, "the watch went from %s back to %s", version, image.ResourceVersion)
		}
		version = image.ResourceVersion
		o.apply(event.Type, image)
	}
	return version, errors.New("the watch has ended")
}

func older(a, b string) bool {
	x, _ := strconv.ParseInt(a, 10, 64)
	y, _ := strconv.ParseInt(b, 10, 64)
	return x < y
}

// apply takes one event, which must be the one that follows for its Image.
func (o *observer) apply(kind watch.EventType, image *imagev1.Image) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before, now := o.state[image.Name], step(image)
	switch kind {
	case watch.Bookmark:
		return
	case watch.Added:
		if before != 0 {
			o.count.violation(o.t, "%s was added at %d, but was known at %d", image.Name, now, before)
		}
		o.state[image.Name] = now
	case watch.Modified:
		if now != before+1 {
			o.count.violation(o.t, "%s went from %d to %d", image.Name, before, now)
		}
		o.state[image.Name] = now
	case watch.Deleted:
		if now != before {
			o.count.violation(o.t, "%s was deleted at %d, but was known at %d", image.Name, now, before)
		}
		delete(o.state, image.Name)
	}
	o.count.events.Add(1)
}
