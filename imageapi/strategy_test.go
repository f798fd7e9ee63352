package imageapi

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi/derive"
	"tallyman/signatures"
)

const (
	config   = `{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","config":{"User":"me"}}`
	layer    = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	pullSpec = "quay.io/team/app@" + layer
)

var (
	configDigest = digest.FromString(config).String()
	manifest     = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":`+
		`"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":10}]}`,
		configDigest, len(config), layer)
	manifestDigest = digest.FromString(manifest).String()
	index          = fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":5}]}`, layer)
)

func withMeta(name string, change func(*imagev1.Image)) *imagev1.Image {
	image := &imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0))}, DockerImageReference: pullSpec}
	if change != nil {
		change(image)
	}
	return image
}

func created(t *testing.T, image *imagev1.Image) *imagev1.Image {
	t.Helper()
	imageStrategy{}.PrepareForCreate(t.Context(), image)
	if errs := (imageStrategy{}).Validate(t.Context(), image); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return image
}

func TestPrepareForCreate(t *testing.T) {
	tests := map[string]struct {
		image *imagev1.Image
		check func(*imagev1.Image) string // the fault, if there is one
	}{
		"a raw manifest and config fill everything in": {
			withMeta(manifestDigest, func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = manifest, config }),
			func(i *imagev1.Image) string {
				m := Metadata(i)
				if m.ID != configDigest || m.Architecture != "amd64" || m.Config.User != "me" || m.Size != int64(len(config))+10 || len(i.DockerImageLayers) != 1 {
					return fmt.Sprintf("%+v, layers %v", m, i.DockerImageLayers)
				}
				if i.DockerImageManifestMediaType != "application/vnd.oci.image.manifest.v1+json" || i.Annotations[derive.AnnotationLayersOrder] != "ascending" {
					return fmt.Sprint(i.DockerImageManifestMediaType, i.Annotations)
				}
				return ""
			},
		},
		"without a config, metadata that was sent stays": {
			withMeta(manifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest = manifest
				i.DockerImageMetadata.Raw = []byte(`{"Id":"mine","Size":7}`)
			}),
			func(i *imagev1.Image) string {
				if m := Metadata(i); m.ID != "mine" || m.Size != 7 || len(i.DockerImageLayers) != 1 {
					return fmt.Sprintf("%+v", m)
				}
				return ""
			},
		},
		"an index without a date has its Image's": {
			withMeta("x", func(i *imagev1.Image) { i.DockerImageManifest = index }),
			func(i *imagev1.Image) string {
				if m := Metadata(i); !m.Created.Equal(&i.CreationTimestamp) || len(i.DockerImageManifests) != 1 || i.DockerImageManifests[0].Architecture != "" {
					return fmt.Sprintf("%+v %+v", m, i.DockerImageManifests)
				}
				return ""
			},
		},
		"stored in the registry, the texts are dropped": {
			withMeta(manifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest, i.DockerImageConfig = manifest, config
				i.Annotations = map[string]string{derive.AnnotationBlobStored: "true"}
			}),
			func(i *imagev1.Image) string {
				if i.DockerImageManifest != "" || i.DockerImageConfig != "" || Metadata(i).ID != configDigest {
					return "the texts are still there, or nothing was derived"
				}
				return ""
			},
		},
		"metadata is always whole": {
			withMeta("foo", nil),
			func(i *imagev1.Image) string {
				want := `{"kind":"DockerImage","apiVersion":"image.openshift.io/1.0","Id":"","Created":null,"ContainerConfig":{}}`
				if got := string(i.DockerImageMetadata.Raw); got != want || i.DockerImageMetadataVersion != "1.0" {
					return got + " " + i.DockerImageMetadataVersion
				}
				return ""
			},
		},
		"metadata of the old version keeps it": {
			withMeta("foo", func(i *imagev1.Image) {
				i.DockerImageMetadataVersion = "pre012"
				i.DockerImageMetadata.Raw = []byte(`{"id":"old"}`)
			}),
			func(i *imagev1.Image) string {
				if got := string(i.DockerImageMetadata.Raw); !strings.Contains(got, `"apiVersion":"image.openshift.io/pre012"`) || !strings.Contains(got, `"id":"old"`) {
					return got
				}
				return ""
			},
		},
		"what belongs to the server is dropped, what does not stays": {
			withMeta("foo", func(i *imagev1.Image) {
				i.Annotations = map[string]string{AnnotationRepositories: "mine", AnnotationOrigin: originRegistry, "mine": "yes", AnnotationManaged: "true"}
				i.Signatures = []imagev1.ImageSignature{signature("foo@a", func(s *imagev1.ImageSignature) {
					s.Annotations = map[string]string{managedSignatureAnnotation: "true"}
				})}
			}),
			func(i *imagev1.Image) string {
				if len(i.Annotations) != 2 || i.Annotations["mine"] != "yes" || len(i.Signatures[0].Annotations) != 0 {
					return fmt.Sprint(i.Annotations, i.Signatures)
				}
				return ""
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if wrong := test.check(created(t, test.image)); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

func TestPrepareForUpdate(t *testing.T) {
	whole := func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = manifest, config }
	tests := map[string]struct {
		before *imagev1.Image
		change func(*imagev1.Image)
		check  func(after, before *imagev1.Image) bool
	}{
		"derived fields are put back": {
			withMeta(manifestDigest, whole),
			func(i *imagev1.Image) {
				i.DockerImageMetadata.Raw, i.DockerImageLayers, i.DockerImageManifestMediaType = []byte(`{}`), nil, "x/y"
				i.DockerImageManifests = []imagev1.ImageManifest{{}}
				i.Labels = map[string]string{"a": "b"}
			},
			func(after, before *imagev1.Image) bool {
				return string(after.DockerImageMetadata.Raw) == string(before.DockerImageMetadata.Raw) && len(after.DockerImageLayers) == 1 &&
					after.DockerImageManifestMediaType == before.DockerImageManifestMediaType && after.DockerImageManifests == nil && after.Labels["a"] == "b"
			},
		},
		"the manifest may be cleared": {
			withMeta(manifestDigest, whole),
			func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = "", "" },
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == "" && after.DockerImageConfig == "" && Metadata(after).ID == configDigest
			},
		},
		"another manifest is put back": {
			withMeta(manifestDigest, whole),
			func(i *imagev1.Image) { i.DockerImageManifest = index },
			func(after, _ *imagev1.Image) bool { return after.DockerImageManifest == manifest },
		},
		"a manifest of an Image whose name is no digest is put back": {
			withMeta("foo", nil),
			func(i *imagev1.Image) { i.DockerImageManifest = manifest },
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == "" && len(after.DockerImageLayers) == 0
			},
		},
		"the manifest that the name says is taken, and fills in": {
			withMeta(manifestDigest, nil),
			whole,
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == manifest && after.DockerImageConfig == config && Metadata(after).ID == configDigest && len(after.DockerImageLayers) == 1
			},
		},
		"a config that the manifest does not name is put back": {
			withMeta(manifestDigest, func(i *imagev1.Image) { i.DockerImageManifest = manifest }),
			func(i *imagev1.Image) { i.DockerImageConfig = `{"other":1}` },
			func(after, _ *imagev1.Image) bool { return after.DockerImageConfig == "" },
		},
		"where it lives is put back": {
			withMeta("foo", nil),
			func(i *imagev1.Image) {
				i.Annotations = map[string]string{AnnotationTags: "x:y", "mine": "1"}
				i.DockerImageReference = "a/b"
			},
			func(after, _ *imagev1.Image) bool {
				return len(after.Annotations) == 1 && after.Annotations["mine"] == "1" && after.DockerImageReference == "a/b"
			},
		},
		"schema 1 signatures are put back": {
			withMeta("foo", func(i *imagev1.Image) { i.DockerImageSignatures = [][]byte{[]byte("a")} }),
			func(i *imagev1.Image) { i.DockerImageSignatures = nil },
			func(after, _ *imagev1.Image) bool { return len(after.DockerImageSignatures) == 1 },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := created(t, test.before)
			after := before.DeepCopy()
			test.change(after)
			imageStrategy{}.PrepareForUpdate(t.Context(), after, before)
			after.ResourceVersion, before.ResourceVersion = "1", "1"
			if errs := (imageStrategy{}).ValidateUpdate(t.Context(), after, before); len(errs) > 0 {
				t.Error(errs.ToAggregate())
			}
			if !test.check(after, before) {
				t.Errorf("it became %+v", after)
			}
		})
	}
}

