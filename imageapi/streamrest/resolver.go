package streamrest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage/objects"
)

// resolver finds the manifests that spec tags name, as far as the user may read their streams.
type resolver struct {
	records    *records.Store
	names      streams.Names
	host       string
	authorizer authorizer.Authorizer
}

// resolution is that of one change of a stream.
type resolution struct {
	*resolver
	before, after *imagev1.ImageStream
	visited       map[string]bool // tags that were looked at
	reviews       map[streams.Stream]error
	errs          field.ErrorList
}

// resolve adds the manifests that new and changed spec tags name to the histories of a stream. before is
// nil for a new one.
func (r *resolver) resolve(ctx context.Context, before, after *imagev1.ImageStream) field.ErrorList {
	if before == nil {
		before = &imagev1.ImageStream{}
	}
	all := &resolution{resolver: r, before: before, after: after, visited: map[string]bool{}, reviews: map[streams.Stream]error{}}
	for i := range after.Spec.Tags {
		all.tag(ctx, after.Spec.Tags[i].Name)
	}
	return all.errs
}

// outage is a failure of the store while a stream was resolved: the strategies of apiserver can say of a
// stream only that it is invalid.
type outage struct{ err error }

type outageKey struct{}

// withOutage returns a context whose resolutions note a failure of the store.
func withOutage(ctx context.Context) (context.Context, *outage) {
	o := &outage{}
	return context.WithValue(ctx, outageKey{}, o), o
}

func noteOutage(ctx context.Context, err error) {
	if o, ok := ctx.Value(outageKey{}).(*outage); ok {
		o.err = err
	}
}

// or returns err, or the failure of the store that is behind it.
func (o *outage) or(err error) error {
	if err != nil && o.err != nil {
		return objects.Unavailable(o.err)
	}
	return err
}

// tag resolves one spec tag, after those that it follows.
func (r *resolution) tag(ctx context.Context, name string) {
	spec := streams.SpecTag(r.after, name)
	if r.visited[name] || spec == nil || !streams.Changed(r.after.Namespace, streams.SpecTag(r.before, name), spec) {
		return
	}
	r.visited[name] = true
	path := field.NewPath("spec", "tags").Key(name)
	if spec.From.Kind == streams.KindDockerImage {
		r.reference(spec, path)
		return
	}
	own := streams.Stream{Namespace: r.after.Namespace, Name: r.after.Name}
	source, id, ok := streams.Source(own, spec.From)
	if !ok {
		if spec.From.Kind == streams.KindImageStreamTag || spec.From.Kind == streams.KindImageStreamImage { // others are invalid by themselves
			r.errs = append(r.errs, field.Invalid(path.Child("from", "name"), spec.From.Name, "must be of the form <tag>, <repo>:<tag>, <id>, or <repo>@<id>"))
		}
		return
	}
	if err := r.review(ctx, source); err != nil {
		r.errs = append(r.errs, field.Forbidden(path.Child("from"), err.Error()))
		return
	}
	if source == own && spec.From.Kind == streams.KindImageStreamTag {
		r.tag(ctx, id)
	}
	found, err := r.find(ctx, source, spec.From.Kind, id)
	switch ambiguous := (*ambiguousError)(nil); {
	case errors.As(err, &ambiguous):
		r.errs = append(r.errs, field.Invalid(path.Child("from", "name"), spec.From.Name, err.Error()))
	case err != nil:
		noteOutage(ctx, err)
		r.errs = append(r.errs, field.InternalError(path.Child("from"), err))
	case found != "":
		r.point(name, imagev1.TagEvent{DockerImageReference: r.pullReference(own, found), Image: found.String(), Generation: ptr.Deref(spec.Generation, 0)})
	case source != own || spec.From.Kind != streams.KindImageStreamTag: // a tag of the stream itself may come later
		r.errs = append(r.errs, field.NotFound(path.Child("from", "name"), spec.From.Name))
	}
}

// reference makes a tag one of a pull reference alone, if its spec says so.
func (r *resolution) reference(spec *imagev1.TagReference, path *field.Path) {
	if !spec.Reference {
		return // an import brings its manifest
	}
	if head := streams.Head(r.after, spec.Name); head != nil && head.Image != "" {
		r.errs = append(r.errs, field.Forbidden(path.Child("reference"), "the tag has an image in this registry: delete the tag first"))
		return
	}
	r.point(spec.Name, imagev1.TagEvent{DockerImageReference: spec.From.Name, Generation: ptr.Deref(spec.Generation, 0)})
}

