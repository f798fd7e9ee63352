package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/internal/cputime"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

// result is the result of a verification.
type result struct {
	forImage, trusted condition
	signer            *signer // if it is trusted
	payload           *payload
}

type condition struct {
	status          string // True, False or Unknown
	reason, message string
}

// errTooLarge is why a signature that was not kept cannot be verified.
var errTooLarge = errors.New("too large to be kept; the content is the descriptor of the blob")

// Verification is one verification of the signatures of an image, by the policies of one moment.
type Verification struct {
	// Policies is the digest of the policies that apply to the image, "" if none does. It is the same
	// as long as they, and the files that they name, are.
	Policies string
	// Digest is Verifier.Digest at that moment.
	Digest string

	image    *imagev1.Image
	rules    *ruleset
	covers   []*applicable
	now      func() time.Time
	limit    time.Duration // of CPU time; 0 is none, and less leaves nothing to spend
	spent    time.Duration
	exceeded bool // something was not verified because of the limit
}

// Verify writes the result of verification on each signature of the image, of a known type:
// conditions, and, if it is trusted, its signer and its claims. A signature is trusted if it is
// for any name of the image. Signatures come in their order; no other is begun after the CPU time
// limit is spent. A limit of 0 is none; with less, only remembered verifications count, and all of
// them have to be there: otherwise the result is pending, and not complete. It is called once.
func (v *Verification) Verify(limit time.Duration) *Result {
	v.limit = limit
	v.verifyAll()
	result := &Result{Pending: v.exceeded, Spent: v.spent}
	for i := 0; i < len(v.covers); {
		repository, accepts := v.covers[i], true
		for ; i < len(v.covers) && v.covers[i].repository == repository.repository; i++ {
			accepts = accepts && v.covers[i].accepts()
		}
		if accepts && len(repository.groups) > 0 {
			result.Trusted = append(result.Trusted, repository.repository)
		}
	}
	return result
}

func (v *Verification) verifyAll() {
	var counters []prometheus.Counter
	for i := range v.image.Signatures {
		s := &v.image.Signatures[i]
		if !signatures.Known(s.Type) {
			continue
		}
		result := v.judgeSafely(s)
		if v.limit < 0 && v.exceeded {
			return // nothing was verified
		}
		counters = append(counters, verificationsTotal.WithLabelValues(s.Type, result.trusted.reason))
		result.apply(s, v.now())
	}
	for _, c := range counters {
		c.Inc()
	}
}

// judgeSafely is judge that recovers from panics of libraries: a signature must not fail the
// push of an image.
func (v *Verification) judgeSafely(s *imagev1.ImageSignature) (judged *result) {
	defer func() {
		if fault := recover(); fault != nil {
			slog.Error("signature verification panicked", "image", v.image.Name, "signature", s.Name, "fault", fault, "stack", string(debug.Stack()))
			unknown := condition{"Unknown", signatures.ReasonUnparsable, "it cannot be verified; the server's log says why"}
			judged = &result{trusted: unknown, forImage: unknown}
		}
	}()
	return v.judge(s)
}

// judge verifies one signature of an image against the groups of all covers.
func (v *Verification) judge(s *imagev1.ImageSignature) *result {
	subject := digest.Digest(v.image.Name)
	c, err := parse(s.Type, s.Content)
	if err != nil {
		reason := signatures.ReasonUnparsable
		if errors.Is(err, errTooLarge) {
			reason = signatures.ReasonTooLarge
		}
		return &result{
			trusted:  condition{"Unknown", reason, err.Error()},
			forImage: condition{"Unknown", unlessTooLarge(reason), err.Error()},
		}
	}
	judged := &result{payload: c, forImage: condition{"True", signatures.ReasonDigestMatches, "it signs this image's digest"}}
	mismatch := !c.signs(subject)
	if mismatch {
		judged.forImage = condition{"False", signatures.ReasonDigestMismatch, "it signs another digest"}
	}
	covered := slices.ContainsFunc(v.covers, func(c *applicable) bool { return c.policies != "" })
	switch {
	case !covered:
		judged.trusted = condition{"Unknown", signatures.ReasonNoPolicy, "no policy covers the image's repositories"}
	case mismatch:
		judged.trusted = condition{"False", signatures.ReasonDigestMismatch, "it signs another digest"}
	case v.image.Annotations[manifest.AnnotationAmbiguous] != "":
		judged.trusted = condition{"False", signatures.ReasonAmbiguousManifest, "clients may read the manifest differently: " + v.image.Annotations[manifest.AnnotationAmbiguous]}
	default:
		v.verify(subject, s, judged)
	}
	if _, short, _ := strings.Cut(v.Policies, ":"); covered {
		judged.trusted.message += " (policies " + short[:12] + ")"
	}
	return judged
}

func unlessTooLarge(reason string) string {
	if reason == signatures.ReasonTooLarge {
		return signatures.ReasonUnknown
	}
	return reason
}

