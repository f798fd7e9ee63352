package rest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// watched is a store that knows whether it is at work on a commit.
type watched struct {
	storage.Backend
	mu      sync.Mutex
	commits int
	reads   []string // keys
	before  func()   // once, before a commit
}

func (w *watched) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	w.mu.Lock()
	w.reads = append(w.reads, req.Keys...)
	w.mu.Unlock()
	return w.Backend.Get(ctx, req)
}

func (w *watched) Commit(ctx context.Context, m ...storage.Mutation) (*storage.CommitResult, error) {
	w.mu.Lock()
	before := w.before
	w.before = nil
	w.commits++
	w.mu.Unlock()
	if before != nil {
		before()
	}
	return w.Backend.Commit(ctx, m...)
}

// counting trusts every signature and counts its work.
type counting struct {
	calls  int
	during func()
}

func (c *counting) Refresh(context.Context) {}

func (c *counting) Verify(_ context.Context, r *VerifyRequest) *Verdict {
	image := r.Image
	c.calls++
	if c.during != nil {
		c.during()
	}
	for i := range image.Signatures {
		image.Signatures[i].Conditions = []imagev1.SignatureCondition{{Type: "Trusted", Status: "True", Reason: "Verified"}, {Type: "ForImage", Status: "True", Reason: "DigestMatches"}}
		image.Signatures[i].SignedClaims = map[string]string{"n": fmt.Sprint(len(image.Signatures))}
	}
	return &Verdict{Trusted: rules.Repositories(image)}
}

func newWatched(t *testing.T) (*Images, *watched, *counting) {
	t.Helper()
	backend, verifier := &watched{Backend: memory.New(memory.Options{})}, &counting{}
	images, err := NewImages(backend, verifier)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	return images, backend, verifier
}

func (i *Images) mustCreate(t *testing.T, image *imagev1.Image) *imagev1.Image {
	t.Helper()
	obj, err := i.Create(internal(t.Context()), image, nil, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*imagev1.Image)
}

func signed(names ...string) func(*imagev1.Image) {
	return func(i *imagev1.Image) {
		for _, name := range names {
			i.Signatures = append(i.Signatures, imagetest.Signature(i.Name+"@"+name, func(s *imagev1.ImageSignature) { s.Content = []byte(name) }))
		}
	}
}

// TestDeletionReadsOnce: the finalizers and the preconditions of an Image are judged by one reading of it.
func TestDeletionReadsOnce(t *testing.T) {
	images, backend, _ := newWatched(t)
	images.mustCreate(t, imagetest.Image("a", nil))
	backend.reads = nil
	if _, _, err := images.Delete(internal(t.Context()), "a", k8srest.ValidateAllObjectFunc, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(backend.reads, func(key string) bool { return key != Key("a") })); n != 1 {
		t.Errorf("the Image was read %d times, want once", n)
	}
}

// TestVerifiedOnce: a write with signatures verifies them once, outside of the store and of the
// steps that the store repeats.
func TestVerifiedOnce(t *testing.T) {
	images, backend, verifier := newWatched(t)
	verifier.during = func() {
		if stack := string(debug.Stack()); strings.Contains(stack, "GuaranteedUpdate") || strings.Contains(stack, "PrepareFor") {
			t.Errorf("signatures are verified inside of a write:\n%s", stack)
		}
	}
	image := images.mustCreate(t, imagetest.Image("a", signed("one", "two")))
	if verifier.calls != 1 || backend.commits != 1 || len(image.Signatures[1].Conditions) != 2 || image.Signatures[1].SignedClaims["n"] != "2" {
		t.Errorf("%d verifications, %d commits, %+v", verifier.calls, backend.commits, image.Signatures)
	}
	err := images.Change(t.Context(), "a", false, func(_ context.Context, image *imagev1.Image) error {
		rules.AddRepository(image, "app")
		return nil
	})
	if err != nil || verifier.calls != 2 || backend.commits != 2 {
		t.Errorf("%d verifications, %d commits, %v", verifier.calls, backend.commits, err)
	}
	plain := images.mustCreate(t, imagetest.Image("b", nil))
	if verifier.calls != 2 || plain.Annotations[rules.AnnotationTrusted] != "" {
		t.Errorf("an Image without signatures is verified: %d", verifier.calls)
	}
}

