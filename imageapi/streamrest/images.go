package streamrest

import (
	"context"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/views"
	"tallyman/storage"
	"tallyman/storage/objects"
)

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
