package verification

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tallyman/storage"
)

// Key is the key of the set of policies that is in force.
const Key = "/policies"

const (
	// policiesLease and the digest of a set of policies is the lease that all processes with them hold
	// together, under the digest as their name, while they are in force.
	policiesLease = "policies:"
	// startTimeout bounds the wait for a store that is away.
	startTimeout = 2 * time.Second
	// keptSuperseded is how many former sets are remembered.
	keptSuperseded = 16
)

// record says which set of policies is in force.
type record struct {
	// Digest is that of the set.
	Digest string `json:"digest"`
	// Since is the time from which it is in force.
	Since time.Time `json:"since"`
	// Superseded are the sets before it, the newest last. A process that comes with one of them
	// is behind a change of the configuration, not the beginning of one, as long as any process has
	// the set in force.
	Superseded []string `json:"superseded,omitempty"`
}

// state is a process' view of the record.
type state struct {
	digest   string // "" if it is not known
	revision int64
}

// condition is the condition of a commit that this is still so.
func (s *state) condition() *storage.Mutation {
	return &storage.Mutation{Operation: storage.Check, Key: Key, Expect: s.revision}
}

func (v *Verifier) read(ctx context.Context) (record, int64, error) {
	var r record
	entry, _, err := storage.GetEntry(ctx, v.options.Backend, Key, storage.Read{})
	if err != nil || entry == nil {
		return r, 0, err
	}
	if err := json.Unmarshal(entry.Value.Body(), &r); err != nil {
		return record{}, entry.Revision, nil // it is written anew
	}
	return r, entry.Revision, nil
}

// Refresh implements rest.Verifier: it reads which policies are in force.
func (v *Verifier) Refresh(ctx context.Context) {
	r, revision, err := v.read(ctx)
	if err != nil {
		return // the write that needs it fails as well
	}
	v.inForce.Store(&state{r.Digest, revision})
}

// Start puts the policies of this process in force if they are newer than those that are, or if
// no other process has those any more. If the store is away, Run does it later.
func (v *Verifier) Start(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := v.join(ctx); err != nil {
		slog.WarnContext(ctx, "signature policies not in force yet", "err", err)
	}
}

// join puts the policies in force as Start says, and reports whether they are.
func (v *Verifier) join(ctx context.Context) (joined bool, err error) {
	for {
		own := v.options.Policies.Digest()
		r, revision, err := v.read(ctx)
		if err != nil {
			return false, err
		}
		if r.Digest == own {
			v.inForce.Store(&state{own, revision})
			_, err := v.lease(ctx, policiesLease+own, own)
			return true, err
		}
		if slices.Contains(r.Superseded, own) {
			// If this process gets the lease, no other has the policies in force.
			abandoned, err := v.lease(ctx, policiesLease+r.Digest, own)
			if err != nil || !abandoned {
				v.inForce.Store(&state{r.Digest, revision})
				return false, err
			}
		}
		if err := v.claim(ctx, r, revision, own); err != nil {
			return false, err
		}
	}
}

// claim puts the set own in force, unless the record has changed meanwhile.
func (v *Verifier) claim(ctx context.Context, before record, revision int64, own string) error {
	next := record{Digest: own, Since: time.Now().UTC().Truncate(time.Second), Superseded: slices.DeleteFunc(before.Superseded, func(s string) bool { return s == own })}
	if before.Digest != "" {
		next.Superseded = append(next.Superseded, before.Digest)
	}
	next.Superseded = next.Superseded[max(0, len(next.Superseded)-keptSuperseded):]
	content, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if _, err := v.lease(ctx, policiesLease+own, own); err != nil { // before anybody can miss it
		return err
	}
	result, err := v.options.Backend.Commit(ctx, storage.Mutation{Key: Key, Expect: revision, Value: storage.Body(content)})
	if err != nil {
		return fmt.Errorf("store %s: %w", Key, err)
	}
	if result.Succeeded {
		slog.InfoContext(ctx, "signature policies in force", "digest", own, "before", before.Digest)
		v.endLease(ctx, policiesLease+before.Digest, own) // of an abandoned set
	}
	return nil
}

// lease takes a lease; a process that is alone holds every one.
func (v *Verifier) lease(ctx context.Context, name, holder string) (bool, error) {
	if v.options.Leases == nil {
		return true, nil
	}
	return v.options.Leases.Lease(ctx, name, holder)
}

// endLease gives a lease back. If that fails it ends by itself.
func (v *Verifier) endLease(ctx context.Context, name, holder string) {
	if v.options.Leases == nil {
		return
	}
	if err := v.options.Leases.EndLease(ctx, name, holder); err != nil {
		slog.WarnContext(ctx, "lease not given back, it ends by itself", "lease", name, "err", err)
	}
}
