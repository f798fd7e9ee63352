package objects

import (
	"bytes"
	"context"
	"errors"
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
)

// Create implements storage.Interface.
func (s *Store) Create(ctx context.Context, key string, obj, out runtime.Object, _ uint64) error {
	key, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	if version, err := s.versioner.ObjectResourceVersion(obj); err == nil && version != 0 {
		return k8sstorage.ErrResourceVersionSetOnCreate
	}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return err
	}
	data, err := runtime.Encode(s.opts.Codec, obj)
	if err != nil {
		return err
	}
	result, err := s.commit(ctx, key, 0, obj, data)
	if err != nil {
		return err
	}
	if !result.Succeeded {
		return k8sstorage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	return s.decode(data, result.Revision, out)
}

// Delete implements storage.Interface.
func (s *Store) Delete(ctx context.Context, key string, out runtime.Object, preconditions *k8sstorage.Preconditions,
	validate k8sstorage.ValidateObjectFunc, suggestion runtime.Object, opts k8sstorage.DeleteOptions,
) error {
	key, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	kind, err := conversion.EnforcePtr(out)
	if err != nil {
		return err
	}
	if opts.ExpectTransformOrDecodeError {
		suggestion = nil // only the stored value can show that it is corrupt
	}
	attempt := &attempt{store: s, key: key, kind: kind.Type(), state: lastReadOf(ctx, key)}
	if attempt.state == nil || opts.ExpectTransformOrDecodeError {
		if attempt, err = s.newAttempt(ctx, key, kind.Type(), suggestion, false, opts.ExpectTransformOrDecodeError); err != nil {
			return err
		}
	}
	for {
		retry, err := attempt.try(ctx, func(current *state) error {
			if err := preconditions.Check(key, current.object); err != nil {
				return err
			}
			return validate(ctx, current.object)
		})
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		result, err := s.remove(ctx, key, attempt.state, opts.ExpectTransformOrDecodeError)
		switch {
		case errors.Is(err, storage.ErrConditionFailed):
			continue
		case err != nil:
			return err
		case !result.Succeeded:
			if err := attempt.reload(ctx, result.Current); err != nil {
				return err
			}
			continue
		}
		if opts.ExpectTransformOrDecodeError {
			return nil
		}
		return s.copy(attempt.state.object, result.Revision, out)
	}
}

// GuaranteedUpdate implements storage.Interface.
func (s *Store) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *k8sstorage.Preconditions, update k8sstorage.UpdateFunc, suggestion runtime.Object,
) error {
	key, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	kind, err := conversion.EnforcePtr(destination)
	if err != nil {
		return err
	}
	attempt, err := s.newAttempt(ctx, key, kind.Type(), suggestion, ignoreNotFound, false)
	if err != nil {
		return err
	}
	for {
		var updated runtime.Object
		retry, err := attempt.try(ctx, func(current *state) error {
			var err error
			updated, err = s.apply(key, current, preconditions, update)
			return err
		})
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		data, err := runtime.Encode(s.opts.Codec, updated)
		if err != nil {
			return err
		}
		unchanged, retry, err := attempt.unchanged(ctx, data)
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		if unchanged && !storage.Touches(ctx) {
			if err := s.confirm(ctx, key, attempt.state.revision); err != nil {
				return err
			}
			return s.copy(attempt.state.object, attempt.state.revision, destination)
		}
		result, err := s.commit(ctx, key, attempt.state.revision, updated, data)
		if err != nil {
			return err
		}
		if !result.Succeeded {
			if err := attempt.reload(ctx, result.Current); err != nil {
				return err
			}
			continue
		}
		if storage.BatchOf(ctx) != nil {
			return s.copy(updated, result.Revision, destination)
		}
		return s.decode(data, result.Revision, destination)
	}
}

// confirm confirms that key is at revision.
func (s *Store) confirm(ctx context.Context, key string, revision int64) error {
	if batch := storage.BatchOf(ctx); batch != nil {
		batch.Add(storage.Mutation{Operation: storage.Check, Key: key, Expect: revision})
		return nil
	}
	return Unavailable(s.backend.Confirm(ctx))
}

