package streams

import (
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ImageStreamTag returns the ImageStreamTag of a tag of a stream, with the Image that it points to as
// ImageIn returns it. It is made as OpenShift makes it, but for its uid, which is the tag's own
// (https://github.com/openshift/openshift-apiserver/blob/master/pkg/image/apiserver/registry/imagestreamtag/rest.go).
func ImageStreamTag(stream *imagev1.ImageStream, tag *imagev1.ImageTag, image *imagev1.Image) *imagev1.ImageStreamTag {
	head := &tag.Status.Items[0]
	return &imagev1.ImageStreamTag{
		ObjectMeta: metav1.ObjectMeta{
			Name: tag.Name, Namespace: tag.Namespace, UID: tag.UID, CreationTimestamp: head.Created,
			Labels: stream.Labels, Annotations: map[string]string{},
		},
		Generation: head.Generation, LookupPolicy: stream.Spec.LookupPolicy, Conditions: tag.Status.Conditions, Image: *image,
	}
}
