package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/metrics/legacyregistry"

	"tallyman/imageapi"
	"tallyman/imageapi/access"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streamrest"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// listers are our handler of lists and upstream's over the same Images.
type listers struct {
	images         *rest.Images
	records        *records.Store
	ours, upstream http.Handler
	path           string
}

const imagesPath = "/apis/image.openshift.io/v1/images"

func newListers(t *testing.T, backend storage.Backend) *listers {
	t.Helper()
	a, err := access.New(t.Context(), access.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	kept := records.New(records.Options{Backend: backend, Now: func() time.Time { return time.Unix(1e9, 0) }}) // ages of years
	namespaced, err := streamrest.New(streamrest.Options{Backend: backend, Images: i, Records: kept, Hosts: streams.Hosts{Own: "host:5000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(namespaced.Close)
	s := &Server{options: Options{Images: i, Streams: namespaced, Signatures: rest.NewImageSignatures(i, nil), ExternalAddress: "127.0.0.1:5000", Access: a}}
	generic, err := s.newGenericServer()
	if err != nil {
		t.Fatal(err)
	}
	c := server.NewConfig(imageapi.Codecs)
	resolver := server.NewRequestInfoResolver(c)
	upstream := generic.Handler.Director
	return &listers{
		images: i, records: kept, path: imagesPath,
		ours:     filters.WithAuditInit(filters.WithRequestInfo(rest.WithLists(upstream, append(namespaced.Listed(), i.Listed())...), resolver)),
		upstream: filters.WithAuditInit(filters.WithRequestInfo(upstream, resolver)),
	}
}

// listQueries are lists of every kind, and requests that are refused.
var listQueries = []string{
	"", "limit=3", "limit=1000", "limit=-1", "labelSelector=third%3Dtrue", "labelSelector=third%3Dtrue&limit=2", "labelSelector=third%3Dnever",
	"fieldSelector=repository%3Dteam%2Fapp", "fieldSelector=metadata.name%3Dsha256:none", "fieldSelector=metadata.name%3Da%2Fb", "fieldSelector=metadata.name%3Dsha256:none,repository%3Da", "pretty=1", "pretty=true&limit=1",
	"includeObject=None", "includeObject=Object&limit=2", "includeObject=Metadata", "resourceVersion=0", "timeoutSeconds=10",
	// refused
	"limit=x", "limit=3&continue=x", "resourceVersion=x", "resourceVersion=9999999999999999999&resourceVersionMatch=NotOlderThan", "resourceVersionMatch=Exact",
	"fieldSelector=spec%3Dx", "fieldSelector=%3D%3D", "labelSelector=%21%21", "includeObject=Everything", "sendInitialEvents=true",
}

var listAccepts = []string{
	"", "application/json", "application/yaml", "application/cbor", "application/vnd.kubernetes.protobuf",
	"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/yaml;as=Table;v=v1;g=meta.k8s.io",
	"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io",
	"application/yaml;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/cbor;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io",
	"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
	// refused
	"text/html", "application/json;as=Table;v=v2;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=List;v=v1;g=meta.k8s.io",
}

// TestLists compares the answers of our handler with those of upstream's for each media
// type and kind of list. They are the same, but for the items of an empty list of metadata,
// which are null upstream.
func TestLists(t *testing.T) {
	backend := memory.New(memory.Options{})
	l := newListers(t, backend)
	compareAll := func(t *testing.T) {
		for _, accept := range listAccepts {
			for _, query := range listQueries {
				t.Run(accept+"?"+query, func(t *testing.T) { l.compare(t, accept, query) })
			}
		}
	}
	t.Run("empty", compareAll)
	for i := range 20 {
		image := listedImage(i)
		put(t, backend, image)
	}
	t.Run("20 Images", compareAll)
}

// TestNamespacedLists is TestLists for image streams and their tags, of a namespace and of all.
func TestNamespacedLists(t *testing.T) {
	backend := memory.New(memory.Options{})
	l := newListers(t, backend)
	compareAll := func(t *testing.T) {
		for _, path := range []string{"imagestreams", "imagestreamtags", "namespaces/team1/imagestreams", "namespaces/team1/imagestreamtags", "namespaces/none/imagestreamtags"} {
			l.path = "/apis/image.openshift.io/v1/" + path
			for _, accept := range listAccepts {
				for _, query := range append(listQueries, "fieldSelector=image%3Dx", "fieldSelector=status.dockerImageRepository%3Dhost:5000/team1/app1", "fieldSelector=metadata.namespace%3Dteam1") {
					t.Run(path+" "+accept+"?"+query, func(t *testing.T) { l.compare(t, accept, query) })
				}
			}
		}
	}
	t.Run("empty", compareAll)
	for i := range 7 {
		image := listedImage(i)
		put(t, backend, image)
		batch := &storage.Batch{}
		for _, tag := range []string{"v1", "v2"} {
			_, err := l.records.SetTag(t.Context(), batch, records.TagChange{Repository: fmt.Sprintf("team%d/app%d", i%2, i), Tag: tag, To: digest.Digest(image.Name), Reference: "host:5000/x@" + image.Name})
			if err != nil {
				t.Fatal(err)
			}
		}
		if committed, err := batch.Commit(t.Context(), backend); !committed || err != nil {
			t.Fatal(committed, err)
		}
	}
	t.Run("14 tags", compareAll)
}

// TestListIsCountedOnce: a list is one request in the metrics, streamed or not.
func TestListIsCountedOnce(t *testing.T) {
	metrics.Register()
	l := newListers(t, memory.New(memory.Options{}))
	count := func() (n float64) {
		families, err := legacyregistry.DefaultGatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != "apiserver_request_total" {
				continue
			}
			for _, m := range family.GetMetric() {
				for _, label := range m.GetLabel() {
					if label.GetName() == "verb" && label.GetValue() == "LIST" {
						n += m.GetCounter().GetValue()
					}
				}
			}
		}
		return n
	}
	for _, request := range [][2]string{
		{"application/json", ""}, {"application/json", "limit=x"}, {"application/json", "fieldSelector=metadata.name%3Dsha256:none"},
		{"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io", ""},
	} {
		before := count()
		get(l.ours, l.path, request[0], request[1])
		if n := count() - before; n != 1 {
			t.Errorf("%s is counted %v times", request, n)
		}
	}
}

// listedImage has every kind of text and field that serializers treat in their own way.
func listedImage(i int) *imagev1.Image {
	texts := []string{"plain", "two\nlines\n", "<b>&amp;", "\u2028 ü 世界", `"quoted" \ {[`, "", "null", strings.Repeat("long words in a line ", 20)}
	controller := true
	return &imagev1.Image{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("sha256:%064d", i), UID: types.UID(fmt.Sprint("uid-", i)), CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0)),
			Generation: int64(i % 2), Labels: map[string]string{"third": fmt.Sprint(i%3 == 0), "b": "1", "a": "2"},
			Annotations:     map[string]string{"text": texts[i%len(texts)], "other": "x", "}": "{"},
			Finalizers:      []string{"a/b"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u", Controller: &controller}},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "image.openshift.io/v1", FieldsType: "FieldsV1",
				FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{".":{}}}}`)},
			}},
		},
		DockerImageReference:         "quay.io/team/app@sha256:x",
		DockerImageMetadata:          runtime.RawExtension{Raw: []byte(`{"kind":"DockerImage","apiVersion":"image.openshift.io/1.0","Id":"x","Size":12345678,"Architecture":"arm64"}`)},
		DockerImageMetadataVersion:   "1.0",
		DockerImageManifestMediaType: "application/vnd.oci.image.manifest.v1+json",
		DockerImageManifest:          texts[(i+1)%len(texts)],
		DockerImageLayers:            []imagev1.ImageLayer{{Name: "sha256:y", LayerSize: int64(i) << 30, MediaType: "m"}},
		Signatures:                   []imagev1.ImageSignature{{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Type: "t", Content: []byte{0, 1, 2, byte(i)}}},
	}
}

// put stores an Image that no client could have written.
func put(t *testing.T, backend storage.Backend, image *imagev1.Image) {
	t.Helper()
	value, err := runtime.Encode(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), image)
	if err != nil {
		t.Fatal(err)
	}
	key := rest.KeyPrefix + image.Name
	terms, err := rest.StoredTerms(key, value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backend.Commit(t.Context(), storage.Mutation{Operation: storage.Put, Key: key, Value: storage.Body(value), Terms: terms}); err != nil {
		t.Fatal(err)
	}
}

func get(handler http.Handler, path, accept, query string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path+"?"+query, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	w.Header().Del("Audit-Id") // of each request its own
	return w
}

// compare compares a list, and follows its continue tokens.
func (l *listers) compare(t *testing.T, accept, query string) {
	for {
		got, want := get(l.ours, l.path, accept, query), get(l.upstream, l.path, accept, query)
		if got.Code != want.Code || !reflect.DeepEqual(got.Header(), want.Header()) {
			t.Errorf("answered %d %v, upstream %d %v\n%.300s", got.Code, got.Header(), want.Code, want.Header(), got.Body)
		}
		a, b := comparable(t, got), comparable(t, want)
		if a != b {
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			t.Fatalf("differs at %d:\n got %.300q\nwant %.300q", at, a[max(0, at-50):], b[max(0, at-50):])
		}
		next := get(l.upstream, l.path, "application/json", query)
		var list metav1.PartialObjectMetadataList
		if next.Code != http.StatusOK || json.Unmarshal(next.Body.Bytes(), &list) != nil || list.Continue == "" {
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		values.Set("continue", list.Continue)
		query = values.Encode()
	}
}

// comparable returns an answer's body. It gives CBOR a fixed order of keys.
func comparable(t *testing.T, w *httptest.ResponseRecorder) string {
	body := w.Body.Bytes()
	if w.Header().Get("Content-Type") == runtime.ContentTypeCBOR {
		object := &unstructured.Unstructured{}
		if _, _, err := cbor.NewSerializer(nil, nil).Decode(body, nil, object); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		body, _ = json.Marshal(object.Object)
	}
	for null, empty := range map[string]string{`"items":null`: `"items":[]`, `"items": null`: `"items": []`, "items: null\n": "items: []\n"} {
		body = bytes.Replace(body, []byte(null), []byte(empty), 1)
	}
	return string(body)
}
