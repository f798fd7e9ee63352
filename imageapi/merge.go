package imageapi

import (
	"maps"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// MergeStored merges two stored values of one key: from, in a store that is being moved or
// restored, and to, in the store that is in use. A referrer is taken from to, because the
// registry keeps it in step, and so are the derived parts of an Image and its placement. The
// result has the additions of users to either; where both have one, to's is newer. The Image
// keeps the older identity (uid and creationTimestamp). Merging again changes nothing.
func MergeStored(key string, from, to []byte) ([]byte, error) {
	if !strings.HasPrefix(key, KeyPrefix) {
		return to, nil
	}
	codec := Codecs.LegacyCodec(imagev1.GroupVersion)
	older, newer := &imagev1.Image{}, &imagev1.Image{}
	if err := runtime.DecodeInto(codec, from, older); err != nil {
		return nil, err
	}
	if err := runtime.DecodeInto(codec, to, newer); err != nil {
		return nil, err
	}
	mergeUserData(older, newer)
	return runtime.Encode(codec, newer)
}

func mergeUserData(from, into *imagev1.Image) {
	if from.CreationTimestamp.Before(&into.CreationTimestamp) {
		into.UID, into.CreationTimestamp = from.UID, from.CreationTimestamp
	}
	into.Labels = withDefaults(into.Labels, from.Labels)
	added := maps.Clone(from.Annotations)
	maps.DeleteFunc(added, func(key, _ string) bool { return strings.HasPrefix(key, AnnotationPrefix) })
	into.Annotations = withDefaults(into.Annotations, added)
	into.Finalizers = withMissing(into.Finalizers, from.Finalizers, func(f string) string { return f })
	into.OwnerReferences = withMissing(into.OwnerReferences, from.OwnerReferences, func(o metav1.OwnerReference) string { return string(o.UID) })
	posted := slices.DeleteFunc(slices.Clone(from.Signatures), func(s imagev1.ImageSignature) bool { return isDerived(from, &s) })
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
