package derive_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/openshift/api/image/docker10"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	layerA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	layerB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	child  = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

const imageConfig = `{"architecture":"arm64","os":"linux","variant":"v8","author":"A. U. Thor","created":"2024-02-03T04:05:06.789Z",` +
	`"docker_version":"27.0","config":{"Env":["PATH=/bin"],"Cmd":["/app"],"Labels":{"a":"<b>"},"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["NONE"]}},` +
	`"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"RUN"}]}`

// manifestOf returns an image manifest of the given type over config.
func manifestOf(mediaType, configType, config, rest string) string {
	field := ""
	if mediaType != "" {
		field = fmt.Sprintf(`"mediaType":%q,`, mediaType)
	}
	return fmt.Sprintf(`{"schemaVersion":2,%s"config":{"mediaType":%q,"digest":%q,"size":%d}%s}`,
		field, configType, digest.FromString(config), len(config), rest)
}

// raw is the source of an Image before the manifest is parsed.
type raw struct {
	MediaType        string
	Manifest, Config []byte
	Digest           digest.Digest
	Reference        string
	InlineLimit      int64
}

func (r raw) derive() (*imagev1.Image, error) {
	m, err := manifest.Parse(r.MediaType, r.Manifest)
	if err != nil {
		return nil, err
	}
	return derive.Image(derive.Input{Manifest: m, Config: r.Config, Digest: r.Digest, Reference: r.Reference, InlineLimit: r.InlineLimit})
}

func layers(entries ...string) string { return `,"layers":[` + strings.Join(entries, ",") + `]` }

func layer(digest string, size int64, mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, size)
}

const tarGzip = imagespec.MediaTypeImageLayerGzip