// TestVerifiedAgain: another write comes between the verification and the commit. All signatures
// that are written are verified.
func TestVerifiedAgain(t *testing.T) {
	images, backend, verifier := newWatched(t)
	images.mustCreate(t, imagetest.Image("a", signed("one")))
	add := func(name string) error {
		return images.Change(t.Context(), "a", false, func(_ context.Context, image *imagev1.Image) error {
			signed(name)(image)
			return nil
		})
	}
	backend.before = func() {
		if err := add("between"); err != nil {
			t.Error(err)
		}
	}
	verifier.calls = 0
	if err := add("two"); err != nil {
		t.Fatal(err)
	}
	image, err := images.Image(t.Context(), "a")
	if err != nil || len(image.Signatures) != 3 || verifier.calls != 3 {
		t.Fatalf("%d verifications, %+v, %v", verifier.calls, image, err)
	}
	for _, s := range image.Signatures {
		if s.SignedClaims["n"] != "3" {
			t.Errorf("signature %s was verified beside %s others", s.Name, s.SignedClaims["n"])
		}
	}
}

// TestErrorsOfWrites: an invalid object is refused in its own words, not for its signatures.
func TestErrorsOfWrites(t *testing.T) {
	images, _, verifier := newWatched(t)
	invalid := imagetest.Image("a", signed("one"))
	invalid.DockerImageReference = ""
	if _, err := images.Create(internal(t.Context()), invalid, nil, &metav1.CreateOptions{}); err == nil || strings.Contains(err.Error(), "verified") {
		t.Errorf("an invalid Image: %v", err)
	}
	images.mustCreate(t, imagetest.Image("a", signed("one")))
	verifier.calls = 0
	failure := errors.New("refused")
	if err := images.Change(t.Context(), "a", false, func(context.Context, *imagev1.Image) error { return failure }); !errors.Is(err, failure) || verifier.calls != 0 {
		t.Errorf("%d verifications, %v", verifier.calls, err)
	}
}

// TestDerivedOnce: one write of a client parses its manifest once and derives once.
func TestDerivedOnce(t *testing.T) {
	whole := func(i *imagev1.Image) {
		i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
	}
	for name, change := range map[string]func(*imagev1.Image){
		"whole": whole,
		"stored": func(i *imagev1.Image) {
			whole(i)
			i.Annotations = map[string]string{derive.AnnotationBlobStored: "true"}
		},
	} {
		w := &write{}
		ctx := context.WithValue(t.Context(), writeKey{}, w)
		image := imagetest.Image(imagetest.ManifestDigest, change)
		clientStrategy{}.PrepareForCreate(ctx, image)
		if errs := (clientStrategy{}).Validate(ctx, image); len(errs) > 0 {
			t.Fatal(errs.ToAggregate())
		}
		if w.content.Parses != 1 || w.content.Derivations != 1 {
			t.Errorf("%s, created: parsed %d times, derived %d times", name, w.content.Parses, w.content.Derivations)
		}
		w = &write{}
		ctx = context.WithValue(t.Context(), writeKey{}, w)
		before := imagetest.Image(imagetest.ManifestDigest, nil)
		before.ResourceVersion, image.ResourceVersion = "1", "1"
		updated := imagetest.Image(imagetest.ManifestDigest, change)
		updated.ResourceVersion = "1"
		clientStrategy{}.PrepareForUpdate(ctx, updated, before)
		if errs := (clientStrategy{}).ValidateUpdate(ctx, updated, before); len(errs) > 0 {
			t.Fatal(errs.ToAggregate())
		}
		if w.content.Parses != 1 || w.content.Derivations != 1 {
			t.Errorf("%s, updated: parsed %d times, derived %d times", name, w.content.Parses, w.content.Derivations)
		}
	}
}

// TestStoredIndex: entries of an index that the registry has may lack a platform, as those of an
// index in the Image.
func TestStoredIndex(t *testing.T) {
	images, _, _ := newWatched(t)
	for i, stored := range []string{"", "true"} {
		image := imagetest.Image(fmt.Sprint("index", i), func(i *imagev1.Image) {
			i.DockerImageManifest, i.Annotations = imagetest.Index, map[string]string{derive.AnnotationBlobStored: stored}
		})
		if got := images.mustCreate(t, image); len(got.DockerImageManifests) != 1 || (got.DockerImageManifest == "") != (stored == "true") {
			t.Errorf("stored %q: %+v", stored, got)
		}
		// A copy of the Image, as from a backup, has the entries without the manifest.
		again := imagetest.Image(fmt.Sprint("again", i), func(i *imagev1.Image) {
			i.DockerImageManifests = []imagev1.ImageManifest{{Digest: imagetest.Layer, MediaType: imagespec.MediaTypeImageManifest}}
			i.DockerImageManifestMediaType, i.Annotations = imagespec.MediaTypeImageIndex, map[string]string{derive.AnnotationBlobStored: stored}
		})
		if _, err := images.Create(internal(t.Context()), again, nil, &metav1.CreateOptions{}); (err == nil) != (stored == "true") {
			t.Errorf("stored %q, a copy: %v", stored, err)
		}
	}
}

