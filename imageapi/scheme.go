package imageapi

import (
	"fmt"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"tallyman/imageapi/rules"
)

var (
	// Scheme knows the served types. The external types double as the hub
	// version: there is one version, so nothing is ever converted.
	Scheme = newScheme(runtime.APIVersionInternal)
	// Codecs encode and decode the served types as JSON, YAML, protobuf, CBOR.
	Codecs = serializer.NewCodecFactory(Scheme, serializer.WithSerializer(cbor.NewSerializerInfo))

	// ParameterCodec decodes the queries of requests.
	ParameterCodec = runtime.NewParameterCodec(Scheme)

	// PublicScheme has only the versions that clients see, for OpenAPI.
	PublicScheme = newScheme()
)

// Resources of the group image.openshift.io.
var (
	Images              = imagev1.GroupVersion.WithResource("images").GroupResource()
	ImageSignatures     = imagev1.GroupVersion.WithResource("imagesignatures").GroupResource()
	ImageTags           = imagev1.GroupVersion.WithResource("imagetags").GroupResource()
	ImageStreams        = imagev1.GroupVersion.WithResource("imagestreams").GroupResource()
	ImageStreamTags     = imagev1.GroupVersion.WithResource("imagestreamtags").GroupResource()
	ImageStreamMappings = imagev1.GroupVersion.WithResource("imagestreammappings").GroupResource()
	ImageStreamImports  = imagev1.GroupVersion.WithResource("imagestreamimports").GroupResource()
	ImageStreamImages   = imagev1.GroupVersion.WithResource("imagestreamimages").GroupResource()
)

// reviewTypes are the requests for a user's own identity and permissions.
var reviewTypes = map[schema.GroupVersion][]runtime.Object{
	authorizationv1.SchemeGroupVersion:  {&authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{}, &authorizationv1.SubjectAccessReview{}},
	authenticationv1.SchemeGroupVersion: {&authenticationv1.SelfSubjectReview{}},
}

func newScheme(moreVersions ...string) *runtime.Scheme {
	s := runtime.NewScheme()
	types := []runtime.Object{
		&imagev1.Image{}, &imagev1.ImageList{}, &imagev1.ImageSignature{}, &imagev1.ImageTag{}, &imagev1.ImageTagList{},
		&imagev1.ImageStream{}, &imagev1.ImageStreamList{}, &imagev1.ImageStreamLayers{}, &imagev1.ImageStreamImage{},
		&imagev1.ImageStreamTag{}, &imagev1.ImageStreamTagList{}, &imagev1.ImageStreamMapping{}, &imagev1.ImageStreamImport{}, &imagev1.SecretList{},
	}
	s.AddKnownTypes(imagev1.GroupVersion, types...)
	for _, version := range moreVersions {
		s.AddKnownTypes(schema.GroupVersion{Group: imagev1.GroupVersion.Group, Version: version}, types...)
	}
	metav1.AddToGroupVersion(s, imagev1.GroupVersion)
	for group, reviews := range reviewTypes {
		s.AddKnownTypes(group, reviews...)
		for _, version := range moreVersions {
			s.AddKnownTypes(schema.GroupVersion{Group: group.Group, Version: version}, reviews...)
		}
		metav1.AddToGroupVersion(s, group)
	}
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(s, unversioned)
	s.AddUnversionedTypes(unversioned, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	utilruntime.Must(s.AddFieldLabelConversionFunc(imagev1.GroupVersion.WithKind("Image"), rules.ConvertFieldLabel))
	utilruntime.Must(s.AddFieldLabelConversionFunc(imagev1.GroupVersion.WithKind("ImageTag"), selectable(FieldImage, FieldDeleted)))
	utilruntime.Must(s.AddFieldLabelConversionFunc(imagev1.GroupVersion.WithKind("ImageStreamTag"), selectable(FieldImage)))
	utilruntime.Must(s.AddFieldLabelConversionFunc(imagev1.GroupVersion.WithKind("ImageStream"), selectable(FieldSpecRepository, FieldStatusRepository)))
	return s
}

// Fields that select ImageTags besides metadata.name and metadata.namespace.
const (
	// FieldImage is the manifest that a tag points to.
	FieldImage = "image"
	// FieldDeleted is "true" to select tags that were deleted, instead of those that are there.
	FieldDeleted = "deleted"
)

// Fields that select ImageStreams besides metadata.name and metadata.namespace.
const (
	FieldSpecRepository   = "spec.dockerImageRepository"
	FieldStatusRepository = "status.dockerImageRepository"
)

// selectable returns the conversion of field selectors that knows metadata.name, metadata.namespace and
// some more.
func selectable(more ...string) runtime.FieldLabelConversionFunc {
	known := append([]string{"metadata.name", "metadata.namespace"}, more...)
	return func(label, value string) (string, string, error) {
		if slices.Contains(known, label) {
			return label, value, nil
		}
		return "", "", fmt.Errorf("%q is not a known field selector: want one of %q", label, known)
	}
}
