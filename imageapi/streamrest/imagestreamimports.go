package streamrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/distribution/reference"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"tallyman/imageapi"
	"tallyman/imageapi/imports"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
)

const kindImport = "ImageStreamImport"

// imageStreamImports is the imagestreamimports resource: a request to read images of other registries and,
// with spec.import, to add them to a stream.
type imageStreamImports struct {
	virtual
	*tagWriter
	client   *imports.Client // nil if there are no imports
	registry streamwriter.Registry
	streams  *imageStreams
}

var (
	_ k8srest.Creater              = (*imageStreamImports)(nil)
	_ k8srest.Scoper               = (*imageStreamImports)(nil)
	_ k8srest.SingularNameProvider = (*imageStreamImports)(nil)
)

// New implements rest.Storage.
func (*imageStreamImports) New() runtime.Object { return &imagev1.ImageStreamImport{} }

// Create implements rest.Creater. It succeeds if the request can be carried out; each image has a status of
// its own in the answer.
func (i *imageStreamImports) Create(ctx context.Context, obj runtime.Object, validate k8srest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	wanted := obj.(*imagev1.ImageStreamImport)
	if i.client == nil {
		return nil, apierrors.NewForbidden(i.of, wanted.Name, errors.New("this registry imports no images: imageapi.imports.enabled is not true"))
	}
	namespace := request.NamespaceValue(ctx)
	if err := k8srest.EnsureObjectNamespaceMatchesRequestNamespace(namespace, wanted); err != nil {
		return nil, err
	}
	items, errs := i.items(namespace, wanted)
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(imagev1.GroupVersion.WithKind(kindImport).GroupKind(), wanted.Name, errs)
	}
	if err := admit(ctx, validate, wanted); err != nil {
		return nil, err
	}
	stream := streams.Stream{Namespace: namespace, Name: wanted.Name}
	if err := i.sameStream(ctx, stream, wanted.ResourceVersion); err != nil {
		return nil, err
	}
	answer := wanted.DeepCopy()
	answer.Status = imagev1.ImageStreamImportStatus{}
	persist := wanted.Spec.Import && !dryrun.IsDryRun(options.DryRun)
	for k := range items {
		answer.Status.Images = append(answer.Status.Images, i.do(ctx, stream, &items[k], persist))
	}
	if wanted.Spec.Repository != nil {
		answer.Status.Repository = i.doRepository(ctx, stream, wanted.Spec.Repository, persist)
	}
	if persist {
		now, err := i.streams.Get(ctx, wanted.Name, &metav1.GetOptions{})
		switch {
		case err == nil:
			answer.Status.Import = now.(*imagev1.ImageStream)
		case !apierrors.IsNotFound(err): // as it is if nothing could be read of a repository
			return nil, err
		}
	}
	return answer, nil
}

// sameStream fails if a stream has another resourceVersion, "" for any.
func (i *imageStreamImports) sameStream(ctx context.Context, stream streams.Stream, version string) error {
	if version == "" {
		return nil
	}
	state, err := i.writer.Read(ctx, stream)
	switch {
	case err != nil:
		return err
	case state.Stream == nil:
		return apierrors.NewNotFound(imageapi.ImageStreams, stream.Name)
	case version != strconv.FormatInt(state.Revision, 10):
		return apierrors.NewConflict(imageapi.ImageStreams, stream.Name, fmt.Errorf("the image stream was updated from %q to %q", version, strconv.FormatInt(state.Revision, 10)))
	}
	return nil
}

// item is an image to be imported.
type item struct {
	from            reference.Named
	tag             string // of the stream, "" for none
	importPolicy    imagev1.TagImportPolicy
	referencePolicy imagev1.TagReferencePolicy
	whole           bool // the answer has its manifest
	// asking is the spec of the tag that asks for it, nil if a request does: then one that the tag has got since
	// stays as it is.
	asking *imagev1.TagReference
}

