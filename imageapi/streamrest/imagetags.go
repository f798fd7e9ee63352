package streamrest

import (
	"context"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/storage"
)

const kindTag = "ImageTag"

// imageTags is the imagetags resource: the records of tags. A list of those that were deleted comes from
// another resource.
type imageTags struct {
	*deletable
	images  *images
	deleted *resource
}

func newImageTags(backend storage.Backend, images *images, writer *tagWriter) (*imageTags, error) {
	live, err := newTagResource(backend, records.TagPrefix, false)
	if err != nil {
		return nil, err
	}
	deleted, err := newTagResource(backend, records.DeletedPrefix, true)
	if err != nil {
		live.Close()
		return nil, err
	}
	return &imageTags{&deletable{live, writer}, images, deleted}, nil
}

// newTagResource opens the ImageTags under prefix.
func newTagResource(backend storage.Backend, prefix string, deleted bool) (*resource, error) {
	return newResource(options{
		backend: backend, prefix: prefix, resource: imageapi.ImageTags, singular: "imagetag", short: "itag", key: tagKey, table: streams.ImageTagTable,
		newFunc: func() runtime.Object { return &imagev1.ImageTag{} },
		newList: func() runtime.Object { return &imagev1.ImageTagList{} },
		fields: func(obj runtime.Object) fields.Set {
			return fields.Set{imageapi.FieldImage: records.PointsTo(obj.(*imagev1.ImageTag)), imageapi.FieldDeleted: fmt.Sprint(deleted)}
		},
	})
}

// Close ends all watches.
func (t *imageTags) Close() {
	t.resource.Close()
	t.deleted.Close()
}

// Get implements rest.Getter: the tag, with the Image that it points to if there is one.
func (t *imageTags) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := t.resource.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	tag := obj.(*imagev1.ImageTag)
	return tag, t.addImage(ctx, tag)
}

// addImage adds the Image that a tag points to, if there is one.
func (t *imageTags) addImage(ctx context.Context, tag *imagev1.ImageTag) (err error) {
	if records.PointsTo(tag) == "" {
		return nil
	}
	head := &tag.Status.Items[0]
	tag.Image, err = t.images.in(ctx, tag.Annotations[records.AnnotationRepository], head.Image, head.DockerImageReference)
	return err
}

// List implements rest.Lister. With the field selector deleted=true it lists the tags that were
// deleted.
func (t *imageTags) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if wantsDeleted(options) {
		return t.deleted.List(ctx, options)
	}
	return t.resource.List(ctx, options)
}

// Watch implements rest.Watcher.
func (t *imageTags) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	if wantsDeleted(options) {
		return nil, apierrors.NewBadRequest("deleted tags can be listed, not watched")
	}
	return t.resource.Watch(ctx, options)
}

// Create implements rest.Creater: it adds a spec to a tag that has none, and makes the tag and its stream
// if they are not there.
func (t *imageTags) Create(ctx context.Context, obj runtime.Object, validate k8srest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	wanted := obj.(*imagev1.ImageTag)
	p, err := t.newPlace(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if wanted.Spec == nil {
		return nil, invalid(kindTag, p.name, field.Required(field.NewPath("spec"), "spec is a required field during creation"))
	}
	spec, err := tagSpec(wanted, p)
	if err != nil {
		return nil, err
	}
	if err := admit(ctx, validate, wanted); err != nil {
		return nil, err
	}
	after, err := t.add(ctx, p, options.DryRun, spec)
	if err != nil {
		return nil, err
	}
	return t.written(ctx, p, options.DryRun, after)
}

// Update implements rest.Updater: it sets the spec of a tag, which may be new.
func (t *imageTags) Update(ctx context.Context, name string, info k8srest.UpdatedObjectInfo, create k8srest.ValidateObjectFunc,
	update k8srest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	p, err := t.place(ctx, name)
	if err != nil {
		return nil, false, err
	}
	var created bool
	after, err := t.write(ctx, p, options.DryRun, func(_ *streamwriter.State, after *imagev1.ImageStream) error {
		obj, err := t.Get(ctx, name, &metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			obj = &imagev1.ImageTag{}
		case err != nil:
			return err
		}
		current := obj.(*imagev1.ImageTag)
		if obj, err = info.UpdatedObject(ctx, current.DeepCopy()); err != nil {
			return err
		}
		wanted := obj.(*imagev1.ImageTag)
		if err := t.mayBecome(p, current, wanted); err != nil {
			return err
		}
		var spec *imagev1.TagReference
		if wanted.Spec != nil {
			if spec, err = tagSpec(wanted, p); err != nil {
				return err
			}
		}
		if created = current.Spec == nil; current.UID != "" {
			if update != nil {
				err = update(ctx, wanted, current)
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
	obj, err := t.written(ctx, p, options.DryRun, after)
	return obj, created, err
}

// mayBecome fails if an update changes more than the spec.
func (t *imageTags) mayBecome(p place, current, wanted *imagev1.ImageTag) error {
	if err := sameName(wanted, p); err != nil {
		return err
	}
	if err := sameVersion(t.of, p.name, wanted.ResourceVersion, current.ResourceVersion); err != nil {
		return err
	}
	if current.UID == "" {
		if wanted.Spec == nil {
			return apierrors.NewNotFound(t.of, p.name)
		}
		return nil
	}
	if !sameMeta(&wanted.ObjectMeta, &current.ObjectMeta, false) {
		return invalid(kindTag, p.name, field.Invalid(field.NewPath("metadata"), "", "may not update fields other than spec"))
	}
	if wanted.Status != nil && !equality.Semantic.DeepEqual(wanted.Status, current.Status) {
		return invalid(kindTag, p.name, field.Invalid(field.NewPath("status"), "", "may not update fields other than spec"))
	}
	return nil
}

// tagSpec returns the spec of an object.
func tagSpec(wanted *imagev1.ImageTag, p place) (*imagev1.TagReference, error) {
	spec := wanted.Spec.DeepCopy()
	if spec.Name == "" {
		spec.Name = p.tag
	}
	if spec.Name != p.tag {
		return nil, invalid(kindTag, p.name, field.Invalid(field.NewPath("spec", "name"), spec.Name, "must match image tag name"))
	}
	return spec, specErrors(spec, kindTag, p.name, field.NewPath("spec"))
}

// written returns the object after a write.
func (t *imageTags) written(ctx context.Context, p place, dryRun []string, after *imagev1.ImageStream) (runtime.Object, error) {
	if !dryrun.IsDryRun(dryRun) {
		obj, err := t.Get(ctx, p.name, &metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return obj, err
		}
	}
	tag := &imagev1.ImageTag{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: p.stream.Namespace}, Spec: streams.SpecTag(after, p.tag), Status: streams.StatusTag(after, p.tag),
	}
	return tag, nil
}

func wantsDeleted(options *internalversion.ListOptions) bool {
	if options == nil || options.FieldSelector == nil {
		return false
	}
	value, ok := options.FieldSelector.RequiresExactMatch(imageapi.FieldDeleted)
	return ok && value == "true"
}
