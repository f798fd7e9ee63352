package storage

import (
	"context"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
)

// writeChunk is how many bytes of a list are written at a time.
const writeChunk = 256 << 10

// EncodedList is a list that is read, filtered and written page by page while
// it is answered: its memory is that of a page, however long the list. It is a
// runtime.CacheableObject; for an encoder that the stored bytes are not made
// for it reads the whole list the ordinary way.
type EncodedList struct {
	store    *Store
	ctx      context.Context // of the request whose answer this is
	lister   *lister
	metadata metav1.ListMeta
	first    []Entry
	whole    func() (runtime.Object, error)
}

var _ runtime.CacheableObject = (*EncodedList)(nil)

// ListEncoded is GetList for an answer. It reads the first page, so that a
// request that cannot be served fails before anything is written; whole reads
// the list the ordinary way and is called only if the answer needs that.
func (s *Store) ListEncoded(ctx context.Context, key string, opts storage.ListOptions, whole func() (runtime.Object, error)) (*EncodedList, error) {
	l, err := s.newLister(key, opts)
	if err != nil {
		return nil, err
	}
	list := &EncodedList{store: s, ctx: ctx, lister: l, whole: whole}
	if l.paged() {
		if err := list.preparePage(ctx, key, opts); err != nil {
			return nil, err
		}
	} else if list.first, err = l.next(ctx); err != nil {
		return nil, err
	}
	list.metadata.ResourceVersion = fmt.Sprint(l.revision)
	return list, nil
}

// preparePage finds where a limited list ends, for its continue token comes
// before its items. With a selector that takes the values, which are kept if they
// are few; without, a scan of the keys is enough. Values that are not kept are read
// while writing.
func (e *EncodedList) preparePage(ctx context.Context, key string, opts storage.ListOptions) error {
	l := e.lister
	l.keysOnly = opts.Predicate.Empty()
	var kept []Entry
	size := 0
	err := l.each(ctx, func(entry *Entry) (bool, error) {
		if l.keysOnly {
			return true, nil
		}
		splice, ok, err := e.readable(entry)
		if err != nil || !ok {
			return false, err
		}
		matched, err := l.selector.matches(e.store.newEncoded(splice.data, entry, l.indexed))
		if size += entry.Value.Size(); matched && size <= MaxPageBytes {
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
	if !l.keysOnly && size <= MaxPageBytes {
		e.first, l.more = kept, false
		return nil
	}
	return e.reread(key, opts)
}

// reread sets the lister up to read the keys it has gone over again, with values.
func (e *EncodedList) reread(key string, opts storage.ListOptions) error {
	done := e.lister
	again, err := e.store.newLister(key, opts)
	if err != nil {
		return err
	}
	again.opts.Predicate.Limit = 0
	again.limit, again.pinned, again.revision = firstPage, done.revision, done.revision
	again.to, again.more = done.lastKey+"\x00", done.lastKey != ""
	e.lister = again
	return nil
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
	if format, ok := e.store.formats[id]; ok {
		out := &listWriter{w: w, buffer: make([]byte, 0, writeChunk), progress: e.lister.progress, format: format}
		if err := e.stream(out); err != nil {
			return out.fail(e.ctx, err)
		}
		return nil
	}
	list, err := e.whole()
	if err != nil {
		return err
	}
	return encode(list, w)
}

// stream writes the list.
func (e *EncodedList) stream(out *listWriter) error {
	head := listHead{metav1.TypeMeta{Kind: e.store.opts.ListKind, APIVersion: e.store.opts.ListAPIVersion}, e.metadata}
	if err := out.begin(head); err != nil {
		return err
	}
	page := e.first
	for {
		for i := range page {
			if err := e.writeItem(out, &page[i]); err != nil {
				return err
			}
		}
		if !e.lister.more {
			break
		}
		var err error
		if page, err = e.lister.next(e.ctx); err != nil {
			return err
		}
	}
	if err := out.end(head); err != nil {
		return err
	}
	return out.flush()
}

func (e *EncodedList) writeItem(out *listWriter, entry *Entry) error {
	splice, ok, err := e.readable(entry)
	if err != nil || !ok {
		return err
	}
	if !e.lister.paged() { // the items of a limited list have been matched already
		matched, err := e.lister.selector.matches(e.store.newEncoded(splice.data, entry, e.lister.indexed))
		if err != nil || !matched {
			return err
		}
	}
	return out.item(splice, entry.Revision)
}

// readable returns the JSON of an entry. It returns false for a skipped one.
func (e *EncodedList) readable(entry *Entry) (splicer, bool, error) {
	data, _, err := e.store.transform(e.ctx, entry)
	splice, ok := newSplicer(data)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %q is not the JSON of an API object", ErrCorrupt, entry.Key)
	}
	if e.store.skips(entry.Key, err) {
		return splice, false, nil
	}
	return splice, true, err
}