// items returns the images of a request, of its repository none.
func (i *imageStreamImports) items(namespace string, wanted *imagev1.ImageStreamImport) (items []item, errs field.ErrorList) {
	errs = streams.ValidateName(i.strategy.resolver.names, namespace, wanted.Name)
	path := field.NewPath("spec")
	if len(wanted.Spec.Images) == 0 && wanted.Spec.Repository == nil {
		errs = append(errs, field.Invalid(path.Child("images"), "", "you must specify at least one image or a repository import"))
	}
	for k := range wanted.Spec.Images {
		image, at := &wanted.Spec.Images[k], path.Child("images").Index(k)
		named, problems := i.source(&imagev1.TagReference{From: &image.From, ImportPolicy: image.ImportPolicy, ReferencePolicy: image.ReferencePolicy}, at)
		errs = append(errs, problems...)
		if named == nil {
			continue
		}
		found := item{from: named, importPolicy: image.ImportPolicy, referencePolicy: image.ReferencePolicy, whole: image.IncludeManifest}
		if tagged, ok := named.(reference.Tagged); ok {
			found.tag = tagged.Tag()
		}
		if image.To != nil {
			if found.tag = image.To.Name; found.tag == "" {
				errs = append(errs, field.Required(at.Child("to", "name"), "the name of the target tag must be specified"))
				continue
			}
			errs = append(errs, streams.ValidateTagName(found.tag, at.Child("to", "name"))...)
		}
		items = append(items, found)
	}
	if repository := wanted.Spec.Repository; repository != nil {
		at := path.Child("repository")
		named, problems := i.source(&imagev1.TagReference{From: &repository.From, ImportPolicy: repository.ImportPolicy, ReferencePolicy: repository.ReferencePolicy}, at)
		if errs = append(errs, problems...); named != nil && !reference.IsNameOnly(named) {
			errs = append(errs, field.Invalid(at.Child("from", "name"), repository.From.Name, "you must specify an image repository, not a tag or ID"))
		}
	}
	return items, errs
}

// source returns the image that a request names, if its registry is allowed.
func (i *imageStreamImports) source(tag *imagev1.TagReference, path *field.Path) (reference.Named, field.ErrorList) {
	if tag.From.Kind != streams.KindDockerImage {
		return nil, field.ErrorList{field.Invalid(path.Child("from", "kind"), tag.From.Kind, "only DockerImage is supported")}
	}
	streams.SetDefaults(tag)
	if errs := streams.ValidateTag(tag, path); len(errs) > 0 {
		return nil, errs
	}
	named, err := reference.ParseNormalizedNamed(tag.From.Name)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path.Child("from", "name"), tag.From.Name, err.Error())}
	}
	if _, err := i.client.Repository(named, false); err != nil {
		return nil, field.ErrorList{field.Forbidden(path.Child("from", "name"), fmt.Sprintf("importing images from registry %q is forbidden: %v", reference.Domain(named), err))}
	}
	return named, nil
}

// do reads an image and, if persist is set and it has a tag, adds it to the stream.
func (i *imageStreamImports) do(ctx context.Context, stream streams.Stream, wanted *item, persist bool) imagev1.ImageImportStatus {
	status := imagev1.ImageImportStatus{Tag: wanted.tag, Status: metav1.Status{Status: metav1.StatusSuccess}}
	image, err := i.read(ctx, wanted, &status)
	if persist && wanted.tag != "" {
		if err == nil {
			err = i.add(ctx, stream, wanted, image)
		}
		if err != nil {
			err = errors.Join(err, i.note(ctx, stream, wanted, failure(wanted.from, err)))
		}
	}
	if err != nil {
		status.Image, status.Manifests, status.Status = nil, nil, failure(wanted.from, err)
	}
	return status
}

