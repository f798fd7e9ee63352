package rest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/randfill"

	"tallyman/imageapi"
	"tallyman/imageapi/imagetest"
)

// sameAsCodec wants stored bytes that decodeStored takes to be the Image that the codec makes of them.
func sameAsCodec(t *testing.T, data []byte) (taken bool) {
	t.Helper()
	fast := &imagev1.Image{}
	if !decodeStored(data, fast) {
		if !reflect.DeepEqual(fast, &imagev1.Image{}) {
			t.Fatalf("%q is not taken, and left %+v", data, fast)
		}
		return false
	}
	slow := &imagev1.Image{}
	if err := runtime.DecodeInto(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), data, slow); err != nil {
		t.Fatalf("%q is taken, and the codec says %v", data, err)
	}
	if !reflect.DeepEqual(fast, slow) {
		t.Fatalf("%q is decoded as\n%#v, want\n%#v", data, fast, slow)
	}
	return true
}

// TestDecodeStored: any Image that is stored is decoded as by the codec, and all of them are taken.
func TestDecodeStored(t *testing.T) {
	filler := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 4).Funcs(
		metafuzzer.Funcs(imageapi.Codecs)...,
	).Funcs(func(raw *runtime.RawExtension, c randfill.Continue) {
		raw.Raw = fmt.Appendf(nil, `{"kind":"DockerImage","Size":%d,"Author":%q}`, c.Int63(), c.String(10))
	})
	for n := range 300 {
		image := &imagev1.Image{}
		filler.Fill(image)
		data := stored(t, image)
		if !sameAsCodec(t, data) {
			t.Fatalf("image %d is not taken: %s", n, data)
		}
	}
	image := string(stored(t, imagetest.Image("x", nil)))
	for name, other := range map[string]string{
		"a name twice":        strings.Replace(image, `"metadata":{`, `"metadata":{"name":"y",`, 1),
		"another kind":        strings.Replace(image, `"kind":"Image"`, `"kind":"ImageList"`, 1),
		"another version":     strings.Replace(image, "/v1", "/v2", 1),
		"invalid UTF-8":       strings.Replace(image, `"name":"x"`, "\"name\":\"\xff\"", 1),
		"cut short":           image[:len(image)-4],
		"more than one value": image + "{}",
		"another type":        strings.Replace(image, `"name":"x"`, `"name":1`, 1),
	} {
		if other == image || sameAsCodec(t, []byte(other)) {
			t.Errorf("%s is taken: %s", name, other)
		}
	}
	if decodeStored([]byte(image), &imagev1.ImageList{}) {
		t.Error("a list is taken")
	}
}

// FuzzDecodeStored: no bytes are decoded otherwise than by the codec.
func FuzzDecodeStored(f *testing.F) {
	f.Add([]byte(`"metadata":{"name":"x","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"a":"b"}},"dockerImageMetadata":{"kind":"DockerImage","Size":1},"dockerImageLayers":[{"name":"sha256:a","size":12}]}`))
	f.Add([]byte(`"metadata":{"name":null,"annotations":null,"creationTimestamp":null},"dockerImageMetadata":null,"dockerImageLayers":null,"signatures":[{"content":"YQ=="}]}`))
	f.Add([]byte(`"Metadata":{"Name":"x"},"unknown":[1e9,{"a":1}],"dockerImageLayers":[{"size":1.0}]}`))
	f.Fuzz(func(t *testing.T, rest []byte) {
		sameAsCodec(t, append([]byte(`{"kind":"Image","apiVersion":"image.openshift.io/v1",`), rest...))
	})
}

func BenchmarkDecodeStored(b *testing.B) {
	image := imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
		i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
	})
	codec := imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)
	data, err := runtime.Encode(codec, image)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("stored", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !decodeStored(data, &imagev1.Image{}) {
				b.Fatal("it is not taken")
			}
		}
	})
	b.Run("codec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := runtime.DecodeInto(codec, data, &imagev1.Image{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
