package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"

	"tallyman/imageapi/records"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// EachSigned calls fn with the name of every Image with signatures. It ends with the first error of
// fn. Where the index cannot answer it reads all Images.
func (i *Images) EachSigned(ctx context.Context, fn func(name string) error) error {
	named := func(key string) error { return fn(strings.TrimPrefix(key, KeyPrefix)) }
	err := i.encoded.EachWithTerm(ctx, rules.TermSignatures, named)
	if !errors.Is(err, storage.ErrNoIndex) {
		return err
	}
	return storage.Each(ctx, i.backend, KeyPrefix, false, func(e *storage.Entry) error {
		if !bytes.Contains(e.Value.Body(), []byte(`"signatures":[`)) {
			return nil
		}
		return named(e.Key)
	})
}

// EachPending calls fn with the name of every Image whose signatures are not all verified. It fails
// with storage.ErrNoIndex while the index cannot answer, and ends with the first error of fn.
func (i *Images) EachPending(ctx context.Context, fn func(name string) error) error {
	return i.encoded.EachWithTerm(ctx, rules.TermPending, func(key string) error { return fn(strings.TrimPrefix(key, KeyPrefix)) })
}

// renew returns the Image that takes the place of one that a client deletes, if a repository holds
// its manifest: the registry's Images are a view of its content.
func (i *Images) renew(ctx context.Context, obj runtime.Object) (runtime.Object, []storage.Mutation, error) {
	image, ok := obj.(*imagev1.Image)
	if _, isRequest := request.RequestInfoFrom(ctx); !ok || !isRequest {
		return nil, nil, nil // the registry deletes it
	}
	holder, condition, err := records.HeldBy(ctx, i.backend, digest.Digest(image.Name))
	if err != nil || holder == "" {
		return nil, []storage.Mutation{condition}, err
	}
	warning.AddWarning(ctx, "", fmt.Sprintf("the registry holds the manifest in %s, so that its image was made anew, without labels, annotations and signatures of users; delete the manifest in the registry to delete it", holder))
	return rules.Renewed(image, metav1.Now().Rfc3339Copy()), []storage.Mutation{condition}, nil
}
