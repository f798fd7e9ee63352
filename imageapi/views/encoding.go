package views

import (
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi"
	"tallyman/storage"
)

var codec = imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)

// encode returns an entry with an object, as if it was stored at a revision.
func encode(obj runtime.Object, revision int64) (*storage.Entry, error) {
	body, err := runtime.Encode(codec, obj)
	if err != nil {
		return nil, err
	}
	return &storage.Entry{Value: storage.Body(body), Revision: revision}, nil
}

// corrupt returns the entry of an object of which a part cannot be read.
func corrupt(source *storage.Entry, err error) *storage.Entry {
	return &storage.Entry{Revision: source.Revision, Err: fmt.Errorf("%w: %w", storage.ErrCorrupt, err)}
}
