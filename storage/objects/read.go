package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"tallyman/storage"
	"tallyman/storage/encoding"
)

// bodyOnly reads an entry that no selector is to match.
var bodyOnly = storage.Read{Sections: []string{storage.SectionBody}}

// Get implements storage.Interface.
func (s *Store) Get(ctx context.Context, key string, opts k8sstorage.GetOptions, out runtime.Object) error {
	entry, err := s.getEntry(ctx, key, opts)
	if err != nil {
		return err
	}
	if entry == nil {
		return runtime.SetZeroValue(out)
	}
	if err := s.read(ctx, entry, out); err != nil {
		return corruptObject(entry.Key, err)
	}
	if last, ok := ctx.Value(lastReadKey{}).(*lastRead); ok {
		last.key, last.state = entry.Key, &state{object: out.DeepCopyObject(), revision: entry.Revision}
	}
	return nil
}

type lastReadKey struct{}

// lastRead is the state that Get has read under a key.
type lastRead struct {
	key   string
	state *state // its object is a copy
}

// WithLastRead returns a context for the deletion of one object: Delete begins with what Get has read, and
// reads it again only if that is out of date.
func WithLastRead(ctx context.Context) context.Context {
	return context.WithValue(ctx, lastReadKey{}, &lastRead{})
}

// lastReadOf returns the state that Get has read under a key with WithLastRead, nil for none.
func lastReadOf(ctx context.Context, key string) *state {
	if last, ok := ctx.Value(lastReadKey{}).(*lastRead); ok && last.key == key {
		return last.state
	}
	return nil
}

// read decrypts and decodes e.
func (s *Store) read(ctx context.Context, e *storage.Entry, into runtime.Object) error {
	data, _, err := s.transform(ctx, e)
	if err != nil {
		return err
	}
	return s.decode(data, e.Revision, into)
}

// getEntry returns nil for a key that is absent if opts allow that.
func (s *Store) getEntry(ctx context.Context, key string, opts k8sstorage.GetOptions) (*storage.Entry, error) {
	key, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return nil, err
	}
	entry, known := storage.Prefetched(ctx, key)
	if !known || opts.ResourceVersion != "" {
		var revision int64
		if entry, revision, err = storage.GetEntry(ctx, s.backend, key, bodyOnly); err != nil {
			return nil, Unavailable(err)
		}
		if err := s.atLeast(opts.ResourceVersion, revision); err != nil {
			return nil, err
		}
	}
	if entry == nil && !opts.IgnoreNotFound {
		return nil, k8sstorage.NewKeyNotFoundError(key, 0)
	}
	return entry, nil
}

// atLeast fails if the store, at revision, has not reached resourceVersion yet.
func (s *Store) atLeast(resourceVersion string, revision int64) error {
	if resourceVersion == "" {
		return nil
	}
	wanted, err := s.versioner.ParseResourceVersion(resourceVersion)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if wanted > uint64(revision) {
		return k8sstorage.NewTooLargeResourceVersionError(wanted, uint64(revision), 0)
	}
	return nil
}

// GetList implements storage.Interface.
func (s *Store) GetList(ctx context.Context, key string, opts k8sstorage.ListOptions, list runtime.Object) error {
	itemsPtr, err := meta.GetItemsPtr(list)
	if err != nil {
		return err
	}
	items, err := conversion.EnforcePtr(itemsPtr)
	if err != nil || items.Kind() != reflect.Slice {
		return fmt.Errorf("need a list with a slice of items, got %T", list)
	}
	l, err := s.newLister(key, opts)
	if err != nil {
		return err
	}
	corrupt := s.newCorruption()
	err = l.each(ctx, func(e *storage.Entry) (bool, error) {
		obj := s.newItem(list, items.Type().Elem())
		if err := s.read(ctx, e, obj); err != nil {
			return false, corrupt.note(e.Key, err)
		}
		if _, ok := obj.(runtime.Unstructured); !ok { // the list has kind and version of its items
			obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		}
		matched, err := l.selector.matches(s.newDecoded(obj, e, l.indexed))
		if err != nil || !matched {
			return false, nil
		}
		items.Set(reflect.Append(items, reflect.ValueOf(obj).Elem()))
		return true, nil
	})
	if err := corrupt.result(err); err != nil {
		return err
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	}
	token, remaining, err := l.continuation()
	if err != nil {
		return err
	}
	return s.versioner.UpdateList(list, uint64(l.revision), token, remaining)
}

// newItem returns an empty item for list; unstructured items take the list's
// API version, which decoding them needs.
func (s *Store) newItem(list runtime.Object, item reflect.Type) runtime.Object {
	obj := reflect.New(item).Interface().(runtime.Object)
	if u, ok := obj.(runtime.Unstructured); ok {
		if version := list.GetObjectKind().GroupVersionKind().GroupVersion(); !version.Empty() {
			u.SetUnstructuredContent(map[string]any{"apiVersion": version.String()})
		}
	}
	return obj
}