// point makes an item the newest one of a tag's history, unless it names the same manifest as that.
func (r *resolution) point(tag string, item imagev1.TagEvent) {
	item.Created = metav1.NewTime(time.Now().Truncate(time.Second))
	status := streams.StatusTag(r.after, tag)
	switch {
	case status == nil:
		r.after.Status.Tags = append(r.after.Status.Tags, imagev1.NamedTagEventList{Tag: tag, Items: []imagev1.TagEvent{item}})
		slices.SortFunc(r.after.Status.Tags, func(a, b imagev1.NamedTagEventList) int { return strings.Compare(a.Tag, b.Tag) })
		return
	case len(status.Items) > 0 && status.Items[0].Image == item.Image && (item.Image != "" || status.Items[0].DockerImageReference == item.DockerImageReference):
		status.Items[0].Generation = max(item.Generation, status.Items[0].Generation)
	default:
		status.Items = append([]imagev1.TagEvent{item}, status.Items...)
	}
	status.Conditions = nil
}

// review fails if the user may not read a stream in another namespace.
func (r *resolution) review(ctx context.Context, source streams.Stream) error {
	if source.Namespace == r.after.Namespace {
		return nil
	}
	err, known := r.reviews[source]
	if !known {
		err = r.mayRead(ctx, source)
		r.reviews[source] = err
	}
	return err
}

func (r *resolver) mayRead(ctx context.Context, source streams.Stream) error {
	user, _ := request.UserFrom(ctx)
	decision, reason, err := r.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: user, Verb: "get", ResourceRequest: true, APIGroup: imagev1.GroupName, APIVersion: imagev1.GroupVersion.Version,
		Resource: imageapi.ImageStreams.Resource, Subresource: "layers", Namespace: source.Namespace, Name: source.Name,
	})
	if decision == authorizer.DecisionAllow {
		return nil
	}
	text := fmt.Sprintf("%s/%s: %q", source.Namespace, source.Name, reason)
	if err != nil {
		text += " - " + err.Error()
	}
	return errors.New(text)
}

// find returns the manifest that a tag of a stream points to, or the one that begins with id, "" for none.
func (r *resolution) find(ctx context.Context, source streams.Stream, kind, id string) (digest.Digest, error) {
	if kind == streams.KindImageStreamImage {
		return r.image(ctx, source, id)
	}
	if source.Namespace == r.after.Namespace && source.Name == r.after.Name {
		if head := streams.Head(r.after, id); head != nil {
			return digest.Digest(head.Image), nil
		}
	}
	state, err := r.records.ReadStream(ctx, source, id)
	if err != nil || state.Tags[id].Tag == nil {
		return "", err
	}
	return digest.Digest(records.PointsTo(state.Tags[id].Tag)), nil
}

// ambiguousError says that several manifests begin with an id.
type ambiguousError struct{ id, one, other string }

// Error implements error.
func (e *ambiguousError) Error() string {
	return fmt.Sprintf("several images of the stream begin with %q, such as %s and %s: give more of it", e.id, e.one, e.other)
}

// image returns the manifest of a stream whose digest begins with id, or the encoded part of it does, "" for
// none. It fails with an ambiguousError if there are several.
func (r *resolver) image(ctx context.Context, of streams.Stream, id string) (digest.Digest, error) {
	repository, err := r.names.Repository(of)
	if err != nil {
		return "", nil //nolint:nilerr // no repository has that stream
	}
	prefixes := []string{id}
	if !strings.Contains(id, ":") {
		prefixes = []string{digest.SHA256.String() + ":" + id, digest.SHA512.String() + ":" + id}
	}
	var found []digest.Digest
	for _, prefix := range prefixes {
		names, err := r.records.HeldManifests(ctx, repository, prefix, 2)
		if err != nil {
			return "", err
		}
		found = append(found, names...)
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", &ambiguousError{id, found[0].String(), found[1].String()}
}

// pullReference returns the pull reference of a manifest of a stream.
func (r *resolver) pullReference(of streams.Stream, name digest.Digest) string {
	repository, err := r.names.Repository(of)
	if err != nil {
		return ""
	}
	return streams.RepositoryReference(r.host, repository) + "@" + name.String()
}
