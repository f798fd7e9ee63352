package streamrest

import (
	"context"
	"errors"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
)

// writeTries bounds how often a tag is written that others change meanwhile.
const writeTries = 10

// tagWriter writes tags of streams: each write is one of the stream, with this tag alone.
type tagWriter struct {
	writer   *streamwriter.Writer
	strategy streamStrategy
	of       schema.GroupResource // the resource that clients write
	// settle, if set, changes the stream that is to be after its generations are known.
	settle func(after *imagev1.ImageStream)
}

// place is a tag by its name.
type place struct {
	stream    streams.Stream
	tag, name string // name is that of the object
}

// place returns the tag called name in the namespace of ctx.
func (t *tagWriter) place(ctx context.Context, name string) (place, error) {
	stream, tag, err := streams.ParseTagName(name)
	if err != nil {
		return place{}, apierrors.NewBadRequest(err.Error())
	}
	namespace, ok := request.NamespaceFrom(ctx)
	if !ok || namespace == "" {
		return place{}, apierrors.NewBadRequest("a namespace is required")
	}
	return place{streams.Stream{Namespace: namespace, Name: stream}, tag, name}, nil
}

// newPlace returns the tag of an object to be created. A name without a tag is that of "latest".
func (t *tagWriter) newPlace(ctx context.Context, obj metav1.Object) (place, error) {
	if stream, ok := strings.CutSuffix(obj.GetName(), ":"); ok {
		obj.SetName(streams.TagName(stream, "latest"))
	}
	p, err := t.place(ctx, obj.GetName())
	if err != nil {
		return p, err
	}
	if errs := streams.ValidateName(t.strategy.resolver.names, p.stream.Namespace, p.stream.Name); len(errs) > 0 {
		return p, apierrors.NewInvalid(imagev1.GroupVersion.WithKind("ImageStream").GroupKind(), p.stream.Name, errs)
	}
	return p, k8srest.EnsureObjectNamespaceMatchesRequestNamespace(p.stream.Namespace, obj)
}

// write changes a tag of a stream by change, which gets the stream as it is and as it is to be, a new one
// if there is none. change may be called several times. With dryRun nothing is written. It returns the stream
// as it was to be, with this tag alone.
func (t *tagWriter) write(ctx context.Context, p place, dryRun []string, change func(before *streamwriter.State, after *imagev1.ImageStream) error) (after *imagev1.ImageStream, err error) {
	for range writeTries {
		state, err := t.writer.Read(ctx, p.stream, p.tag)
		if err != nil {
			return nil, err
		}
		after := &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{Namespace: p.stream.Namespace, Name: p.stream.Name}}
		if state.Stream != nil {
			after = state.Stream.DeepCopy()
		}
		if err := change(state, after); err != nil {
			return nil, err
		}
		if err := t.prepare(ctx, state.Stream, after); err != nil {
			return nil, err
		}
		if dryrun.IsDryRun(dryRun) {
			return after, nil
		}
		if _, err = t.writer.Write(ctx, state, after); !streamwriter.IsConflict(err) {
			return after, streamwriter.Forbidden(err, t.of, p.name)
		}
	}
	return nil, apierrors.NewConflict(t.of, p.name, errors.New("others have changed its image stream each time; try again"))
}

// add adds a spec to a tag that has none, and makes the tag and its stream if they are not there. It returns
// the stream as it was to be.
func (t *tagWriter) add(ctx context.Context, p place, dryRun []string, spec *imagev1.TagReference) (after *imagev1.ImageStream, err error) {
	return t.write(ctx, p, dryRun, func(_ *streamwriter.State, after *imagev1.ImageStream) error {
		if streams.SpecTag(after, p.tag) != nil {
			return apierrors.NewAlreadyExists(t.of, p.name)
		}
		setSpec(after, p.tag, spec.DeepCopy())
		return nil
	})
}

// admit has an admission, nil for none, decide on an object, of which it gets a copy.
func admit(ctx context.Context, validate k8srest.ValidateObjectFunc, obj runtime.Object) error {
	if validate == nil {
		return nil
	}
	return validate(ctx, obj.DeepCopyObject())
}

// prepare completes and validates the stream that is to be.
func (t *tagWriter) prepare(ctx context.Context, before, after *imagev1.ImageStream) error {
	var errs field.ErrorList
	ctx, away := withOutage(ctx)
	if before == nil {
		k8srest.FillObjectMetaSystemFields(after)
		t.strategy.PrepareForCreate(ctx, after)
		errs = t.strategy.Validate(ctx, after)
	} else {
		status := after.Status
		t.strategy.PrepareForUpdate(ctx, after, before)
		after.Status = status
		errs = t.strategy.ValidateUpdate(ctx, after, before)
	}
	if t.settle != nil {
		t.settle(after)
	}
	if len(errs) > 0 {
		return away.or(apierrors.NewInvalid(imagev1.GroupVersion.WithKind("ImageStream").GroupKind(), after.Name, errs))
	}
	return nil
}

// setSpec makes spec that of a tag of a stream, nil for none.
func setSpec(stream *imagev1.ImageStream, tag string, spec *imagev1.TagReference) {
	kept := stream.Spec.Tags[:0:0]
	for i := range stream.Spec.Tags {
		if stream.Spec.Tags[i].Name != tag {
			kept = append(kept, stream.Spec.Tags[i])
		}
	}
	if spec != nil {
		spec.Name = tag
		kept = append(kept, *spec)
	}
	stream.Spec.Tags = kept
}

// remove deletes a tag, with its spec and its history, if check does not fail, which may be called several
// times.
func (t *tagWriter) remove(ctx context.Context, p place, dryRun []string, check func() error) error {
	_, err := t.write(ctx, p, dryRun, func(before *streamwriter.State, after *imagev1.ImageStream) error {
		if err := check(); err != nil {
			return err
		}
		if before.Stream == nil {
			return apierrors.NewNotFound(t.of, p.name)
		}
		setSpec(after, p.tag, nil)
		kept := after.Status.Tags[:0:0]
		for i := range after.Status.Tags {
			if after.Status.Tags[i].Tag != p.tag {
				kept = append(kept, after.Status.Tags[i])
			}
		}
		after.Status.Tags = kept
		return nil
	})
	return err
}

// specErrors validates the spec of a tag by itself.
func specErrors(spec *imagev1.TagReference, kind, name string, path *field.Path) error {
	streams.SetDefaults(spec)
	if errs := streams.ValidateTag(spec, path); len(errs) > 0 {
		return apierrors.NewInvalid(imagev1.GroupVersion.WithKind(kind).GroupKind(), name, errs)
	}
	return nil
}

// invalid returns the error of an object with one problem.
func invalid(kind, name string, problem *field.Error) error {
	return apierrors.NewInvalid(imagev1.GroupVersion.WithKind(kind).GroupKind(), name, field.ErrorList{problem})
}

// sameVersion fails if a client's object has been read at another revision than the present one, "" for
// any.
func sameVersion(resource schema.GroupResource, name, theirs, ours string) error {
	if theirs == "" || theirs == ours {
		return nil
	}
	if ours == "" {
		return apierrors.NewNotFound(resource, name)
	}
	return apierrors.NewConflict(resource, name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// isTagged reports whether a stream has a tag at all.
func isTagged(stream *imagev1.ImageStream, tag string) bool {
	return stream != nil && (streams.SpecTag(stream, tag) != nil || streams.StatusTag(stream, tag) != nil)
}