// keptItems is how many bytes of encoded items are kept from the measurement to the answer. Those of a
// longer list are encoded twice.
const keptItems = 1 << 20

// measurement is the number and size of a list's encoded items.
type measurement struct {
	count, size int
	items       []byte // the encoded items; nil if they are more than keptItems
	inBrief     bool   // by ListAnswer.Size
}

// measure measures the items of a list: of a long one by what is stored beside the objects, if that tells,
// or else by encoding all of them once. They are then read again for the answer.
func (e *EncodedList) measure(key string, opts k8sstorage.ListOptions) error {
	if e.answer.Size != nil && e.lister.more && !e.store.distrusted.Load() {
		if told, err := e.measureBriefs(key, opts); told || err != nil {
			return err
		}
	}
	e.measured.items, e.lister.twice = make([]byte, 0, encoding.Chunk), true
	m := &e.measured
	var scratch []byte
	begin := e.lister.from
	err := e.eachItem(func(item []byte) error {
		scratch = e.answer.Format.AppendItem(scratch[:0], item)
		m.count++
		m.size += len(scratch)
		if m.size > keptItems {
			m.items = nil
		} else {
			m.items = append(m.items, scratch...)
		}
		return nil
	})
	if err != nil || m.items != nil || e.lister.from == begin { // the last: all items are in e.first
		return err
	}
	hold := e.lister.hold
	if err := e.readAgain(key, opts, e.lister.to); err != nil {
		return err
	}
	e.first, e.lister.hold = nil, hold
	return nil
}

// errUntold ends a measurement that needs the objects themselves.
var errUntold = errors.New("what is stored beside an object does not tell the size of its item")

// measureBriefs measures the items by ListAnswer.Size. It returns false if that does not tell.
func (e *EncodedList) measureBriefs(key string, opts k8sstorage.ListOptions) (told bool, err error) {
	l, err := e.lister.again(key, opts, e.lister.to)
	if err != nil {
		return false, err
	}
	l.brief, l.pageBytes, l.memory = e.store.opts.Brief != nil, listPageBytes, &storage.Memory{}
	m := measurement{inBrief: true}
	err = l.each(e.ctx, func(entry *storage.Entry) (bool, error) {
		if !l.brief {
			return false, errUntold
		}
		object := e.store.newBrief(entry, l.indexed)
		if object == nil {
			return false, errUntold
		}
		matched, err := l.selector.matches(object)
		if err != nil || !matched {
			return false, err
		}
		size, ok := e.answer.Size(object)
		if !ok {
			return false, errUntold
		}
		m.count++
		m.size += e.answer.Format.ItemSize(size)
		return true, nil
	})
	switch {
	case errors.Is(err, errUntold):
		return false, nil
	case err != nil:
		return false, err
	}
	e.measured = m
	return true, nil
}

// distrustSizes makes lists measure their items by encoding them from now on, if this one, whose client
// will ask again, was measured otherwise and has other items.
func (e *EncodedList) distrustSizes(items, size int) {
	if e.measured.inBrief && !e.store.distrusted.Swap(true) {
		slog.Error("the sizes that are stored beside objects are wrong: lists in protobuf take longer from now on",
			"resource", e.store.opts.GroupResource.String(), "objects", e.measured.count, "bytes", e.measured.size, "written", items, "writtenBytes", size)
	}
}

// transform decrypts one stored value, also if another section than the body is corrupt.
func (s *Store) transform(ctx context.Context, e *storage.Entry) (data []byte, stale bool, err error) {
	if e.Err != nil && e.Value.Body() == nil {
		return nil, false, k8sstorage.NewInternalError(fmt.Errorf("%q: %w", e.Key, e.Err))
	}
	data, stale, err = s.opts.Transformer.TransformFromStorage(ctx, e.Value.Body(), value.DefaultContext(e.Key))
	if err != nil {
		return nil, false, k8sstorage.NewInternalError(fmt.Errorf("unable to transform key %q: %w", e.Key, err))
	}
	return data, stale, nil
}

// decode fills into with data as of revision.
func (s *Store) decode(data []byte, revision int64, into runtime.Object) error {
	if s.opts.Decode == nil || !s.opts.Decode(data, into) {
		if _, _, err := s.opts.Codec.Decode(data, nil, into); err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
	}
	return s.versioner.UpdateObject(into, uint64(revision))
}

// copy fills into with a copy of an object of the same type as of revision.
func (s *Store) copy(object runtime.Object, revision int64, into runtime.Object) error {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(object.DeepCopyObject()).Elem())
	return s.versioner.UpdateObject(into, uint64(revision))
}
