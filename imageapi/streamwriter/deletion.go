package streamwriter

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/types"

	"tallyman/imageapi/records"
	"tallyman/imageapi/rules"
	"tallyman/imageapi/streams"
)

// Annotations of a stream that is being deleted.
const (
	// annotationRevision has the resourceVersion of the stream that was deleted: later tags are not meant.
	annotationRevision = rules.AnnotationPrefix + "deleted-resource-version"
	// annotationUser has the user who has deleted it.
	annotationUser = rules.AnnotationPrefix + "deleted-by"
)

const (
	// deletionInterval is how often deletions are looked for that another process has begun.
	deletionInterval = 30 * time.Second
	// deletionTries bounds how often a stream is deleted that others change meanwhile.
	deletionTries = 10
)

// Run completes the deletion of streams until ctx ends: it untags their tags, and then deletes them.
func (w *Writer) Run(ctx context.Context) {
	ticker := time.NewTicker(deletionInterval)
	defer ticker.Stop()
	for {
		err := w.options.Records.EachTerminating(ctx, func(stream *imagev1.ImageStream) error {
			if err := w.finish(ctx, stream); err != nil && ctx.Err() == nil {
				slog.Warn("image stream not deleted yet", "namespace", stream.Namespace, "imagestream", stream.Name, "err", err)
			}
			return ctx.Err()
		})
		if err != nil && ctx.Err() == nil {
			slog.Debug("image streams to be deleted not read", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-w.deleted:
		}
	}
}

// finish completes the deletion of a stream. Tags that were pushed later stay, in a stream of their own.
func (w *Writer) finish(ctx context.Context, stream *imagev1.ImageStream) error {
	name := streams.Stream{Namespace: stream.Namespace, Name: stream.Name}
	repository, err := w.names.Repository(name)
	if err != nil {
		return err
	}
	until, err := strconv.ParseInt(stream.Annotations[annotationRevision], 10, 64)
	if err != nil {
		return fmt.Errorf("annotation %s: %w", annotationRevision, err)
	}
	pointing := map[string]int64{} // the tags with the revisions of their records
	var pending []string
	err = w.options.Records.EachTagRecord(ctx, repository, func(tag string, to digest.Digest, revision int64) error {
		switch {
		case revision > until:
		case to == "":
			pending = append(pending, tag)
		default:
			pointing[tag] = revision
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, tag := range slices.Sorted(maps.Keys(pointing)) {
		move := Move{User: stream.Annotations[annotationUser], Repository: repository, Tag: tag, Condition: w.unchanged(name, tag, pointing[tag])}
		if err := w.options.Registry.Untag(ctx, move); err != nil && !IsConflict(err) {
			return fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	for page := range slices.Chunk(pending, MaxEdits) {
		if err := w.drop(ctx, name, page); err != nil {
			return err
		}
	}
	return w.remove(ctx, name, repository, stream.UID)
}

// drop deletes tags that point to nothing.
func (w *Writer) drop(ctx context.Context, name streams.Stream, tags []string) error {
	edits := make([]records.TagEdit, len(tags))
	for i, tag := range tags {
		edits[i] = records.TagEdit{Tag: tag, Status: &imagev1.NamedTagEventList{Tag: tag}}
	}
	for range deletionTries {
		state, err := w.options.Records.ReadStream(ctx, name, tags...)
		if err != nil || state.Stream == nil {
			return err
		}
		for i, tag := range tags {
			if known, ok := state.Tags[tag]; ok {
				edits[i].Before = known.Tag.Status
			}
		}
		commit, err := w.options.Records.EditStream(state, state.Stream, edits)
		if err != nil {
			return err
		}
		result, err := w.options.Backend.Commit(ctx, commit...)
		if err != nil || result.Succeeded {
			return err
		}
	}
	return errConflict
}

// remove deletes a stream whose tags are gone, unless it is another one now, or has finalizers of others.
func (w *Writer) remove(ctx context.Context, name streams.Stream, repository string, uid types.UID) error {
	for range deletionTries {
		state, err := w.options.Records.ReadStream(ctx, name)
		if err != nil || state.Stream == nil || state.Stream.UID != uid || len(state.Stream.Finalizers) > 0 {
			return err
		}
		result, err := w.options.Backend.Commit(ctx, w.options.Records.DeleteStream(state, name)...)
		if err != nil {
			return err
		}
		if result.Succeeded {
			return w.options.Records.CompleteStream(ctx, repository)
		}
	}
	return errConflict
}