func signature(name string, change func(*imagev1.ImageSignature)) imagev1.ImageSignature {
	s := imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: "atomic", Content: []byte("x")}
	if change != nil {
		change(&s)
	}
	return s
}

// problems prints errors as "field: type", sorted as they came.
func problems(errs field.ErrorList) string {
	var all []string
	for _, err := range errs {
		all = append(all, err.Field+": "+string(err.Type))
	}
	return strings.Join(all, ", ")
}

func TestValidateImage(t *testing.T) {
	entry := imagev1.ImageManifest{Digest: layer, MediaType: "application/vnd.oci.image.manifest.v1+json", Architecture: "amd64", OS: "linux"}
	withEntry := func(change func(*imagev1.ImageManifest)) *imagev1.Image {
		e := entry
		change(&e)
		return withMeta("foo", func(i *imagev1.Image) { i.DockerImageManifests = []imagev1.ImageManifest{e} })
	}
	tests := map[string]struct {
		image *imagev1.Image
		want  string
	}{
		"good":                   {withMeta("foo", nil), ""},
		"short reference":        {withMeta("foo", func(i *imagev1.Image) { i.DockerImageReference = "openshift/ruby-19-centos" }), ""},
		"no name":                {withMeta("", nil), "metadata.name: FieldValueRequired"},
		"slash":                  {withMeta("foo/bar", nil), "metadata.name: FieldValueInvalid"},
		"percent":                {withMeta("foo%%bar", nil), "metadata.name: FieldValueInvalid"},
		"no reference":           {withMeta("foo", func(i *imagev1.Image) { i.DockerImageReference = "" }), "dockerImageReference: FieldValueRequired"},
		"bad reference":          {withMeta("foo", func(i *imagev1.Image) { i.DockerImageReference = "\\" }), "dockerImageReference: FieldValueInvalid"},
		"upper case":             {withMeta("foo", func(i *imagev1.Image) { i.DockerImageReference = "a/B" }), "dockerImageReference: FieldValueInvalid"},
		"entry":                  {withEntry(func(*imagev1.ImageManifest) {}), ""},
		"entry, digest":          {withEntry(func(m *imagev1.ImageManifest) { m.Digest = "abc" }), "dockerImageManifests[0].digest: FieldValueInvalid"},
		"entry, digest not all":  {withEntry(func(m *imagev1.ImageManifest) { m.Digest += "zz" }), "dockerImageManifests[0].digest: FieldValueInvalid"},
		"entry, media type":      {withEntry(func(m *imagev1.ImageManifest) { m.MediaType = "foobar" }), "dockerImageManifests[0].mediaType: FieldValueInvalid"},
		"entry, no architecture": {withEntry(func(m *imagev1.ImageManifest) { m.Architecture = "" }), "dockerImageManifests[0].architecture: FieldValueRequired"},
		"entry, no os":           {withEntry(func(m *imagev1.ImageManifest) { m.OS = "" }), "dockerImageManifests[0].os: FieldValueRequired"},
		"entry, size":            {withEntry(func(m *imagev1.ImageManifest) { m.ManifestSize = -2 }), "dockerImageManifests[0].size: FieldValueInvalid"},
		"layers beside entries": {withMeta("foo", func(i *imagev1.Image) {
			i.DockerImageManifests, i.DockerImageLayers = []imagev1.ImageManifest{entry}, []imagev1.ImageLayer{{}}
		}), "dockerImageLayers: FieldValueInvalid"},
		"signature": {withMeta("foo", func(i *imagev1.Image) {
			i.Signatures = []imagev1.ImageSignature{signature("notype", func(s *imagev1.ImageSignature) { s.Type = "" })}
		}), "signatures[0].metadata.name: FieldValueInvalid, signatures[0].type: FieldValueRequired"},
		"metadata of no version":    {withMeta("foo", func(i *imagev1.Image) { i.DockerImageMetadataVersion = "2.0" }), "dockerImageMetadataVersion: FieldValueNotSupported"},
		"metadata that is no image": {withMeta("foo", func(i *imagev1.Image) { i.DockerImageMetadata.Raw = []byte(`{"Size":"x"}`) }), "dockerImageMetadata: FieldValueInvalid"},
		"manifest":                  {withMeta("foo", func(i *imagev1.Image) { i.DockerImageManifest = "{" }), "dockerImageManifest: FieldValueInvalid"},
		"config of another":         {withMeta(manifestDigest, func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = manifest, "{}" }), "dockerImageConfig: FieldValueInvalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := problems(validateImage(test.image, nil)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestSameVerification: a client that applies its manifest again, which has no
// conditions, changes nothing.
func TestSameVerification(t *testing.T) {
	strategy := imageStrategy{verifier: stamping{}}
	before := &imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	before.Signatures = []imagev1.ImageSignature{signature("a@b", nil)}
	strategy.PrepareForCreate(t.Context(), before)
	applied := before.DeepCopy()
	applied.Signatures[0].Conditions = nil
	strategy.PrepareForUpdate(t.Context(), applied, before)
	if !equality.Semantic.DeepEqual(applied.Signatures, before.Signatures) {
		t.Errorf("the signatures became\n%+v, want\n%+v", applied.Signatures, before.Signatures)
	}
	changed := before.DeepCopy()
	changed.Signatures[0].Conditions, changed.Signatures[0].Content = nil, []byte("other")
	strategy.PrepareForUpdate(t.Context(), changed, before)
	if equality.Semantic.DeepEqual(changed.Signatures[0].Conditions, before.Signatures[0].Conditions) {
		t.Error("another signature has the conditions of the one before")
	}
}

// stamping is a Verifier that, as the real one, sets the time of a condition that it
// has not found.
type stamping struct{}

var stamps atomic.Int64

func (stamping) Verify(image *imagev1.Image, _, _ []string) []string {
	for i := range image.Signatures {
		if s := &image.Signatures[i]; len(s.Conditions) == 0 {
			at := metav1.NewTime(time.Unix(stamps.Add(1), 0))
			s.Conditions = []imagev1.SignatureCondition{{Type: signatures.ConditionTrusted, Status: "Unknown", Reason: signatures.ReasonNoPolicy, LastProbeTime: at}}
		}
	}
	return nil
}

func TestValidateSignature(t *testing.T) {
	at := func(seconds int64) metav1.Time { return metav1.NewTime(time.Unix(seconds, 0)) }
	condition := func(kind imagev1.SignatureConditionType, status corev1.ConditionStatus, probed int64) imagev1.SignatureCondition {
		return imagev1.SignatureCondition{Type: kind, Status: status, LastProbeTime: at(probed)}
	}
	conditions := func(all ...imagev1.SignatureCondition) func(*imagev1.ImageSignature) {
		return func(s *imagev1.ImageSignature) { s.Conditions, s.ImageIdentity = all, "id" }
	}
	tests := map[string]struct {
		signature imagev1.ImageSignature
		want      string
	}{
		"good":       {signature("img@sig", nil), ""},
		"two @":      {signature("a@b@c", nil), "metadata.name: FieldValueInvalid"},
		"no image":   {signature("@b", nil), "metadata.name: FieldValueInvalid"},
		"no content": {signature("a@b", func(s *imagev1.ImageSignature) { s.Content = nil }), "content: FieldValueRequired"},
		"labels and annotations": {signature("a@b", func(s *imagev1.ImageSignature) {
			s.Labels, s.Annotations = map[string]string{"a": "b"}, map[string]string{"a": "b"}
		}), "metadata.labels: FieldValueForbidden, metadata.annotations: FieldValueForbidden"},
		"trusted": {signature("a@b", conditions(condition("Trusted", "True", 1), condition("ForImage", "True", 1))), ""},
		"untrusted later": {signature("a@b", conditions(condition("Trusted", "True", 1), condition("ForImage", "False", 1),
			condition("Trusted", "False", 2))), ""},
		"trusted without ForImage": {signature("a@b", conditions(condition("Trusted", "True", 1))), "conditions: FieldValueInvalid"},
		"ForImage without trusted": {signature("a@b", conditions(condition("ForImage", "True", 1))), "conditions: FieldValueInvalid, imageIdentity: FieldValueInvalid"},
		// OpenShift's validation panics on these two.
		"another condition first":     {signature("a@b", conditions(condition("Expired", "True", 1), condition("Trusted", "True", 1), condition("ForImage", "True", 1))), ""},
		"an older Trusted after both": {signature("a@b", conditions(condition("Trusted", "True", 2), condition("Trusted", "False", 1), condition("ForImage", "True", 1))), ""},
		"unknown, with results": {signature("a@b", func(s *imagev1.ImageSignature) {
			s.Conditions = []imagev1.SignatureCondition{condition("Trusted", "Unknown", 1), condition("ForImage", "Unknown", 1)}
			s.ImageIdentity, s.SignedClaims = "id", map[string]string{"a": "b"}
			s.IssuedBy, s.IssuedTo = &imagev1.SignatureIssuer{}, &imagev1.SignatureSubject{}
		}), "imageIdentity: FieldValueInvalid, signedClaims: FieldValueInvalid, issuedBy: FieldValueInvalid, issuedTo: FieldValueInvalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := problems(validateSignature(&test.signature, nil)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestUnchangedFaults: a stored value from before a rule does not keep an Image from being
// labelled.
func TestUnchangedFaults(t *testing.T) {
	before := withMeta("foo", func(i *imagev1.Image) {
		i.DockerImageReference = "A/b"
		i.DockerImageManifests = []imagev1.ImageManifest{{Digest: "x"}}
		i.Signatures = []imagev1.ImageSignature{{}}
		i.ResourceVersion = "1"
	})
	after := before.DeepCopy()
	after.Labels = map[string]string{"a": "b"}
	if errs := validateImageUpdate(after, before); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	after.DockerImageReference = "c/D"
	if got := problems(validateImageUpdate(after, before)); got != "dockerImageReference: FieldValueInvalid" {
		t.Errorf("a new fault: %q", got)
	}
}

func TestPlacementIsBounded(t *testing.T) {
	image := withMeta("foo", nil)
	for i := range 20_000 {
		setTag(image, "team/app", fmt.Sprintf("v%06d", i), true)
	}
	if got := len(image.Annotations[AnnotationTags]); got > maxPlacement || got < maxPlacement/2 || image.Annotations[AnnotationTruncated] != "true" {
		t.Errorf("%d bytes of tags, truncated: %q", got, image.Annotations[AnnotationTruncated])
	}
	imageStrategy{}.PrepareForCreate(asRegistry(context.Background()), image)
	if errs := validateImage(image, nil); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	addRepository(image, "team/app2")
	removeRepository(image, "team/app")
	if got := Tags(image); got != nil {
		t.Errorf("without its repository it still has tags %.100v", got)
	}
}

func TestPullReference(t *testing.T) {
	for host, want := range map[string]string{
		"": "a/b@" + layer, "localhost:5000": "localhost:5000/a/b@" + layer, "[::1]:5000": "[::1]:5000/a/b@" + layer, "my_registry:5000": "a/b@" + layer, "evil host": "a/b@" + layer,
	} {
		if got := pullReference(host, "a/b", layer); got != want {
			t.Errorf("host %q: %s, want %s", host, got, want)
		}
	}
}

func TestCells(t *testing.T) {
	now := time.Unix(1e9+3700, 0)
	for name, test := range map[string]struct {
		image *imagev1.Image
		want  string
	}{
		"an image": {
			created(t, withMeta(manifestDigest, func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = manifest, config })),
			manifestDigest + " " + pullSpec + fmt.Sprintf(" %dB 1 linux/amd64 <none> 61m", len(config)+10),
		},
		"nothing": {withMeta("x", func(i *imagev1.Image) { i.CreationTimestamp = metav1.Time{} }), "x " + pullSpec + " <unknown> 0 <none> <none> <unknown>"},
		"an index": {
			withMeta("x", func(i *imagev1.Image) {
				i.DockerImageManifestMediaType = "application/vnd.oci.image.index.v1+json"
				i.DockerImageManifests = []imagev1.ImageManifest{{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}, {OS: "unknown"}}
			}),
			"x " + pullSpec + " <unknown> 3 manifests linux/arm/v7,linux/amd64 <none> 61m",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.TrimSuffix(fmt.Sprintln(cells(test.image, now)...), "\n"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	for size, want := range map[int64]string{0: "<unknown>", 999: "999B", 1500: "1.5kB", 123456789: "123.5MB"} {
		if got := humanSize(size); got != want {
			t.Errorf("%d bytes are %q, want %q", size, got, want)
		}
	}
}

func TestFieldLabels(t *testing.T) {
	for label, want := range map[string]string{
		"metadata.name": "metadata.name=v", "repository": "repository\x00v=true", "tag": "tag\x00v=true", "repository\x00v": "repository\x00v=v", "nope": "",
	} {
		field, value, err := convertFieldLabel(label, "v")
		if got := field + "=" + value; err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q becomes %q, %v, want %q", label, got, err, want)
		}
	}
	if _, _, err := imageAttributes(&imagev1.ImageSignature{}); err == nil {
		t.Error("an ImageSignature passes for an Image")
	}
}