// read reads an image into the answer.
func (i *imageStreamImports) read(ctx context.Context, wanted *item, status *imagev1.ImageImportStatus) (*imports.Image, error) {
	repository, err := i.client.Repository(wanted.from, wanted.importPolicy.Insecure)
	if err != nil {
		return nil, err
	}
	of := "latest"
	if digested, ok := wanted.from.(reference.Digested); ok {
		of = digested.Digest().String()
	} else if tagged, ok := wanted.from.(reference.Tagged); ok {
		of = tagged.Tag()
	}
	image, err := repository.Image(ctx, of)
	if err != nil {
		return nil, err
	}
	if status.Image, err = image.Object(ctx, wanted.whole); err != nil || wanted.importPolicy.ImportMode != imagev1.ImportModePreserveOriginal {
		return image, err
	}
	children, err := image.Children(ctx)
	for _, child := range children {
		object, err := child.Object(ctx, wanted.whole)
		if err != nil {
			return nil, err
		}
		status.Manifests = append(status.Manifests, *object)
	}
	return image, err
}

// maxTags is how many tags of a repository are imported at once.
const maxTags = 50

// doRepository is do for the tags of a repository that are wanted most.
func (i *imageStreamImports) doRepository(ctx context.Context, stream streams.Stream, wanted *imagev1.RepositoryImportSpec, persist bool) *imagev1.RepositoryImportStatus {
	named, err := reference.ParseNormalizedNamed(wanted.From.Name)
	if err != nil {
		return &imagev1.RepositoryImportStatus{Status: failure(nil, err)} // it was validated
	}
	repository, err := i.client.Repository(named, wanted.ImportPolicy.Insecure)
	var tags []string
	if err == nil {
		tags, err = repository.Tags(ctx)
	}
	if err != nil {
		return &imagev1.RepositoryImportStatus{Status: failure(named, err)}
	}
	imports.SortTags(tags)
	status, failed := &imagev1.RepositoryImportStatus{Status: metav1.Status{Status: metav1.StatusSuccess}}, 0
	for k, tag := range tags {
		if k >= maxTags {
			status.AdditionalTags = append(status.AdditionalTags, tag)
			continue
		}
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			continue // no tag that this registry may have
		}
		one := i.do(ctx, stream, &item{from: tagged, tag: tag, importPolicy: wanted.ImportPolicy, referencePolicy: wanted.ReferencePolicy, whole: wanted.IncludeManifest}, persist)
		if one.Status.Status != metav1.StatusSuccess {
			failed++
		}
		status.Images = append(status.Images, one)
	}
	switch {
	case failed == 1:
		status.Status = metav1.Status{Status: metav1.StatusFailure, Reason: "ImportFailed", Message: "one of the images from this repository failed to import"}
	case failed > 1:
		status.Status = metav1.Status{Status: metav1.StatusFailure, Reason: "ImportFailed", Message: fmt.Sprintf("%d of the images from this repository failed to import", failed)}
	}
	return status
}

// failure returns the status of an image that could not be imported.
func failure(from reference.Named, err error) metav1.Status {
	name := ""
	if from != nil {
		name = from.String()
	}
	var status apierrors.APIStatus
	var refused *streamwriter.RefusedError
	var notAllowed *imports.NotAllowedError
	switch kind := imports.KindOf(err); {
	case errors.As(err, &status):
		return status.Status()
	case errors.As(err, &notAllowed):
		return apierrors.NewForbidden(imageapi.ImageStreams, name, fmt.Errorf("importing images from it is forbidden: %w", err)).Status()
	case errors.As(err, &refused):
		return apierrors.NewForbidden(imageapi.ImageStreams, name, err).Status()
	case kind == http.StatusNotFound:
		return apierrors.NewNotFound(imagev1.GroupVersion.WithResource("dockerimage").GroupResource(), name).Status()
	case kind == http.StatusUnauthorized, kind == http.StatusForbidden:
		return apierrors.NewUnauthorized(fmt.Sprintf("you may not have access to the container image %q", name)).Status()
	case kind == http.StatusBadRequest:
		return apierrors.NewBadRequest(fmt.Sprintf("the repository %s is HTTP only and requires the insecure flag to import", name)).Status()
	}
	return apierrors.NewInternalError(fmt.Errorf("%s: %w", name, err)).Status()
}
