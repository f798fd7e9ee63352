package verification_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus"

	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/imageapi/verification"
	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
	"tallyman/storage"
	"tallyman/storage/memory"
)

var subject = digest.Digest(imagetest.ManifestDigest)

// leases are leases that end when the test says so.
type leases struct {
	mu      sync.Mutex
	holders map[string]string
}

func (l *leases) Lease(_ context.Context, name, holder string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holders[name] == "" {
		l.holders[name] = holder
	}
	return l.holders[name] == holder, nil
}

func (l *leases) EndLease(_ context.Context, name, holder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holders[name] == holder {
		delete(l.holders, name)
	}
	return nil
}

func (l *leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.holders)
}

// interrupted is a store that calls before once, before a commit of an Image.
type interrupted struct {
	storage.Backend
	before func()
}

func (i *interrupted) Commit(ctx context.Context, m ...storage.Mutation) (*storage.CommitResult, error) {
	if before := i.before; before != nil && strings.HasPrefix(m[0].Key, rest.KeyPrefix) {
		i.before = nil
		before()
	}
	return i.Backend.Commit(ctx, m...)
}

// cluster is a store, and the leases of its processes.
type cluster struct {
	*testing.T
	store  *interrupted
	leases *leases
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t, &interrupted{Backend: memory.New(memory.Options{})}, &leases{holders: map[string]string{}}}
}

// process is one process on the store.
type process struct {
	*verification.Verifier
	t        *testing.T
	images   *rest.Images
	policies *policy.Verifier
}

// process returns a process that believes some keys.
func (c *cluster) process(limit time.Duration, keys ...*signtest.Key) *process {
	c.Helper()
	p := signatures.Policy{Name: "all", Scopes: []string{"*"}}
	for _, key := range keys {
		p.RootsOfTrust = append(p.RootsOfTrust, signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: key.PEM()}})
	}
	policies, err := policy.New(policy.Options{Policies: []signatures.Policy{p}})
	if err != nil {
		c.Fatal(err)
	}
	v := verification.New(verification.Options{Backend: c.store, Policies: policies, Leases: c.leases, Limit: limit, PerMinute: time.Hour})
	images, err := rest.NewImages(c.store, v)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(images.Close)
	return &process{v, c.T, images, policies}
}

// change changes the Image for the registry, and returns it.
func (p *process) change(fn func(*imagev1.Image)) *imagev1.Image {
	p.t.Helper()
	err := p.images.Change(p.t.Context(), subject.String(), true, func(_ context.Context, image *imagev1.Image) error {
		if image.Name == "" {
			*image = *imagetest.Image(subject.String(), nil)
		}
		fn(image)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.image()
}

func (p *process) image() *imagev1.Image {
	p.t.Helper()
	image, err := p.images.Image(p.t.Context(), subject.String())
	if err != nil {
		p.t.Fatal(err)
	}
	return image
}

// RefreshSignatures, EachSigned and EachPending make p the Images of Run.
func (p *process) RefreshSignatures(ctx context.Context, name digest.Digest) error {
	return p.images.Change(ctx, name.String(), false, func(context.Context, *imagev1.Image) error { return nil })
}

func (p *process) EachSigned(ctx context.Context, _ bool, fn func(digest.Digest) error) error {
	return p.images.EachSigned(ctx, func(name string) error { return fn(digest.Digest(name)) })
}

func (p *process) EachPending(ctx context.Context, fn func(digest.Digest) error) error {
	return p.images.EachPending(ctx, func(name string) error { return fn(digest.Digest(name)) })
}

// work does the work of Run until done holds.
func (p *process) work(done func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx, p, time.Hour) })
	running.Go(func() { p.images.MaintainIndex(ctx) })
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it does not come to be: %s", shown(p.image()))
		}
	}
	cancel()
	running.Wait()
}

func in(repositories ...string) func(*imagev1.Image) {
	return func(image *imagev1.Image) {
		for _, repository := range repositories {
			rules.AddRepository(image, repository)
		}
	}
}

func tagged(repository, tag string) func(*imagev1.Image) {
	return func(image *imagev1.Image) { rules.SetTag(image, repository, tag, true) }
}

// signed adds signatures by a key, one for each of some claims.
func signed(key *signtest.Key, claims ...string) func(*imagev1.Image) {
	var entries []imagev1.ImageSignature
	for _, claim := range claims {
		s := key.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, map[string]any{"claim": claim}))
		entry := imagev1.ImageSignature{Type: s.Type, Content: s.Content}
		entry.Name = signatures.Name(subject, s)
		entries = append(entries, entry)
	}
	return func(image *imagev1.Image) { image.Signatures = append(image.Signatures, entries...) }
}

