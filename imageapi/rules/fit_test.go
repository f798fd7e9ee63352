package rules

import (
	"fmt"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func crowded(users int) *imagev1.Image {
	image := &imagev1.Image{}
	var repositories, tags []string
	for i := range 1800 {
		repositories = append(repositories, fmt.Sprintf("%s/%04d", strings.Repeat("r", 40), i))
		tags = append(tags, repositories[i]+":latest")
	}
	SetList(image, AnnotationRepositories, repositories)
	SetList(image, AnnotationTags, tags)
	image.Annotations["example.com/users"] = strings.Repeat("x", users)
	image.Annotations[AnnotationPrefix+"artifact-type"] = strings.Repeat("é", 2000)
	return image
}

// TestFitAnnotations: beside any annotations of users and any manifest, all annotations together
// are valid, and a cut list is one of whole elements.
func TestFitAnnotations(t *testing.T) {
	for _, users := range []int{0, MaxUserAnnotations, 100 << 10, 200 << 10, 240 << 10} {
		image := crowded(users)
		FitAnnotations(image)
		SetTrusted(image, Repositories(crowded(0)))
		if errs := apivalidation.ValidateAnnotations(image.Annotations, field.NewPath("metadata")); len(errs) > 0 {
			t.Errorf("%d bytes of users: %v", users, errs)
		}
		if image.Annotations[AnnotationTruncated] != "true" || len(image.Annotations["example.com/users"]) != users {
			t.Errorf("%d bytes of users: truncated %q, %d bytes are left", users, image.Annotations[AnnotationTruncated], len(image.Annotations["example.com/users"]))
		}
		for key, width := range map[string]int{AnnotationRepositories: 45, AnnotationTags: 52, AnnotationTrusted: 45} {
			for _, element := range split(image.Annotations[key]) {
				if len(element) != width {
					t.Fatalf("%d bytes of users: %s has the element %q", users, key, element)
				}
			}
		}
		if n := len(Repositories(image)); n < 100 && users < 200<<10 || len(split(image.Annotations[AnnotationTrusted])) < 200 {
			t.Errorf("%d bytes of users: %d repositories, %d trusted", users, n, len(split(image.Annotations[AnnotationTrusted])))
		}
	}
	small := &imagev1.Image{}
	AddRepository(small, "app")
	FitAnnotations(small)
	SetTrusted(small, []string{"app"})
	if small.Annotations[AnnotationTruncated] != "" || small.Annotations[AnnotationTrusted] != "app" {
		t.Errorf("a small Image has %v", small.Annotations)
	}
}

// TestUserAnnotations: clients may not take the room of the server's annotations. Larger ones from
// before that rule may stay, and shrink.
func TestUserAnnotations(t *testing.T) {
	of := func(size int) *imagev1.Image {
		image := &imagev1.Image{}
		image.Annotations = map[string]string{"a": strings.Repeat("x", size-1), AnnotationTags: strings.Repeat("t", 90<<10)}
		return image
	}
	for _, test := range []struct {
		before, now int
		valid       bool
	}{
		{0, MaxUserAnnotations, true}, {0, MaxUserAnnotations + 1, false}, {10, MaxUserAnnotations + 1, false},
		{100 << 10, 100 << 10, true}, {100 << 10, 90 << 10, true}, {100 << 10, 101 << 10, false},
	} {
		var before *imagev1.Image
		if test.before > 0 {
			before = of(test.before)
		}
		if errs := validateUserAnnotations(of(test.now), before); (len(errs) == 0) != test.valid {
			t.Errorf("%d bytes after %d: %v", test.now, test.before, errs)
		}
	}
}