// verify asks every root of trust about every name of the image, and keeps the first that
// vouches for the signature, or else the failure that got furthest.
func (v *Verification) verify(subject digest.Digest, s *imagev1.ImageSignature, judged *result) {
	content := sha256.Sum256(slices.Concat([]byte(s.Type), []byte{0}, s.Content))
	asked := map[rootOfTrust]cached{} // one signature may have thousands of names to answer for
	ask := func(r rootOfTrust) (*signer, *failure) {
		known, ok := asked[r]
		if !ok {
			known.signer, known.failure = v.ask(r, cacheKey{r, subject, content}, judged.payload)
			asked[r] = known
		}
		return known.signer, known.failure
	}
	var worst *failure
	for _, a := range v.covers {
		for n, g := range a.groups {
			root, signer, failure := g.vouches(&a.target, judged.payload, ask)
			if failure != nil {
				worst = moreSpecific(worst, failure.in(g))
				continue
			}
			a.satisfied[n] = true
			if judged.signer == nil {
				judged.signer = signer
				judged.trusted = condition{"True", signatures.ReasonVerified, fmt.Sprintf("policy %s, %s", g.policy, root.name())}
			}
		}
		if a.policies != "" { // which may have no root that could be asked
			worst = moreSpecific(worst, &failure{signatures.ReasonKeyNotTrusted, fmt.Sprintf("policy %s trusts nobody", a.policies)})
		}
	}
	switch {
	case judged.signer != nil:
	case worst.reason == signatures.ReasonPending:
		judged.trusted = condition{"Unknown", worst.reason, errPending.message}
	default:
		judged.trusted = condition{"False", worst.reason, worst.message}
	}
}

// vouches returns the first root of the requirement that vouches for a signature of the target,
// or the failure that got furthest.
func (g *requirement) vouches(t *target, c *payload, ask func(rootOfTrust) (*signer, *failure)) (rootOfTrust, *signer, *failure) {
	var worst *failure
	for _, r := range g.roots {
		var failure *failure
		if scoped, ok := r.(scopedRoot); ok {
			if r, failure = scoped.forTarget(t); failure != nil {
				worst = moreSpecific(worst, failure)
				continue
			}
		}
		signer, failure := ask(r)
		if failure == nil {
			failure = g.identity.check(c, t)
		}
		if failure == nil {
			return r, signer, nil
		}
		worst = moreSpecific(worst, failure)
	}
	if worst == nil {
		worst = errNotApplicable
	}
	return nil, nil, worst
}

func (v *Verification) ask(r rootOfTrust, key cacheKey, c *payload) (s *signer, f *failure) {
	if known, ok := v.rules.cache.Get(key); ok {
		return known.signer, known.failure
	}
	if v.limit != 0 && v.spent >= v.limit {
		v.exceeded = true
		return nil, errPending
	}
	v.spent += cputime.Of(func() { s, f = r.verify(c, key.subject, v.now()) })
	v.rules.cache.Add(key, cached{s, f})
	return s, f
}

// SetPending writes on a signature that it has not been verified yet.
func SetPending(s *imagev1.ImageSignature, now time.Time) {
	pending := &result{trusted: condition{"Unknown", errPending.reason, "it is verified in the background"}, forImage: condition{"Unknown", signatures.ReasonUnknown, "it is verified in the background"}}
	pending.apply(s, now)
}

// apply writes the result on s. A time changes only together with its condition, so that
// verifying again writes the same bytes.
func (v *result) apply(s *imagev1.ImageSignature, now time.Time) {
	if v.trusted.status == "Unknown" && writtenByOthers(s) {
		return
	}
	trusted := conditionOf(signatures.ConditionTrusted, v.trusted, s, now)
	forImage := conditionOf(signatures.ConditionForImage, v.forImage, s, now)
	s.Conditions = []imagev1.SignatureCondition{trusted, forImage}
	s.ImageIdentity, s.SignedClaims, s.Created, s.IssuedBy, s.IssuedTo = "", nil, nil, nil, nil
	if v.signer == nil {
		return
	}
	s.ImageIdentity = v.payload.reference
	s.SignedClaims = boundedClaims(v.payload.claims, v.signer.claims)
	if !v.signer.created.IsZero() {
		created := metav1.NewTime(v.signer.created.UTC().Truncate(time.Second))
		s.Created = &created
	}
	s.IssuedBy, s.IssuedTo = v.signer.issuedBy.DeepCopy(), v.signer.issuedTo.DeepCopy()
}

// writtenByOthers reports whether an administrator has written the conditions of a
// GPG signature, as `oc adm verify-image-signature --save` does. They are kept as
// long as no policy knows better.
func writtenByOthers(s *imagev1.ImageSignature) bool {
	trusted := signatures.Condition(s, signatures.ConditionTrusted)
	return signatures.IsSimpleSigning(s.Type) && trusted != nil && !signatures.IsReason(trusted.Reason)
}

func conditionOf(conditionType imagev1.SignatureConditionType, c condition, s *imagev1.ImageSignature, now time.Time) imagev1.SignatureCondition {
	at := metav1.NewTime(now.UTC().Truncate(time.Second))
	next := imagev1.SignatureCondition{
		Type: conditionType, Status: corev1.ConditionStatus(c.status), Reason: c.reason, Message: c.message,
		LastProbeTime: at, LastTransitionTime: at,
	}
	before := signatures.Condition(s, conditionType)
	if before == nil || before.Status != next.Status {
		return next
	}
	next.LastTransitionTime = before.LastTransitionTime
	if before.Reason == next.Reason && before.Message == next.Message {
		next.LastProbeTime = before.LastProbeTime
	}
	return next
}
