package rules

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/imagetest"
)

// problems prints errors as "field: type", sorted as they came.
func problems(errs field.ErrorList) string {
	var all []string
	for _, err := range errs {
		all = append(all, err.Field+": "+string(err.Type))
	}
	return strings.Join(all, ", ")
}

func TestValidateImage(t *testing.T) {
	entry := imagev1.ImageManifest{Digest: imagetest.Layer, MediaType: "application/vnd.oci.image.manifest.v1+json", Architecture: "amd64", OS: "linux"}
	withEntry := func(change func(*imagev1.ImageManifest)) *imagev1.Image {
		e := entry
		change(&e)
		return imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageManifests = []imagev1.ImageManifest{e} })
	}
	tests := map[string]struct {
		image *imagev1.Image
		want  string
	}{
		"good":                   {imagetest.Image("foo", nil), ""},
		"short reference":        {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageReference = "openshift/ruby-19-centos" }), ""},
		"no name":                {imagetest.Image("", nil), "metadata.name: FieldValueRequired"},
		"slash":                  {imagetest.Image("foo/bar", nil), "metadata.name: FieldValueInvalid"},
		"percent":                {imagetest.Image("foo%%bar", nil), "metadata.name: FieldValueInvalid"},
		"no reference":           {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageReference = "" }), "dockerImageReference: FieldValueRequired"},
		"bad reference":          {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageReference = "\\" }), "dockerImageReference: FieldValueInvalid"},
		"upper case":             {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageReference = "a/B" }), "dockerImageReference: FieldValueInvalid"},
		"entry":                  {withEntry(func(*imagev1.ImageManifest) {}), ""},
		"entry, digest":          {withEntry(func(m *imagev1.ImageManifest) { m.Digest = "abc" }), "dockerImageManifests[0].digest: FieldValueInvalid"},
		"entry, digest not all":  {withEntry(func(m *imagev1.ImageManifest) { m.Digest += "zz" }), "dockerImageManifests[0].digest: FieldValueInvalid"},
		"entry, media type":      {withEntry(func(m *imagev1.ImageManifest) { m.MediaType = "foobar" }), "dockerImageManifests[0].mediaType: FieldValueInvalid"},
		"entry, no architecture": {withEntry(func(m *imagev1.ImageManifest) { m.Architecture = "" }), "dockerImageManifests[0].architecture: FieldValueRequired"},
		"entry, no os":           {withEntry(func(m *imagev1.ImageManifest) { m.OS = "" }), "dockerImageManifests[0].os: FieldValueRequired"},
		"entry, size":            {withEntry(func(m *imagev1.ImageManifest) { m.ManifestSize = -2 }), "dockerImageManifests[0].size: FieldValueInvalid"},
		"layers beside entries": {imagetest.Image("foo", func(i *imagev1.Image) {
			i.DockerImageManifests, i.DockerImageLayers = []imagev1.ImageManifest{entry}, []imagev1.ImageLayer{{}}
		}), "dockerImageLayers: FieldValueInvalid"},
		"signature": {imagetest.Image("foo", func(i *imagev1.Image) {
			i.Signatures = []imagev1.ImageSignature{imagetest.Signature("notype", func(s *imagev1.ImageSignature) { s.Type = "" })}
		}), "signatures[0].metadata.name: FieldValueInvalid, signatures[0].type: FieldValueRequired"},
		"metadata of no version":    {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageMetadataVersion = "2.0" }), "dockerImageMetadataVersion: FieldValueNotSupported"},
		"metadata that is no image": {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageMetadata.Raw = []byte(`{"Size":"x"}`) }), "dockerImageMetadata: FieldValueInvalid"},
		"finalizers":                {imagetest.Image("foo", func(i *imagev1.Image) { i.Finalizers = []string{"orphan", "example.com/hold", "nodomain"} }), "metadata.finalizers[2]: FieldValueInvalid"},
		"metadata of another kind":  {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageMetadata.Raw = []byte(`{"kind":"Other"}`) }), "dockerImageMetadata: FieldValueInvalid"},
		"metadata of two versions":  {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageMetadata.Raw = []byte(`{"apiVersion":"v9"}`) }), "dockerImageMetadata: FieldValueInvalid"},
		"metadata with its version": {imagetest.Image("foo", func(i *imagev1.Image) {
			i.DockerImageMetadata.Raw = []byte(`{"kind":"DockerImage","apiVersion":"image.openshift.io/1.0"}`)
		}), ""},
		"manifest":          {imagetest.Image("foo", func(i *imagev1.Image) { i.DockerImageManifest = "{" }), "dockerImageManifest: FieldValueInvalid"},
		"config of another": {imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) { i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, "{}" }), "dockerImageConfig: FieldValueInvalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := problems(Validate(test.image, nil, &Content{})); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
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
		"good":       {imagetest.Signature("img@sig", nil), ""},
		"two @":      {imagetest.Signature("a@b@c", nil), "metadata.name: FieldValueInvalid"},
		"no image":   {imagetest.Signature("@b", nil), "metadata.name: FieldValueInvalid"},
		"no content": {imagetest.Signature("a@b", func(s *imagev1.ImageSignature) { s.Content = nil }), "content: FieldValueRequired"},
		"labels and annotations": {imagetest.Signature("a@b", func(s *imagev1.ImageSignature) {
			s.Labels, s.Annotations = map[string]string{"a": "b"}, map[string]string{"a": "b"}
		}), "metadata.labels: FieldValueForbidden, metadata.annotations: FieldValueForbidden"},
		"trusted": {imagetest.Signature("a@b", conditions(condition("Trusted", "True", 1), condition("ForImage", "True", 1))), ""},
		"untrusted later": {imagetest.Signature("a@b", conditions(condition("Trusted", "True", 1), condition("ForImage", "False", 1),
			condition("Trusted", "False", 2))), ""},
		"trusted without ForImage": {imagetest.Signature("a@b", conditions(condition("Trusted", "True", 1))), "conditions: FieldValueInvalid"},
		"ForImage without trusted": {imagetest.Signature("a@b", conditions(condition("ForImage", "True", 1))), "conditions: FieldValueInvalid, imageIdentity: FieldValueInvalid"},
		// OpenShift's validation panics on these two.
		"another condition first":     {imagetest.Signature("a@b", conditions(condition("Expired", "True", 1), condition("Trusted", "True", 1), condition("ForImage", "True", 1))), ""},
		"an older Trusted after both": {imagetest.Signature("a@b", conditions(condition("Trusted", "True", 2), condition("Trusted", "False", 1), condition("ForImage", "True", 1))), ""},
		"unknown, with results": {imagetest.Signature("a@b", func(s *imagev1.ImageSignature) {
			s.Conditions = []imagev1.SignatureCondition{condition("Trusted", "Unknown", 1), condition("ForImage", "Unknown", 1)}
			s.ImageIdentity, s.SignedClaims = "id", map[string]string{"a": "b"}
			s.IssuedBy, s.IssuedTo = &imagev1.SignatureIssuer{}, &imagev1.SignatureSubject{}
		}), "imageIdentity: FieldValueInvalid, signedClaims: FieldValueInvalid, issuedBy: FieldValueInvalid, issuedTo: FieldValueInvalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := problems(ValidateSignature(&test.signature, nil)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestUnchangedFaults: a stored value from before a rule does not keep an Image from being
// labelled.
func TestUnchangedFaults(t *testing.T) {
	before := imagetest.Image("foo", func(i *imagev1.Image) {
		i.DockerImageReference = "A/b"
		i.DockerImageManifests = []imagev1.ImageManifest{{Digest: "x"}}
		i.Signatures = []imagev1.ImageSignature{{}}
		i.Finalizers = []string{"nodomain"}
		i.ResourceVersion = "1"
	})
	after := before.DeepCopy()
	after.Labels = map[string]string{"a": "b"}
	if errs := ValidateUpdate(after, before, &Content{}); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	after.DockerImageReference = "c/D"
	if got := problems(ValidateUpdate(after, before, &Content{})); got != "dockerImageReference: FieldValueInvalid" {
		t.Errorf("a new fault: %q", got)
	}
}

func TestPlacementIsBounded(t *testing.T) {
	image := imagetest.Image("foo", nil)
	for i := range 20_000 {
		SetTag(image, "team/app", fmt.Sprintf("v%06d", i), true)
	}
	if got := len(image.Annotations[AnnotationTags]); got > maxPlacement || got < maxPlacement/2 || image.Annotations[AnnotationTruncated] != "true" {
		t.Errorf("%d bytes of tags, truncated: %q", got, image.Annotations[AnnotationTruncated])
	}
	if errs := Validate(image, nil, nil); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	AddRepository(image, "team/app2")
	RemoveRepository(image, "team/app")
	if got := Tags(image); got != nil {
		t.Errorf("without its repository it still has tags %.100v", got)
	}
}

// filled is an Image as the API stores it.
func filled(image *imagev1.Image) *imagev1.Image {
	(&Content{}).Fill(image)
	return image
}

func TestCells(t *testing.T) {
	now := time.Unix(1e9+3700, 0)
	for name, test := range map[string]struct {
		image *imagev1.Image
		want  string
	}{
		"an image": {
			filled(imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
				i.DockerImageManifest, i.DockerImageConfig = imagetest.Manifest, imagetest.Config
			})),
			imagetest.ManifestDigest + " " + imagetest.PullSpec + fmt.Sprintf(" %dB 1 linux/amd64 <none> 61m", len(imagetest.Config)+10),
		},
		"nothing": {imagetest.Image("x", func(i *imagev1.Image) { i.CreationTimestamp = metav1.Time{} }), "x " + imagetest.PullSpec + " <unknown> 0 <none> <none> <unknown>"},
		"an index": {
			imagetest.Image("x", func(i *imagev1.Image) {
				i.DockerImageManifestMediaType = "application/vnd.oci.image.index.v1+json"
				i.DockerImageManifests = []imagev1.ImageManifest{{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}, {OS: "unknown"}}
			}),
			"x " + imagetest.PullSpec + " <unknown> 3 manifests linux/arm/v7,linux/amd64 <none> 61m",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.TrimSuffix(fmt.Sprintln(Cells(test.image, now)...), "\n"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			row, err := json.Marshal(Cells(test.image, now))
			if err != nil {
				t.Fatal(err)
			}
			brief, err := Brief(test.image)
			if err == nil {
				brief, err = AppendCells([]byte("row: "), brief, now)
			}
			if string(brief) != "row: "+string(row) || err != nil {
				t.Errorf("of the brief: %s, %v, want %s", brief, err, row)
			}
		})
	}
	for _, brief := range []string{"", "1", "x []", "1 ", "1 [1"} {
		if row, err := AppendCells(nil, []byte(brief), now); err == nil {
			t.Errorf("brief %q makes %s", brief, row)
		}
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
		field, value, err := ConvertFieldLabel(label, "v")
		if got := field + "=" + value; err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q becomes %q, %v, want %q", label, got, err, want)
		}
	}
	if _, _, err := Attributes(&imagev1.ImageSignature{}); err == nil {
		t.Error("an ImageSignature passes for an Image")
	}
}

