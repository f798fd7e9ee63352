package streamrest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/distribution/reference"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"tallyman/imageapi/imports"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
)

// importUser is the user of imports that tags ask for.
var importUser = &user.DefaultInfo{Name: "system:image-import-controller", Groups: []string{user.AllAuthenticated}}

// errOther is for a tag that asks for something else meanwhile.
var errOther = errors.New("the tag has another source now")

// importTag imports the image that a tag asks for. It fails with the error that the tag shows, or with the one for
// which it cannot show any.
func (i *imageStreamImports) importTag(ctx context.Context, tag *imagev1.ImageTag) error {
	name, _, err := streams.ParseTagName(tag.Name)
	if err != nil {
		return err
	}
	stream := streams.Stream{Namespace: tag.Namespace, Name: name}
	wanted := item{tag: tag.Spec.Name, importPolicy: tag.Spec.ImportPolicy, referencePolicy: tag.Spec.ReferencePolicy, asking: tag.Spec}
	if wanted.from, err = reference.ParseNormalizedNamed(tag.Spec.From.Name); err != nil {
		return err // it was validated
	}
	ctx = request.WithUser(request.WithNamespace(ctx, tag.Namespace), importUser)
	if err = i.copy(ctx, stream, &wanted); err != nil && !errors.Is(err, errOther) {
		err = errors.Join(err, i.note(ctx, stream, &wanted, failure(wanted.from, err)))
	}
	if errors.Is(err, errOther) {
		return nil
	}
	return err
}

// importTimeout bounds the import of an image that a tag asks for.
const importTimeout = 15 * time.Minute

// copy reads an image and adds it to a stream.
func (i *imageStreamImports) copy(ctx context.Context, stream streams.Stream, wanted *item) error {
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	image, err := i.read(ctx, wanted, &imagev1.ImageImportStatus{})
	if err != nil {
		return err
	}
	return i.add(ctx, stream, wanted, image)
}

// add adds an image to the repository of a stream, and has the tag point to it.
func (i *imageStreamImports) add(ctx context.Context, stream streams.Stream, wanted *item, image *imports.Image) error {
	repository, err := i.strategy.resolver.names.Repository(stream)
	if err != nil {
		return err
	}
	if err := i.registry.Add(ctx, streamwriter.User(ctx), repository, image.Digest, image); err != nil {
		return err
	}
	return i.tag(ctx, stream, wanted, func(before *imagev1.ImageStream, spec, former *imagev1.TagReference) func(after *imagev1.ImageStream) {
		head := streams.Head(before, wanted.tag)
		if former == nil || head == nil || head.Image != image.Digest.String() || ptr.Deref(former.Generation, 0) > head.Generation {
			spec.Generation = ptr.To[int64](0) // it is a change, also of the same source
		}
		return func(after *imagev1.ImageStream) {
			change := &resolution{resolver: i.strategy.resolver, after: after}
			change.point(wanted.tag, imagev1.TagEvent{
				DockerImageReference: i.strategy.resolver.pullReference(stream, image.Digest), Image: image.Digest.String(),
				Generation: ptr.Deref(streams.SpecTag(after, wanted.tag).Generation, 0),
			})
		}
	})
}

// note notes on a tag that an import has failed, unless it says so already.
func (i *imageStreamImports) note(ctx context.Context, stream streams.Stream, wanted *item, problem metav1.Status) error {
	return i.tag(ctx, stream, wanted, func(before *imagev1.ImageStream, spec, former *imagev1.TagReference) func(*imagev1.ImageStream) {
		condition := imagev1.TagEventCondition{
			Type: imagev1.ImportSuccess, Status: "False", Reason: string(problem.Reason), Message: problem.Message, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
		}
		if known := streams.StatusTag(before, wanted.tag); former != nil && known != nil && slices.ContainsFunc(known.Conditions, func(c imagev1.TagEventCondition) bool {
			return c.Type == condition.Type && c.Status == condition.Status && c.Reason == condition.Reason && c.Message == condition.Message &&
				c.Generation >= ptr.Deref(former.Generation, 0)
		}) {
			return nil
		}
		spec.Generation = ptr.To[int64](0)
		return func(after *imagev1.ImageStream) {
			condition.Generation = ptr.Deref(streams.SpecTag(after, wanted.tag).Generation, 0)
			if status := streams.StatusTag(after, wanted.tag); status != nil {
				status.Conditions = []imagev1.TagEventCondition{condition}
				return
			}
			after.Status.Tags = append(after.Status.Tags, imagev1.NamedTagEventList{Tag: wanted.tag, Conditions: []imagev1.TagEventCondition{condition}})
		}
	})
}

// tag sets the spec of the tag of an import. change changes it further, and returns what the status is to
// become, nil for no change.
func (i *imageStreamImports) tag(ctx context.Context, stream streams.Stream, wanted *item, change func(before *imagev1.ImageStream, spec, former *imagev1.TagReference) func(*imagev1.ImageStream)) error {
	p := place{stream, wanted.tag, streams.TagName(stream.Name, wanted.tag)}
	writer := *i.tagWriter
	_, err := writer.write(ctx, p, nil, func(state *streamwriter.State, after *imagev1.ImageStream) error {
		before := state.Stream
		if before == nil {
			before = &imagev1.ImageStream{}
		}
		former := streams.SpecTag(before, wanted.tag)
		if wanted.asking != nil && (former == nil || !equality.Semantic.DeepEqual(former, wanted.asking)) {
			return errOther
		}
		spec := &imagev1.TagReference{Name: wanted.tag}
		if former != nil {
			spec = former.DeepCopy()
		}
		if wanted.asking == nil {
			spec.From = &corev1.ObjectReference{Kind: streams.KindDockerImage, Name: wanted.from.String()}
			spec.ImportPolicy = wanted.importPolicy
		}
		if spec.ReferencePolicy.Type == "" {
			spec.ReferencePolicy = wanted.referencePolicy
		}
		streams.SetDefaults(spec)
		writer.settle = change(before, spec, former)
		setSpec(after, wanted.tag, spec)
		return nil
	})
	return err
}
