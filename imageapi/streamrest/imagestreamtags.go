package streamrest

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"tallyman/imageapi"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/imageapi/views"
	"tallyman/storage"
)

const kindStreamTag = "ImageStreamTag"

// imageStreamTags is the imagestreamtags resource: tags with an Image.
type imageStreamTags struct{ *deletable }

var (
	_ k8srest.Creater = (*imageStreamTags)(nil)
	_ k8srest.Patcher = (*imageStreamTags)(nil)
)

// newImageStreamTags opens the imagestreamtags resource.
func newImageStreamTags(backend storage.Backend) (*resource, error) {
	return newResource(options{
		backend: views.ImageStreamTags(backend), prefix: views.ImageStreamTagPrefix, resource: imageapi.ImageStreamTags, singular: "imagestreamtag", short: "istag",
		key: tagKey, table: streams.ImageStreamTagTable, shared: true,
		newFunc: func() runtime.Object { return &imagev1.ImageStreamTag{} },
		newList: func() runtime.Object { return &imagev1.ImageStreamTagList{} },
		fields: func(obj runtime.Object) fields.Set {
			return fields.Set{imageapi.FieldImage: obj.(*imagev1.ImageStreamTag).Image.Name}
		},
	})
}

// Create implements rest.Creater: it adds a spec to a tag that has none, and makes the tag and its stream
// if they are not there.
func (s *imageStreamTags) Create(ctx context.Context, obj runtime.Object, validate k8srest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	wanted := obj.(*imagev1.ImageStreamTag)
	p, err := s.newPlace(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if wanted.Tag == nil || wanted.Tag.From == nil {
		return nil, invalid(kindStreamTag, wanted.Name, field.Required(field.NewPath("tag", "from"), "a tag without a push comes from an ImageStreamTag, an ImageStreamImage or a DockerImage"))
	}
	spec := wanted.Tag.DeepCopy()
	if spec.Annotations == nil {
		spec.Annotations = wanted.Annotations
	} else if len(wanted.Annotations) > 0 && !maps.Equal(spec.Annotations, wanted.Annotations) {
		return nil, invalid(kindStreamTag, wanted.Name, field.Invalid(field.NewPath("tag", "annotations"), "<map>", "tag annotations must not be provided or must be equal to the object meta annotations"))
	}
	if err := specErrors(spec, kindStreamTag, wanted.Name, field.NewPath("tag")); err != nil {
		return nil, err
	}
	if err := admit(ctx, validate, wanted); err != nil {
		return nil, err
	}
	after, err := s.add(ctx, p, options.DryRun, spec)
	if err != nil {
		return nil, err
	}
	return s.written(ctx, p, options.DryRun, after)
}

// written returns the object after a write.
func (s *imageStreamTags) written(ctx context.Context, p place, dryRun []string, after *imagev1.ImageStream) (runtime.Object, error) {
	if dryrun.IsDryRun(dryRun) {
		return shown(after, p), nil
	}
	obj, err := s.store.Get(ctx, p.name, &metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return obj, err
	}
	state, err := s.writer.Read(ctx, p.stream, p.tag) // it has no Image
	if err != nil {
		return nil, err
	}
	if state.Stream == nil {
		return shown(after, p), nil
	}
	return pending(state, p), nil
}

// shown returns the object of a tag of a stream that is not written, with the name of its Image.
func shown(stream *imagev1.ImageStream, p place) *imagev1.ImageStreamTag {
	tag := &imagev1.ImageTag{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: p.stream.Namespace}, Spec: streams.SpecTag(stream, p.tag), Status: streams.StatusTag(stream, p.tag),
	}
	if tag.Status == nil {
		tag.Status = &imagev1.NamedTagEventList{Tag: p.tag}
	}
	shown := streams.ImageStreamTag(stream, tag, nil)
	if len(tag.Status.Items) > 0 {
		shown.Image.Name, shown.Image.DockerImageReference = tag.Status.Items[0].Image, tag.Status.Items[0].DockerImageReference
	}
	return shown
}

// pending returns the object of a tag that is there and has no Image.
func pending(state *streamwriter.State, p place) *imagev1.ImageStreamTag {
	known := state.Tags[p.tag]
	if known.Tag == nil {
		return &imagev1.ImageStreamTag{}
	}
	shown := streams.ImageStreamTag(state.Stream, known.Tag, nil)
	shown.ResourceVersion = strconv.FormatInt(known.Revision, 10)
	return shown
}

