package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
)

// TestBounds: an Image of a client has a size, and its posted signatures have a number and a size.
// One that is larger already may shrink. The registry's own writes have no such bound.
func TestBounds(t *testing.T) {
	posted := func(number, size int) *imagev1.Image {
		return imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
			for n := range number {
				i.Signatures = append(i.Signatures, imagetest.Signature(fmt.Sprintf("%s@%d", i.Name, n), func(s *imagev1.ImageSignature) {
					s.Type, s.Content = signatures.TypeAtomic, []byte(strings.Repeat("x", size))
				}))
			}
		})
	}
	noted := func(size int) *imagev1.Image {
		return imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) { i.DockerImageConfig = strings.Repeat("x", size) })
	}
	for name, test := range map[string]struct {
		before, image *imagev1.Image
		want          string // "" for none
	}{
		"64 signatures":            {posted(63, 10), posted(64, 10), ""},
		"65 signatures":            {posted(64, 10), posted(65, 10), "signatures: Too many: 65: must have at most 64 items"},
		"fewer than too many":      {posted(80, 10), posted(79, 10), ""},
		"more than too many":       {posted(80, 10), posted(81, 10), "Too many: 81"},
		"1 MiB of signatures":      {posted(3, 1<<18), posted(4, 1<<18), ""},
		"more than 1 MiB":          {posted(4, 1<<18), posted(5, 1<<18), `Invalid value: "1310720 bytes": the signatures that clients post to an image may have 1048576 bytes together`},
		"one of more than 1 MiB":   {posted(0, 0), posted(1, 1<<20+1), "may have 1048576 bytes together"},
		"an image of 1.5 MiB":      {noted(0), noted(3<<19 - 4096), ""},
		"an image of more":         {noted(0), noted(3 << 19), "an image may have 1572864 bytes"},
		"a large image that stays": {noted(3 << 19), noted(3 << 19), ""},
		"a large image that grows": {noted(3 << 19), noted(3<<19 + 1), "an image may have 1572864 bytes"},
	} {
		errs := rules.Validate(test.image, test.before, &rules.Content{}).ToAggregate()
		if test.want == "" && errs != nil && strings.Contains(errs.Error(), "may have") || test.want != "" && (errs == nil || !strings.Contains(errs.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, errs, test.want)
		}
		if errs := rules.Validate(test.image, test.before, nil).ToAggregate(); errs != nil && strings.Contains(errs.Error(), "may have") {
			t.Errorf("%s, by the registry: %v", name, errs)
		}
	}
}

// TestMergeSignatures: signatures of a patch are added, by name, and change those that are there.
func TestMergeSignatures(t *testing.T) {
	image := func(all ...string) *imagev1.Image {
		return imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
			for _, s := range all {
				name, content, _ := strings.Cut(s, "=")
				i.Signatures = append(i.Signatures, imagetest.Signature(name, func(s *imagev1.ImageSignature) { s.Content = []byte(content) }))
			}
		})
	}
	for _, test := range []struct{ before, patch, want []string }{
		{nil, []string{"a=1"}, []string{"a=1"}},
		{[]string{"a=1"}, []string{"b=2"}, []string{"a=1", "b=2"}},
		{[]string{"a=1", "b=2"}, []string{"a=3"}, []string{"b=2", "a=3"}},
		{[]string{"a=1", "b=2"}, []string{"a="}, []string{"b=2", "a=1"}},
		{[]string{"a=1"}, nil, []string{"a=1"}},
	} {
		merged := image(test.patch...)
		rules.MergeSignatures(merged, image(test.before...))
		var got []string
		for _, s := range merged.Signatures {
			got = append(got, s.Name+"="+string(s.Content))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v, with %v: %v, want %v", test.before, test.patch, got, test.want)
		}
	}
}

// TestRenewed: additions of users to an Image are gone, and the registry's content stays. It is not
// trusted any more for signatures that are gone.
func TestRenewed(t *testing.T) {
	const content = "derived"
	for name, posted := range map[string]bool{"with a posted signature": true, "with derived signatures alone": false} {
		image := imagetest.Image(imagetest.ManifestDigest, func(i *imagev1.Image) {
			i.UID, i.Labels, i.Finalizers = "before", map[string]string{"a": "b"}, []string{"x/y"}
			i.Annotations = map[string]string{
				"user": "x", rules.AnnotationRepositories: "app", rules.AnnotationTags: "app:v1", rules.AnnotationTrusted: "app", rules.AnnotationVerification: rules.VerificationComplete,
			}
			derived := imagev1.ImageSignature{Type: signatures.TypeAtomic, Content: []byte(content)}
			derived.Name = signatures.FullName(digest.Digest(i.Name), signatures.Signature{Type: derived.Type, Content: derived.Content})
			i.Signatures = []imagev1.ImageSignature{derived}
			if posted {
				i.Signatures = append(i.Signatures, imagetest.Signature(i.Name+"@posted", func(s *imagev1.ImageSignature) { s.UID = "posted" }))
			}
		})
		now := metav1.Now()
		got := rules.Renewed(image, now)
		verification, trusted := rules.VerificationComplete, "app"
		if posted {
			verification, trusted = rules.VerificationPending, ""
		}
		if got.UID == "before" || got.Labels != nil || got.Finalizers != nil || !got.CreationTimestamp.Equal(&now) || len(got.Signatures) != 1 || string(got.Signatures[0].Content) != content {
			t.Errorf("%s: %+v", name, got)
		}
		for key, want := range map[string]string{
			"user": "", rules.AnnotationRepositories: "app", rules.AnnotationTags: "app:v1", rules.AnnotationOrigin: rules.OriginRegistry, rules.AnnotationManaged: "true",
			rules.AnnotationTrusted: trusted, rules.AnnotationVerification: verification,
		} {
			if got.Annotations[key] != want {
				t.Errorf("%s: %s is %q, want %q", name, key, got.Annotations[key], want)
			}
		}
		if image.UID != "before" || image.Annotations["user"] != "x" {
			t.Errorf("%s: the former one has changed", name)
		}
	}
}
