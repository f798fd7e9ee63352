package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	cbor "k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const reference = "quay.io/team/app@sha256:abababababababababababababababababababababababababababababababab"

func newImage(name string) *imagev1.Image {
	return &imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: name}, DockerImageReference: reference}
}

// TestTypedClient: every verb of the typed openshift client, in JSON and protobuf.
func TestTypedClient(t *testing.T) {
	s := startServer(t)
	images := s.images()
	ctx := t.Context()
	created, err := images.Create(ctx, newImage("one"), metav1.CreateOptions{})
	if err != nil || created.UID == "" || created.ResourceVersion == "" || created.CreationTimestamp.IsZero() {
		t.Fatalf("create: %+v, %v", created, err)
	}
	if _, err = images.Create(ctx, newImage("one"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create again: %v", err)
	}
	generated := newImage("")
	generated.GenerateName = "gen-"
	if generated, err = images.Create(ctx, generated, metav1.CreateOptions{}); err != nil || !strings.HasPrefix(generated.Name, "gen-") || len(generated.Name) != 9 {
		t.Errorf("generateName: %q, %v", generated.Name, err)
	}
	stale := created.DeepCopy()
	created.Labels = map[string]string{"a": "b"}
	updated, err := images.Update(ctx, created, metav1.UpdateOptions{})
	if err != nil || updated.Labels["a"] != "b" || updated.ResourceVersion == created.ResourceVersion {
		t.Errorf("update: %v, %v", updated, err)
	}
	if _, err = images.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("update of a stale object: %v", err)
	}
	if same, err := images.Update(ctx, updated, metav1.UpdateOptions{}); err != nil || same.ResourceVersion != updated.ResourceVersion {
		t.Errorf("an update that changes nothing made resourceVersion %s from %s, %v", same.ResourceVersion, updated.ResourceVersion, err)
	}
	if _, err = images.Update(ctx, newImage("missing"), metav1.UpdateOptions{}); !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
		t.Errorf("update of what is not there: %v", err)
	}
	patched, err := images.Patch(ctx, "one", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"c":"d"}}}`), metav1.PatchOptions{})
	if err != nil || patched.Labels["a"] != "b" || patched.Labels["c"] != "d" {
		t.Errorf("patch: %v, %v", patched, err)
	}
	list, err := images.List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "one" {
		t.Errorf("list: %v, %v", list, err)
	}
	wrongUID := types.UID("other")
	err = images.Delete(ctx, "one", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrongUID}})
	if !apierrors.IsConflict(err) {
		t.Errorf("delete of another UID: %v", err)
	}
	if err := images.Delete(ctx, "one", metav1.DeleteOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
	if _, err := images.Get(ctx, "one", metav1.GetOptions{}); err != nil {
		t.Errorf("after a dry-run delete: %v", err)
	}
	if err := images.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if list, err = images.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("after delete-collection: %v, %v", list, err)
	}
}

// TestFinalizers: an Image with a finalizer waits for it.
func TestFinalizers(t *testing.T) {
	s := startServer(t)
	images, ctx := s.images(), t.Context()
	image := newImage("held")
	image.Finalizers = []string{"example.com/hold"}
	if _, err := images.Create(ctx, image, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := images.Delete(ctx, "held", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	held, err := images.Get(ctx, "held", metav1.GetOptions{})
	if err != nil || held.DeletionTimestamp == nil {
		t.Fatalf("after delete: %v, %v", held, err)
	}
	held.Finalizers = nil
	if _, err := images.Update(ctx, held, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Get(ctx, "held", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: %v", err)
	}
}

// TestSignatures: create and delete of imagesignatures, as OpenShift's tools do.
func TestSignatures(t *testing.T) {
	s := startServer(t)
	ctx, client := t.Context(), s.client()
	digest := s.pushImage("team/app:v1", "signed")
	name := digest + "@0123456789abcdef0123456789abcdef"
	signature := &imagev1.ImageSignature{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: "atomic", Content: []byte("signed"), ImageIdentity: "is the server's to say",
	}
	if _, err := client.ImageSignatures().Create(ctx, signature, metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.image(digest).Signatures); n != 0 {
		t.Errorf("a dry run left %d signatures", n)
	}
	created, err := client.ImageSignatures().Create(ctx, signature, metav1.CreateOptions{})
	if err != nil || created.UID == "" || created.ImageIdentity != "" {
		t.Fatalf("create: %+v, %v", created, err)
	}
	if _, err = client.ImageSignatures().Create(ctx, signature, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same again: %v", err)
	}
	other := signature.DeepCopy()
	other.Name = digest + "@other"
	if _, err = client.ImageSignatures().Create(ctx, other, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same content by another name: %v", err)
	}
	bad := &imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: "no-at"}, Type: "atomic", Content: []byte("x")}
	if _, err = client.ImageSignatures().Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "<imageName>@<signatureName>") {
		t.Errorf("a name without @: %v", err)
	}
	orphan := &imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: "missing@x"}, Type: "atomic", Content: []byte("x")}
	if _, err = client.ImageSignatures().Create(ctx, orphan, metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("of an image that is not there: %v", err)
	}
	// With a signature on it, the image can still be edited, and pushed again.
	if out := s.kubectl("annotate", "image", digest, "a=b"); !strings.Contains(out, "annotated") {
		t.Error(out)
	}
	s.pushImage("team/app:v2", "signed")
	if image := s.image(digest); len(image.Signatures) != 1 || image.Signatures[0].Name != name || string(image.Signatures[0].Content) != "signed" {
		t.Errorf("signatures after edit and push: %+v", image.Signatures)
	}
	// Concurrent writers of one image all get their signature in.
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			more := &imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s@%d", digest, i)}, Type: "atomic", Content: []byte{byte(i)}}
			if _, err := client.ImageSignatures().Create(ctx, more, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(s.image(digest).Signatures); n != 6 {
		t.Errorf("%d signatures, want 6", n)
	}
	if err := client.ImageSignatures().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.ImageSignatures().Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete again: %v", err)
	}
	if n := len(s.image(digest).Signatures); n != 5 {
		t.Errorf("%d signatures, want 5", n)
	}
}

// expired fails unless a watch from a resourceVersion is told 410.
func (s *server) expired(resourceVersion string) error {
	got := s.call(http.MethodGet, api+"/images?watch=true&timeoutSeconds=1&resourceVersion="+resourceVersion, "", "")
	if !strings.Contains(got.body, `"code":410`) {
		return fmt.Errorf("a watch from %s: %d %.200s", resourceVersion, got.code, got.body)
	}
	return nil
}

// TestDynamicInformer: an informer (which lists by WatchList) sees pushes, goes
// on after the server was restarted, and resyncs after 410.
func TestDynamicInformer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "REGISTRY_IMAGEAPI_STORE_HISTORYENTRIES=20", "REGISTRY_IMAGEAPI_STORE_HISTORYMINAGE=1s")
	first := s.pushImage("team/app:v1", "one")
	client, err := dynamic.NewForConfig(s.restConfig())
	if err != nil {
		t.Fatal(err)
	}
	resource := imagev1.GroupVersion.WithResource("images")
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(resource).Informer()
	stop := make(chan struct{})
	defer factory.Shutdown()
	defer close(stop)
	factory.Start(stop)
	if !cache.WaitForCacheSync(stop, informer.HasSynced) {
		t.Fatal("the informer does not sync")
	}
	has := func(digest string) func() error {
		return func() error {
			if _, ok, _ := informer.GetStore().GetByKey(digest); !ok {
				return fmt.Errorf("it has %v", informer.GetStore().ListKeys())
			}
			return nil
		}
	}
	eventually(t, "the informer has what was there", has(first))
	second := s.pushImage("team/app:v2", "two")
	eventually(t, "the informer has a new push", has(second))
	s.stop()
	s.start()
	third := s.pushImage("team/app:v3", "three")
	eventually(t, "the informer has a push after a restart", has(third))
	// While the informer cannot connect, more changes than the history keeps.
	seen := s.image(third).ResourceVersion
	s.stop()
	realAddr := s.addr
	s.addr = freeAddress(t)
	s.env = append(s.env, "REGISTRY_HTTP_ADDR="+s.addr)
	s.start()
	var last string
	for i := range 15 {
		last = s.pushImage("team/app:v3", fmt.Sprint("more ", i))
	}
	eventually(t, "the history is trimmed", func() error { return s.expired(seen) })
	s.stop()
	s.addr = realAddr
	s.env = append(s.env, "REGISTRY_HTTP_ADDR="+s.addr)
	s.start()
	eventually(t, "the informer has everything after 410", has(last))
	if !strings.Contains(s.logText(), "sendInitialEvents=true") {
		t.Error("the informer has not used WatchList")
	}
	if n := len(informer.GetStore().ListKeys()); n != 18 {
		t.Errorf("the informer has %d images, want 18", n)
	}
}

// TestWatchSemantics: resume, 410, bookmarks, initial events, selectors, limits
// and continue tokens, over the wire.
func TestWatchSemantics(t *testing.T) {
	s := startServer(t, "REGISTRY_IMAGEAPI_STORE_HISTORYENTRIES=50", "REGISTRY_IMAGEAPI_STORE_HISTORYMINAGE=1s")
	images, ctx := s.images(), t.Context()
	digest := s.pushImage("team/app:v1", "one")
	start := s.image(digest).ResourceVersion
	s.pushImage("team/other:v1", "two")
	w, err := images.Watch(ctx, metav1.ListOptions{ResourceVersion: start})
	if err != nil {
		t.Fatal(err)
	}
	if e := nextEvent(t, w); e.Type != watch.Added {
		t.Errorf("a watch from the past begins with %v", e)
	}
	w.Stop()

	yes, timeout := true, int64(3)
	w, err = images.Watch(ctx, metav1.ListOptions{
		SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true, TimeoutSeconds: &timeout,
		FieldSelector: "repository=team/app",
	})
	if err != nil {
		t.Fatal(err)
	}
	if e := nextEvent(t, w); e.Type != watch.Added || e.Object.(*imagev1.Image).Name != digest {
		t.Errorf("the first initial event is %v", e)
	}
	if e := nextEvent(t, w); e.Type != watch.Bookmark || e.Object.(*imagev1.Image).Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("the initial events end with %v", e)
	}
	// The selector makes a tag that moves away a deletion.
	moved, err := images.Watch(ctx, metav1.ListOptions{FieldSelector: "tag=team/app:v1", ResourceVersion: s.image(digest).ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	newer := s.pushImage("team/app:v1", "newer")
	types := map[watch.EventType]string{}
	for range 2 {
		e := nextEvent(t, moved)
		types[e.Type] = e.Object.(*imagev1.Image).Name
	}
	if types[watch.Deleted] != digest || types[watch.Added] != newer {
		t.Errorf("a tag that moved made %v", types)
	}
	moved.Stop()
	last := watch.Event{}
	for e := range w.ResultChan() {
		last = e
	}
	if last.Type != watch.Bookmark {
		t.Errorf("a watch that timed out ended with %v", last)
	}
	for i := range 30 {
		s.pushImage("team/app:many", fmt.Sprint(i))
	}
	eventually(t, "the history is trimmed", func() error { return s.expired(start) })
	if w, err = images.Watch(ctx, metav1.ListOptions{ResourceVersion: start}); err == nil {
		if e := nextEvent(t, w); !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
			t.Errorf("a watch from before the log begins with %v", e)
		}
	} else if !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch from before the log: %v", err)
	}
	page, err := images.List(ctx, metav1.ListOptions{Limit: 10})
	if err != nil || len(page.Items) != 10 || page.Continue == "" || page.RemainingItemCount == nil || *page.RemainingItemCount != 23 {
		t.Fatalf("first page: %d items, continue %q, remaining %v, %v", len(page.Items), page.Continue, page.RemainingItemCount, err)
	}
	s.pushImage("team/app:late", "late") // not in the list, which is at one revision
	total, token := len(page.Items), page.Continue
	for token != "" {
		next, err := images.List(ctx, metav1.ListOptions{Limit: 10, Continue: token})
		if err != nil {
			t.Fatal(err)
		}
		if next.ResourceVersion != page.ResourceVersion {
			t.Errorf("pages at %s and %s", page.ResourceVersion, next.ResourceVersion)
		}
		total, token = total+len(next.Items), next.Continue
	}
	if total != 33 {
		t.Errorf("%d items in all pages, want 33", total)
	}
	if _, err = images.List(ctx, metav1.ListOptions{ResourceVersion: start, ResourceVersionMatch: metav1.ResourceVersionMatchExact}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a list at a revision that is too old: %v", err)
	}
	if _, err = images.List(ctx, metav1.ListOptions{FieldSelector: "nope=1"}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `"repository"`) {
		t.Errorf("an unknown field selector: %v", err)
	}
}

func nextEvent(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event in 20 s")
	}
	return watch.Event{}
}

// TestContentTypes: the same object in JSON, protobuf and CBOR, and by the
// dynamic client.
func TestContentTypes(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "types")
	want := s.image(digest)
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := rest.CopyConfig(s.restConfig())
		config.ContentType, config.AcceptContentTypes = contentType, contentType
		got, err := imageclientFor(t, config).Get(t.Context(), digest, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if string(got.DockerImageMetadata.Raw) != string(want.DockerImageMetadata.Raw) || got.DockerImageManifest != want.DockerImageManifest {
			t.Errorf("in %s the Image is %+v, in JSON %+v", contentType, got, want)
		}
		got.Labels = map[string]string{"in": strings.ReplaceAll(contentType, "/", "-")}
		if _, err := imageclientFor(t, config).Update(t.Context(), got, metav1.UpdateOptions{}); err != nil {
			t.Errorf("update in %s: %v", contentType, err)
		}
	}
	for accept, want := range map[string]string{
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1": `"kind":"PartialObjectMetadata"`,
		"application/json;as=Table;g=meta.k8s.io;v=v1":                 `"name":"Image Reference"`,
		"application/yaml": "kind: Image\n",
	} {
		if body := s.getAs(accept, api+"/images/"+digest); !strings.Contains(strings.ReplaceAll(body, `": "`, `":"`), want) {
			t.Errorf("as %s it is\n%s", accept, body)
		}
	}
	var fromCBOR map[string]any
	if err := cbor.Unmarshal([]byte(s.getAs("application/cbor", api+"/images/"+digest)), &fromCBOR); err != nil {
		t.Fatal(err)
	}
	if fromCBOR["dockerImageManifest"] != want.DockerImageManifest || fromCBOR["dockerImageMetadata"].(map[string]any)["kind"] != "DockerImage" {
		t.Errorf("in CBOR the Image is %v", fromCBOR)
	}
	fromCBOR["metadata"] = map[string]any{"name": "from-cbor"}
	body, err := cbor.Marshal(fromCBOR)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.call("POST", api+"/images", "application/cbor", string(body)); got.code != 201 {
		t.Errorf("create in CBOR: %d %s", got.code, got.body)
	}
	if got := s.image("from-cbor"); string(got.DockerImageMetadata.Raw) != string(want.DockerImageMetadata.Raw) {
		t.Errorf("created in CBOR, its metadata is %s", got.DockerImageMetadata.Raw)
	}
	client, err := dynamic.NewForConfig(s.restConfig())
	if err != nil {
		t.Fatal(err)
	}
	obj, err := client.Resource(imagev1.GroupVersion.WithResource("images")).Get(t.Context(), digest, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	image := &imagev1.Image{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, image); err != nil || image.DockerImageReference != want.DockerImageReference {
		t.Errorf("by the dynamic client: %+v, %v", image, err)
	}
	if id, _, _ := unstructured.NestedString(obj.Object, "dockerImageMetadata", "Id"); id == "" {
		t.Error("by the dynamic client dockerImageMetadata has no Id")
	}
}
