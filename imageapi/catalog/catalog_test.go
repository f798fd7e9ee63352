package catalog

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/memory"
)

// trusting trusts signatures whose content starts with "good", of the signer that comes next
// in it.
type trusting struct{}

func (trusting) Refresh(context.Context) {}

func (trusting) Verify(_ context.Context, r *rest.VerifyRequest) *rest.Verdict {
	image, verdict := r.Image, &rest.Verdict{}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		if !signatures.Known(s.Type) {
			continue
		}
		s.Conditions = []imagev1.SignatureCondition{{Type: "Trusted", Status: "False", Reason: "KeyNotTrusted"}, {Type: "ForImage", Status: "True"}}
		s.IssuedTo = nil
		if who, ok := strings.CutPrefix(string(s.Content), "good "); ok {
			s.Conditions[0].Status = "True"
			s.IssuedTo = &imagev1.SignatureSubject{SignatureGenericEntity: imagev1.SignatureGenericEntity{CommonName: who}, PublicKeyID: "id of " + who}
			verdict.Trusted = rules.Repositories(image)
		}
		if strings.HasPrefix(string(s.Content), "not of this image") {
			s.Conditions[1].Status = "False"
		}
	}
	return verdict
}

type signingHouse struct {
	t       *testing.T
	w       *Catalog
	images  *rest.Images
	backend storage.Backend
	subject digest.Digest

	indexing func() // not nil once the index is maintained
}

func newSigningHouse(t *testing.T, o SignatureOptions) *signingHouse {
	t.Helper()
	backend, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	w, images := open(t, backend, o)
	return &signingHouse{t: t, w: w, images: images, backend: backend, subject: digest.Digest(imagetest.ManifestDigest)}
}

