// Package views presents objects that are made of several records as if each were stored: ImageStreams
// of the tags of a repository, ImageStreamTags of a tag, its stream and its Image.
//
// # Guarantees
//
// A view is read at one revision of the store, also beside writers. The resourceVersion of
// an object is the greatest of its parts'. A change of any part is a change of the object, unless nothing
// of it shows. A commit is one change of each object.
package views

import (
	"context"
	"errors"
	"strings"

	"tallyman/storage"
)

// Backend is a storage.Backend with the objects of a view. Create it with ImageStreams or ImageStreamTags.
type Backend struct {
	storage.Backend
	view view
}

// view is a kind of objects.
type view interface {
	// prefixes returns that of the objects' keys, and that of the entries that they are made of in
	// the first place. The rest of both keys is the same.
	prefixes() (own, source string)
	// assemble returns the objects of some source entries, in their order: nil for one that makes none. The
	// entries follow each other in the store.
	assemble(ctx context.Context, s *snapshot, sources []storage.Entry) ([]*storage.Entry, error)
	// affected returns the source keys of the objects that may have a part of a change's. It has been
	// made in the snapshot.
	affected(ctx context.Context, s *snapshot, c *storage.Change) ([]string, error)
}

// writable is a view whose objects are written.
type writable interface {
	// write makes the object of an entry that was read, nil for none, another one. It returns false if
	// it is not that one any more.
	write(ctx context.Context, current *storage.Entry, value []byte) (revision int64, written bool, err error)
}

var errNotWritten = errors.New("an object that is made of several records is not written as a whole")

// Commit implements storage.Backend, for one Put of an object of a view that is written.
func (b *Backend) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	view, ok := b.view.(writable)
	if !ok || len(mutations) != 1 || mutations[0].Operation != storage.Put {
		return nil, errNotWritten
	}
	m := &mutations[0]
	current, err := b.current(ctx, m.Key)
	if err != nil {
		return nil, err
	}
	if m.Expect == storage.AnyRevision || m.Expect == revisionOf(current) {
		revision, written, err := view.write(ctx, current, m.Value.Body())
		if err != nil {
			return nil, err
		}
		if written {
			return &storage.CommitResult{Succeeded: true, Revision: revision, Revisions: []int64{revision}}, nil
		}
		if current, err = b.current(ctx, m.Key); err != nil {
			return nil, err
		}
	}
	return &storage.CommitResult{Current: current}, nil
}

func (b *Backend) current(ctx context.Context, key string) (*storage.Entry, error) {
	result, err := b.Get(ctx, storage.GetRequest{Keys: []string{key}})
	if err != nil {
		return nil, err
	}
	return result.Entries[0], nil
}

func revisionOf(e *storage.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

// sourceOf returns the key or the end of a range in the store of one of the view.
func (b *Backend) sourceOf(key string) string {
	own, source := b.view.prefixes()
	if rest, ok := strings.CutPrefix(key, own); ok {
		return source + rest
	}
	return source + "\xff"
}

// ownOf is the inverse of sourceOf, for keys.
func (b *Backend) ownOf(key string) string {
	own, source := b.view.prefixes()
	return own + strings.TrimPrefix(key, source)
}

// Get implements storage.Backend.
func (b *Backend) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	sources := make([]string, len(req.Keys))
	for i, key := range req.Keys {
		sources[i] = b.sourceOf(key)
	}
	result, err := b.Backend.Get(ctx, storage.GetRequest{Keys: sources, Read: bodies})
	if err != nil {
		return nil, err
	}
	s := &snapshot{backend: b.Backend, revision: result.Revision}
	for i, source := range result.Entries {
		if result.Entries[i], err = b.assembleOne(ctx, s, source); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// assembleOne returns nil for nil.
func (b *Backend) assembleOne(ctx context.Context, s *snapshot, source *storage.Entry) (*storage.Entry, error) {
	if source == nil {
		return nil, nil
	}
	objects, err := b.assemble(ctx, s, []storage.Entry{*source})
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}

// assemble returns objects with the view's own keys. One whose source cannot be read has its error.
func (b *Backend) assemble(ctx context.Context, s *snapshot, sources []storage.Entry) ([]*storage.Entry, error) {
	objects, err := b.view.assemble(ctx, s, sources)
	if err != nil {
		return nil, err
	}
	for i, object := range objects {
		if object != nil && i < len(sources) {
			object.Key = b.ownOf(sources[i].Key)
		}
	}
	return objects, nil
}

// Scan implements storage.Backend. ScanResult.Count counts source entries.
func (b *Backend) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	if req.Term != "" {
		return nil, storage.ErrNoIndex
	}
	ctx = storage.WithMemory(ctx, nil) // some of the records are remembered
	source := storage.ScanRequest{From: b.sourceOf(req.From), To: b.sourceOf(req.To), Limit: req.Limit, Revision: req.Revision, Count: req.Count, Read: bodies}
	for {
		page, err := b.Backend.Scan(ctx, source)
		if err != nil {
			return nil, err
		}
		result := &storage.ScanResult{More: page.More, Count: page.Count, Revision: page.Revision}
		objects, err := b.assemble(ctx, &snapshot{backend: b.Backend, revision: page.Revision}, page.Entries)
		if err != nil {
			return nil, err
		}
		for _, e := range objects {
			if e == nil {
				continue
			}
			if req.KeysOnly {
				e.Value = nil
			}
			result.Entries = append(result.Entries, *e)
		}
		if !page.More || len(result.Entries) > 0 {
			return result, nil
		}
		source.From, source.Revision, source.Count = page.Entries[len(page.Entries)-1].Key+"\x00", page.Revision, false
	}
}