// TestSignatureSelectors: signed, trusted, signer, and the column of signatures.
func TestSignatureSelectors(t *testing.T) {
	condition := func(trusted, forImage corev1.ConditionStatus) []imagev1.SignatureCondition {
		return []imagev1.SignatureCondition{{Type: "Trusted", Status: trusted}, {Type: "ForImage", Status: forImage}}
	}
	another := imagetest.Signature("a@b", func(s *imagev1.ImageSignature) { s.Conditions = condition("False", "False") })
	good := imagetest.Signature("a@c", func(s *imagev1.ImageSignature) {
		s.Conditions = condition("True", "True")
		s.IssuedTo = &imagev1.SignatureSubject{SignatureGenericEntity: imagev1.SignatureGenericEntity{CommonName: "release"}, PublicKeyID: "id of release"}
	})
	stranger := imagetest.Signature("a@d", func(s *imagev1.ImageSignature) { s.Conditions = condition("False", "True") })
	for name, test := range map[string]struct {
		signatures            []imagev1.ImageSignature
		signed, trusted, cell string
		fields                []string
	}{
		"unsigned":            {nil, "false", "false", "<none>", nil},
		"another's signature": {[]imagev1.ImageSignature{another}, "false", "false", "0 signed, 0 trusted", nil},
		"signed": {[]imagev1.ImageSignature{another, good, stranger}, "true", "true", "2 signed, 1 trusted",
			[]string{manyField("signer", "release"), manyField("signer", "id of release"), manyField("trustedRepository", "app")}},
	} {
		t.Run(name, func(t *testing.T) {
			image := imagetest.Image("a", func(i *imagev1.Image) { i.Signatures = test.signatures })
			if test.fields != nil {
				SetList(image, AnnotationTrusted, []string{"app"})
			}
			_, set, err := Attributes(image)
			if err != nil {
				t.Fatal(err)
			}
			if set["signed"] != test.signed || set["trusted"] != test.trusted || signatureCell(image) != test.cell {
				t.Errorf("signed %s, trusted %s, %s", set["signed"], set["trusted"], signatureCell(image))
			}
			for _, field := range test.fields {
				if set[field] != "true" {
					t.Errorf("%q is %q", field, set[field])
				}
			}
		})
	}
	for _, field := range []string{"signer", "trustedRepository"} {
		if label, value, err := ConvertFieldLabel(field, "x"); err != nil || label != manyField(field, "x") || value != "true" {
			t.Errorf("%s=x is %q=%q, %v", field, label, value, err)
		}
	}
}

