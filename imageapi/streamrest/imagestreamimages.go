package streamrest

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage/objects"
)

// imageStreamImages is the imagestreamimages resource: an Image by stream and digest, or the beginning of a
// digest. A stream has the images that its repository holds.
type imageStreamImages struct {
	k8srest.TableConvertor
	streams *resource
	names   streams.Names
	records *records.Store
	images  *images
}

var (
	_ k8srest.Getter               = (*imageStreamImages)(nil)
	_ k8srest.Scoper               = (*imageStreamImages)(nil)
	_ k8srest.SingularNameProvider = (*imageStreamImages)(nil)
	_ k8srest.ShortNamesProvider   = (*imageStreamImages)(nil)
)

// New implements rest.Storage.
func (*imageStreamImages) New() runtime.Object { return &imagev1.ImageStreamImage{} }

// Destroy implements rest.Storage.
func (*imageStreamImages) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*imageStreamImages) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (*imageStreamImages) GetSingularName() string { return "imagestreamimage" }

// ShortNames implements rest.ShortNamesProvider.
func (*imageStreamImages) ShortNames() []string { return []string{"isimage"} }

// Get implements rest.Getter.
func (i *imageStreamImages) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	streamName, id, ok := strings.Cut(name, "@")
	if !ok || streamName == "" || id == "" || strings.Contains(id, "@") {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name %q: ImageStreamImages must be retrieved with <name>@<id>", name))
	}
	stream, repository, err := streamOf(ctx, i.streams, i.names, streamName, options)
	if err != nil {
		return nil, err
	}
	found, err := i.find(ctx, repository, id)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name %q: several images of the stream begin with that id, such as %s and %s: give more of it", name, found[0], found[1]))
	}
	for _, digest := range found {
		image, err := i.images.in(ctx, repository, digest.String(), stream.Status.DockerImageRepository+"@"+digest.String())
		if err != nil {
			return nil, err
		}
		if image != nil {
			return &imagev1.ImageStreamImage{
				ObjectMeta: metav1.ObjectMeta{Namespace: stream.Namespace, Name: name, CreationTimestamp: image.CreationTimestamp, Annotations: stream.Annotations},
				Image:      *image,
			}, nil
		}
	}
	return nil, apierrors.NewNotFound(imageapi.ImageStreamImages, name)
}

// find returns up to two manifests of a repository whose digests begin with id, or whose encoded parts do.
func (i *imageStreamImages) find(ctx context.Context, repository, id string) (found []digest.Digest, err error) {
	prefixes := []string{id}
	if !strings.Contains(id, ":") {
		prefixes = []string{digest.SHA256.String() + ":" + id, digest.SHA512.String() + ":" + id}
	}
	for _, prefix := range prefixes {
		names, err := i.records.HeldManifests(ctx, repository, prefix, 2)
		if err != nil {
			return nil, objects.Unavailable(err)
		}
		found = append(found, names...)
	}
	return found, nil
}
