package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/encoding"
)

// Encoded is an object in the bytes it was stored in. It is a
// runtime.CacheableObject: apiserver's handlers write those bytes to a client
// that wants the JSON of the storage version, and decode the object for any
// other answer.
type Encoded struct {
	store    *Store
	data     []byte
	revision int64
	// splice is the place of the resourceVersion in data; spliceable reports that it was
	// found, as it is in everything that this store writes.
	splice     encoding.Splicer
	spliceable bool
	// shared is set on the object of a watch event, which many watches encode: the encodings
	// are kept.
	shared *encodings
	// extra is that of the Brief, if the object was read in brief.
	extra []byte

	// source, if it is set, has the decoded object.
	source    *Encoded
	decoding  sync.Once
	decoded   runtime.Object
	decodeErr error

	stored  []storage.Term // those that the store has, if indexed
	indexed bool
	hashing sync.Once // otherwise, of those that the object has
	hashed  []storage.Term
	hashErr error

	attributesOnce sync.Once // the attributes that selectors look at
	labels         labels.Set
	fields         fields.Set
	attributesErr  error
}

var (
	_ runtime.CacheableObject   = (*Encoded)(nil)
	_ metav1.ObjectMetaAccessor = (*Encoded)(nil)
)

// newEncoded returns the object of an entry. data is its body, decrypted. indexed reports
// that the index was complete when the entry was read.
func (s *Store) newEncoded(data []byte, entry *storage.Entry, indexed bool) *Encoded {
	e := &Encoded{store: s, data: data, revision: entry.Revision, stored: entry.Terms, indexed: indexed}
	e.splice, e.spliceable = encoding.NewSplicer(data)
	return e
}

// errBrief is the error of an object that was read in brief.
var errBrief = errors.New("the object was read in brief")

// newBrief is newEncoded for an entry that was read in brief. It returns nil if that is not enough.
func (s *Store) newBrief(entry *storage.Entry, indexed bool) *Encoded {
	brief, ok := encoding.ParseBrief(entry.Value.Section(storage.SectionBrief), s.opts.Brief.Version)
	if !ok || entry.Err != nil {
		return nil
	}
	e := s.newEncoded(brief.Head, entry, indexed)
	if e.extra = brief.Extra; !e.spliceable {
		return nil
	}
	e.isDecoded(nil, errBrief)
	return e
}

// readable returns the object of an entry. It returns nil for a skipped one.
func (e *EncodedList) readable(entry *storage.Entry) (*Encoded, error) {
	if entry.Value.Body() == nil && e.store.opts.Brief != nil {
		if object := e.store.newBrief(entry, e.lister.indexed); object != nil {
			return object, nil
		}
	}
	data, _, err := e.store.transform(e.ctx, entry)
	if err == nil {
		object := e.store.newEncoded(data, entry, e.lister.indexed)
		if object.spliceable {
			return object, nil
		}
		err = fmt.Errorf("%w: %q is not the JSON of an API object", storage.ErrCorrupt, entry.Key)
	}
	if e.store.skips(entry.Key, err) {
		return nil, nil
	}
	return nil, err
}

// newDecoded is newEncoded for an object that is decoded already, and is to be matched
// only.
func (s *Store) newDecoded(obj runtime.Object, entry *storage.Entry, indexed bool) *Encoded {
	e := &Encoded{store: s, revision: entry.Revision, stored: entry.Terms, indexed: indexed}
	e.isDecoded(obj, nil)
	return e
}

// isDecoded sets the result of decoding, which does not take place.
func (e *Encoded) isDecoded(obj runtime.Object, err error) {
	e.decoded, e.decodeErr = obj, err
	e.decoding.Do(func() {})
}

// object returns the decoded object, which is decoded by the first call.
func (e *Encoded) object() (runtime.Object, error) {
	if e.source != nil {
		return e.source.object()
	}
	e.decoding.Do(e.decode)
	return e.decoded, e.decodeErr
}

func (e *Encoded) decode() {
	e.decoded = e.store.opts.NewFunc()
	e.decodeErr = e.store.decode(e.data, e.revision, e.decoded)
}

// terms are those that the store has, or that the object has where the store's are not complete.
func (e *Encoded) terms() ([]storage.Term, error) {
	if e.indexed {
		return e.stored, nil
	}
	e.hashing.Do(e.hashTerms)
	return e.hashed, e.hashErr
}

func (e *Encoded) hashTerms() {
	obj, err := e.object()
	if err != nil {
		e.hashErr = err
		return
	}
	e.hashed = storage.HashTerms(e.store.opts.Index.Terms(obj))
}

