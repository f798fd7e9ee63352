package records

import (
	"context"
	"encoding/json"
	"time"

	"tallyman/storage"
)

const (
	resyncPrefix     = "/resync/"
	resyncRequestKey = resyncPrefix + "request"
	resyncStateKey   = resyncPrefix + "state"
)

// ResyncRequest asks the processes of a registry to compare all of it with the records.
type ResyncRequest struct {
	// Confirm removes records that the registry lacks, however many they are.
	Confirm bool `json:"confirm,omitempty"`
	// Grace is how long such a record stays after it was first found to be missing. Nil means the
	// configured time.
	Grace *time.Duration `json:"grace,omitempty"`
	// Revision is that of the request; 0 for none.
	Revision int64 `json:"-"`
}

// merge makes r ask for everything that other asks for, too.
func (r *ResyncRequest) merge(other *ResyncRequest) {
	r.Confirm = r.Confirm || other.Confirm
	if r.Grace == nil || other.Grace != nil && *other.Grace < *r.Grace {
		r.Grace = other.Grace
	}
}

// ResyncState is the state of the comparison of the registry with the records: of the present one or,
// if none is under way, of the last.
type ResyncState struct {
	// Handled is the revision of the request that it has begun with.
	Handled int64 `json:"handled"`
	// Started is its beginning, Finished its end, zero while it is under way.
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	// Checkpoint is a repository up to which everything was compared.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Repositories, Manifests and Tags are the numbers of those that the registry has.
	Repositories int `json:"repositories"`
	Manifests    int `json:"manifests"`
	Tags         int `json:"tags"`
	// Records is the number of records of tags and manifests that there were.
	Records int `json:"records"`
	// Recorded is the number of manifests and tags that had to be recorded, Failed of those that could
	// not be, SetAside of those that this version of the program cannot read.
	Recorded int `json:"recorded"`
	Failed   int `json:"failed"`
	SetAside int `json:"setAside"`
	// Missing is the number of records that the registry lacks at the end, Removed of those that were
	// removed.
	Missing int `json:"missing"`
	Removed int `json:"removed"`
	// Blocked is set if too many are missing to be removed without ResyncRequest.Confirm.
	Blocked bool `json:"blocked,omitempty"`
}

// Resyncs keeps the request and the state. Create it with NewResyncs or Store.Resyncs.
type Resyncs struct{ backend ResyncBackend }

// ResyncBackend is a store that can be read and changed.
type ResyncBackend interface {
	storage.Scanner
	Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error)
}

// NewResyncs returns the Resyncs in a store.
func NewResyncs(b ResyncBackend) *Resyncs { return &Resyncs{b} }

// Resyncs returns the Resyncs beside the records.
func (s *Store) Resyncs() *Resyncs { return &Resyncs{s.options.Backend} }

// State returns the last request, and the state. Both are zero if there was none.
func (s *Resyncs) State(ctx context.Context) (request ResyncRequest, state ResyncState, err error) {
	request, _, state, err = s.read(ctx)
	return request, state, err
}

// read is State with the revision of the request also if that cannot be read.
func (s *Resyncs) read(ctx context.Context) (request ResyncRequest, revision int64, state ResyncState, err error) {
	err = storage.Each(storage.WithBackground(ctx), s.backend, resyncPrefix, false, func(e *storage.Entry) error {
		// One that cannot be read is as good as none: everything is compared once more.
		switch e.Key {
		case resyncRequestKey:
			if revision = e.Revision; json.Unmarshal(e.Value.Body(), &request) == nil {
				request.Revision = e.Revision
			}
		case resyncStateKey:
			if json.Unmarshal(e.Value.Body(), &state) != nil {
				state = ResyncState{}
			}
		}
		return nil
	})
	return request, revision, state, err
}

// Request stores a request, and returns it with its revision. It is made one with a request that
// waits.
func (s *Resyncs) Request(ctx context.Context, r ResyncRequest) (ResyncRequest, error) {
	for {
		waiting, revision, state, err := s.read(ctx)
		if err != nil {
			return r, err
		}
		if waiting.Revision > state.Handled {
			r.merge(&waiting)
		}
		body, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		result, err := s.backend.Commit(ctx, storage.Mutation{Key: resyncRequestKey, Expect: revision, Value: storage.Body(body)})
		if err != nil {
			return r, err
		}
		if r.Revision = result.Revision; result.Succeeded {
			return r, nil
		}
	}
}

// SetState stores the state.
func (s *Resyncs) SetState(ctx context.Context, state *ResyncState) error {
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	_, err = s.backend.Commit(storage.WithBackground(ctx), storage.Mutation{Key: resyncStateKey, Expect: storage.AnyRevision, Value: storage.Body(body)})
	return err
}

// Due reports whether the registry is to be compared: a request waits, a comparison was broken off, or
// the last is longer ago than period, unless that is 0.
func (s *ResyncState) Due(request *ResyncRequest, now time.Time, period time.Duration) bool {
	return request.Revision > s.Handled || s.Unfinished() || period > 0 && now.Sub(s.Started) >= period
}

// Unfinished reports whether a comparison has begun and not ended.
func (s *ResyncState) Unfinished() bool { return !s.Started.IsZero() && s.Finished.IsZero() }
