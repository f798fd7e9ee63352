package streamrest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/imports"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// TestMain fails if a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts are the registry's addresses.
var hosts = streams.Hosts{Own: "host:5000", Public: "registry.example.com"}

// house is a store with the resources, and the registry's way in.
type house struct {
	t       testing.TB
	backend storage.Backend
	images  *rest.Images
	catalog *catalog.Catalog
	// contents are those that were pushed.
	contents map[string]digest.Digest
	// refuses, if it is not nil, is the error of the registry. before is called before a change. denied are the
	// streams that the user may not read.
	refuses error
	before  func()
	denied  map[string]bool
	reviews []string // of streams
	moves   []string // of tags, with the users
	*Resources
}

// Untag implements streamwriter.Registry: there is no registry, but its records.
func (h *house) Untag(ctx context.Context, m streamwriter.Move) error {
	m.To = ""
	return h.move(ctx, m)
}

// Tag implements streamwriter.Registry.
func (h *house) Tag(ctx context.Context, m streamwriter.Move) error { return h.move(ctx, m) }

func (h *house) move(ctx context.Context, m streamwriter.Move) error {
	h.moves = append(h.moves, fmt.Sprintf("%s: %s:%s=%.12s %s", m.User, m.Repository, m.Tag, strings.TrimPrefix(m.To.String(), "sha256:"), m.From))
	if h.refuses != nil {
		return h.refuses
	}
	if h.before != nil {
		h.before()
	}
	if err := m.Condition(ctx); err != nil {
		return err
	}
	if m.To != "" && m.From != m.Repository { // as the registry copies it
		for content, name := range h.contents {
			if name == m.To {
				h.push(m.Repository+":", content)
			}
		}
	}
	return h.catalog.MoveTag(ctx, catalog.Move{Repository: m.Repository, Tag: m.Tag, To: m.To, Host: "host:5000"})
}

// Add implements streamwriter.Registry.
func (h *house) Add(ctx context.Context, user, repository string, name digest.Digest, content streamwriter.Content) error {
	h.moves = append(h.moves, fmt.Sprintf("%s: %s+%s", user, repository, name.Encoded()))
	if h.refuses != nil {
		return h.refuses
	}
	_, body, err := content.Manifest(ctx, name)
	if err != nil {
		return err
	}
	for text := range h.contents {
		if expected, _ := contentOf(text); string(body) == expected {
			h.push(repository+":", text)
			return nil
		}
	}
	return fmt.Errorf("%s is not known", name)
}

// MayUntag implements streamwriter.Registry.
func (h *house) MayUntag(context.Context, string, []string) error { return h.refuses }

// Authorize is an authorizer.AuthorizerFunc.
func (h *house) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	stream := a.GetNamespace() + "/" + a.GetName()
	h.reviews = append(h.reviews, fmt.Sprintf("%s %s %s/%s %s", a.GetUser().GetName(), a.GetVerb(), a.GetResource(), a.GetSubresource(), stream))
	if h.denied[stream] {
		return authorizer.DecisionNoOpinion, "", nil
	}
	return authorizer.DecisionAllow, "", nil
}

func newHouse(t testing.TB, allowed ...imports.Registry) *house {
	t.Helper()
	backend := memory.New(memory.Options{})
	if err := rest.CompleteIndex(t.Context(), backend); err != nil {
		t.Fatal(err)
	}
	return newHouseOn(t, backend, allowed...)
}

