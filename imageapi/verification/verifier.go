// Package verification decides when the signatures of Images are verified, and which verdicts are
// written: as part of a write as long as that is cheap, and in the background otherwise.
//
// # Guarantees
//
// A signature is Trusted only by the policies that are in force, which are one set for all
// processes on a store: the condition of the commit says so. A verdict is used again only for the
// same signatures, names and policies. The cost of signatures in a write is bounded.
package verification

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/storage"
)

// Options configures New.
type Options struct {
	// Backend keeps the set of policies that is in force. Required.
	Backend storage.Backend
	// Policies are the signature policies. Required.
	Policies *policy.Verifier
	// Leases are one for all processes on the store; nil if this is the only one.
	Leases Leases
	// Limit is the CPU time that the signatures of an Image may take in one write.
	// signatures.DefaultVerifyLimit if zero.
	Limit time.Duration
	// PerMinute is the CPU time that signatures may take in writes on account of one repository,
	// or of one user of the API, in a minute.
	// signatures.DefaultVerifyPerMinute if zero.
	PerMinute time.Duration
}

// Leases are the leases of the processes on a store.
type Leases interface {
	// Lease takes the lease called name for holder, or renews it. It ends by itself some time after
	// the last call. Several processes can be one holder.
	Lease(ctx context.Context, name, holder string) (held bool, err error)
	// EndLease gives a lease back.
	EndLease(ctx context.Context, name, holder string) error
}

// Verifier verifies the signatures of Images. It is safe for concurrent use.
type Verifier struct {
	options  Options
	inForce  atomic.Pointer[state]
	accounts *accounts
}

var _ rest.Verifier = (*Verifier)(nil)

// New returns a Verifier. Until Start its policies are not in force.
func New(o Options) *Verifier {
	o.Limit = cmp.Or(o.Limit, signatures.DefaultVerifyLimit)
	o.PerMinute = cmp.Or(o.PerMinute, signatures.DefaultVerifyPerMinute)
	v := &Verifier{options: o, accounts: newAccounts(o.PerMinute)}
	v.inForce.Store(&state{})
	return v
}

// Verify implements rest.Verifier.
func (v *Verifier) Verify(ctx context.Context, r *rest.VerifyRequest) *rest.Verdict {
	prepared := v.options.Policies.Prepare(r.Image, rules.Repositories(r.Image), rules.Tags(r.Image))
	inForce := v.inForce.Load()
	if inForce.digest != prepared.Digest {
		v.Refresh(ctx)
		inForce = v.inForce.Load()
	}
	stored := newStored(r)
	switch {
	case inForce.digest != prepared.Digest:
		return stored.carry()
	case !r.Full && stored.complete(prepared.Policies):
		return stored.again(inForce.condition())
	}
	result := prepared.Verify(v.limit(r))
	v.accounts.charge(r.Account, result.Spent)
	verdict := &rest.Verdict{Trusted: result.Trusted, Policies: prepared.Policies, Pending: result.Pending, Condition: inForce.condition()}
	if result.Pending && stored.policies() == prepared.Policies {
		verdict.Trusted = stored.addTo(verdict.Trusted)
	}
	return verdict
}

// Remembered implements rest.Rememberer. It reads nothing from the store.
func (v *Verifier) Remembered(r *rest.VerifyRequest) *rest.Verdict {
	prepared := v.options.Policies.Prepare(r.Image, rules.Repositories(r.Image), rules.Tags(r.Image))
	inForce := v.inForce.Load()
	if inForce.digest != prepared.Digest {
		return nil
	}
	if stored := newStored(r); stored.complete(prepared.Policies) {
		return stored.again(inForce.condition())
	}
	result := prepared.Verify(-1)
	if result.Pending {
		return nil
	}
	return &rest.Verdict{Trusted: result.Trusted, Policies: prepared.Policies, Condition: inForce.condition()}
}

// limit returns the CPU time that a verification may take; 0 for any.
func (v *Verifier) limit(r *rest.VerifyRequest) time.Duration {
	if r.Full {
		return 0
	}
	// Never 0: with nothing left, only the verdicts that are remembered are there at once.
	return max(min(v.options.Limit, v.accounts.left(r.Account)), time.Nanosecond)
}

// copyVerdict copies the results of verification from one entry of a signature to another.
func copyVerdict(to, from *imagev1.ImageSignature) {
	from = from.DeepCopy()
	to.Conditions, to.ImageIdentity, to.SignedClaims = from.Conditions, from.ImageIdentity, from.SignedClaims
	to.Created, to.IssuedBy, to.IssuedTo = from.Created, from.IssuedBy, from.IssuedTo
}
