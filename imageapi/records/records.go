// Package records keeps facts about the registry in the store: which manifest each tag points to
// and pointed to before, which repositories hold a manifest, and when a repository was pushed to.
// Images are a view of them; package catalog changes both in one commit.
//
// # Keys
//
//	/imagetags/<namespace>/<stream>!<tag>     an ImageTag of the API
//	/deletedtags/<namespace>/<stream>!<tag>   an ImageTag that was deleted, for some days
//	/holdings/<digest>/<repository>           a Holding
//	/repositories/<repository>                a repository with tags, with "!" for each slash
//	/imagestreams/<namespace>/<stream>        an ImageStream of the API, without its tags
//	/streamchanges/<namespace>/<stream>       the last change of an image stream or of one of its tags
package records

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// Prefixes of keys.
const (
	TagPrefix        = "/imagetags/"
	DeletedPrefix    = "/deletedtags/"
	HoldingPrefix    = "/holdings/"
	RepositoryPrefix = "/repositories/"
	StreamPrefix     = "/imagestreams/"
	ChangePrefix     = "/streamchanges/"
)

// Defaults of Options.
const (
	DefaultDepth     = 20
	DefaultTombstone = 7 * 24 * time.Hour
)

// Options configures New.
type Options struct {
	// Backend is the store. Required.
	Backend storage.Backend
	// Names maps repositories to streams.
	Names streams.Names
	// Depth is how many items the history of a tag has at most. 0 means DefaultDepth.
	Depth int
	// Tombstone is how long a deleted tag is kept. 0 means DefaultTombstone.
	Tombstone time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Store keeps records. It is safe for concurrent use. Its changes are added to a Batch, which
// makes them if the records that decided on them have not changed.
type Store struct {
	options Options
	indexed atomic.Bool // Complete was true once
}

// New returns a Store.
func New(o Options) *Store {
	if o.Depth == 0 {
		o.Depth = DefaultDepth
	}
	if o.Tombstone == 0 {
		o.Tombstone = DefaultTombstone
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{options: o}
}

// Names returns Options.Names.
func (s *Store) Names() streams.Names { return s.options.Names }

// Pusher is the origin of a change. Both may be empty.
type Pusher struct {
	// User is the user of the registry, Client the client's User-Agent.
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"`
}

// maxText bounds each of a Pusher's texts, in bytes.
const maxText = 128

// cut returns the longest beginning of text within maxText that is whole characters.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "")
}

type pusherKey struct{}

// WithPusher returns a context whose changes are made by p.
func WithPusher(ctx context.Context, p Pusher) context.Context {
	p.User, p.Client = cut(p.User), cut(p.Client)
	return context.WithValue(ctx, pusherKey{}, p)
}

func pusherOf(ctx context.Context) Pusher {
	p, _ := ctx.Value(pusherKey{}).(Pusher)
	return p
}

// completeKey is there when the records are those of all that the registry has, with the default
// namespace by which their keys are made.
const completeKey = "/records"

// Complete reports whether SetComplete was called on this store, with the same Names.
func (s *Store) Complete(ctx context.Context) (bool, error) {
	entry, _, err := storage.GetEntry(ctx, s.options.Backend, completeKey, storage.Read{})
	complete := entry != nil && bytes.Equal(entry.Value.Body(), s.completeValue())
	if complete {
		s.indexed.Store(true)
	}
	return complete, err
}

// SetComplete notes that everything in the registry has its records.
func (s *Store) SetComplete(ctx context.Context) error {
	_, err := s.options.Backend.Commit(ctx, storage.Mutation{Key: completeKey, Expect: storage.AnyRevision, Value: storage.Body(s.completeValue())})
	return err
}

func (s *Store) completeValue() []byte {
	return fmt.Appendf(nil, `{"namespace":%q,"streams":true}`, s.options.Names.Default())
}

// Keys returns the keys of the records of a manifest of a repository, "" for none, and of some of its tags,
// which Hold, Release and SetTag find in a context of storage.WithPrefetched.
func (s *Store) Keys(repository string, name digest.Digest, tags []string) (keys []string) {
	if name != "" {
		keys = append(keys, holdingKey(name, repository))
	}
	for _, tag := range tags {
		live, deleted := s.tagKeys(repository, tag)
		keys = append(keys, live, deleted)
	}
	if len(tags) > 0 {
		keys = append(keys, s.streamKey(repository))
	}
	return keys
}

// get returns the entries under keys, nil where there is none.
func (s *Store) get(ctx context.Context, keys ...string) ([]*storage.Entry, error) {
	entries := make([]*storage.Entry, 0, len(keys))
	for _, key := range keys {
		if e, known := storage.Prefetched(ctx, key); known {
			entries = append(entries, e)
		}
	}
	if len(entries) == len(keys) {
		return entries, nil
	}
	result, err := s.options.Backend.Get(ctx, storage.GetRequest{Keys: keys})
	if err != nil {
		return nil, err
	}
	return result.Entries, nil
}
