// Package policy verifies signatures: it holds an operator's policies and roots of trust,
// verifies signatures against them, and writes the results on the entries of Image.signatures.
//
// The cryptography is that of sigstore-go and sigstore, ProtonMail's go-crypto and
// notation-go; this package calls them and interprets their results.
//
// # Guarantees
//
// Verification is offline: nothing is fetched from the network. Statements of a signature are
// passed on only after they are verified. For any bytes, each signature ends with exactly the
// two conditions Trusted and ForImage.
package policy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus"

	"tallyman/internal/crash"
	"tallyman/signatures"
)

// cacheSize is how many verifications are remembered.
const cacheSize = 8192

// Options configures New.
type Options struct {
	// Policies are the operator's own.
	Policies []signatures.Policy
	// PolicyFile is a containers-policy.json(5) to be honoured as well, "" for
	// none.
	PolicyFile string
	// Hosts are the host[:port] names of this registry in references. Without any, a policy
	// that names a host is an error, and nothing is compared with one.
	Hosts []string
	// Context is more of the configuration on which verdicts depend, any text. It is a part of
	// Digest.
	Context string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Verifier verifies signatures. It is safe for concurrent use.
type Verifier struct {
	options Options
	hosts   []string // Hosts, with all names of the loopback interface
	current atomic.Pointer[ruleset]
}

// ruleset is the result of one reading of the configuration and of all files.
type ruleset struct {
	rules  []rule
	digest digest.Digest // of the whole
	files  fingerprint
	cache  *lru.Cache[cacheKey, cached]
}

type cacheKey struct {
	root    rootOfTrust
	subject digest.Digest
	content [sha256.Size]byte
}

type cached struct {
	signer  *signer
	failure *failure
}

// New reads the policies and their files. Its errors name the key that is wrong.
func New(o Options) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &Verifier{options: o}
	for _, host := range o.Hosts {
		v.hosts = append(v.hosts, loopbackNames(host)...)
	}
	rules, err := v.load()
	if err != nil {
		return nil, err
	}
	v.current.Store(rules)
	return v, nil
}

func (v *Verifier) load() (*ruleset, error) {
	reader := &fileReader{}
	rules, err := compile(v.options, v.hosts, reader)
	if err != nil {
		return nil, err
	}
	identifier, err := reader.fingerprint.digestOf([]any{v.options.Policies, v.options.PolicyFile, v.hosts, v.options.Context})
	if err != nil {
		return nil, err
	}
	cache, err := lru.New[cacheKey, cached](cacheSize)
	if err != nil {
		return nil, err // only for a size below one
	}
	return &ruleset{rules: rules, digest: identifier, files: reader.fingerprint, cache: cache}, nil
}

// Watch reloads the files whenever one of them has changed, until ctx ends, and calls changed
// when trust may have changed. An invalid or unreadable file is reported and the previous
// version stays in force.
func (v *Verifier) Watch(ctx context.Context, interval time.Duration, changed func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failure := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if files := v.current.Load().files; files.again().equal(files) {
			failure = ""
			continue
		}
		var rules *ruleset
		err := crash.Guard("policy reload", func() (err error) {
			rules, err = v.load() // at every tick until it succeeds: a missing file may have appeared
			return err
		})
		if err != nil {
			if failure != err.Error() {
				failure = err.Error()
				reloadsTotal.WithLabelValues("failed").Inc()
				slog.Error("signature policies reload failed, keeping previous version", "err", err)
			}
			continue
		}
		failure = ""
		v.current.Store(rules)
		reloadsTotal.WithLabelValues("reloaded").Inc()
		slog.Info("signature policies reloaded", "policies", len(rules.rules))
		changed()
	}
}

// ClearCache drops the remembered verifications, so that the next ones notice expiry.
func (v *Verifier) ClearCache() { v.current.Load().cache.Purge() }

// Digest identifies the policies in force, with all files that they name: processes with the same
// one come to the same verdicts.
func (v *Verifier) Digest() string { return v.current.Load().digest.String() }

// Result is the result of verifying the signatures of an image.
type Result struct {
	// Trusted are the repositories whose policy is satisfied, for the repository itself and for each
	// tag that it has on the image.
	Trusted []string
	// Pending is set if some signature has the reason signatures.ReasonPending, or would satisfy more
	// if there were more time.
	Pending bool
	// Spent is the CPU time that signatures took.
	Spent time.Duration
}

// Verify is Prepare and Verification.Verify.
func (v *Verifier) Verify(image *imagev1.Image, repositories, tags []string, limit time.Duration) *Result {
	return v.Prepare(image, repositories, tags).Verify(limit)
}

// Prepare finds the policies for an image. repositories hold the image, and tags (repository:tag)
// point to it.
func (v *Verifier) Prepare(image *imagev1.Image, repositories, tags []string) *Verification {
	rules := v.current.Load()
	return v.prepare(rules, image, rules.covers(v.hosts, digest.Digest(image.Name), repositories, tags))
}

func (v *Verifier) prepare(rules *ruleset, image *imagev1.Image, covers []*applicable) *Verification {
	return &Verification{Policies: digestOf(covers), Digest: rules.digest.String(), image: image, rules: rules, covers: covers, now: v.options.Now}
}

// VerifyTag is Verify for one tag of a repository, without a limit. It reports whether the tag's
// policy is satisfied.
func (v *Verifier) VerifyTag(image *imagev1.Image, repository, tag string) bool {
	rules := v.current.Load()
	a := rules.applicable(target{hosts: v.hosts, repository: repository, tag: tag, digest: digest.Digest(image.Name)})
	v.prepare(rules, image, []*applicable{a}).verifyAll()
	return len(a.groups) > 0 && a.accepts()
}

var (
	verificationsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_signature_verifications_total",
		Help: "Verifications of signatures, by the signature's type and the reason of its condition Trusted.",
	}, []string{"type", "result"})
	reloadsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_signature_policy_reloads_total",
		Help: "Times that the files of signature policies had changed: reloaded, or failed and left as they were.",
	}, []string{"result"})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{verificationsTotal, reloadsTotal}
}

// rootOfTrust is one root of trust.
type rootOfTrust interface {
	// name is the root's name in conditions.
	name() string
	// verify verifies the claims of c about subject. It returns the signer, or the reason why
	// it is not trusted.
	verify(c *payload, subject digest.Digest, now time.Time) (*signer, *failure)
}

// scopedRoot is a root that has other roots, each for some targets.
type scopedRoot interface {
	// forTarget returns the root for a target, or the reason why there is none.
	forTarget(t *target) (rootOfTrust, *failure)
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
	signatures.ReasonHostNotConfigured:    7,
	signatures.ReasonIdentityMismatch:     8,
	signatures.ReasonPending:              9, // it may yet be trusted
}

func moreSpecific(a, b *failure) *failure {
	if a == nil || progress[b.reason] > progress[a.reason] { // of equals the first
		return b
	}
	return a
}

// errPending is the failure of a verification that was not begun.
var errPending = &failure{signatures.ReasonPending, "it takes more time than a push may; it is verified in the background"}

// errNotApplicable is the failure of a root that knows nothing of such signatures.
var errNotApplicable = &failure{signatures.ReasonKeyNotTrusted, "no root of trust vouches for the key of the signature"}
