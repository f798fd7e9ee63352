package storage

import (
	"bytes"
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

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
	entry, _, err := GetEntry(ctx, a.store.backend, a.key, bodyOnly)
	if err != nil {
		return unavailable(err)
	}
	return a.reload(ctx, entry)
}

// reload takes entry, which a read or a failed commit returned, as the state.
func (a *attempt) reload(ctx context.Context, entry *Entry) error {
	st := &state{object: a.store.newObject(a.kind)}
	if entry == nil {
		if !a.ignoreNotFound {
			if err := a.store.backend.Confirm(ctx); err != nil { // of its deletion
				return unavailable(err)
			}
			return storage.NewKeyNotFoundError(a.key, 0)
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
		return storage.NewInvalidObjError(a.key, "expected the object to be unreadable, but it can be transformed and decoded")
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
