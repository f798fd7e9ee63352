package rest

import (
	"context"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"

	"tallyman/imageapi"
	"tallyman/imageapi/derive"
	"tallyman/imageapi/rules"
)

// managedSignatureAnnotation is removed from every signature, as OpenShift does.
const managedSignatureAnnotation = "image.openshift.io/managed-signature"

// strategy is the common part of the strategies.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	verifier Verifier // may be nil
}

func newStrategy(v Verifier) strategy {
	return strategy{imageapi.Scheme, names.SimpleNameGenerator, v}
}

// NamespaceScoped implements rest.RESTCreateStrategy: Images are cluster scoped.
func (strategy) NamespaceScoped() bool { return false }

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy: PUT does not create.
func (strategy) AllowCreateOnUpdate(context.Context) bool { return false }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy: PUT needs a
// resourceVersion.
func (strategy) AllowUnconditionalUpdate(context.Context) bool { return false }

// Canonicalize implements rest.RESTCreateStrategy.
func (strategy) Canonicalize(runtime.Object) {}

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// finish is the last step before validation.
func (s strategy) finish(w *write, image, before *imagev1.Image) {
	// Validate reports invalid metadata.
	_ = rules.NormalizeMetadata(image)
	rules.StampIndex(image)
	for i := range image.Signatures {
		delete(image.Signatures[i].Annotations, managedSignatureAnnotation)
	}
	rules.FitAnnotations(image)
	w.applyVerification(s.verifier, image, before)
}

// clientStrategy is for writes by clients of the API: it fills in, resets and refuses fields. It
// follows OpenShift's
// https://github.com/openshift/openshift-apiserver/blob/master/pkg/image/apiserver/registry/image/strategy.go,
// but never ignores an error.
type clientStrategy struct{ strategy }

// registryStrategy is for writes by the registry, which may write the fields that belong to the
// server.
type registryStrategy struct{ strategy }

var (
	_ rest.RESTCreateStrategy = clientStrategy{}
	_ rest.RESTUpdateStrategy = clientStrategy{}
	_ rest.RESTDeleteStrategy = clientStrategy{}
	_ rest.RESTCreateStrategy = registryStrategy{}
	_ rest.RESTUpdateStrategy = registryStrategy{}
)

// PrepareForCreate implements rest.RESTCreateStrategy. It leaves invalid fields as they are,
// for Validate to refuse.
func (s clientStrategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	w, image := writeOf(ctx), obj.(*imagev1.Image)
	rules.RemoveOwnAnnotations(image)
	rules.OwnSignatures(image, nil)
	rules.RestoreSignatureRepositories(image, nil)
	if image.DockerImageManifest != "" {
		w.content.Fill(image)
	}
	s.finish(w, image, nil)
}

// PrepareForUpdate implements rest.RESTUpdateStrategy. It restores the fields that a client
// may not change, without an error, as OpenShift does.
func (s clientStrategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	w, image, before := writeOf(ctx), obj.(*imagev1.Image), old.(*imagev1.Image)
	if ctx.Value(mergedSignaturesKey{}) != nil {
		rules.MergeSignatures(image, before)
	}
	rules.RestoreOwnAnnotations(image, before)
	image.DockerImageMetadata = *before.DockerImageMetadata.DeepCopy()
	image.DockerImageMetadataVersion = before.DockerImageMetadataVersion
	image.DockerImageLayers = before.DockerImageLayers
	if before.DockerImageSignatures != nil {
		image.DockerImageSignatures = before.DockerImageSignatures
	}
	rules.ProtectContent(image, before)
	w.content.RestoreManifest(image, before)
	rules.RestoreSignatures(image, before)
	rules.RestoreSignatureRepositories(image, before)
	if s.verifier != nil {
		rules.KeepConditions(image, before)
	}
	s.finish(w, image, before)
}

// finish takes a valid manifest out of an image that says that the registry has it.
func (s clientStrategy) finish(w *write, image, before *imagev1.Image) {
	if image.Annotations[derive.AnnotationBlobStored] == "true" && w.content.Check(image) == nil {
		image.DockerImageManifest, image.DockerImageConfig = "", ""
	}
	s.strategy.finish(w, image, before)
}

// Validate implements rest.RESTCreateStrategy.
func (clientStrategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	w := writeOf(ctx)
	return w.refuseUnverified(rules.Validate(obj.(*imagev1.Image), nil, &w.content))
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (clientStrategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	w := writeOf(ctx)
	return w.refuseUnverified(rules.ValidateUpdate(obj.(*imagev1.Image), old.(*imagev1.Image), &w.content))
}

// PrepareForCreate implements rest.RESTCreateStrategy.
func (s registryStrategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	s.finish(writeOf(ctx), obj.(*imagev1.Image), nil)
	countTruncated(obj.(*imagev1.Image), nil)
}

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (s registryStrategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	s.finish(writeOf(ctx), obj.(*imagev1.Image), old.(*imagev1.Image))
	countTruncated(obj.(*imagev1.Image), old.(*imagev1.Image))
}

// finish takes the manifest out of an image that says that the registry has it.
func (s registryStrategy) finish(w *write, image, before *imagev1.Image) {
	if image.Annotations[derive.AnnotationBlobStored] == "true" {
		image.DockerImageManifest, image.DockerImageConfig = "", ""
	}
	s.strategy.finish(w, image, before)
}

// Validate implements rest.RESTCreateStrategy.
func (registryStrategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	return writeOf(ctx).refuseUnverified(rules.Validate(obj.(*imagev1.Image), nil, nil))
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (registryStrategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	return writeOf(ctx).refuseUnverified(rules.ValidateUpdate(obj.(*imagev1.Image), old.(*imagev1.Image), nil))
}