// TestStrategies: a client cannot write the server's annotations, the registry can.
func TestStrategies(t *testing.T) {
	images, _, _ := newWatched(t)
	images.mustCreate(t, imagetest.Image("a", nil))
	note := func(image *imagev1.Image) { rules.AddRepository(image, "app") }
	info := k8srest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		image := old.DeepCopyObject().(*imagev1.Image)
		image.Annotations = map[string]string{}
		note(image)
		return image, nil
	})
	if _, _, err := images.Update(internal(t.Context()), "a", info, nil, nil, false, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if image, err := images.Image(t.Context(), "a"); err != nil || len(rules.Repositories(image)) != 0 {
		t.Errorf("after a client's write: %v, %v", image, err)
	}
	err := images.Change(t.Context(), "a", false, func(_ context.Context, image *imagev1.Image) error {
		image.Annotations = map[string]string{}
		note(image)
		return nil
	})
	if image, getErr := images.Image(t.Context(), "a"); err != nil || getErr != nil || len(rules.Repositories(image)) != 1 {
		t.Errorf("after the registry's write: %v, %v, %v", image, err, getErr)
	}
}

// TestSignatureAnswers: a signature is in its Image without kind and version, and a missing Image
// is named as one.
func TestSignatureAnswers(t *testing.T) {
	images, _, _ := newWatched(t)
	images.mustCreate(t, imagetest.Image("a", nil))
	api := NewImageSignatures(images, nil)
	post := func(name string) error {
		s := imagetest.Signature(name, func(s *imagev1.ImageSignature) {
			s.TypeMeta = metav1.TypeMeta{Kind: "ImageSignature", APIVersion: "image.openshift.io/v1"}
		})
		_, err := api.Create(internal(t.Context()), &s, nil, &metav1.CreateOptions{})
		return err
	}
	if err := post("a@b"); err != nil {
		t.Fatal(err)
	}
	if image, err := images.Image(t.Context(), "a"); err != nil || image.Signatures[0].Kind != "" || image.Signatures[0].APIVersion != "" {
		t.Errorf("%+v, %v", image, err)
	}
	if err := post("none@b"); err == nil || err.Error() != `images.image.openshift.io "none" not found` {
		t.Errorf("without its Image: %v", err)
	}
	if _, _, err := api.Delete(internal(t.Context()), "none@b", nil, &metav1.DeleteOptions{}); err == nil || err.Error() != `images.image.openshift.io "none" not found` {
		t.Errorf("deletion without its Image: %v", err)
	}
	if _, _, err := api.Delete(internal(t.Context()), "a@none", nil, &metav1.DeleteOptions{}); err == nil || err.Error() != `imageSignatures.image.openshift.io "a@none" not found` {
		t.Errorf("deletion of none: %v", err)
	}
	if err := post("a@" + strings.Repeat("b", 511)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "may not be more than 512 bytes") {
		t.Errorf("a long name: %v", err)
	}
	image, err := images.Image(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for version, conflicts := range map[string]bool{"1": true, image.ResourceVersion: false} {
		o := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}, DryRun: []string{metav1.DryRunAll}}
		if _, _, err := api.Delete(internal(t.Context()), "a@b", nil, o); apierrors.IsConflict(err) != conflicts || !conflicts && err != nil {
			t.Errorf("deletion at %s: %v", version, err)
		}
	}
}

// TestDeletionPolicies: with a garbage collector a deletion leaves its finalizer; without one, the
// Image goes whatever the policy.
func TestDeletionPolicies(t *testing.T) {
	for _, collected := range []bool{true, false} {
		for policy, finalizer := range map[metav1.DeletionPropagation]string{
			metav1.DeletePropagationOrphan: "orphan", metav1.DeletePropagationForeground: "foregroundDeletion", metav1.DeletePropagationBackground: "",
		} {
			images, _, _ := newWatched(t)
			if collected {
				images.EnableGarbageCollection()
			}
			name := images.mustCreate(t, imagetest.Image("a", nil)).Name
			ctx, nothing := internal(t.Context()), func(context.Context, runtime.Object) error { return nil }
			if _, _, err := images.Delete(ctx, name, nothing, &metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			image, err := images.Image(ctx, name)
			if !collected || finalizer == "" {
				if !apierrors.IsNotFound(err) {
					t.Errorf("%s, %t: %+v, %v", policy, collected, image, err)
				}
				continue
			}
			if err != nil || image.DeletionTimestamp == nil || !slices.Equal(image.Finalizers, []string{finalizer}) {
				t.Errorf("%s: %v, %+v", policy, err, image)
			}
		}
	}
}
