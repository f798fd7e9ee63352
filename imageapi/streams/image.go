package streams

import (
	"maps"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/rules"
)

// ImageIn returns an Image as a repository that holds it shows it to users who may know that
// repository only: without other repositories, their tags, signatures and policies, and without the
// texts of manifest and config, as OpenShift shows it. reference is its pull reference there. holds reports whether the repository has a
// signature that is derived from the registry. The result shares parts with image.
func ImageIn(image *imagev1.Image, repository, reference string, holds func(*imagev1.ImageSignature) bool) *imagev1.Image {
	shown := *image
	shown.TypeMeta = metav1.TypeMeta{} // the object that it is in has one
	shown.DockerImageReference, shown.DockerImageManifest, shown.DockerImageConfig = reference, "", ""
	shown.ResourceVersion, shown.ManagedFields = "", nil // they tell of changes elsewhere
	alone := slices.Equal(rules.Repositories(image), []string{repository}) && image.Annotations[rules.AnnotationTruncated] == ""
	shown.Annotations = annotationsIn(image, repository)
	shown.Signatures = nil
	for i := range image.Signatures {
		s := image.Signatures[i]
		in := rules.SignatureRepositories(&s)
		switch {
		case rules.IsDerived(image, &s):
			if !holds(&s) {
				continue
			}
		case len(in) > 0 && !slices.Contains(in, repository):
			continue
		case len(in) > 0:
			s.Annotations = map[string]string{rules.AnnotationRepositories: repository}
		}
		if !alone {
			s.Conditions = withoutMessages(s.Conditions)
		}
		shown.Signatures = append(shown.Signatures, s)
	}
	return &shown
}

// annotationsIn returns the annotations of an Image, of the server's the part about a repository.
func annotationsIn(image *imagev1.Image, repository string) map[string]string {
	shown := maps.Clone(image.Annotations)
	for _, key := range []string{rules.AnnotationRepositories, rules.AnnotationTags, rules.AnnotationTrusted, rules.AnnotationTruncated, rules.AnnotationPolicies, rules.AnnotationSignaturesOmitted} {
		delete(shown, key)
	}
	set := func(key string, list []string) {
		if len(list) > 0 {
			shown[key] = strings.Join(list, ",")
		}
	}
	if shown == nil {
		shown = map[string]string{}
	}
	set(rules.AnnotationRepositories, []string{repository})
	set(rules.AnnotationTags, slices.DeleteFunc(rules.Tags(image), func(tag string) bool { return !strings.HasPrefix(tag, repository+":") }))
	set(rules.AnnotationTrusted, slices.DeleteFunc(rules.TrustedRepositories(image), func(r string) bool { return r != repository }))
	return shown
}

// withoutMessages leaves out the messages, which may name policies of other repositories.
func withoutMessages(conditions []imagev1.SignatureCondition) []imagev1.SignatureCondition {
	shown := slices.Clone(conditions)
	for i := range shown {
		shown[i].Message = ""
	}
	return shown
}
