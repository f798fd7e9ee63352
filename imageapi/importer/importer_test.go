package importer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// fake has tags, and notes imports.
type fake struct {
	mu                 sync.Mutex
	start              time.Time
	pending, scheduled map[string]int64 // generations by names
	imports            []string         // such as "v1#1 4s"
	takes              time.Duration
	busy, most         int
	err                error // of Import
	panics             bool
	held               bool // the lease
	ended              int
}

func newFake() *fake {
	return &fake{start: time.Now(), pending: map[string]int64{}, scheduled: map[string]int64{}, held: true}
}

// EachImport implements Tags.
func (f *fake) EachImport(_ context.Context, scheduled bool, fn func(*imagev1.ImageTag) error) error {
	f.mu.Lock()
	all := f.pending
	if scheduled {
		all = f.scheduled
	}
	var tags []*imagev1.ImageTag
	for name, generation := range all {
		tags = append(tags, &imagev1.ImageTag{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "app:" + name},
			Spec:       &imagev1.TagReference{Name: name, Generation: ptr.To(generation), From: &corev1.ObjectReference{Kind: "DockerImage", Name: "host/app"}},
		})
	}
	f.mu.Unlock()
	for _, tag := range tags {
		if err := fn(tag); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) do(ctx context.Context, tag *imagev1.ImageTag) error {
	f.mu.Lock()
	f.imports = append(f.imports, fmt.Sprintf("%s#%d %v", tag.Spec.Name, *tag.Spec.Generation, time.Since(f.start).Round(time.Second)))
	f.busy++
	f.most = max(f.most, f.busy)
	f.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(f.takes):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy--
	if f.panics {
		panic("a fault")
	}
	if f.err == nil {
		delete(f.pending, tag.Spec.Name)
	}
	return f.err
}

// Lease implements Leases.
func (f *fake) Lease(context.Context, string, string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held, nil
}

// EndLease implements Leases.
func (f *fake) EndLease(context.Context, string, string) error {
	f.ended++
	return nil
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// done returns the imports since the last call.
func (f *fake) done() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.imports
	f.imports = nil
	return strings.Join(all, ", ")
}

// nameOf returns the name of the tag of an import.
func nameOf(done string) string {
	name, _, _ := strings.Cut(done, "#")
	return name
}

// run runs an Importer while steps goes on.
func (f *fake) run(t *testing.T, interval time.Duration, steps func()) {
	synctest.Test(t, func(t *testing.T) {
		f.start = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		i := New(Options{Tags: f, Import: f.do, Interval: interval, Leases: f})
		var all sync.WaitGroup
		all.Go(func() { i.Run(ctx) })
		steps()
		cancel()
		all.Wait()
		if f.ended != 1 || f.busy != 0 {
			t.Errorf("the lease was given back %d times, %d imports go on", f.ended, f.busy)
		}
	})
}

// TestPending: a tag is imported soon after its source was set. While that leaves no trace it is tried once a
// minute, and at once when the source has changed.
func TestPending(t *testing.T) {
	importsTotal.Reset()
	f := newFake()
	f.run(t, time.Hour, func() {
		f.set(func() { f.pending["v1"] = 1 })
		time.Sleep(time.Hour + time.Second) // between two looks
		if got := f.done(); got != "v1#1 2s" {
			t.Errorf("one tag: %s", got)
		}
		f.set(func() { f.start = time.Now() })
		f.set(func() { f.pending["v1"], f.err = 2, errors.New("the store is away") })
		time.Sleep(124 * time.Second)
		f.set(func() { f.pending["v1"] = 3 })
		time.Sleep(10 * time.Second)
		f.set(func() { f.err = nil })
		time.Sleep(time.Minute)
		if got := f.done(); got != "v1#2 1s, v1#2 1m1s, v1#2 2m1s, v1#3 2m5s, v1#3 3m5s" {
			t.Errorf("with failures: %s", got)
		}
		f.set(func() { f.pending["v1"], f.panics = 4, true })
		time.Sleep(time.Minute)
		if got := f.done(); !strings.HasPrefix(got, "v1#4") {
			t.Errorf("a panic: %s", got)
		}
		if success, failure := testutil.ToFloat64(importsTotal.WithLabelValues("success")), testutil.ToFloat64(importsTotal.WithLabelValues("failure")); success != 2 || failure != 5 {
			t.Errorf("%v successes and %v failures are counted", success, failure)
		}
	})
}

// TestScheduled: a scheduled tag is imported once in each interval, and not all begin at once.
func TestScheduled(t *testing.T) {
	f := newFake()
	f.run(t, 15*time.Minute, func() {
		f.set(func() {
			for n := range 100 {
				f.scheduled[fmt.Sprint("v", n)] = 1
			}
		})
		time.Sleep(15*time.Minute + time.Second)
		first, names := strings.Split(f.done(), ", "), map[string]bool{}
		for _, one := range first {
			names[nameOf(one)] = true
		}
		if len(first) < 97 || len(names) != len(first) { // a few of the last may have waited for others
			t.Errorf("%d imports of %d tags in the first interval", len(first), len(names))
		}
		time.Sleep(15 * time.Minute)
		if again := strings.Split(f.done(), ", "); len(again) < 97 || len(again) > 103 {
			t.Errorf("%d imports in the second interval", len(again))
		}
		f.set(func() { clear(f.scheduled) })
		time.Sleep(time.Hour)
		if got := f.done(); got != "" {
			t.Errorf("tags that are gone: %s", got)
		}
	})
	f = newFake()
	f.scheduled["v1"] = 1
	f.run(t, 0, func() { time.Sleep(24 * time.Hour) })
	if got := f.done(); got != "" {
		t.Errorf("where there is no schedule: %s", got)
	}
}

// TestBounds: scheduled imports begin at 60 a minute, three go on at a time, and none of a tag beside another one.
func TestBounds(t *testing.T) {
	f := newFake()
	f.run(t, time.Minute, func() {
		f.set(func() {
			for n := range 1000 {
				f.scheduled[fmt.Sprint("v", n)] = 1
			}
		})
		time.Sleep(10 * time.Minute)
		if n := len(strings.Split(f.done(), ", ")); n > 601 || n < 500 {
			t.Errorf("%d imports in 10 minutes", n)
		}
	})
	f = newFake()
	f.takes = time.Hour
	f.run(t, time.Minute, func() {
		f.set(func() {
			for n := range 5 {
				f.pending[fmt.Sprint("v", n)] = 1
				f.scheduled[fmt.Sprint("v", n)] = 1
			}
		})
		time.Sleep(90 * time.Minute)
		f.set(func() {
			if f.most != workers {
				t.Errorf("%d imports at a time", f.most)
			}
		})
		var names []string
		for _, one := range strings.Split(f.done(), ", ") {
			names = append(names, nameOf(one))
		}
		if first := names[:workers]; len(slices.Compact(slices.Sorted(slices.Values(first)))) != workers {
			t.Errorf("the first are %v", first)
		}
	})
}

// TestLease: a process without the lease imports nothing, and goes on when it has got it.
func TestLease(t *testing.T) {
	f := newFake()
	f.held, f.pending["v1"] = false, 1
	f.run(t, time.Minute, func() {
		time.Sleep(time.Hour + time.Second)
		if got := f.done(); got != "" {
			t.Errorf("without the lease: %s", got)
		}
		f.set(func() { f.held = true })
		time.Sleep(time.Minute)
		if got := f.done(); got != "v1#1 1h0m2s" {
			t.Errorf("with it: %s", got)
		}
	})
}
