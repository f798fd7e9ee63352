package streamrest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/imageapi/views"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// imageStreamImages is the imagestreamimages resource: an Image by stream and digest, or the beginning of a
// digest. A stream has the images that its repository holds.
type imageStreamImages struct {
	virtual
	k8srest.TableConvertor
	writer   *streamwriter.Writer // it reads streams without all of their tags
	resolver *resolver
	images   *images
}

var (
	_ k8srest.Getter               = (*imageStreamImages)(nil)
	_ k8srest.Scoper               = (*imageStreamImages)(nil)
	_ k8srest.SingularNameProvider = (*imageStreamImages)(nil)
	_ k8srest.ShortNamesProvider   = (*imageStreamImages)(nil)
)

// New implements rest.Storage.
func (*imageStreamImages) New() runtime.Object { return &imagev1.ImageStreamImage{} }

// ShortNames implements rest.ShortNamesProvider.
func (*imageStreamImages) ShortNames() []string { return []string{"isimage"} }

// Get implements rest.Getter.
func (i *imageStreamImages) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	streamName, id, ok := strings.Cut(name, "@")
	if !ok || streamName == "" || id == "" || strings.Contains(id, "@") {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name %q: ImageStreamImages must be retrieved with <name>@<id>", name))
	}
	of := streams.Stream{Namespace: request.NamespaceValue(ctx), Name: streamName}
	state, err := i.writer.Read(ctx, of)
	if err != nil {
		return nil, err
	}
	if state.Stream == nil {
		return nil, apierrors.NewNotFound(imageapi.ImageStreams, streamName)
	}
	stream := state.Stream
	found, err := i.resolver.image(ctx, of, id)
	if ambiguous := (*ambiguousError)(nil); errors.As(err, &ambiguous) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name %q: %s", name, err))
	}
	if err != nil {
		return nil, objects.Unavailable(err)
	}
	if found == "" {
		return nil, apierrors.NewNotFound(imageapi.ImageStreamImages, name)
	}
	image, err := i.images.in(ctx, stream.Annotations[records.AnnotationRepository], found.String(), stream.Status.DockerImageRepository+"@"+found.String())
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, apierrors.NewNotFound(imageapi.ImageStreamImages, name)
	}
	return &imagev1.ImageStreamImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: stream.Namespace, Name: name, CreationTimestamp: image.CreationTimestamp, Annotations: stream.Annotations},
		Image:      *image,
	}, nil
}

// images reads Images as repositories show them.
type images struct {
	all     *rest.Images
	backend storage.Backend
}

// in returns an Image as a repository that holds it shows it, with its pull reference there, nil if there
// is none.
func (i *images) in(ctx context.Context, repository, name, reference string) (*imagev1.Image, error) {
	image, err := i.all.Image(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	shown, err := views.ImageIn(ctx, i.backend, image, repository, reference)
	return shown, objects.Unavailable(err)
}
