package protobuf

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	imagev1 "github.com/openshift/api/image/v1"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/randfill"

	"tallyman/imageapi"
	"tallyman/imageapi/imagetest"
)

const revision = 1_764_000_000_000_123

// sameAsMarshal wants the message of an Image in JSON to be the one that Marshal makes, if both are made.
func sameAsMarshal(t *testing.T, data []byte) (made bool) {
	t.Helper()
	image := &imagev1.Image{}
	decodable := json.Unmarshal(data, image) == nil && image.ResourceVersion == ""
	prefix := []byte("before")
	got, ok := Append(bytes.Clone(prefix), data, revision)
	if !ok {
		if !bytes.Equal(got, prefix) {
			t.Fatalf("%q is not taken, and left %q", data, got)
		}
		return false
	}
	if !decodable {
		return true
	}
	image.ResourceVersion = fmt.Sprint(int64(revision))
	want, err := image.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got = bytes.TrimPrefix(got, prefix); !bytes.Equal(got, want) {
		t.Fatalf("%s\nis encoded as\n%q, want\n%q", data, got, want)
	}
	size, ok := SizeOf(data)
	if parsed, valid := ParseSize(size.AppendText(nil)); !ok || !valid || parsed != size || parsed.At(revision) != len(want) {
		t.Fatalf("the size of %s is %+v (%t), at the revision %d, want %d", data, size, ok, parsed.At(revision), len(want))
	}
	return true
}

func stored(t testing.TB, image *imagev1.Image) []byte {
	t.Helper()
	image.ResourceVersion = ""
	data, err := runtime.Encode(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), image)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestAppend: any Image that is stored is encoded as by Marshal, and all of them are.
func TestAppend(t *testing.T) {
	filler := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 4).Funcs(
		metafuzzer.Funcs(serializer.NewCodecFactory(imageapi.Scheme))...,
	).Funcs(func(raw *runtime.RawExtension, c randfill.Continue) {
		raw.Raw = fmt.Appendf(nil, `{"kind":"DockerImage","Size":%d,"Author":%q}`, c.Int63(), "a<b\"}]")
	})
	for n := range 300 {
		image := &imagev1.Image{}
		filler.Fill(image)
		if data := stored(t, image); !sameAsMarshal(t, data) {
			t.Fatalf("image %d is not taken: %s", n, data)
		}
	}
	layers := imagetest.Image("x", func(i *imagev1.Image) {
		i.DockerImageLayers = []imagev1.ImageLayer{{Name: "\"", MediaType: "<"}, {Name: imagetest.Layer, LayerSize: -1}, {Name: "x", LayerSize: 1 << 62}, {}}
	})
	if data := stored(t, layers); !sameAsMarshal(t, data) {
		t.Fatalf("%s is not taken", data)
	}
	texts := []string{"", "\"\\/\b\f\n\r\t\x01<>&\u2028ä€😀", strings.Repeat(`{"a":"b\n"}`, 3000)}
	for n := range 20 { // at each place of the eight bytes that are looked at together
		for _, special := range []string{"", "\"", "\\", "\x01", "€", "\"\"", "\\\x02\"x"} {
			texts = append(texts, strings.Repeat("x", n)+special, strings.Repeat("x", n)+special+strings.Repeat("!#[]", 5))
		}
	}
	for _, text := range texts {
		image := imagetest.Image("x", func(i *imagev1.Image) {
			i.DockerImageManifest, i.DockerImageConfig, i.DockerImageReference = text, text+"x", "y"+text
			i.Annotations = map[string]string{"long": strings.Repeat("x", 110)} // its size has two digits with the resourceVersion
		})
		if data := stored(t, image); !sameAsMarshal(t, data) {
			t.Fatalf("%.40q is not taken", text)
		}
	}
}

