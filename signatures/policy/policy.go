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
	"log/slog"
	"slices"
	"strings"
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
	cache *lru.Cache[cacheKey, cached]
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
	cache, err := lru.New[cacheKey, cached](cacheSize)
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
	satisfied := map[*requirement]bool{}
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
		all := func(g *requirement) bool { return satisfied[g] }
		if len(c.groups) > 0 && !slices.ContainsFunc(c.groups, func(g *requirement) bool { return !all(g) }) {
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
