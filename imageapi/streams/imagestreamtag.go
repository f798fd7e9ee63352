package streams

import (
	"maps"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/rules"
)

// ImageStreamTag returns the ImageStreamTag of a tag of a stream, with the Image that it points to as
// ImageIn returns it, which it may change; nil for none. It is made as OpenShift makes it, but for its uid,
// which is the tag's own
// (https://github.com/openshift/openshift-apiserver/blob/master/pkg/image/apiserver/registry/imagestreamtag/rest.go).
func ImageStreamTag(stream *imagev1.ImageStream, tag *imagev1.ImageTag, image *imagev1.Image) *imagev1.ImageStreamTag {
	shown := &imagev1.ImageStreamTag{
		ObjectMeta: metav1.ObjectMeta{
			Name: tag.Name, Namespace: tag.Namespace, UID: tag.UID, CreationTimestamp: tag.CreationTimestamp,
			Labels: stream.Labels, Annotations: map[string]string{},
		},
		Tag: tag.Spec, LookupPolicy: stream.Spec.LookupPolicy, Conditions: tag.Status.Conditions,
	}
	if image != nil {
		shown.Image = *image
	}
	if len(tag.Status.Items) > 0 {
		head := &tag.Status.Items[0]
		shown.CreationTimestamp, shown.Generation = head.Created, head.Generation
	}
	if tag.Spec != nil && len(tag.Spec.Annotations) > 0 {
		shown.Annotations = maps.Clone(tag.Spec.Annotations)
		for key, value := range tag.Spec.Annotations {
			if image != nil && !strings.HasPrefix(key, rules.AnnotationPrefix) { // those are the server's alone
				shown.Image.Annotations[key] = value
			}
		}
	}
	return shown
}