// manager returns an entry of managedFields as the API server writes them, with a change.
func manager(change func(*metav1.ManagedFieldsEntry)) metav1.ManagedFieldsEntry {
	at := metav1.NewTime(time.Unix(1_764_000_000, 0))
	m := metav1.ManagedFieldsEntry{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "image.openshift.io/v1",
		Time: &at, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:annotations":{".":{},"f:a\"}":{}}}}`)}}
	if change != nil {
		change(&m)
	}
	return m
}

// TestMetadata: metadata as most have it is not decoded, and other metadata is the same by decoding.
func TestMetadata(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, test := range map[string]struct {
		change func(*imagev1.Image)
		plain  bool
	}{
		"as it is made":    {func(*imagev1.Image) {}, true},
		"with annotations": {func(i *imagev1.Image) { i.Annotations = map[string]string{"b/c": "d", "a": "", "ä": "€"} }, true},
		"with labels":      {func(i *imagev1.Image) { i.Labels = map[string]string{"a": "b"} }, true},
		"with both, long": {func(i *imagev1.Image) {
			i.Labels, i.Annotations = map[string]string{"a": long, "b": long}, map[string]string{long: long}
		}, true},
		"with an escape":     {func(i *imagev1.Image) { i.Annotations = map[string]string{"a": `{"b":"c"}`} }, false},
		"an escape in a key": {func(i *imagev1.Image) { i.Annotations = map[string]string{"a\n": "b"} }, false},
		"managers":           {func(i *imagev1.Image) { i.ManagedFields = []metav1.ManagedFieldsEntry{manager(nil), manager(nil)} }, true},
		"a manager of a part": {func(i *imagev1.Image) {
			i.ManagedFields = []metav1.ManagedFieldsEntry{manager(func(m *metav1.ManagedFieldsEntry) { m.Subresource = "status" })}
		}, true},
		"a manager with a long name": {func(i *imagev1.Image) {
			i.ManagedFields = []metav1.ManagedFieldsEntry{manager(func(m *metav1.ManagedFieldsEntry) { m.Manager = long })}
		}, true},
		"a manager with an escape": {func(i *imagev1.Image) {
			i.ManagedFields = []metav1.ManagedFieldsEntry{manager(func(m *metav1.ManagedFieldsEntry) { m.Manager = "a\"" })}
		}, false},
		"a manager without a time": {func(i *imagev1.Image) {
			i.ManagedFields = []metav1.ManagedFieldsEntry{manager(nil), manager(func(m *metav1.ManagedFieldsEntry) { m.Time = nil })}
		}, false},
		"a manager of nothing": {func(i *imagev1.Image) {
			i.ManagedFields = []metav1.ManagedFieldsEntry{manager(func(m *metav1.ManagedFieldsEntry) { m.FieldsV1 = nil })}
		}, false},
		"no uid":             {func(i *imagev1.Image) { i.UID = "" }, false},
		"no time":            {func(i *imagev1.Image) { i.CreationTimestamp = metav1.Time{} }, false},
		"a time before 1970": {func(i *imagev1.Image) { i.CreationTimestamp = metav1.NewTime(time.Unix(-5, 0)) }, false},
		"a generation":       {func(i *imagev1.Image) { i.Generation = 1 }, false},
		"being deleted":      {func(i *imagev1.Image) { i.DeletionTimestamp = &i.CreationTimestamp }, false},
		"finalizers":         {func(i *imagev1.Image) { i.Finalizers = []string{"a/b"} }, false},
	} {
		data := stored(t, imagetest.Image("sha256:abc", func(i *imagev1.Image) {
			i.UID = "be246aa3-20a7-4176-8444-aa2c8bd6a3c1"
			test.change(i)
		}))
		if !sameAsMarshal(t, data) {
			t.Errorf("%s is not taken: %s", name, data)
		}
		_, rest, _ := strings.Cut(string(data), `"metadata":`)
		m := &message{scanner: scanner{rest: []byte(rest)}}
		if m.plainMetadata(fieldMetadata, "1") != test.plain || !test.plain && (len(m.dst) > 0 || string(m.rest) != rest) {
			t.Errorf("%s is plain: %t, with %d bytes", name, !test.plain, len(m.dst))
		}
	}
	for name, rest := range map[string]string{
		"an empty map": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","labels":{}}`, "a key twice": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","labels":{"a":"b","a":"c"}}`,
		"no end": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","labels":{"a":"b"`, "no value": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","labels":{"a"}}`,
		"another time": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14+00:00"}`, "no time at all": `{"name":"a","uid":"b","creationTimestamp":"2026-13-28T17:28:14Z"}`, "an end": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z"`,
		"fields of null":     `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","managedFields":[{"manager":"a","operation":"Apply","apiVersion":"v1","time":"2026-11-28T17:28:14Z","fieldsType":"FieldsV1","fieldsV1":null}]}`,
		"no end of managers": `{"name":"a","uid":"b","creationTimestamp":"2026-11-28T17:28:14Z","managedFields":[{"manager":"a","operation":"Apply","apiVersion":"v1","time":"2026-11-28T17:28:14Z","fieldsType":"FieldsV1","fieldsV1":{}`,
	} {
		m := &message{scanner: scanner{rest: []byte(rest)}}
		if m.plainMetadata(fieldMetadata, "1") || len(m.dst) > 0 || string(m.rest) != rest {
			t.Errorf("%s is plain", name)
		}
	}
}