// newHouseOn is newHouse on a store, of which the index may not be complete.
func newHouseOn(t testing.TB, backend storage.Backend, allowed ...imports.Registry) *house {
	t.Helper()
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	kept := records.New(records.Options{Backend: backend})
	h := &house{t: t, backend: backend, images: images, contents: map[string]digest.Digest{}, denied: map[string]bool{}}
	h.catalog = catalog.New(catalog.Options{Backend: backend, Images: images, Referrers: referrers.NewStore(backend), Records: kept})
	var client *imports.Client
	if len(allowed) > 0 {
		if client, err = imports.New(imports.Options{Allowed: allowed}); err != nil {
			t.Fatal(err)
		}
	}
	if h.Resources, err = New(Options{Imports: client, Backend: backend, Images: images, Records: kept, Hosts: hosts, Registry: h, Authorizer: authorizer.AuthorizerFunc(h.Authorize)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// contentOf returns a manifest with some content, and its digest.
func contentOf(content string) (body string, name digest.Digest) {
	body = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"content":%q}}`, content)
	return body, digest.FromString(body)
}

// push records a push of some content as repository:tag.
func (h *house) push(full, content string) digest.Digest {
	h.t.Helper()
	repository, tag, _ := strings.Cut(full, ":")
	body, name := contentOf(content)
	h.contents[content] = name
	parsed, err := manifest.Parse("", []byte(body))
	if err != nil {
		h.t.Fatal(err)
	}
	p := catalog.Push{Repository: repository, Tag: tag, Digest: name, Manifest: parsed, Host: "host:5000"}
	derived, err := h.catalog.Derive(p)
	if err == nil {
		err = h.catalog.Record(h.t.Context(), p, derived)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return name
}

func (h *house) untag(full string) {
	h.t.Helper()
	repository, tag, _ := strings.Cut(full, ":")
	if err := h.catalog.MoveTag(h.t.Context(), catalog.Move{Repository: repository, Tag: tag}); err != nil {
		h.t.Fatal(err)
	}
}

// sign records a signature of some content that a repository holds.
func (h *house) sign(repository, content, signature string) {
	h.t.Helper()
	_, name := contentOf(content)
	r := &referrers.Referrer{
		Subject: name, Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.FromString(signature)},
		Signatures: []signatures.Signature{{Type: signatures.TypeBundle, Content: []byte(signature)}},
	}
	if err := h.catalog.Refer(h.t.Context(), catalog.Reference{Referrer: r}); err != nil {
		h.t.Fatal(err)
	}
}

// label labels the Image of some content.
func (h *house) label(content, value string) {
	h.t.Helper()
	_, name := contentOf(content)
	err := h.images.Change(h.t.Context(), name.String(), false, func(_ context.Context, image *imagev1.Image) error {
		image.Labels = map[string]string{"label": value}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// of returns a context of requests to a namespace, "" for all.
func (h *house) of(namespace string) context.Context {
	return request.WithNamespace(h.t.Context(), namespace)
}

// options returns the options of a list or watch.
func (h *house) options(fieldSelector, labelSelector string) *internalversion.ListOptions {
	h.t.Helper()
	byField, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		h.t.Fatal(err)
	}
	byLabel, err := labels.Parse(labelSelector)
	if err != nil {
		h.t.Fatal(err)
	}
	return &internalversion.ListOptions{FieldSelector: byField, LabelSelector: byLabel}
}

// list returns all objects, a page at a time, and the resourceVersion of the list.
func (h *house) list(ctx context.Context, resource k8srest.Lister, options *internalversion.ListOptions) (all []runtime.Object, revision string) {
	h.t.Helper()
	for {
		list, err := resource.List(ctx, options)
		if err != nil {
			h.t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			h.t.Fatal(err)
		}
		accessor, err := meta.ListAccessor(list)
		if err != nil {
			h.t.Fatal(err)
		}
		all, revision = append(all, items...), accessor.GetResourceVersion()
		if options.Continue = accessor.GetContinue(); options.Continue == "" {
			return all, revision
		}
	}
}

// listing is a list, and the namespaces and names of the objects that it is to have.
type listing struct {
	namespace, selector, want string
	limit                     int64
}

// wantLists wants lists of a resource, by their names.
func (h *house) wantLists(resource k8srest.Lister, lists map[string]listing) {
	h.t.Helper()
	for name, test := range lists {
		options := h.options(test.selector, "")
		options.Limit = test.limit
		if all, _ := h.list(h.of(test.namespace), resource, options); namesOf(all) != test.want {
			h.t.Errorf("%s: %s, want %s", name, namesOf(all), test.want)
		}
	}
}

// namesOf prints the namespaces and names of objects.
func namesOf(objects []runtime.Object) string {
	var all []string
	for _, obj := range objects {
		accessor, _ := meta.Accessor(obj)
		all = append(all, accessor.GetNamespace()+"/"+accessor.GetName())
	}
	return strings.Join(all, " ")
}

func (h *house) get(resource k8srest.Getter, namespace, name string) runtime.Object {
	h.t.Helper()
	obj, err := resource.Get(h.of(namespace), name, &metav1.GetOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return obj
}

// watching is a watch under way.
type watching struct {
	t testing.TB
	watch.Interface
}

func (h *house) watch(ctx context.Context, resource k8srest.Watcher, options *internalversion.ListOptions) *watching {
	h.t.Helper()
	w, err := resource.Watch(ctx, options)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(w.Stop)
	return &watching{h.t, w}
}

// next returns the next event with its object.
func (w *watching) next() (watch.EventType, runtime.Object) {
	w.t.Helper()
	var event watch.Event
	select {
	case next, ok := <-w.ResultChan():
		if !ok {
			w.t.Fatal("the watch has ended")
		}
		event = next
	case <-time.After(time.Minute):
		w.t.Fatal("no event comes")
	}
	if encoded, ok := event.Object.(runtime.CacheableObject); ok {
		return event.Type, encoded.GetObject()
	}
	return event.Type, event.Object
}
