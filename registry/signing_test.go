package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/imageapi/verification"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
	ourstorage "tallyman/storage"
)

// newSigningHouse is a house that believes a key, at a time that stands still.
func newSigningHouse(t *testing.T, key *signtest.Key) *house {
	t.Helper()
	return newHouseWith(t, tracker.Options{}, newVerifier(t, key))
}

// newVerifier returns the constructor of a Verifier that believes a key.
func newVerifier(t *testing.T, key *signtest.Key) func(ourstorage.Backend) rest.Verifier {
	t.Helper()
	policies, err := policy.New(policy.Options{
		Hosts: []string{"registry.example.com"}, Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
		Policies: []signatures.Policy{{Name: "all", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{
			{Name: "release", PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: key.PEM()}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(backend ourstorage.Backend) rest.Verifier {
		v := verification.New(verification.Options{Backend: backend, Policies: policies})
		v.Start(t.Context())
		return v
	}
}

// pushArtifact pushes a signature, under a tag if there is one.
func (h *house) pushArtifact(repository, tag string, a signtest.Artifact) error {
	ctx := h.t.Context()
	repo := h.repository(h.namespace, repository)
	for _, blob := range a.Blobs {
		if _, err := repo.Blobs(ctx).Put(ctx, "application/octet-stream", blob); err != nil {
			return err
		}
	}
	manifest, _, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, a.Manifest)
	if err != nil {
		return err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return err
	}
	if _, err := manifests.Put(ctx, manifest); err != nil || tag == "" {
		return err
	}
	return repo.Tags(ctx).Tag(ctx, tag, imagespec.Descriptor{Digest: a.Digest})
}

// signatures returns the Image's signatures as JSON, "none" without an Image.
func (h *house) signatures(name digest.Digest) string {
	h.t.Helper()
	image, err := h.catalog.Get(h.t.Context(), name)
	if err != nil {
		return "none"
	}
	content, err := json.Marshal(image.Signatures)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(content)
}

// item is one thing that a registry may hold, or not.
type item struct {
	repository, tag string
	artifact        signtest.Artifact
}

// signingItems are an image's signatures in all the ways, some of them twice.
func signingItems(t *testing.T, key *signtest.Key, image digest.Digest) []item {
	t.Helper()
	stranger := signtest.NewKey(t, "ed25519ph")
	payload := signtest.CosignPayload(image, "registry.example.com/app", nil)
	one, two := key.Cosign(payload), stranger.Cosign(payload)
	bundle := key.Bundle(signtest.Statement(image, signatures.PredicateCosignSign, nil))
	attestation := key.Bundle(signtest.Statement(image, "https://slsa.dev/provenance/v1", nil))
	notation := signtest.NewNotation(t, "team").Sign(signatures.TypeNotaryJWS, image, 0, nil)
	return []item{
		{"app", signtest.ClassicTag(image), signtest.Classic(one, two)},
		{"app", "", signtest.ClassicReferrer(image, one)}, // the same signature by another way
		{"app", "", signtest.Referrer(image, bundle)},
		{"signed/elsewhere", "", signtest.Referrer(image, bundle)},
		{"signed/elsewhere", signtest.ClassicTag(image), signtest.Classic(two)},
		{"app", "", signtest.Referrer(image, attestation)},
		{"app", "", signtest.Referrer(image, notation)},
	}
}

func (h *house) put(i item) error { return h.pushArtifact(i.repository, i.tag, i.artifact) }

// take removes an item as clients do: a classic signature by its tag.
func (h *house) take(i item) error {
	if i.tag != "" {
		return h.repository(h.namespace, i.repository).Tags(h.t.Context()).Untag(h.t.Context(), i.tag)
	}
	return h.remove(i.repository, i.artifact.Digest)
}

// TestSignaturesConverge: in every order of pushes and deletions of images and signatures, the
// Image ends with the same bytes.
func TestSignaturesConverge(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	reference := newSigningHouse(t, key)
	image := reference.mustPush("app", "v1", "somebody")
	items := signingItems(t, key, image)
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		subset := map[int]bool{}
		for i := range items {
			if random.IntN(3) > 0 {
				subset[i] = true
			}
		}
		want := expectedSignatures(t, key, items, subset)
		h := newSigningHouse(t, key)
		steps := convergenceSteps(h, random, items, subset)
		for _, step := range steps {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.signatures(image); got != want {
			t.Fatalf("round %d, seed %d: signatures are\n%s\nwant\n%s", round, seed, got, want)
		}
		h.check(signedItems(items))
	}
}

// expectedSignatures is the result of a registry that got the subset in order.
func expectedSignatures(t *testing.T, key *signtest.Key, items []item, subset map[int]bool) string {
	t.Helper()
	h := newSigningHouse(t, key)
	image := h.mustPush("app", "v1", "somebody")
	for _, i := range slices.Sorted(maps.Keys(subset)) {
		if err := h.put(items[i]); err != nil {
			t.Fatal(err)
		}
	}
	return h.signatures(image)
}

// convergenceSteps put everything, in a random order and some of it twice, with the image
// among it, and remove everything outside the subset; in between processes start anew.
func convergenceSteps(h *house, random *rand.Rand, items []item, subset map[int]bool) []func() error {
	var steps []func() error
	push := func() error { _, err := h.push("app", "v1", "somebody"); return err }
	for i := range items {
		steps = append(steps, func() error { return h.put(items[i]) })
		if random.IntN(2) == 0 {
			steps = append(steps, func() error { return h.put(items[i]) })
		}
	}
	steps = append(steps, push, push, func() error { h.resync(); return nil })
	random.Shuffle(len(steps), func(a, b int) { steps[a], steps[b] = steps[b], steps[a] })
	for _, i := range random.Perm(len(items)) {
		if !subset[i] {
			steps = append(steps, func() error { return h.take(items[i]) })
		}
	}
	return append(steps, func() error { h.resync(); h.tracker.Drain(h.t.Context()); return nil })
}

func signedItems(items []item) []digest.Digest {
	var all []digest.Digest
	for _, i := range items {
		all = append(all, i.artifact.Digest)
	}
	return all
}

// check wants no Image of a signature.
func (h *house) check(signing []digest.Digest) {
	h.t.Helper()
	for _, d := range signing {
		if image, err := h.catalog.Get(h.t.Context(), d); err == nil {
			h.t.Errorf("%s has an Image of its own: %v", d, image.Annotations)
		}
	}
}

// TestConcurrentSigners: signatures that come and go at the same time end as the
// registry has them.
func TestConcurrentSigners(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	h := newSigningHouse(t, key)
	image := h.mustPush("app", "v1", "somebody")
	items := signingItems(t, key, image)
	subset := map[int]bool{}
	var all sync.WaitGroup
	for i := range items {
		subset[i] = i%2 == 0
		if !subset[i] {
			delete(subset, i)
		}
		all.Go(func() {
			for range 4 {
				if err := h.put(items[i]); err != nil {
					t.Error(err)
				}
				if err := h.take(items[i]); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				if err := h.put(items[i]); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			if _, err := h.push("app", fmt.Sprint("t", i), "somebody"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, want := h.signatures(image), expectedSignatures(t, key, items, subset); got != want {
		t.Errorf("signatures are\n%s\nwant\n%s", got, want)
	}
}

// TestPostedSignatures: a posted signature keeps its name through all derivations of the
// registry, and a derived signature cannot be changed through the API.
func TestPostedSignatures(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	h := newSigningHouse(t, key)
	image := h.mustPush("app", "v1", "somebody")
	ctx := context.Background()
	bundle := key.Bundle(signtest.Statement(image, signatures.PredicateCosignSign, nil))
	posted := &imagev1.ImageSignature{Type: bundle.Type, Content: bundle.Content}
	posted.Name = image.String() + "@mine"
	if err := h.catalog.PutSignature(ctx, "app", posted); err != nil {
		t.Fatal(err)
	}
	if got := h.signatures(image); !strings.Contains(got, "@mine") || !strings.Contains(got, `"reason":"Verified"`) {
		t.Errorf("posted: %s", got)
	}
	// The same by way of the registry is not listed twice.
	referrer := signtest.Referrer(image, bundle)
	if err := h.pushArtifact("app", "", referrer); err != nil {
		t.Fatal(err)
	}
	other := key.Bundle(signtest.Statement(image, signatures.PredicateCosignSign, map[string]any{"n": "2"}))
	if err := h.pushArtifact("app", "", signtest.Referrer(image, other)); err != nil {
		t.Fatal(err)
	}
	if got := h.signatures(image); strings.Count(got, `"type":"SigstoreBundleV1"`) != 2 {
		t.Errorf("with the same and another pushed: %s", got)
	}
	if err := h.remove("app", referrer.Digest); err != nil {
		t.Fatal(err)
	}
	if got := h.signatures(image); !strings.Contains(got, "@mine") {
		t.Errorf("the posted one went with the manifest: %s", got)
	}
}

// TestPutSignatures: a signature that is put into repositories leaves with the last of them. A
// client cannot change them through the API, and a signature that is posted there stays.
func TestPutSignatures(t *testing.T) {
	h := newSigningHouse(t, signtest.NewKey(t, "ecdsa-p256"))
	image := h.mustPush("a", "v1", "somebody")
	for _, repository := range []string{"b", "stays"} {
		h.mustPush(repository, "v1", "somebody")
	}
	get := func() *imagev1.Image {
		t.Helper()
		got, err := h.catalog.Get(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	put := func(repository, name, content string) error {
		s := &imagev1.ImageSignature{Type: signatures.TypeAtomic, Content: []byte(content)}
		s.Name = image.String() + "@" + name
		return h.catalog.PutSignature(t.Context(), repository, s)
	}
	names := func() string {
		var all []string
		for _, s := range get().Signatures {
			_, name, _ := strings.Cut(s.Name, "@")
			all = append(all, name+" "+s.Annotations[rules.AnnotationRepositories])
		}
		return strings.Join(all, ", ")
	}
	for _, step := range []struct {
		repository, name, content string
		fails                     func(error) bool
	}{
		{"a", "one", "1", nil},
		{"a", "one", "1", apierrors.IsAlreadyExists},
		{"a", "again", "1", apierrors.IsAlreadyExists},
		{"b", "again", "1", nil},
		{"b", "one", "other", apierrors.IsAlreadyExists},
		{"b", "two", "2", nil},
		{"none", "three", "3", apierrors.IsNotFound},
	} {
		if err := put(step.repository, step.name, step.content); err != nil && (step.fails == nil || !step.fails(err)) || err == nil && step.fails != nil {
			t.Errorf("%+v: %v", step, err)
		}
	}
	posted := imagetest.Signature(image.String()+"@posted", nil)
	if _, err := rest.NewImageSignatures(h.images, h.catalog).Create(request.WithNamespace(t.Context(), ""), &posted, nil, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), "one a,b, two b, posted "; got != want {
		t.Errorf("signatures are %q, want %q", got, want)
	}
	client := get()
	client.Labels = map[string]string{"a": "b"}
	client.Signatures[0].Annotations, client.Signatures[2].Annotations = nil, map[string]string{rules.AnnotationRepositories: "a"}
	if _, _, err := h.images.Update(request.WithNamespace(t.Context(), ""), client.Name, k8srest.DefaultUpdatedObjectInfo(client), nil, nil, false, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), "one a,b, two b, posted "; got != want {
		t.Errorf("after a client's update signatures are %q, want %q", got, want)
	}
	for _, step := range [][2]string{{"a", "one b, two b, posted "}, {"b", "posted "}} {
		if err := h.remove(step[0], image); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != step[1] {
			t.Errorf("without %s signatures are %q, want %q", step[0], got, step[1])
		}
	}
	for n := range rules.MaxRepositorySignatures + 1 {
		err := put("stays", fmt.Sprint(n), fmt.Sprint("content ", n))
		if full := n == rules.MaxRepositorySignatures; full != apierrors.IsInvalid(err) || !full && err != nil {
			t.Errorf("signature %d: %v", n, err)
		}
	}
}

// TestOldSignatureImages: Images that signature manifests had before go at start, and their
// references are recorded.
func TestOldSignatureImages(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	h := newSigningHouse(t, key)
	image := h.mustPush("app", "v1", "somebody")
	referrer := signtest.Referrer(image, key.Bundle(signtest.Statement(image, signatures.PredicateCosignSign, nil)))
	classic := signtest.Classic(key.Cosign(signtest.CosignPayload(image, "registry.example.com/app", nil)))
	h.namespace, h.plain = h.plain, h.namespace // an old server
	if err := h.pushArtifact("app", "", referrer); err != nil {
		t.Fatal(err)
	}
	if err := h.pushArtifact("app", signtest.ClassicTag(image), classic); err != nil {
		t.Fatal(err)
	}
	h.namespace, h.plain = h.plain, h.namespace
	for _, a := range []signtest.Artifact{referrer, classic} {
		parsed, err := manifest.Parse("", a.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		push := catalog.Push{Repository: "app", Digest: a.Digest, Manifest: parsed}
		derived, err := h.catalog.Derive(push)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.catalog.Record(t.Context(), push, derived); err != nil {
			t.Fatal(err)
		}
	}
	h.resync()
	h.check([]digest.Digest{referrer.Digest, classic.Digest})
	if got := h.signatures(image); !strings.Contains(got, signatures.TypeCosign) || !strings.Contains(got, signatures.TypeBundle) {
		t.Errorf("signatures are %s", got)
	}
}

// TestSignaturesWithoutStore: a signature that could not be recorded is recorded when
// the store is back, and one that is deleted meanwhile goes.
func TestSignaturesWithoutStore(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	h := newSigningHouse(t, key)
	image := h.mustPush("app", "v1", "somebody")
	first := signtest.Referrer(image, key.Bundle(signtest.Statement(image, signatures.PredicateCosignSign, nil)))
	second := signtest.Classic(key.Cosign(signtest.CosignPayload(image, "registry.example.com/app", nil)))
	if err := h.pushArtifact("app", "", first); err != nil {
		t.Fatal(err)
	}
	h.store.down.Store(true)
	if err := h.pushArtifact("app", signtest.ClassicTag(image), second); err != nil {
		t.Fatal(err)
	}
	if err := h.remove("app", first.Digest); err != nil {
		t.Fatal(err)
	}
	h.store.down.Store(false)
	h.tracker.Drain(t.Context())
	got := h.signatures(image)
	if strings.Count(got, `"type":`) != 3 || !strings.Contains(got, signatures.TypeCosign) || strings.Contains(got, signatures.TypeBundle) { // two are the conditions'
		t.Errorf("signatures are %s", got)
	}
}