// open opens a Catalog on backend that trusts good signatures.
func open(t *testing.T, backend storage.Backend, o SignatureOptions) (*Catalog, *rest.Images) {
	t.Helper()
	images, err := rest.NewImages(backend, trusting{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	return New(Options{Backend: backend, Images: images, Referrers: referrers.NewStore(backend), Signatures: o}), images
}

// push records the image in a repository.
func (h *signingHouse) push(repository string) {
	h.t.Helper()
	p := Push{Repository: repository, Digest: h.subject, Manifest: parse(h.t, imagetest.Manifest), Config: []byte(imagetest.Config)}
	derived, err := h.w.Derive(p)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.w.Record(h.t.Context(), p, derived); err != nil {
		h.t.Fatal(err)
	}
}

// sign stores signatures that a repository holds, and brings the Image up to date.
func (h *signingHouse) sign(repository string, contents ...string) *referrers.Referrer {
	h.t.Helper()
	r := &referrers.Referrer{Subject: h.subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.FromString(fmt.Sprint(repository, contents))}}
	for _, content := range contents {
		r.Signatures = append(r.Signatures, signatures.Signature{Type: signatures.TypeBundle, Content: []byte(content)})
	}
	if err := h.w.Refer(h.t.Context(), Reference{Referrer: r}); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// forget removes a referrer, and leaves the Image as it is.
func (h *signingHouse) forget(r *referrers.Referrer) {
	h.t.Helper()
	b := &storage.Batch{}
	if err := h.w.referrers.Remove(h.t.Context(), b, r); err != nil {
		h.t.Fatal(err)
	}
	if committed, err := b.Commit(h.t.Context(), h.backend); err != nil || !committed {
		h.t.Fatal(committed, err)
	}
}

func (h *signingHouse) image() *imagev1.Image {
	h.t.Helper()
	image, err := h.w.Get(h.t.Context(), h.subject)
	if err != nil {
		h.t.Fatal(err)
	}
	return image
}

func contents(image *imagev1.Image) string {
	var all []string
	for _, s := range image.Signatures {
		all = append(all, string(s.Content))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// TestDerivedSignatures: entries come and go with the content of repositories.
func TestDerivedSignatures(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.sign("app", "good a", "b") // before there is an Image
	h.push("app")
	if got := h.image(); contents(got) != "b,good a" || got.Annotations[rules.AnnotationTrusted] != "app" {
		t.Errorf("signatures are %s, trusted in %q", contents(got), got.Annotations[rules.AnnotationTrusted])
	}
	elsewhere := h.sign("other", "good a", "c")
	if got := contents(h.image()); got != "b,c,good a" {
		t.Errorf("with another repository: %s", got)
	}
	before := h.image().ResourceVersion
	h.sign("app", "good a", "b")
	if after := h.image().ResourceVersion; after != before {
		t.Errorf("signing again went from %s to %s", before, after)
	}
	if err := h.w.Refer(t.Context(), Reference{elsewhere, true}); err != nil {
		t.Fatal(err)
	}
	if got := contents(h.image()); got != "b,good a" {
		t.Errorf("without it: %s", got)
	}
	// At start and by period all are refreshed.
	h.forget(&referrers.Referrer{Subject: h.subject, Repository: "app", Descriptor: imagespec.Descriptor{Digest: digest.FromString(fmt.Sprint("app", []string{"good a", "b"}))}})
	if err := h.w.RefreshSignatures(t.Context(), h.subject); err != nil || contents(h.image()) != "" || h.image().Annotations[rules.AnnotationTrusted] != "" {
		t.Errorf("after a refresh: %s, %v", contents(h.image()), err)
	}
}

// TestTooManySignatures: those of the image's own repositories come first, and omitted ones
// are counted.
func TestTooManySignatures(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{Limits: signatures.Limits{PerImage: 3}})
	h.push("app")
	h.sign("attacker", "1", "2", "3", "4", "5")
	h.sign("app", "good a", "good b")
	got := h.image()
	if !strings.HasSuffix(contents(got), "good a,good b") || len(got.Signatures) != 3 || got.Annotations[rules.AnnotationSignaturesOmitted] != "4" {
		t.Errorf("signatures are %s, omitted %q", contents(got), got.Annotations[rules.AnnotationSignaturesOmitted])
	}
	own := newSigningHouse(t, SignatureOptions{OwnRepositoriesOnly: true})
	own.push("app")
	own.sign("attacker", "1")
	own.sign("app", "good a")
	if got := contents(own.image()); got != "good a" {
		t.Errorf("of its own repositories: %s", got)
	}
}

// TestTrustedFirst: a trusted signature is on the Image, however many others there are in another
// repository that holds the image, and under any names.
func TestTrustedFirst(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{Limits: signatures.Limits{PerImage: 8}})
	h.push("app")
	h.push("evil")
	var junk []string
	for i := range 100 {
		junk = append(junk, fmt.Sprint("junk ", i))
	}
	h.sign("evil", junk...)
	h.sign("app", "good a", "bad")
	got := h.image()
	if !strings.Contains(contents(got), "good a") || len(got.Signatures) != 8 || got.Annotations[rules.AnnotationSignaturesOmitted] != "94" {
		t.Errorf("signatures are %s, omitted %q", contents(got), got.Annotations[rules.AnnotationSignaturesOmitted])
	}
	// Within one repository, trusted signatures are among the candidates: twice as many as fit.
	lone := newSigningHouse(t, SignatureOptions{Limits: signatures.Limits{PerImage: 3}})
	lone.push("app")
	lone.sign("app", "a", "b", "good c", "d", "good e", "f")
	if got := contents(lone.image()); !strings.Contains(got, "good c,good e") || strings.Count(got, ",") != 2 {
		t.Errorf("signatures are %s", got)
	}
	before := lone.image()
	lone.push("app")
	if after := lone.image(); after.ResourceVersion != before.ResourceVersion {
		t.Error("the same push again has changed the Image")
	}
}

// TestBrokenReferrer: a record that cannot be read keeps no image from being recorded.
func TestBrokenReferrer(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	key := referrers.Prefix + h.subject.String() + "/app@" + h.subject.String()
	if _, err := h.backend.Commit(t.Context(), storage.Mutation{Operation: storage.Put, Key: key, Value: storage.Body([]byte("{broken"))}); err != nil {
		t.Fatal(err)
	}
	h.sign("app", "good a")
	h.push("app")
	if got := contents(h.image()); got != "good a" {
		t.Errorf("signatures are %s", got)
	}
}

// TestHugeSignatures: an Image does not grow without bound.
func TestHugeSignatures(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	for i := range 6 {
		h.sign("app", fmt.Sprint(i)+strings.Repeat("x", 250<<10))
	}
	if got := h.image(); len(got.Signatures) != 4 || got.Annotations[rules.AnnotationSignaturesOmitted] != "2" {
		t.Errorf("%d signatures, %s omitted", len(got.Signatures), got.Annotations[rules.AnnotationSignaturesOmitted])
	}
}

// update writes the result of change on the Image, as a client does.
func (h *signingHouse) update(change func(*imagev1.Image)) (*imagev1.Image, error) {
	h.t.Helper()
	image := h.image()
	change(image)
	ctx := request.WithNamespace(h.t.Context(), "")
	obj, _, err := h.images.Update(ctx, image.Name, k8srest.DefaultUpdatedObjectInfo(image), nil, nil, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*imagev1.Image), nil
}

// TestClientsAndDerivedSignatures: a client can neither change nor delete derived signatures,
// and its own additions stay its own.
func TestClientsAndDerivedSignatures(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	h.sign("app", "good a")
	derived := h.image().Signatures[0]
	image, err := h.update(func(i *imagev1.Image) {
		i.Signatures = []imagev1.ImageSignature{{ObjectMeta: metav1.ObjectMeta{Name: i.Name + "@mine"}, Type: "x/custom", Content: []byte("y")}}
	})
	if err != nil || contents(image) != "good a,y" {
		t.Fatalf("after a client's update: %v, %v", image, err)
	}
	if image, err = h.update(func(i *imagev1.Image) { i.Signatures[1].Content, i.Signatures[1].IssuedTo = []byte("good evil"), nil }); err != nil || contents(image) != "good a,y" {
		t.Errorf("after a client changed a derived one: %s, %v", contents(image), err)
	}
	// oc adm verify-image-signature --save empties signatures that are not GPG's.
	if image, err = h.update(func(i *imagev1.Image) { i.Signatures[1] = imagev1.ImageSignature{} }); err != nil || contents(image) != "good a,y" {
		t.Errorf("after a client emptied a derived one: %v, %v", image, err)
	}
	// A client may post a signature with the name of a derived one; it is the client's.
	posted := signatures.Signature{Type: signatures.TypeBundle, Content: []byte("posted")}
	image, err = h.update(func(i *imagev1.Image) {
		i.Signatures = append(i.Signatures, imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: signatures.Name(h.subject, posted)}, Type: posted.Type, Content: posted.Content})
	})
	if err != nil || contents(image) != "good a,posted,y" {
		t.Fatalf("after a client posted: %v, %v", image, err)
	}
	if err := h.w.RefreshSignatures(t.Context(), h.subject); err != nil || contents(h.image()) != "good a,posted,y" {
		t.Errorf("after the next derivation: %s, %v", contents(h.image()), err)
	}
	ctx := request.WithNamespace(context.Background(), "")
	api := rest.NewImageSignatures(h.images, h.w)
	if _, _, err := api.Delete(ctx, derived.Name, nil, &metav1.DeleteOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "delete it there") {
		t.Errorf("deletion of a derived one: %v", err)
	}
	// The registry holds a signature that a client has posted: then it is not listed twice,
	// and is still there when the client deletes its own.
	h.sign("more", "posted")
	if got := contents(h.image()); got != "good a,posted,y" {
		t.Errorf("posted and pushed: %s", got)
	}
	if _, _, err := api.Delete(ctx, signatures.Name(h.subject, posted), nil, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := contents(h.image()); got != "good a,posted,y" {
		t.Errorf("after the client deleted its own: %s", got)
	}
}

// TestPostedUnderDerivedName: a client cannot keep a signature of the registry away by posting
// other content under the name that it will have.
func TestPostedUnderDerivedName(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	pushed := h.sign("app", "good a")
	derived := h.image().Signatures[0]
	unsign := func() {
		if err := h.w.Refer(t.Context(), Reference{pushed, true}); err != nil {
			t.Fatal(err)
		}
	}
	unsign()
	api := rest.NewImageSignatures(h.images, h.w)
	junk := &imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: derived.Name}, Type: derived.Type, Content: []byte("junk")}
	if _, err := api.Create(request.WithNamespace(t.Context(), ""), junk, nil, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.sign("app", "good a")
	for range 2 { // the result is the same each time
		image := h.image()
		if contents(image) != "good a,junk" || image.Signatures[0].Name == image.Signatures[1].Name || image.Annotations[rules.AnnotationTrusted] != "app" {
			t.Fatalf("%s, trusted in %q", contents(image), image.Annotations[rules.AnnotationTrusted])
		}
		if err := h.w.RefreshSignatures(t.Context(), h.subject); err != nil {
			t.Fatal(err)
		}
	}
	unsign()
	if got := contents(h.image()); got != "junk" {
		t.Errorf("without the registry's: %s", got)
	}
}

