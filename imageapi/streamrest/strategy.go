package streamrest

import (
	"context"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/storage/names"

	"tallyman/imageapi/records"
	"tallyman/imageapi/rules"
	"tallyman/imageapi/streams"
)

// streamStrategy is that of image streams as clients write them: their spec is the client's, their status
// the server's.
type streamStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	resolver *resolver
}

// NamespaceScoped implements rest.RESTCreateStrategy.
func (streamStrategy) NamespaceScoped() bool { return true }

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy.
func (streamStrategy) AllowCreateOnUpdate(context.Context) bool { return false }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy.
func (streamStrategy) AllowUnconditionalUpdate(context.Context) bool { return false }

// Canonicalize implements rest.RESTCreateStrategy.
func (streamStrategy) Canonicalize(runtime.Object) {}

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (streamStrategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (streamStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// PrepareForCreate implements rest.RESTCreateStrategy.
func (s streamStrategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	stream := obj.(*imagev1.ImageStream)
	stream.Status = imagev1.ImageStreamStatus{}
	s.own(stream, nil)
	streams.Normalize(&stream.Spec)
	streams.SetGenerations(nil, stream)
}

// own gives a stream the annotations and the finalizer that the server writes. before is nil for a new one.
func (s streamStrategy) own(stream, before *imagev1.ImageStream) {
	for key := range stream.Annotations {
		if strings.HasPrefix(key, rules.AnnotationPrefix) {
			delete(stream.Annotations, key)
		}
	}
	set := func(key, value string) {
		if stream.Annotations == nil {
			stream.Annotations = map[string]string{}
		}
		stream.Annotations[key] = value
	}
	if before != nil {
		for key, value := range before.Annotations {
			if strings.HasPrefix(key, rules.AnnotationPrefix) {
				set(key, value)
			}
		}
	}
	if repository, err := s.resolver.names.Repository(streams.Stream{Namespace: stream.Namespace, Name: stream.Name}); err == nil {
		set(records.AnnotationRepository, repository)
	}
	if !slices.Contains(stream.Finalizers, streams.FinalizerTags) {
		stream.Finalizers = append(stream.Finalizers, streams.FinalizerTags)
	}
}

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (s streamStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	stream, before := obj.(*imagev1.ImageStream), old.(*imagev1.ImageStream)
	stream.Status = *before.Status.DeepCopy()
	s.own(stream, before)
	streams.Normalize(&stream.Spec)
	streams.SetGenerations(before, stream)
}

// Validate implements rest.RESTCreateStrategy.
func (s streamStrategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	stream := obj.(*imagev1.ImageStream)
	errs := append(streams.ValidateName(s.resolver.names, stream.Namespace, stream.Name), streams.ValidateSpec(&stream.Spec)...)
	if len(errs) > 0 {
		return errs
	}
	return s.resolver.resolve(ctx, nil, stream)
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (s streamStrategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	stream := obj.(*imagev1.ImageStream)
	if errs := streams.ValidateSpec(&stream.Spec); len(errs) > 0 {
		return errs
	}
	return s.resolver.resolve(ctx, old.(*imagev1.ImageStream), stream)
}

// statusStrategy is that of the status: clients shorten histories.
type statusStrategy struct{ streamStrategy }

// PrepareForUpdate implements rest.RESTUpdateStrategy. A tag that loses the newest item of its history is
// deleted.
func (statusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	stream, before := obj.(*imagev1.ImageStream), old.(*imagev1.ImageStream)
	managed, status := stream.ManagedFields, stream.Status
	before.DeepCopyInto(stream)
	stream.ManagedFields = managed
	stream.Status.Tags = status.Tags
	for i := range stream.Status.Tags {
		tag := &stream.Status.Tags[i]
		if head := streams.Head(before, tag.Tag); head != nil && (len(tag.Items) == 0 || !streams.SameItem(head, &tag.Items[0])) && streams.HasItems(before, tag) {
			tag.Items = nil
		}
	}
	stream.Status.Tags = slices.DeleteFunc(stream.Status.Tags, func(tag imagev1.NamedTagEventList) bool { return len(tag.Items) == 0 && len(tag.Conditions) == 0 })
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (statusStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return streams.ValidateStatusUpdate(obj.(*imagev1.ImageStream), old.(*imagev1.ImageStream))
}
