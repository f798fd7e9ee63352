package rest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
	"tallyman/storage/memory"
)

func created(t *testing.T, image *imagev1.Image) *imagev1.Image {
	t.Helper()
	clientStrategy{}.PrepareForCreate(t.Context(), image)
	if errs := (clientStrategy{}).Validate(t.Context(), image); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return image
}

func TestPrepareForCreate(t *testing.T) {
	tests := map[string]struct {
		image *imagev1.Image
		check func(*imagev1.Image) string // the fault, if there is one
	}{
		"a raw imagetest.Manifest and imagetest.Config fill everything in": {
			imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
			}),
			func(i *imagev1.Image) string {
				m := rules.Metadata(i)
				if m.ID != imagetest.ConfigDigest || m.Architecture != "amd64" || m.Config.User != "me" || m.Size != int64(len(imagetest.Config))+10 || len(i.DockerImageLayers) != 1 {
					return fmt.Sprintf("%+v, layers %v", m, i.DockerImageLayers)
				}
				if i.DockerImageManifestMediaType != "application/vnd.oci.image.manifest.v1+json" || i.Annotations[derive.AnnotationLayersOrder] != "ascending" {
					return fmt.Sprint(i.DockerImageManifestMediaType, i.Annotations)
				}
				return ""
			},
		},
		"without a imagetest.Config, metadata that was sent stays": {
			imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest = imagetest.Manifest
				i.DockerImageMetadata.Raw = []byte(`{"Id":"mine","Size":7}`)
			}),
			func(i *imagev1.Image) string {
				if m := rules.Metadata(i); m.ID != "mine" || m.Size != 7 || len(i.DockerImageLayers) != 1 {
					return fmt.Sprintf("%+v", m)
				}
				return ""
			},
		},
		"an index without a date has its Image's": {
			imagetest.Image("x", func(i *imagev1.Image) { i.DockerImageManifest = imagetest.Index }),
			func(i *imagev1.Image) string {
				if m := rules.Metadata(i); !m.Created.Equal(&i.CreationTimestamp) || len(i.DockerImageManifests) != 1 || i.DockerImageManifests[0].Architecture != "" {
					return fmt.Sprintf("%+v %+v", m, i.DockerImageManifests)
				}
				return ""
			},
		},
		"stored in the registry, the texts are dropped": {
			imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
				i.Annotations = map[string]string{derive.AnnotationBlobStored: "true"}
			}),
			func(i *imagev1.Image) string {
				if i.DockerImageManifest != "" || i.DockerImageConfig != "" || rules.Metadata(i).ID != imagetest.ConfigDigest {
					return "the texts are still there, or nothing was derived"
				}
				return ""
			},
		},
		"metadata is always whole": {
			imagetest.Image("foo", nil),
			func(i *imagev1.Image) string {
				want := `{"kind":"DockerImage","apiVersion":"image.openshift.io/1.0","Id":"","Created":null,"ContainerConfig":{}}`
				if got := string(i.DockerImageMetadata.Raw); got != want || i.DockerImageMetadataVersion != "1.0" {
					return got + " " + i.DockerImageMetadataVersion
				}
				return ""
			},
		},
		"metadata of the old version keeps it": {
			imagetest.Image("foo", func(i *imagev1.Image) {
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
			imagetest.Image("foo", func(i *imagev1.Image) {
				i.Annotations = map[string]string{rules.AnnotationRepositories: "mine", rules.AnnotationOrigin: rules.OriginRegistry, "mine": "yes", rules.AnnotationManaged: "true"}
				i.Signatures = []imagev1.ImageSignature{imagetest.Signature("foo@a", func(s *imagev1.ImageSignature) {
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
	whole := func(i *imagev1.Image) {
		i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
	}
	tests := map[string]struct {
		before *imagev1.Image
		change func(*imagev1.Image)
		check  func(after, before *imagev1.Image) bool
	}{
		"derived fields are put back": {
			imagetest.Image(imagetest.ManifestDigest, whole),
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
		"the imagetest.Manifest may be cleared": {
			imagetest.Image(imagetest.ManifestDigest, whole),
			func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = "", "" },
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == "" && after.DockerImageConfig == "" && rules.Metadata(after).ID == imagetest.ConfigDigest
			},
		},
		"another imagetest.Manifest is put back": {
			imagetest.Image(imagetest.ManifestDigest, whole),
			func(i *imagev1.Image) { i.DockerImageManifest = imagetest.Index },
			func(after, _ *imagev1.Image) bool { return after.DockerImageManifest == imagetest.Manifest },
		},
		"a imagetest.Manifest of an Image whose name is no digest is put back": {
			imagetest.Image("foo", nil),
			func(i *imagev1.Image) { i.DockerImageManifest = imagetest.Manifest },
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == "" && len(after.DockerImageLayers) == 0
			},
		},
		"the imagetest.Manifest that the name says is taken, and fills in": {
			imagetest.Image(imagetest.ManifestDigest, nil),
			whole,
			func(after, _ *imagev1.Image) bool {
				return after.DockerImageManifest == imagetest.Manifest && after.DockerImageConfig == imagetest.Config && rules.Metadata(after).ID == imagetest.ConfigDigest && len(after.DockerImageLayers) == 1
			},
		},
		"a imagetest.Config that the imagetest.Manifest does not name is put back": {
			imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) { i.DockerImageManifest = imagetest.Manifest }),
			func(i *imagev1.Image) { i.DockerImageConfig = `{"other":1}` },
			func(after, _ *imagev1.Image) bool { return after.DockerImageConfig == "" },
		},
		"where it lives is put back": {
			imagetest.Image("foo", nil),
			func(i *imagev1.Image) {
				i.Annotations = map[string]string{rules.AnnotationTags: "x:y", "mine": "1"}
				i.DockerImageReference = "a/b"
			},
			func(after, _ *imagev1.Image) bool {
				return len(after.Annotations) == 1 && after.Annotations["mine"] == "1" && after.DockerImageReference == "a/b"
			},
		},
		"the order of layers and the mark of content in this registry are put back": {
			imagetest.Image(imagetest.ManifestDigest, whole),
			func(i *imagev1.Image) { i.Annotations = nil },
			func(after, _ *imagev1.Image) bool {
				return after.Annotations[derive.AnnotationLayersOrder] == imagev1.DockerImageLayersOrderAscending
			},
		},
		"schema 1 signatures are put back": {
			imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageSignatures = [][]byte{[]byte("a")} }),
			func(i *imagev1.Image) { i.DockerImageSignatures = nil },
			func(after, _ *imagev1.Image) bool { return len(after.DockerImageSignatures) == 1 },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := created(t, test.before)
			after := before.DeepCopy()
			test.change(after)
			clientStrategy{}.PrepareForUpdate(t.Context(), after, before)
			after.ResourceVersion, before.ResourceVersion = "1", "1"
			if errs := (clientStrategy{}).ValidateUpdate(t.Context(), after, before); len(errs) > 0 {
				t.Error(errs.ToAggregate())
			}
			if !test.check(after, before) {
				t.Errorf("it became %+v", after)
			}
		})
	}
}