// TestImageGolden compares whole Images, field by field and byte by byte, with
// testdata/*.golden.json. Run with -update after a wanted change.
func TestImageGolden(t *testing.T) {
	image := manifestOf("", imagespec.MediaTypeImageConfig, imageConfig, layers(layer(layerA, 100, tarGzip), layer(layerB, 20, tarGzip)))
	helm := `{"name":"web","version":"1.2.3","description":"a chart","apiVersion":"v2"}`
	entry := func(extra string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7%s}`, imagespec.MediaTypeImageManifest, child, extra)
	}
	tests := map[string]raw{
		"oci-image": {MediaType: imagespec.MediaTypeImageManifest, Manifest: []byte(image), Config: []byte(imageConfig)},
		"docker-schema2": {
			MediaType: manifest.MediaTypeDockerManifest,
			Manifest: []byte(manifestOf(manifest.MediaTypeDockerManifest, "application/vnd.docker.container.image.v1+json", imageConfig,
				layers(layer(layerA, 100, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
					layer(layerB, 1000, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
					layer(layerA, 100, "application/vnd.docker.image.rootfs.diff.tar.gzip")))),
			Config: []byte(imageConfig),
		},
		"image-without-config": {MediaType: imagespec.MediaTypeImageManifest, Manifest: []byte(image)},
		"helm-chart": {
			MediaType: imagespec.MediaTypeImageManifest,
			Manifest: []byte(manifestOf("", "application/vnd.cncf.helm.config.v1+json", helm,
				layers(layer(layerA, 5, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))+
					`,"annotations":{"org.opencontainers.image.created":"2025-01-02T03:04:05Z"}`)),
			Config: []byte(helm),
		},
		"artifact": {
			MediaType: imagespec.MediaTypeImageManifest,
			Manifest: []byte(manifestOf(imagespec.MediaTypeImageManifest, imagespec.MediaTypeEmptyJSON, "{}",
				`,"artifactType":"application/spdx+json","subject":`+entry("")+layers(layer(digest.FromString("{}").String(), 2, imagespec.MediaTypeEmptyJSON)))),
			Config: []byte("{}"),
		},
		"oci-index": {
			MediaType: imagespec.MediaTypeImageIndex,
			Manifest: []byte(`{"schemaVersion":2,"manifests":[` +
				entry(`,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}`) + "," +
				entry(`,"platform":{"architecture":"unknown","os":"unknown"}`) + "," + entry("") + "," +
				fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":9}`, imagespec.MediaTypeImageIndex, layerB) + `]}`),
		},
		"docker-list": {
			MediaType: manifest.MediaTypeDockerManifestList,
			Manifest: []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7,"platform":{"architecture":"s390x","os":"linux"}}]}`,
				manifest.MediaTypeDockerManifestList, manifest.MediaTypeDockerManifest, child)),
		},
		"config-not-json": {
			MediaType: imagespec.MediaTypeImageManifest,
			Manifest:  []byte(manifestOf("", "application/octet-stream", "\xff\x00", layers())),
			Config:    []byte("\xff\x00"),
		},
		"config-of-wrong-types": {
			MediaType: imagespec.MediaTypeImageManifest,
			Manifest:  []byte(manifestOf("", imagespec.MediaTypeImageConfig, wrongTypes, layers())),
			Config:    []byte(wrongTypes),
		},
		"schema1": {
			MediaType: manifest.MediaTypeSchema1,
			Manifest: []byte(`{"schemaVersion":1,"name":"n","tag":"t","architecture":"amd64",` +
				`"fsLayers":[{"blobSum":"` + layerB + `"},{"blobSum":"` + layerA + `"}],` +
				`"history":[{"v1Compatibility":"{\"id\":\"top\",\"parent\":\"base\",\"created\":\"2015-02-21T02:11:06Z\",\"Size\":30,\"config\":{\"Cmd\":[\"sh\"]},\"architecture\":\"amd64\",\"os\":\"linux\"}"},` +
				`{"v1Compatibility":"{\"id\":\"base\",\"Size\":12}"}]}`),
		},
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			in.Reference = "registry.example.com/team/app@" + child
			image, err := in.derive()
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(image, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".golden.json")
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(append(got, '\n'), want) {
				t.Errorf("the Image differs from %s:\n%s", path, got)
			}
		})
	}
}

const wrongTypes = `{"created":1,"author":["x"],"architecture":"amd64","os":"linux","config":{"Env":"no list","Cmd":["ok"],"User":7}}`

func metadata(t *testing.T, image *imagev1.Image) docker10.DockerImage {
	t.Helper()
	var m docker10.DockerImage
	if err := json.Unmarshal(image.DockerImageMetadata.Raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestImageBounds(t *testing.T) {
	many := make([]string, 10_000)
	for i := range many {
		many[i] = layer(fmt.Sprintf("sha256:%064x", i), 10, tarGzip)
	}
	tests := map[string]struct {
		manifest, config string
		wantSize         int64
		wantLayers       int
		wantInline       bool
	}{
		"negative sizes": {
			manifest: manifestOf("", imagespec.MediaTypeImageConfig, "{}", layers(layer(layerA, -5, tarGzip), layer(layerB, 7, tarGzip))),
			config:   "{}", wantSize: 9, wantLayers: 2, wantInline: true,
		},
		"sizes beyond int64": {
			manifest: manifestOf("", imagespec.MediaTypeImageConfig, "{}", layers(layer(layerA, math.MaxInt64, tarGzip), layer(layerB, math.MaxInt64, tarGzip))),
			config:   "{}", wantSize: math.MaxInt64, wantLayers: 2, wantInline: true,
		},
		"10 000 layers": {
			manifest: manifestOf("", imagespec.MediaTypeImageConfig, "{}", layers(many...)),
			config:   "{}", wantSize: 100_002, wantLayers: 10_000,
		},
		"duplicate keys: the last one counts": {
			manifest: `{"schemaVersion":2,"layers":[` + layer(layerA, 1, tarGzip) + `],"layers":[]}`, wantInline: true,
		},
		"a key of another case": {
			manifest: `{"schemaVersion":2,"Layers":[` + layer(layerA, 1, tarGzip) + `]}`, wantSize: 1, wantLayers: 1, wantInline: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := raw{MediaType: imagespec.MediaTypeImageManifest, Manifest: []byte(test.manifest)}
			if test.config != "" {
				in.Config = []byte(test.config)
			}
			image, err := in.derive()
			if err != nil {
				t.Fatal(err)
			}
			if got := metadata(t, image).Size; got != test.wantSize {
				t.Errorf("size %d, want %d", got, test.wantSize)
			}
			if got := len(image.DockerImageLayers); got != test.wantLayers {
				t.Errorf("%d layers, want %d", got, test.wantLayers)
			}
			for _, l := range image.DockerImageLayers {
				if l.LayerSize < 0 {
					t.Errorf("layer %s has size %d", l.Name, l.LayerSize)
				}
			}
			stored := image.Annotations[derive.AnnotationBlobStored] == "true"
			if (image.DockerImageManifest == test.manifest) != test.wantInline || stored == test.wantInline {
				t.Errorf("inline manifest: %v, blob stored: %v, want inline: %v", image.DockerImageManifest != "", stored, test.wantInline)
			}
		})
	}
}

func TestImageErrors(t *testing.T) {
	valid := manifestOf("", imagespec.MediaTypeImageConfig, "{}", layers())
	tests := map[string]struct {
		in         raw
		wantText   string
		wantDigest bool
	}{
		"wrong digest": {in: raw{Manifest: []byte(valid), Digest: layerA}, wantText: layerA, wantDigest: true},
		"bad digest":   {in: raw{Manifest: []byte(valid), Digest: "sha256:short"}, wantText: "sha256:short"},
		"wrong config": {in: raw{Manifest: []byte(valid), Config: []byte("other")}, wantText: "config", wantDigest: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := test.in.derive()
			if err == nil || !strings.Contains(err.Error(), test.wantText) {
				t.Errorf("got error %v, want one with %q", err, test.wantText)
			}
			if errors.Is(err, derive.ErrDigest) != test.wantDigest {
				t.Errorf("errors.Is(%v, ErrDigest) is %v", err, !test.wantDigest)
			}
		})
	}
}

// TestSchema1SignedDigest: the name of a signed manifest is the digest of the signed bytes,
// and is the same with one signature more.
func TestSchema1SignedDigest(t *testing.T) {
	unsigned := "{\n   \"schemaVersion\": 1,\n   \"fsLayers\": [{\"blobSum\": \"" + layerA + "\"}],\n   \"history\": [{\"v1Compatibility\": \"{}\"}]\n}"
	body := unsigned[:len(unsigned)-2]
	// {"formatLength":N,"formatTail":"Cn0"}: the tail is "\n}".
	header := []byte(fmt.Sprintf(`{"formatLength":%d,"formatTail":"Cn0"}`, len(body)))
	protected := strings.TrimRight(base64URL(header), "=")
	signed := body + `,"signatures":[{"protected":"` + protected + `"}]}`
	image, err := raw{MediaType: manifest.MediaTypeSchema1Signed, Manifest: []byte(signed)}.derive()
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromString(unsigned).String(); image.Name != want {
		t.Errorf("the Image is named %s, want %s", image.Name, want)
	}
}

// TestAmbiguous: an Image is of the content that clients pull, and says that others may read
// something else.
func TestAmbiguous(t *testing.T) {
	in := raw{Manifest: []byte(`{"schemaVersion":2,"layers":[` + layer(layerA, 1, tarGzip) + `],"Layers":[` + layer(layerB, 2, tarGzip) + `],"manifests":[]}`)}
	image, err := in.derive()
	if err != nil {
		t.Fatal(err)
	}
	if len(image.DockerImageLayers) != 1 || image.DockerImageLayers[0].Name != layerB || image.Annotations[derive.AnnotationAmbiguous] != "layers,manifests" {
		t.Errorf("layers %v, annotations %v", image.DockerImageLayers, image.Annotations)
	}
}

// TestPlatform: the annotation has the form of --platform.
func TestPlatform(t *testing.T) {
	for config, want := range map[string]string{
		`{"os":"linux","architecture":"amd64"}`:                             "linux/amd64",
		`{"os":"linux","architecture":"arm64","variant":"v8"}`:              "linux/arm64/v8",
		`{"os":"windows","architecture":"amd64","os.version":"10.0.17763"}`: "windows/amd64",
		`{"architecture":"amd64"}`:                                          "",
		`{"os":"linux"}`:                                                    "linux",
	} {
		image, err := raw{Manifest: []byte(manifestOf("", imagespec.MediaTypeImageConfig, config, layers())), Config: []byte(config)}.derive()
		if err != nil || image.Annotations[derive.AnnotationPlatform] != want {
			t.Errorf("%s: %q, %v", config, image.Annotations[derive.AnnotationPlatform], err)
		}
	}
}
