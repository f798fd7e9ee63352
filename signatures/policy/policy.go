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
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

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
	// Hosts are the host[:port] names of this registry in references. If there
	// are none, an Image's own pull reference says.
	Hosts []string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Verifier verifies signatures. It is safe for concurrent use.
type Verifier struct {
	options Options
	current atomic.Pointer[ruleset]
}

// ruleset is the result of one reading of the configuration and of all files.
type ruleset struct {
	rules []rule
	files fingerprint
	cache *lru.Cache[cacheKey, outcome]
}

type cacheKey struct {
	root    rootOfTrust
	subject digest.Digest
	content [sha256.Size]byte
}

type outcome struct {
	signer *signer
	fault  *fault
}

// New reads the policies and their files. Its errors name the key that is wrong.
func New(o Options) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &Verifier{options: o}
	rules, err := v.load()
	if err != nil {
		return nil, err
	}
	v.current.Store(rules)
	return v, nil
}

func (v *Verifier) load() (*ruleset, error) {
	reader := &fileReader{}
	rules, err := compile(v.options, reader)
	if err != nil {
		return nil, err
	}
	cache, err := lru.New[cacheKey, outcome](cacheSize)
	if err != nil {
		return nil, err // only for a size below one
	}
	return &ruleset{rules: rules, files: reader.fingerprint, cache: cache}, nil
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

// Verify writes the result of verification on each signature of image, of a known type:
// conditions, and, if it is trusted, its signer and its claims. repositories hold the image,
// and tags (repository:tag) point to it. It returns the repositories whose policy is
// satisfied.
func (v *Verifier) Verify(image *imagev1.Image, repositories, tags []string) (trusted []string) {
	rules := v.current.Load()
	covers := rules.covers(v.hosts(image), repositories, tags)
	satisfied := map[*group]bool{}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		if !signatures.Known(s.Type) {
			continue
		}
		result := v.judgeSafely(rules, digest.Digest(image.Name), covers, s)
		verificationsTotal.WithLabelValues(s.Type, result.trusted.reason).Inc()
		for _, g := range result.satisfied {
			satisfied[g] = true
		}
		result.apply(s, v.options.Now())
	}
	for _, c := range covers {
		all := func(g *group) bool { return satisfied[g] }
		if len(c.groups) > 0 && !slices.ContainsFunc(c.groups, func(g *group) bool { return !all(g) }) {
			trusted = append(trusted, c.repository)
		}
	}
	return trusted
}

// hosts returns the names of this registry in references.
func (v *Verifier) hosts(image *imagev1.Image) []string {
	if len(v.options.Hosts) > 0 {
		return v.options.Hosts
	}
	host, _, ok := strings.Cut(image.DockerImageReference, "/")
	if !ok || !IsHost(host) {
		return nil
	}
	return loopbackNames(host)
}

// loopbackNames returns the names of a registry on this host, of which clients use
// any; another host has its own.
func loopbackNames(host string) []string {
	name, port := host, ""
	if at := strings.LastIndexByte(host, ':'); at >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:at], host[at:]
	}
	names := []string{"localhost", "127.0.0.1", "[::1]"}
	if !slices.Contains(names, name) {
		return []string{host}
	}
	for i := range names {
		names[i] += port
	}
	return names
}

// verdict is the result of a verification.
type verdict struct {
	forImage, trusted condition
	signer            *signer // if it is trusted
	claim             *claim
	satisfied         []*group
}

type condition struct {
	status          string // True, False or Unknown
	reason, message string
}

// errTooLarge is why a signature that was not kept cannot be verified.
var errTooLarge = errors.New("too large to be kept; the content is the descriptor of the blob")

// judgeSafely is judge that recovers from panics of libraries: a signature must not fail the
// push of an image.
func (v *Verifier) judgeSafely(rules *ruleset, subject digest.Digest, covers []cover, s *imagev1.ImageSignature) (result *verdict) {
	defer func() {
		if fault := recover(); fault != nil {
			slog.Error("signature verification panicked", "image", subject.String(), "signature", s.Name, "fault", fault, "stack", string(debug.Stack()))
			unknown := condition{"Unknown", signatures.ReasonUnparsable, "it cannot be verified; the server's log says why"}
			result = &verdict{trusted: unknown, forImage: unknown}
		}
	}()
	return v.judge(rules, subject, covers, s)
}

// judge verifies one signature against the groups of all covers.
func (v *Verifier) judge(rules *ruleset, subject digest.Digest, covers []cover, s *imagev1.ImageSignature) *verdict {
	c, err := parse(s.Type, s.Content)
	if err != nil {
		reason := signatures.ReasonUnparsable
		if errors.Is(err, errTooLarge) {
			reason = signatures.ReasonTooLarge
		}
		return &verdict{
			trusted:  condition{"Unknown", reason, err.Error()},
			forImage: condition{"Unknown", unlessTooLarge(reason), err.Error()},
		}
	}
	result := &verdict{claim: c, forImage: condition{"True", signatures.ReasonDigestMatches, "it signs this image's digest"}}
	mismatch := !c.signs(subject)
	if mismatch {
		result.forImage = condition{"False", signatures.ReasonDigestMismatch, "it signs another digest"}
	}
	covered := slices.ContainsFunc(covers, func(c cover) bool { return c.policies != "" })
	switch {
	case !covered:
		result.trusted = condition{"Unknown", signatures.ReasonNoPolicy, "no policy covers the image's repositories"}
	case mismatch:
		result.trusted = condition{"False", signatures.ReasonDigestMismatch, "it signs another digest"}
	default:
		v.verify(rules, subject, covers, s, result)
	}
	return result
}

func unlessTooLarge(reason string) string {
	if reason == signatures.ReasonTooLarge {
		return signatures.ReasonUnknown
	}
	return reason
}

// verify asks every root of trust, and keeps the first that vouches for the
// signature, or else the failure that got furthest.
func (v *Verifier) verify(rules *ruleset, subject digest.Digest, covers []cover, s *imagev1.ImageSignature, result *verdict) {
	content := sha256.Sum256(slices.Concat([]byte(s.Type), []byte{0}, s.Content))
	var worst *fault
	for _, c := range covers {
		for _, g := range c.groups {
			for _, r := range g.roots {
				signer, failure := v.ask(rules, r, cacheKey{r, subject, content}, result.claim)
				if failure == nil {
					failure = g.identity.check(result.claim, c)
				}
				if failure != nil {
					worst = further(worst, failure.in(g))
					continue
				}
				result.satisfied = append(result.satisfied, g)
				if result.signer == nil {
					result.signer = signer
					result.trusted = condition{"True", signatures.ReasonVerified, fmt.Sprintf("policy %s, %s", g.policy, r.name())}
				}
				break
			}
		}
		if c.policies != "" { // which may have no root that could be asked
			worst = further(worst, &fault{signatures.ReasonKeyNotTrusted, fmt.Sprintf("policy %s trusts nobody", c.policies)})
		}
	}
	if result.signer == nil {
		result.trusted = condition{"False", worst.reason, worst.message}
	}
}

func (v *Verifier) ask(rules *ruleset, r rootOfTrust, key cacheKey, c *claim) (*signer, *fault) {
	if known, ok := rules.cache.Get(key); ok {
		return known.signer, known.fault
	}
	s, failure := r.verify(c, key.subject, v.options.Now())
	rules.cache.Add(key, outcome{s, failure})
	return s, failure
}