// attributes returns the object's attributes, computed once.
func (e *Encoded) attributes(of k8sstorage.AttrFunc) (labels.Set, fields.Set, error) {
	e.attributesOnce.Do(func() {
		obj, err := e.object()
		if err == nil {
			e.labels, e.fields, err = of(obj)
		}
		e.attributesErr = err
	})
	return e.labels, e.fields, e.attributesErr
}

// GetEncoded is Get for an answer: the object in its stored bytes.
func (s *Store) GetEncoded(ctx context.Context, key string, opts k8sstorage.GetOptions) (*Encoded, error) {
	opts.IgnoreNotFound = false
	entry, err := s.getEntry(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	data, _, err := s.transform(ctx, entry)
	if err != nil {
		return nil, corruptObject(entry.Key, err)
	}
	encoded := s.newEncoded(data, entry, false)
	if !encoded.spliceable {
		_, err = encoded.Object()
	}
	return encoded, corruptObject(entry.Key, err)
}

// Object returns the decoded object, which all callers share: not to be changed.
func (e *Encoded) Object() (runtime.Object, error) { return e.object() }

// AppendJSON appends the object's JSON to dst, as it is in an answer.
func (e *Encoded) AppendJSON(dst []byte) []byte { return e.splice.AppendTo(dst, e.revision) }

// AppendMetadata appends the JSON of the object's metadata to dst.
func (e *Encoded) AppendMetadata(dst []byte) []byte {
	return e.splice.AppendMetadataTo(dst, e.revision)
}

// Stored returns the object's JSON as it is stored, without a resourceVersion, and the revision that is to
// be its resourceVersion.
func (e *Encoded) Stored() (data []byte, revision int64) { return e.data, e.revision }

// Extra returns what Options.Brief has made of the object, nil if the object was not read in brief.
func (e *Encoded) Extra() []byte { return e.extra }

// GetObject implements runtime.CacheableObject. The caller owns the copy it gets.
func (e *Encoded) GetObject() runtime.Object {
	obj, err := e.object()
	if err != nil {
		return e.store.opts.NewFunc()
	}
	return obj.DeepCopyObject()
}

// GetObjectMeta implements metav1.ObjectMetaAccessor for the handlers that look
// at an object before they encode it.
func (e *Encoded) GetObjectMeta() metav1.Object {
	if obj, err := e.object(); err == nil {
		if accessor, err := meta.Accessor(obj); err == nil {
			return accessor
		}
	}
	return &metav1.ObjectMeta{}
}

// GetObjectKind implements runtime.Object.
func (e *Encoded) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. An Encoded never changes.
func (e *Encoded) DeepCopyObject() runtime.Object { return e }

// CacheEncode implements runtime.CacheableObject.
func (e *Encoded) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	if id == e.store.encoder && e.spliceable {
		answer := e.AppendJSON(make([]byte, 0, e.splice.Size()+1))
		_, err := w.Write(append(answer, '\n'))
		return err
	}
	if e.shared == nil {
		return e.encodeObject(encode, w)
	}
	answer, err := e.shared.get(id, func(w io.Writer) error {
		// encode is given an object that encodes itself in turn, inside the event. It is not
		// shared, because it is already kept as part of the event.
		inner := &Encoded{
			store: e.store, data: e.data, revision: e.revision, splice: e.splice, spliceable: e.spliceable, source: e,
		}
		return encode(inner, w)
	})
	if err != nil {
		return err
	}
	_, err = w.Write(answer)
	return err
}

func (e *Encoded) encodeObject(encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	obj, err := e.object()
	if err != nil {
		return fmt.Errorf("decode a stored object: %w", err)
	}
	return encode(obj.DeepCopyObject(), w)
}

// encodings keeps the encodings of one event, by encoder.
type encodings struct {
	mu    sync.Mutex
	bytes map[runtime.Identifier]func() ([]byte, error)
}

func (c *encodings) get(id runtime.Identifier, encode func(io.Writer) error) ([]byte, error) {
	c.mu.Lock()
	once, ok := c.bytes[id]
	if !ok {
		once = sync.OnceValues(func() ([]byte, error) {
			var b bytes.Buffer
			err := encode(&b)
			return b.Bytes(), err
		})
		if c.bytes == nil {
			c.bytes = map[runtime.Identifier]func() ([]byte, error){}
		}
		c.bytes[id] = once
	}
	c.mu.Unlock()
	return once()
}
