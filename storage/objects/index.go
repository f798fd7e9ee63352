package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/internal/crash"
	"tallyman/storage"
	"tallyman/storage/encoding"
)

// Index says by which terms the objects of a Store are found. A field or a label that
// has terms is matched by them alone.
type Index struct {
	// Version is changed with Terms, and with Options.Brief, so that the index is filled anew. Required.
	Version string
	// Group is the group of terms that this Store writes. Required.
	Group string
	// Terms returns the terms of an object. Required.
	Terms func(obj runtime.Object) []string
	// FieldTerm returns the term of the objects whose field has that value; ok is false
	// if they are to be found by their attributes. Required.
	FieldTerm func(field, value string) (term string, ok bool)
	// LabelTerm returns the term of the objects whose label has that value. Required.
	LabelTerm func(label, value string) string
}

// Brief says what is stored beside an object for answers that need its metadata and that alone.
type Brief struct {
	// Version is changed with Of. Required.
	Version string
	// Of returns it for an object and its JSON. An object of which it cannot be made has none. Required.
	Of func(obj runtime.Object, data []byte) ([]byte, error)
}

// brief returns the section of an object, with the JSON data, one that is removed if there is none. It is
// nil if no object has one.
func (s *Store) brief(obj runtime.Object, data []byte) storage.Value {
	if s.opts.Brief == nil {
		return nil
	}
	data, _ = s.opts.Brief.Section(obj, data) // an object without one is read in full
	return storage.Value{{Name: storage.SectionBrief, Data: data}}
}

// Section returns the data of SectionBrief of an object with this JSON. It fails if none can be made.
func (b *Brief) Section(obj runtime.Object, data []byte) ([]byte, error) {
	extra, err := b.Of(obj, data)
	if err != nil {
		return nil, err
	}
	section, ok := encoding.AppendBrief(nil, b.Version, data, extra)
	if !ok {
		return nil, fmt.Errorf("%T is not stored as an object of the API", obj)
	}
	return section, nil
}

const (
	// fillPage is how many objects one step of filling the index reads, and fillRetry
	// the pause after a step that could not be made.
	fillPage  = 64
	fillRetry = time.Second
	// fillRecheck is how often a complete index is looked at: another process may have
	// found it lost, and begun it anew.
	fillRecheck = 30 * time.Second
	fillReport  = 10 * time.Second
)

// indexer keeps a Store's index complete and knows since when it is.
type indexer struct {
	store *Store
	// since is the revision from which on the terms of entries are true, 0 while they
	// are not.
	since atomic.Int64
	wake  chan struct{}

	mu    sync.Mutex
	state storage.IndexState
}

func newIndexer(s *Store) *indexer { return &indexer{store: s, wake: make(chan struct{}, 1)} }

// trusted reports whether entries have their terms in the state after revision.
func (i *indexer) trusted(revision int64) bool {
	since := i.since.Load()
	return since != 0 && revision >= since
}