// Update implements rest.Updater: it sets the spec of a tag, which may be new.
func (s *imageStreamTags) Update(ctx context.Context, name string, info k8srest.UpdatedObjectInfo, create k8srest.ValidateObjectFunc,
	update k8srest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	p, err := s.place(ctx, name)
	if err != nil {
		return nil, false, err
	}
	var created bool
	after, err := s.write(ctx, p, options.DryRun, func(before *streamwriter.State, after *imagev1.ImageStream) error {
		current, err := s.current(ctx, before, p)
		if err != nil {
			return err
		}
		obj, err := info.UpdatedObject(ctx, current.DeepCopy())
		if err != nil {
			return err
		}
		wanted := obj.(*imagev1.ImageStreamTag)
		spec, err := s.specOf(p, before.Stream, current, wanted)
		if err != nil {
			return err
		}
		if created = before.Stream == nil || streams.SpecTag(before.Stream, p.tag) == nil; isTagged(before.Stream, p.tag) {
			if update != nil {
				err = update(ctx, wanted, current.DeepCopy())
			}
		} else if create != nil {
			err = create(ctx, wanted)
		}
		setSpec(after, p.tag, spec)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	obj, err := s.written(ctx, p, options.DryRun, after)
	return obj, created, err
}

// current returns the object as it is, an empty one if there is none. state was read before.
func (s *imageStreamTags) current(ctx context.Context, state *streamwriter.State, p place) (*imagev1.ImageStreamTag, error) {
	obj, err := s.store.Get(ctx, p.name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return pending(state, p), nil
	}
	if err != nil {
		return nil, err
	}
	return obj.(*imagev1.ImageStreamTag), nil
}

// specOf returns the spec that an update wants of a tag.
func (s *imageStreamTags) specOf(p place, stream *imagev1.ImageStream, current, wanted *imagev1.ImageStreamTag) (*imagev1.TagReference, error) {
	if err := sameName(wanted, p); err != nil {
		return nil, err
	}
	if err := sameVersion(s.of, p.name, wanted.ResourceVersion, current.ResourceVersion); err != nil {
		return nil, err
	}
	if current.UID != "" && !sameMeta(&wanted.ObjectMeta, &current.ObjectMeta, true) {
		return nil, invalid(kindStreamTag, p.name, field.Invalid(field.NewPath("metadata"), "", "may not update fields other than metadata.annotations"))
	}
	var former *imagev1.TagReference
	if stream != nil {
		former = streams.SpecTag(stream, p.tag)
	}
	var spec *imagev1.TagReference
	switch {
	case wanted.Tag != nil:
		spec = wanted.Tag.DeepCopy()
	case former != nil:
		spec = former.DeepCopy()
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("imagestreamtag %s is not a spec tag in imagestream %s/%s, cannot be updated", p.tag, p.stream.Namespace, p.stream.Name))
	}
	spec.Annotations = wanted.Annotations
	if wanted.ResourceVersion == "" && len(wanted.Annotations) == 0 { // such as by `oc tag`, which knows none
		if spec.Annotations = nil; former != nil {
			spec.Annotations = former.Annotations
		}
		if wanted.Tag != nil && len(wanted.Tag.Annotations) > 0 {
			spec.Annotations = wanted.Tag.Annotations
		}
	}
	return spec, specErrors(spec, kindStreamTag, p.name, field.NewPath("tag"))
}

// sameName fails if an object is not the one of the request.
func sameName(wanted metav1.Object, p place) error {
	if wanted.GetName() != p.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", wanted.GetName(), p.name))
	}
	return k8srest.EnsureObjectNamespaceMatchesRequestNamespace(p.stream.Namespace, wanted)
}

// sameMeta reports whether a client leaves metadata as it is, but for annotations if those are its to change.
// What it leaves out stays.
func sameMeta(wanted, current *metav1.ObjectMeta, annotations bool) bool {
	a, b := wanted.DeepCopy(), current.DeepCopy()
	for _, m := range []*metav1.ObjectMeta{a, b} {
		m.ResourceVersion, m.ManagedFields, m.Generation = "", nil, 0
		if annotations {
			m.Annotations = nil
		}
	}
	if len(a.Labels) == 0 {
		a.Labels = b.Labels
	}
	if a.UID == "" {
		a.UID = b.UID
	}
	if a.CreationTimestamp.IsZero() {
		a.CreationTimestamp = b.CreationTimestamp
	}
	return equality.Semantic.DeepEqual(a, b)
}
