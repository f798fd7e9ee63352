// Package streamwriter changes image streams: their records, and the registry's tags by way of the
// registry, which records each move as it records a push.
//
// # Guarantees
//
// A stream is changed if nobody else has changed it, or one of its tags, since it was read; otherwise
// nothing is. Tags are moved after that, each alone: a tag has its new spec with its new manifest, or
// neither. If one cannot be moved, the rest of the change stays, and the same change made again goes on.
package streamwriter

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// Options configures New.
type Options struct {
	// Backend is the store. Required.
	Backend storage.Backend
	// Records are those of tags. Required.
	Records *records.Store
	// Registry changes tags. Required.
	Registry Registry
	// Hosts are the registry's addresses.
	Hosts streams.Hosts
}

// Writer changes image streams.
type Writer struct {
	options Options
	names   streams.Names
	deleted chan struct{} // has an element when a stream was deleted
}

// New returns a Writer.
func New(o Options) *Writer { return &Writer{o, o.Records.Names(), make(chan struct{}, 1)} }

// State is a stream that was read, with some of its tags.
type State struct {
	// Stream is as the API shows it, but with these tags only; nil if there is none.
	Stream *imagev1.ImageStream
	// Name is its name, also if there is none.
	Name streams.Stream
	*records.StreamState
}

// Read reads a stream and some of its tags.
func (w *Writer) Read(ctx context.Context, name streams.Stream, tags ...string) (*State, error) {
	repository, err := w.names.Repository(name)
	if err != nil {
		return nil, apierrors.NewNotFound(imageapi.ImageStreams, name.Name)
	}
	read, err := w.options.Records.ReadStream(ctx, name, tags...)
	if err != nil {
		return nil, objects.Unavailable(err)
	}
	state := &State{Name: name, StreamState: read}
	if read.Stream != nil {
		shown := &streams.Tags{}
		for tag, known := range read.Tags {
			shown.Add(tag, known.Tag.DeepCopy())
		}
		state.Stream = streams.ImageStream(read.Stream, shown, w.options.Hosts, repository)
		state.Stream.ResourceVersion = strconv.FormatInt(read.Revision, 10)
	}
	return state, nil
}

// MaxEdits is how many tags one change of a stream changes at most, besides those that it moves.
const MaxEdits = storage.MaxMutations - 10

// errConflict says that something has changed since it was read.
var errConflict error = apierrors.NewConflict(imageapi.ImageStreams, "", errors.New("the image stream has changed meanwhile"))

// Write changes a stream as it was read into another, nil for one that is new. It fails with errConflict,
// for which IsConflict is true, RefusedError, or an error of the store or the registry.
func (w *Writer) Write(ctx context.Context, state *State, to *imagev1.ImageStream) (revision int64, err error) {
	from := state.Stream
	if from == nil {
		from = &imagev1.ImageStream{}
	}
	edits, moves := changes(from, to)
	return w.write(ctx, state, to, edits, moves)
}

// write is Write with the differences.
func (w *Writer) write(ctx context.Context, state *State, to *imagev1.ImageStream, edits []records.TagEdit, moves []move) (revision int64, err error) {
	repository, err := w.names.Repository(state.Name)
	if err != nil {
		return 0, err
	}
	stored := streams.Stored(to)
	if stored.Annotations == nil {
		stored.Annotations = map[string]string{}
	}
	stored.Annotations[records.AnnotationRepository] = repository
	records.MarkTracking(stored, to.Spec.Tags)
	if to.DeletionTimestamp != nil {
		defer w.wake()
		if state.Stream == nil || state.Stream.DeletionTimestamp == nil {
			stored.Annotations[annotationRevision], stored.Annotations[annotationUser] = strconv.FormatInt(state.Revision, 10), User(ctx)
		}
	}
	if state.StreamState.Stream != nil && len(edits)+len(moves) == 0 && equality.Semantic.DeepEqual(stored, state.StreamState.Stream) {
		return state.Revision, nil
	}
	if len(edits) > MaxEdits {
		return 0, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("it changes %d tags: up to %d at once can be changed", len(edits), MaxEdits))
	}
	commit, err := w.options.Records.EditStream(state.StreamState, stored, edits)
	if err != nil {
		return 0, err
	}
	result, err := w.options.Backend.Commit(ctx, commit...)
	if err != nil {
		return 0, objects.Unavailable(err)
	}
	if !result.Succeeded {
		return 0, errConflict
	}
	for i := range moves {
		if err := w.move(ctx, state, repository, &moves[i]); err != nil {
			return 0, err
		}
	}
	return result.Revision, nil
}

// IsConflict reports whether Write has failed as something had changed.
func IsConflict(err error) bool { return errors.Is(err, errConflict) }

// move makes a move.
func (w *Writer) move(ctx context.Context, state *State, repository string, m *move) error {
	from, err := w.names.Repository(m.from)
	if err != nil {
		return err
	}
	change := Move{
		User: User(ctx), Repository: repository, Tag: m.edit.Tag, To: m.to, From: from,
		Condition: w.unchanged(state.Name, m.edit.Tag, state.Tags[m.edit.Tag].Revision),
	}
	ctx = records.WithEdit(ctx, repository, &m.edit)
	if m.to == "" {
		return w.options.Registry.Untag(ctx, change)
	}
	return w.options.Registry.Tag(ctx, change)
}

// unchanged returns the condition that the record of a tag has a revision, 0 for none.
func (w *Writer) unchanged(name streams.Stream, tag string, revision int64) func(context.Context) error {
	return func(ctx context.Context) error {
		now, err := w.options.Records.ReadStream(ctx, name, tag)
		if err == nil && now.Tags[tag].Revision != revision {
			err = errConflict
		}
		return err
	}
}

// wake has Run look for deletions at once.
func (w *Writer) wake() {
	select {
	case w.deleted <- struct{}{}:
	default:
	}
}

// User returns the name of the user of a request, "" for none.
func User(ctx context.Context) string {
	if info, ok := request.UserFrom(ctx); ok {
		return info.GetName()
	}
	return ""
}

// Replace implements views.StreamWriter.
func (w *Writer) Replace(ctx context.Context, from, to *imagev1.ImageStream, revision int64) (now int64, replaced bool, err error) {
	name := streams.Stream{Namespace: to.Namespace, Name: to.Name}
	before := from
	if before == nil {
		before = &imagev1.ImageStream{}
	}
	edits, moves := changes(before, to)
	var tags []string
	for i := range edits {
		tags = append(tags, edits[i].Tag)
	}
	for i := range moves {
		tags = append(tags, moves[i].edit.Tag)
	}
	read, err := w.options.Records.ReadStream(ctx, name, tags...)
	if err != nil {
		return 0, false, err
	}
	if read.Revision != revision || (read.Stream == nil) != (from == nil) {
		return 0, false, nil
	}
	now, err = w.write(ctx, &State{Stream: from, Name: name, StreamState: read}, to, edits, moves)
	if IsConflict(err) {
		return 0, false, nil
	}
	return now, err == nil, Forbidden(err, imageapi.ImageStreams, to.Name)
}

// Forbidden makes a RefusedError the error for a client that has written an object. Others stay as they are.
func Forbidden(err error, resource schema.GroupResource, name string) error {
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return apierrors.NewForbidden(resource, name, refused)
	}
	return err
}
