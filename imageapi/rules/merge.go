package rules

import (
	"maps"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MergeUserData adds to into what users have added to from, another Image of the same name.
// Where both have a value, into's stays. The Image keeps the older identity (uid and
// creationTimestamp). Merging again changes nothing.
func MergeUserData(from, into *imagev1.Image) {
	if from.CreationTimestamp.Before(&into.CreationTimestamp) {
		into.UID, into.CreationTimestamp = from.UID, from.CreationTimestamp
	}
	into.Labels = withDefaults(into.Labels, from.Labels)
	added := maps.Clone(from.Annotations)
	maps.DeleteFunc(added, func(key, _ string) bool { return strings.HasPrefix(key, AnnotationPrefix) })
	into.Annotations = withDefaults(into.Annotations, added)
	into.Finalizers = withMissing(into.Finalizers, from.Finalizers, func(f string) string { return f })
	into.OwnerReferences = withMissing(into.OwnerReferences, from.OwnerReferences, func(o metav1.OwnerReference) string { return string(o.UID) })
	posted := slices.DeleteFunc(slices.Clone(from.Signatures), func(s imagev1.ImageSignature) bool { return IsDerived(from, &s) })
	into.Signatures = withMissing(into.Signatures, posted, func(s imagev1.ImageSignature) string { return s.Name })
	into.ManagedFields = withMissing(into.ManagedFields, from.ManagedFields, func(f metav1.ManagedFieldsEntry) string {
		return f.Manager + "\x00" + string(f.Operation) + "\x00" + f.Subresource
	})
}

func withDefaults(values, defaults map[string]string) map[string]string {
	merged := maps.Clone(defaults)
	if merged == nil {
		return values
	}
	maps.Copy(merged, values)
	return merged
}

// withMissing returns all with those of more that have another key than all of them.
func withMissing[T any](all, more []T, key func(T) string) []T {
	for _, item := range more {
		if !slices.ContainsFunc(all, func(t T) bool { return key(t) == key(item) }) {
			all = append(all, item)
		}
	}
	return all
}