// TestOwnAnnotations: a client that leaves out or changes annotations of the server gets them back.
func TestOwnAnnotations(t *testing.T) {
	for name, test := range map[string]struct {
		before map[string]string
		want   string
	}{
		"pushed":            {map[string]string{AnnotationOrigin: OriginRegistry, AnnotationRepositories: "app", AnnotationManaged: "true", derive.AnnotationLayersOrder: "ascending"}, "app true ascending"},
		"posted":            {map[string]string{AnnotationManaged: "true", derive.AnnotationLayersOrder: "ascending"}, "  "},
		"posted and pushed": {map[string]string{AnnotationRepositories: "app", AnnotationManaged: "true"}, "app true "},
	} {
		before := imagetest.Image("a", func(i *imagev1.Image) { i.Annotations = test.before })
		after := imagetest.Image("a", func(i *imagev1.Image) { i.Annotations = map[string]string{AnnotationTags: "made:up", "mine": "1"} })
		RestoreOwnAnnotations(after, before)
		got := fmt.Sprint(after.Annotations[AnnotationRepositories], " ", after.Annotations[AnnotationManaged], " ", after.Annotations[derive.AnnotationLayersOrder])
		if got != test.want || after.Annotations[AnnotationTags] != "" || after.Annotations["mine"] != "1" {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