// TestRefused: JSON that is not as it is stored is left to others.
func TestRefused(t *testing.T) {
	image := string(stored(t, imagetest.Image("x", func(i *imagev1.Image) { i.DockerImageManifest = "m" })))
	if !sameAsMarshal(t, []byte(image)) || !sameAsMarshal(t, []byte(strings.TrimSpace(image))) {
		t.Fatalf("%s is not taken", image)
	}
	for name, change := range map[string][2]string{
		"an unknown field":         {`"dockerImageManifest":"m"`, `"dockerImageOther":"m"`},
		"a field twice":            {`"dockerImageManifest":"m"`, `"dockerImageManifest":"m","dockerImageManifest":"n"`},
		"another order":            {`{"kind":"Image","apiVersion":"image.openshift.io/v1",`, `{"apiVersion":"image.openshift.io/v1","kind":"Image",`},
		"space":                    {`"dockerImageManifest":"m"`, `"dockerImageManifest": "m"`},
		"a number":                 {`"dockerImageManifest":"m"`, `"dockerImageManifest":1`},
		"half of a surrogate pair": {`"dockerImageManifest":"m"`, `"dockerImageManifest":"\ud800"`},
		"an escape of nothing":     {`"dockerImageManifest":"m"`, `"dockerImageManifest":"\x"`},
		"invalid UTF-8":            {`"dockerImageManifest":"m"`, "\"dockerImageManifest\":\"\xff\""},
		"a resourceVersion":        {`"metadata":{`, `"metadata":{"resourceVersion":"1",`},
		"no metadata":              {`"metadata":{`, `"metadatum":{`},
		"no end":                   {`"dockerImageManifest":"m"`, `"dockerImageManifest":"m`},
		"something behind it":      {"}\n", "}}\n"},
	} {
		other := strings.Replace(image, change[0], change[1], 1)
		if other == image || sameAsMarshal(t, []byte(other)) {
			t.Errorf("%s is taken: %s", name, other)
		}
		if _, ok := SizeOf([]byte(other)); ok {
			t.Errorf("%s has a size", name)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1x", "1/2/3", "1/99999999999999999999999999"} {
		if size, ok := ParseSize([]byte(text)); ok {
			t.Errorf("%q is %+v", text, size)
		}
	}
}

// TestStoredSize: sizes that are stored are those of the Images that are there, with this Version.
func TestStoredSize(t *testing.T) {
	image := imagetest.Image("sha256:abc", func(i *imagev1.Image) {
		i.Labels, i.DockerImageManifest, i.DockerImageConfig = map[string]string{"a": "b"}, imagetest.Manifest, imagetest.Config
		i.DockerImageLayers = []imagev1.ImageLayer{{Name: imagetest.Layer, LayerSize: 10, MediaType: "m"}}
		i.Signatures = []imagev1.ImageSignature{imagetest.Signature("sha256:abc@s", nil)}
		i.DockerImageManifests = []imagev1.ImageManifest{{Digest: imagetest.Layer, ManifestSize: 3, OS: "linux"}}
	})
	const want = "1:42/847"
	size, _ := SizeOf(stored(t, image))
	if got := Version + ":" + string(size.AppendText(nil)); got != want {
		t.Errorf("%s, want %s: change Version, so that the sizes that are stored are not trusted", got, want)
	}
}

// FuzzAppend: no Image is encoded otherwise than by Marshal.
func FuzzAppend(f *testing.F) {
	const head = `{"kind":"Image","apiVersion":"image.openshift.io/v1",`
	f.Add([]byte(`"metadata":{"name":"x","labels":{"a":"b"}},"dockerImageMetadata":{"kind":"DockerImage"},"dockerImageManifest":"{\"a\":1}","dockerImageLayers":[{"name":"sha256:a","size":12,"mediaType":"m"}]}`))
	f.Add([]byte(`"metadata":{"name":"x"},"dockerImageMetadata":null,"signatures":[{"type":"atomic","content":"YQ=="}],"dockerImageSignatures":["YQ=="],"dockerImageConfig":"\ud83d\ude00"}`))
	f.Add([]byte(`"metadata":{"name":"x","uid":"y","creationTimestamp":"2026-11-28T17:28:14Z","managedFields":[{"manager":"a","operation":"Apply","apiVersion":"v1","time":"2026-11-28T17:28:14Z","fieldsType":"FieldsV1","fieldsV1":{"f:a":{}},"subresource":"status"}]},"dockerImageMetadata":null}`))
	f.Fuzz(func(t *testing.T, rest []byte) { sameAsMarshal(t, append([]byte(head), rest...)) })
}

func BenchmarkAppend(b *testing.B) {
	image := imagetest.Image("sha256:abc", func(i *imagev1.Image) {
		i.UID, i.Annotations = "be246aa3-20a7-4176-8444-aa2c8bd6a3c1", map[string]string{"image.openshift.io/dockerLayersOrder": "ascending", "openshift.io/image.managed": "true", "tallyman.dev/tags": "team/app:v1"}
		i.ManagedFields = []metav1.ManagedFieldsEntry{manager(nil)}
		i.DockerImageManifest, i.DockerImageConfig = strings.Repeat(imagetest.Manifest, 6), strings.Repeat(imagetest.Config, 20)
		i.DockerImageMetadata.Raw = []byte(`{"kind":"DockerImage","apiVersion":"1.0","Comment":"` + strings.Repeat("x", 2000) + `"}`)
		for range 12 {
			i.DockerImageLayers = append(i.DockerImageLayers, imagev1.ImageLayer{Name: imagetest.Layer, LayerSize: 1 << 20, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip"})
		}
	})
	data := stored(b, image)
	b.SetBytes(int64(len(data)))
	var dst []byte
	b.Run("stored", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var ok bool
			if dst, ok = Append(dst[:0], data, revision); !ok {
				b.Fatal("not taken")
			}
		}
	})
	b.Run("decoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decoded := &imagev1.Image{}
			if err := json.Unmarshal(data, decoded); err != nil {
				b.Fatal(err)
			}
			if _, err := decoded.Marshal(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