// CommitBatch commits the writes of a Batch; see Batch.Commit.
func (s *Store) CommitBatch(ctx context.Context, b *storage.Batch) (committed bool, err error) {
	committed, err = b.Commit(ctx, s.backend)
	if errors.Is(err, storage.ErrConditionFailed) {
		return false, err
	}
	return committed, Unavailable(err)
}

func (s *Store) apply(key string, current *state, preconditions *k8sstorage.Preconditions, update k8sstorage.UpdateFunc) (runtime.Object, error) {
	if err := preconditions.Check(key, current.object); err != nil {
		return nil, err
	}
	updated, _, err := update(current.object, k8sstorage.ResponseMeta{ResourceVersion: uint64(current.revision)})
	if err != nil {
		return nil, err
	}
	return updated, s.versioner.PrepareObjectForStorage(updated)
}

// attempt is one optimistic write: the state it builds on, and whether that
// came from the store or is the caller's suggestion, which may be out of date.
type attempt struct {
	store          *Store
	key            string
	kind           reflect.Type
	ignoreNotFound bool
	expectCorrupt  bool
	state          *state
	current        bool
}

func (s *Store) newAttempt(ctx context.Context, key string, kind reflect.Type, suggestion runtime.Object, ignoreNotFound, expectCorrupt bool) (*attempt, error) {
	a := &attempt{store: s, key: key, kind: kind, ignoreNotFound: ignoreNotFound, expectCorrupt: expectCorrupt}
	if suggestion == nil {
		return a, a.load(ctx)
	}
	var err error
	a.state, err = s.stateOf(suggestion)
	return a, err
}

// load reads the state from the store.
func (a *attempt) load(ctx context.Context) error {
	if entry, known := storage.Prefetched(ctx, a.key); known {
		return a.reload(ctx, entry)
	}
	entry, _, err := storage.GetEntry(ctx, a.store.backend, a.key, bodyOnly)
	if err != nil {
		return Unavailable(err)
	}
	return a.reload(ctx, entry)
}

// reload takes entry, which a read or a failed commit returned, as the state.
func (a *attempt) reload(ctx context.Context, entry *storage.Entry) error {
	st := &state{object: a.store.newObject(a.kind)}
	if entry == nil {
		if !a.ignoreNotFound {
			if err := a.store.backend.Confirm(ctx); err != nil { // of its deletion
				return Unavailable(err)
			}
			return k8sstorage.NewKeyNotFoundError(a.key, 0)
		}
		if err := runtime.SetZeroValue(st.object); err != nil {
			return err
		}
	} else {
		var err error
		st.revision = entry.Revision
		st.data, st.stale, err = a.store.transform(ctx, entry)
		if err == nil {
			err = a.store.decode(st.data, st.revision, st.object)
		}
		if err := a.corrupt(err); err != nil {
			return err
		}
	}
	a.state, a.current = st, true
	return nil
}

// corrupt judges a failure to read the stored object: it is one, unless the
// caller set out to delete an object that cannot be read.
func (a *attempt) corrupt(err error) error {
	switch {
	case !a.expectCorrupt:
		return err
	case err == nil:
		return k8sstorage.NewInvalidObjError(a.key, "expected the object to be unreadable, but it can be transformed and decoded")
	}
	return nil
}

// try runs fn on the state. If fn fails on a suggestion that turns out to be
// out of date, it loads the current state and asks for a retry.
func (a *attempt) try(ctx context.Context, fn func(*state) error) (retry bool, err error) {
	if err = fn(a.state); err == nil || a.current {
		return false, err
	}
	before := a.state.revision
	if loadErr := a.load(ctx); loadErr != nil {
		return false, loadErr
	}
	if a.state.revision == before {
		return false, err
	}
	return true, nil
}

// unchanged reports whether data is stored already. A suggestion is checked against the store
// first; retry means that it was out of date.
func (a *attempt) unchanged(ctx context.Context, data []byte) (same, retry bool, err error) {
	if a.state.stale || !bytes.Equal(data, a.state.data) {
		return false, false, nil
	}
	if !a.current {
		if err := a.load(ctx); err != nil {
			return false, false, err
		}
		if !bytes.Equal(data, a.state.data) {
			return false, true, nil
		}
	}
	return !a.state.stale, false, nil
}