// lost notes that the backend's index is not complete any more.
func (i *indexer) lost() {
	i.since.Store(0)
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// IndexProgress returns the state of the index as this process has seen it last.
func (s *Store) IndexProgress() storage.IndexState {
	s.indexer.mu.Lock()
	defer s.indexer.mu.Unlock()
	return s.indexer.state
}

// EachWithTerm calls fn with the key of every object that carries a term of Index.Terms. It fails
// with storage.ErrNoIndex while the index is not complete, and ends with the first error of fn.
func (s *Store) EachWithTerm(ctx context.Context, term string, fn func(key string) error) error {
	if s.opts.Index == nil || s.indexer.since.Load() == 0 {
		return storage.ErrNoIndex
	}
	return storage.EachWithTerm(ctx, s.backend, s.opts.ResourcePrefix, term, func(e *storage.Entry) error { return fn(e.Key) })
}

// MaintainIndex fills the index of terms and keeps it complete until ctx ends. While it
// is not complete, lists with selectors read every object. Any number of processes may
// call it at the same time: each continues from where any of them is.
func (s *Store) MaintainIndex(ctx context.Context) {
	if s.opts.Index == nil {
		return
	}
	for ctx.Err() == nil {
		err := crash.Guard("index", func() error { return s.indexer.fill(ctx) })
		interval := fillRecheck
		if err != nil {
			interval = fillRetry
			if !errors.Is(err, storage.ErrNoIndex) && ctx.Err() == nil {
				slog.Warn("index not filled yet, trying again", "resource", s.opts.GroupResource.String(), "err", err)
			}
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.indexer.wake:
		}
		timer.Stop()
	}
}

// RebuildIndex fills the index anew, from the first object on. Servers answer without it
// until it is complete again.
func (s *Store) RebuildIndex(ctx context.Context) error {
	for {
		state, err := s.backend.IndexState(ctx, s.opts.ResourcePrefix)
		if err != nil {
			return err
		}
		reset, err := s.backend.FillIndex(ctx, storage.FillRequest{Name: s.opts.ResourcePrefix, State: state, Next: storage.IndexState{Version: "rebuild"}})
		if err != nil {
			return err
		}
		if reset {
			return s.indexer.fill(ctx)
		}
	}
}

// fill brings the index from where it is to its end.
func (i *indexer) fill(ctx context.Context) error {
	name, version := i.store.opts.ResourcePrefix, i.store.opts.Index.Version
	reported, begun := time.Now(), false
	for {
		state, err := i.store.backend.IndexState(ctx, name)
		if err != nil {
			i.since.Store(0)
			return err
		}
		i.note(state)
		if state.Complete && state.Version == version {
			if i.since.Swap(state.Since) == 0 && begun {
				slog.Info("index complete", "resource", i.store.opts.GroupResource.String(), "objects", state.Filled)
			}
			return nil
		}
		i.since.Store(0)
		if !begun || time.Since(reported) > fillReport {
			slog.Info("filling the index", "resource", i.store.opts.GroupResource.String(), "objects", state.Filled)
			reported, begun = time.Now(), true
		}
		if err := i.step(ctx, name, state); err != nil {
			return err
		}
	}
}

func (i *indexer) note(state storage.IndexState) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state = state
	indexFilled.WithLabelValues(i.store.opts.GroupResource.String()).Set(float64(state.Filled))
	complete := 0.0
	if state.Complete {
		complete = 1
	}
	indexComplete.WithLabelValues(i.store.opts.GroupResource.String()).Set(complete)
}

// step fills in the terms of the objects after state.Position.
func (i *indexer) step(ctx context.Context, name string, state storage.IndexState) error {
	s := i.store
	next := state
	if next.Version != s.opts.Index.Version {
		next = storage.IndexState{Version: s.opts.Index.Version}
	}
	from, to := prefixRange(s.opts.ResourcePrefix)
	if next.Position != "" {
		from = next.Position + "\x00"
	}
	page, err := s.backend.Scan(ctx, storage.ScanRequest{From: from, To: to, Limit: fillPage})
	if err != nil {
		return err
	}
	request := storage.FillRequest{Name: name, State: state}
	for n := range page.Entries {
		e := &page.Entries[n]
		next.Position = e.Key
		next.Filled++
		obj := s.opts.NewFunc()
		if err := s.read(ctx, e, obj); err != nil {
			slog.Warn("object not indexed", "key", e.Key, "err", err)
			continue
		}
		indexed := storage.IndexedEntry{Key: e.Key, Revision: e.Revision, Group: s.opts.Index.Group, Terms: s.opts.Index.Terms(obj)}
		if brief := s.brief(obj, e.Value.Body()); brief != nil {
			indexed.Section = brief[0]
		}
		request.Entries = append(request.Entries, indexed)
	}
	if !page.More {
		next.Complete, next.Position = true, ""
	}
	request.Next = next
	_, err = s.backend.FillIndex(ctx, request) // false: another process was faster
	return err
}
