package policy

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
)

// rootOfTrust is one root of trust.
type rootOfTrust interface {
	// name is the root's name in conditions.
	name() string
	// verify verifies the claims of c about subject. It returns the signer, or the reason why
	// it is not trusted.
	verify(c *payload, subject digest.Digest, now time.Time) (*signer, *failure)
}

// named gives a root its name.
type named string

func (n named) name() string { return string(n) }

// signer is the verified identity of a signer.
type signer struct {
	issuedBy imagev1.SignatureIssuer
	issuedTo imagev1.SignatureSubject
	created  time.Time // zero if nobody trustworthy says
	claims   map[string]string
}

// failure is why a signature is not believed. Its message says nothing that the
// signature says of itself.
type failure struct{ reason, message string }

func (f *failure) in(g *requirement) *failure {
	return &failure{f.reason, fmt.Sprintf("policy %s: %s", g.policy, f.message)}
}

// progress orders reasons by how much was right before the failure: of the failures
// of several roots, the one that got furthest tells most.
var progress = map[string]int{
	signatures.ReasonKeyNotTrusted:        1,
	signatures.ReasonCertificateUntrusted: 2,
	signatures.ReasonSignatureInvalid:     3,
	signatures.ReasonLogEntryMissing:      4,
	signatures.ReasonTimestampMissing:     5,
	signatures.ReasonExpired:              6,
	signatures.ReasonIdentityMismatch:     7,
}

func moreSpecific(a, b *failure) *failure {
	if a == nil || progress[b.reason] > progress[a.reason] { // of equals the first
		return b
	}
	return a
}

// errNotApplicable is the failure of a root that knows nothing of such signatures.
var errNotApplicable = &failure{signatures.ReasonKeyNotTrusted, "no root of trust vouches for the key of the signature"}
