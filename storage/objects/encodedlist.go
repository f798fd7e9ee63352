package objects

import (
	"context"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/encoding"
)

// ListAnswer describes the answer that a list is streamed to.
type ListAnswer struct {
	// Encoder identifies the answer's encoder. Any other encoder gets the whole list.
	Encoder runtime.Identifier
	// Format is the serialization that Encoder makes.
	Format encoding.Format
	// Empty encodes the list with this metadata and no items. Required.
	Empty func(metav1.ListMeta) ([]byte, error)
	// Item appends an item to dst: as JSON, also for YAML, or in the binary form of CBOR
	// and Protobuf. Nil appends the stored JSON.
	Item func(dst []byte, e *Encoded) ([]byte, error)
	// Brief is set if Item needs the metadata and, if it is not nil, Extra alone.
	Brief bool
	// Size, if set, returns the size of the item of an object that was read in brief. It returns false
	// if that does not tell.
	Size func(e *Encoded) (int, bool)
}

// decodes reports that making an item takes several times the memory of its stored JSON.
func (a *ListAnswer) decodes() bool { return a.Item != nil && !a.Brief || a.Format == encoding.YAML }

// EncodedList is a list that is read, filtered and written page by page while
// it is answered: its memory is that of a page, however long the list. It is a
// runtime.CacheableObject; for an encoder other than the answer's it reads the whole
// list the ordinary way.
type EncodedList struct {
	store    *Store
	ctx      context.Context // of the request whose answer this is: CacheEncode has none
	answer   ListAnswer
	lister   *lister
	metadata metav1.ListMeta
	first    []storage.Entry
	measured measurement // of the items, in a binary format
	whole    func() (runtime.Object, error)
}

var _ runtime.CacheableObject = (*EncodedList)(nil)

// ListEncoded is GetList for an answer. It reads the first page, so that a
// request that cannot be served fails before anything is written; whole reads
// the list the ordinary way and is called only for an encoder other than the answer's.
func (s *Store) ListEncoded(ctx context.Context, key string, opts k8sstorage.ListOptions, answer ListAnswer, whole func() (runtime.Object, error)) (*EncodedList, error) {
	l, err := s.newLister(key, opts)
	if err != nil {
		return nil, err
	}
	if answer.decodes() {
		l.pageBytes = decodedPageBytes
	}
	l.brief = answer.Brief && s.opts.Brief != nil
	list := &EncodedList{store: s, ctx: ctx, answer: answer, lister: l, whole: whole}
	if l.paged() {
		if err := list.preparePage(ctx, key, opts); err != nil {
			return nil, err
		}
	} else if list.first, err = l.next(ctx); err != nil {
		return nil, err
	}
	list.metadata.ResourceVersion = fmt.Sprint(l.revision)
	if answer.Format.Binary() {
		if err := list.measure(key, opts); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// preparePage finds the end of a limited list, because its continue token comes
// before its items. With a selector that takes the values, which are kept if they
// are few; without, a scan of the keys is enough. Values that are not kept are read
// while writing.
func (e *EncodedList) preparePage(ctx context.Context, key string, opts k8sstorage.ListOptions) error {
	l := e.lister
	l.keysOnly = opts.Predicate.Empty()
	var kept []storage.Entry
	size := 0
	err := l.each(ctx, func(entry *storage.Entry) (bool, error) {
		if l.keysOnly {
			return true, nil
		}
		object, err := e.readable(entry)
		if err != nil || object == nil {
			return false, err
		}
		matched, err := l.selector.matches(object)
		if size += entry.Value.Size(); matched && size <= storage.MaxPageBytes {
			kept = append(kept, *entry)
		}
		return matched, err
	})
	if err != nil {
		return err
	}
	if e.metadata.Continue, e.metadata.RemainingItemCount, err = l.continuation(); err != nil {
		return err
	}
	if !l.keysOnly && size <= storage.MaxPageBytes {
		e.first, l.more = kept, false
		return nil
	}
	to := l.lastKey + "\x00"
	if l.lastKey == "" {
		to = ""
	}
	return e.readAgain(key, opts, to)
}

// readAgain sets the lister up to read the range up to to again, at the same revision.
func (e *EncodedList) readAgain(key string, opts k8sstorage.ListOptions, to string) error {
	again, err := e.lister.again(key, opts, to)
	if err == nil {
		e.lister = again
	}
	return err
}

// GetObject implements runtime.CacheableObject.
func (e *EncodedList) GetObject() runtime.Object {
	list, err := e.whole()
	if err != nil {
		return &metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
	}
	return list
}

// GetObjectKind implements runtime.Object.
func (e *EncodedList) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object.
func (e *EncodedList) DeepCopyObject() runtime.Object { return e }

// CacheEncode implements runtime.CacheableObject.
func (e *EncodedList) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	if id == e.answer.Encoder {
		out := encoding.NewListWriter(w, e.answer.Format, e.lister.progress)
		if err := e.stream(out); err != nil {
			return out.Fail(e.ctx, err)
		}
		return nil
	}
	list, err := e.whole()
	if err != nil {
		return err
	}
	return encode(list, w)
}

var errListChanged = errors.New("the items of the list differ from those of its first reading")

// stream writes the list.
func (e *EncodedList) stream(out *encoding.ListWriter) error {
	empty, err := e.answer.Empty(e.metadata)
	if err != nil {
		return err
	}
	m := &e.measured
	if err := out.Begin(empty, m.count, m.size); err != nil {
		return err
	}
	if m.items != nil {
		if err := out.Encoded(m.items, m.count); err != nil {
			return err
		}
		return out.End()
	}
	if err := e.eachItem(out.Item); err != nil {
		return err
	}
	if items, size := out.Written(); e.answer.Format.Binary() && (items != m.count || size != m.size) {
		e.distrustSizes(items, size)
		return errListChanged
	}
	return out.End()
}

// eachItem calls fn with each encoded item, which fn must not keep.
func (e *EncodedList) eachItem(fn func([]byte) error) error {
	e.lister.memory = &storage.Memory{}
	var scratch []byte
	page := e.first
	for {
		for i := range page {
			item, err := e.encode(scratch[:0], &page[i])
			if err != nil {
				return err
			}
			if item == nil {
				continue
			}
			scratch = item
			if err := fn(item); err != nil {
				return err
			}
		}
		if !e.lister.more {
			return nil
		}
		var err error
		if page, err = e.lister.next(e.ctx); err != nil {
			return err
		}
	}
}

// encode appends the item of an entry to dst. It returns nil for an entry that does not
// belong to the list.
func (e *EncodedList) encode(dst []byte, entry *storage.Entry) ([]byte, error) {
	object, err := e.readable(entry)
	if err != nil || object == nil {
		return nil, err
	}
	if !e.lister.paged() { // the items of a limited list have been matched already
		matched, err := e.lister.selector.matches(object)
		if err != nil || !matched {
			return nil, err
		}
	}
	if e.answer.Item == nil {
		return object.splice.AppendItemTo(dst, entry.Revision), nil
	}
	item, err := e.answer.Item(dst, object)
	if e.store.skips(entry.Key, err) {
		return nil, nil
	}
	return item, err
}