// TestSameVerification: a client that applies its manifest again, which has no
// conditions, changes nothing.
func TestSameVerification(t *testing.T) {
	images, err := NewImages(memory.New(memory.Options{}), stamping{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	before := images.mustCreate(t, imagetest.Image("a", signed("b")))
	apply := func(change func(*imagev1.ImageSignature)) *imagev1.Image {
		applied := before.DeepCopy()
		applied.Signatures[0].Conditions = nil
		change(&applied.Signatures[0])
		obj, _, err := images.Update(internal(t.Context()), "a", k8srest.DefaultUpdatedObjectInfo(applied), nil, nil, false, &metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*imagev1.Image)
	}
	if got := apply(func(*imagev1.ImageSignature) {}); !equality.Semantic.DeepEqual(got, before) {
		t.Errorf("the Image became\n%+v, want\n%+v", got, before)
	}
	if got := apply(func(s *imagev1.ImageSignature) { s.Content = []byte("other") }); equality.Semantic.DeepEqual(got.Signatures[0].Conditions, before.Signatures[0].Conditions) {
		t.Error("another signature has the conditions of the one before")
	}
}

// stamping is a Verifier that, as the real one, sets the time of a condition that it
// has not found.
type stamping struct{}

var stamps atomic.Int64

func (stamping) Refresh(context.Context) {}

func (stamping) Verify(_ context.Context, r *VerifyRequest) *Verdict {
	image := r.Image
	for i := range image.Signatures {
		if s := &image.Signatures[i]; len(s.Conditions) == 0 {
			at := metav1.NewTime(time.Unix(stamps.Add(1), 0))
			s.Conditions = []imagev1.SignatureCondition{{Type: signatures.ConditionTrusted, Status: "Unknown", Reason: signatures.ReasonNoPolicy, LastProbeTime: at}, {Type: signatures.ConditionForImage, Status: "Unknown", Reason: signatures.ReasonUnknown, LastProbeTime: at}}
		}
	}
	return &Verdict{}
}