// shown returns the verdicts of an Image: the reason of each signature, whether verification is
// complete, and the repositories that trust it.
func shown(image *imagev1.Image) string {
	var reasons []string
	for i := range image.Signatures {
		reasons = append(reasons, signatures.Condition(&image.Signatures[i], signatures.ConditionTrusted).Reason)
	}
	return fmt.Sprintf("%s %s [%s]", strings.Join(reasons, ","), image.Annotations[rules.AnnotationVerification], image.Annotations[rules.AnnotationTrusted])
}

func (p *process) want(image *imagev1.Image, want string) {
	p.t.Helper()
	if got := shown(image); got != want {
		p.t.Errorf("the Image is %q, want %q", got, want)
	}
}

// TestLimit: an Image whose signatures cost more than its limit is written at once and verified in
// the background. Before, it is not trusted by those that are left, and no verdict is lost.
func TestLimit(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	c := newCluster(t)
	p := c.process(time.Nanosecond, key) // enough for the first
	p.Start(t.Context())
	p.want(p.change(func(*imagev1.Image) {}), " complete []")
	p.want(p.change(in("a", "b")), " complete []")
	p.want(p.change(signed(key, "1")), "Verified complete [a,b]")
	p.want(p.change(signed(signtest.NewKey(t, "ecdsa-p256"), "1", "2", "3")), "Verified,KeyNotTrusted,Pending,Pending pending [a,b]")
	p.policies.ClearCache() // expiry is looked for again
	p.want(p.change(in("c")), "Verified,KeyNotTrusted,Pending,Pending pending [a,b,c]")
	p.work(func() bool {
		return shown(p.image()) == "Verified,KeyNotTrusted,KeyNotTrusted,KeyNotTrusted complete [a,b,c]"
	})
	p.policies.ClearCache()
	p.want(p.change(in("d")), "Verified,KeyNotTrusted,KeyNotTrusted,KeyNotTrusted pending [a,b,c,d]")
	p.work(func() bool {
		return shown(p.image()) == "Verified,KeyNotTrusted,KeyNotTrusted,KeyNotTrusted complete [a,b,c,d]"
	})

	// A name less: the verdicts of the others may have come from it.
	p.policies.ClearCache()
	p.want(p.change(func(image *imagev1.Image) { rules.RemoveRepository(image, "d") }), "Verified,Pending,Pending,Pending pending [a,b,c]")
	p.work(func() bool {
		return shown(p.image()) == "Verified,KeyNotTrusted,KeyNotTrusted,KeyNotTrusted complete [a,b,c]"
	})

	// Without the entry that trust came from there is none.
	p.policies.ClearCache()
	p.want(p.change(func(image *imagev1.Image) { image.Signatures = image.Signatures[1:] }), "KeyNotTrusted,KeyNotTrusted,KeyNotTrusted pending []")
	// Nor with another one twice in its place.
	p.change(func(image *imagev1.Image) { image.Signatures = nil })
	p.change(signed(key, "1"))
	p.change(signed(signtest.NewKey(t, "ecdsa-p256"), "1"))
	p.policies.ClearCache()
	twice := p.change(func(image *imagev1.Image) {
		image.Signatures = []imagev1.ImageSignature{image.Signatures[1], image.Signatures[1]}
	})
	if trusted := rules.TrustedRepositories(twice); len(trusted) != 0 {
		t.Errorf("trusted in %v without the signature", trusted)
	}
}

// TestPending: a trusted signature behind others that cost the limit is pending, and trusted in the
// end.
func TestPending(t *testing.T) {
	key, other := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	p := newCluster(t).process(time.Nanosecond, key)
	p.Start(t.Context())
	p.change(in("a"))
	byOther, byKey := signed(other, "1"), signed(key, "1")
	p.want(p.change(func(image *imagev1.Image) { byOther(image); byKey(image) }), "KeyNotTrusted,Pending pending []")
	if s := p.image().Signatures[1]; len(s.Conditions) != 2 || s.Conditions[0].Status != "Unknown" {
		t.Errorf("a pending signature has %+v", s.Conditions)
	}
	p.work(func() bool { return shown(p.image()) == "KeyNotTrusted,Verified complete [a]" })
}

// TestKeepPending: a pending Image does not wait for the next verification of all.
func TestKeepPending(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	p := newCluster(t).process(time.Nanosecond, key)
	p.Start(t.Context())
	p.change(in("a"))
	p.change(signed(key, "1"))
	p.policies.ClearCache()
	written, before := false, verifications(t)
	p.work(func() bool {
		if !written && verifications(t) > before { // by Run, at its start
			written = true
			p.want(p.change(signed(key, "2", "3", "4")), "Verified,Verified,Pending,Pending pending [a]")
		}
		return written && shown(p.image()) == "Verified,Verified,Verified,Verified complete [a]"
	})
}