// interrupted is a store in which something happens just before an Image is written.
type interrupted struct {
	storage.Backend
	before func()
}

func (i *interrupted) Commit(ctx context.Context, m ...storage.Mutation) (*storage.CommitResult, error) {
	if before := i.before; before != nil && slices.ContainsFunc(m, func(m storage.Mutation) bool { return strings.HasPrefix(m.Key, rest.KeyPrefix) }) {
		i.before = nil
		before()
	}
	return i.Backend.Commit(ctx, m...)
}

// TestSignatureComesBackMeanwhile: one process takes off a signature that is gone, and
// another finds that it is back and the Image has it still.
func TestSignatureComesBackMeanwhile(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	r := h.sign("app", "good a")
	h.forget(r)
	store := &interrupted{Backend: h.backend}
	w, _ := open(t, store, SignatureOptions{})
	store.before = func() { h.sign("app", "good a") }
	if err := w.RefreshSignatures(t.Context(), h.subject); err != nil {
		t.Fatal(err)
	}
	if got := contents(h.image()); got != "good a" {
		t.Errorf("signatures are %q", got)
	}
}

// TestRemoveAgain removes an Image whose deletion failed after its last repository was
// removed, as an outage between the two does.
func TestRemoveAgain(t *testing.T) {
	w, _ := open(t, memory.New(memory.Options{}), SignatureOptions{})
	content := (`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	push := Push{Repository: "a", Digest: digest.FromString(content), Manifest: parse(t, content)}
	derived, err := w.Derive(push)
	if err == nil {
		err = w.Record(t.Context(), push, derived)
	}
	if err == nil {
		err = w.together(t.Context(), func(ctx context.Context, change changer) error {
			return change(ctx, push.Digest, false, func(image *imagev1.Image) error {
				rules.RemoveRepository(image, "a")
				return nil
			})
		})
	}
	if err == nil {
		_, err = w.Remove(t.Context(), "a", push.Digest)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(t.Context(), push.Digest); !apierrors.IsNotFound(err) {
		t.Errorf("the Image is still there: %v", err)
	}
}

func TestPullReference(t *testing.T) {
	for host, want := range map[string]string{
		"": "a/b@" + imagetest.Layer, "localhost:5000": "localhost:5000/a/b@" + imagetest.Layer, "[::1]:5000": "[::1]:5000/a/b@" + imagetest.Layer, "my_registry:5000": "a/b@" + imagetest.Layer, "evil host": "a/b@" + imagetest.Layer,
	} {
		if got := pullReference(host, "a/b", imagetest.Layer); got != want {
			t.Errorf("host %q: %s, want %s", host, got, want)
		}
	}
}

func parse(t *testing.T, content string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse("", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTagWithoutSignatures: an index under a tag of the referrers tag schema changes no Image.
func TestTagWithoutSignatures(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	before := h.image().ResourceVersion
	r := &referrers.Referrer{Subject: h.subject, Repository: "app", Tag: strings.Replace(h.subject.String(), ":", "-", 1)}
	for _, gone := range []bool{false, true} {
		if err := h.w.Refer(t.Context(), Reference{r, gone}); err != nil {
			t.Fatal(err)
		}
		if got := h.image().ResourceVersion; got != before {
			t.Errorf("the Image went from %s to %s", before, got)
		}
	}
}

// TestCrowdedAnnotations: an Image whose users have left no room for the server's annotations takes
// pushes all the same: it is marked, and nothing is forgotten in silence.
func TestCrowdedAnnotations(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("first")
	key := rest.KeyPrefix + h.subject.String()
	entry, _, err := storage.GetEntry(t.Context(), h.backend, key, storage.Read{})
	if err != nil || entry == nil {
		t.Fatal(entry, err)
	}
	body := strings.Replace(string(entry.Value.Body()), `"annotations":{`, `"annotations":{"example.com/large":"`+strings.Repeat("x", 235<<10)+`",`, 1)
	if _, err := h.backend.Commit(t.Context(), storage.Mutation{Key: key, Expect: entry.Revision, Value: storage.Body([]byte(body))}); err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		if i%40 == 0 {
			h.push(fmt.Sprintf("more/%s/%03d", strings.Repeat("r", 100), i))
		}
		if err := h.w.MoveTag(t.Context(), Move{Repository: "first", Tag: fmt.Sprintf("%s%03d", strings.Repeat("t", 100), i), To: h.subject}); err != nil {
			t.Fatal(err)
		}
	}
	h.push("last")
	image := h.image()
	if image.Annotations[rules.AnnotationTruncated] != "true" || len(image.Annotations["example.com/large"]) != 235<<10 || len(rules.Repositories(image)) == 0 {
		t.Errorf("truncated: %q, %d repositories, %d bytes of users", image.Annotations[rules.AnnotationTruncated], len(rules.Repositories(image)), len(image.Annotations["example.com/large"]))
	}
}

// TestSignatureGoesMeanwhile: one process is about to put a signature on an Image that another takes out
// of the registry, which finds an Image without it.
func TestSignatureGoesMeanwhile(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	h.push("app")
	h.sign("app", "good a")
	r := &referrers.Referrer{
		Subject: h.subject, Repository: "app", Descriptor: imagespec.Descriptor{Digest: digest.FromString("b")},
		Signatures: []signatures.Signature{{Type: signatures.TypeBundle, Content: []byte("good b")}},
	}
	b := &storage.Batch{}
	if err := h.w.referrers.Add(t.Context(), b, r); err != nil {
		t.Fatal(err)
	}
	if committed, err := b.Commit(t.Context(), h.backend); err != nil || !committed {
		t.Fatal(committed, err)
	}
	store := &interrupted{Backend: h.backend}
	w, _ := open(t, store, SignatureOptions{})
	store.before = func() {
		if err := h.w.Refer(t.Context(), Reference{r, true}); err != nil {
			t.Error(err)
		}
	}
	if err := w.RefreshSignatures(t.Context(), h.subject); err != nil {
		t.Fatal(err)
	}
	if got := contents(h.image()); got != "good a" {
		t.Errorf("signatures are %q", got)
	}
}