// TestAgain: a verdict is used again for the same signatures, names and policies, and for no others.
func TestAgain(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	c := newCluster(t)
	p := c.process(0, key)
	p.Start(t.Context())
	p.change(in("a"))
	p.change(signed(key, "1"))
	for _, step := range []struct {
		name   string
		change func(*imagev1.Image)
		want   float64 // verifications of signatures
	}{
		{"a label", func(i *imagev1.Image) { i.Labels = map[string]string{"a": "b"} }, 0},
		{"a repository", in("b"), 1},
		{"a tag", tagged("b", "v1"), 1},
		{"a signature", signed(key, "2"), 2},
		{"conditions by somebody else", func(i *imagev1.Image) { i.Signatures[0].Conditions[0].Status = "False" }, 2},
	} {
		before := verifications(t)
		p.change(step.change)
		if got := verifications(t) - before; got != step.want {
			t.Errorf("%s: %v verifications, want %v", step.name, got, step.want)
		}
	}
	p.want(p.image(), "Verified,Verified complete [a,b]")
	before := p.image().Annotations[rules.AnnotationPolicies]
	if message := p.image().Signatures[0].Conditions[0].Message; !strings.HasSuffix(message, "(policies "+strings.TrimPrefix(before, "sha256:")[:12]+")") {
		t.Errorf("the condition does not name the policies %s: %s", before, message)
	}
	other := c.process(0, key, signtest.NewKey(t, "ecdsa-p256"))
	other.Start(t.Context())
	other.want(other.change(func(i *imagev1.Image) { i.Labels = nil }), "Verified,Verified complete [a,b]")
	if other.image().Annotations[rules.AnnotationPolicies] == before {
		t.Error("other policies have the same digest")
	}
}

// verifications returns how many signatures this process has verified.
func verifications(t *testing.T) (total float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(policy.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "imageapi_signature_verifications_total" {
			for _, m := range family.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// TestPoliciesInForce: a rolling change of the policies takes a key away. A process that still has
// the old ones trusts nothing from then on, even if it starts again; it keeps the verdicts of the
// others. When nobody has the new ones any more the change was taken back.
func TestPoliciesInForce(t *testing.T) {
	revoked, key := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	c := newCluster(t)
	old := c.process(0, revoked, key)
	old.Start(t.Context())
	old.change(in("a"))
	old.want(old.change(signed(revoked, "1")), "Verified complete [a]")

	next := c.process(0, key)
	next.Start(t.Context())
	old.want(old.change(func(*imagev1.Image) {}), "Verified complete [a]") // nobody has looked yet
	next.work(func() bool { return shown(next.image()) == "KeyNotTrusted complete []" })
	old.want(old.change(tagged("a", "v1")), "KeyNotTrusted pending []")
	old.want(old.change(signed(revoked, "2")), "KeyNotTrusted,Pending pending []")
	next.work(func() bool { return shown(next.image()) == "KeyNotTrusted,KeyNotTrusted complete []" })

	again := c.process(0, revoked, key)
	again.Start(t.Context())
	again.want(again.change(signed(key, "1")), "KeyNotTrusted,KeyNotTrusted,Pending pending []")
	next.work(func() bool { return shown(next.image()) == "KeyNotTrusted,KeyNotTrusted,Verified complete [a]" })
	again.want(again.change(in("b")), "KeyNotTrusted,KeyNotTrusted,Verified pending [a]")
	again.want(again.change(func(image *imagev1.Image) { rules.RemoveRepository(image, "b") }), "Pending,Pending,Pending pending [a]")
	again.want(again.change(tagged("a", "v2")), "Pending,Pending,Pending pending []") // that tag may have a policy of its own

	c.leases.end()
	again.Start(t.Context())
	again.work(func() bool { return shown(again.image()) == "Verified,Verified,Verified complete [a]" })
	next.want(next.change(signed(key, "2")), "Verified,Verified,Verified,Pending pending [a]")
}

// TestChangeMeanwhile: policies that come into force between a verification and its write hold.
func TestChangeMeanwhile(t *testing.T) {
	revoked, key := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	c := newCluster(t)
	old, next := c.process(0, revoked), c.process(0, key)
	old.Start(t.Context())
	old.change(in("a"))
	c.store.before = func() { next.Start(t.Context()) }
	old.want(old.change(signed(revoked, "1")), "Pending pending []")
	if c.store.before != nil {
		t.Error("nothing came between")
	}
	next.want(next.change(in("b")), "KeyNotTrusted complete []")
}

// TestStoreAway: a process that cannot read which policies are in force trusts nothing.
func TestStoreAway(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	c := newCluster(t)
	p := c.process(0, key)
	sign := signed(key, "1")
	p.want(p.change(func(image *imagev1.Image) { in("a")(image); sign(image) }), "Pending pending []")
	p.work(func() bool { return shown(p.image()) == "Verified complete [a]" })
	entry, _, err := storage.GetEntry(t.Context(), c.store, verification.Key, storage.Read{})
	if err != nil || !slices.Contains(strings.Split(string(entry.Value.Body()), `"`), p.policies.Digest()) {
		t.Errorf("the store has %v, %v", entry, err)
	}
}
