package views

import (
	"context"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// ImageStreamPrefix starts the keys of ImageStreams with their tags. The namespace, a slash and the name
// follow. The store has nothing under it.
const ImageStreamPrefix = "/imagestreams+tags/"

// ImageStreams returns the ImageStreams of the records in a store, with their tags. The resourceVersion
// of one is the revision of its last change, or of one of its tags. A writer writes them.
func ImageStreams(b storage.Backend, names streams.Names, hosts streams.Hosts, writer StreamWriter) *Backend {
	return &Backend{b, &imageStreams{names, hosts, writer, newTagCache()}}
}

// StreamWriter changes ImageStreams.
type StreamWriter interface {
	// Replace makes a stream another one, at a revision; from is nil for one that is new. It returns false,
	// and has changed nothing, if the stream has another revision.
	Replace(ctx context.Context, from, to *imagev1.ImageStream, revision int64) (now int64, replaced bool, err error)
}

type imageStreams struct {
	names  streams.Names
	hosts  streams.Hosts
	writer StreamWriter
	cache  *tagCache
}

func (v *imageStreams) write(ctx context.Context, current *storage.Entry, value []byte) (int64, bool, error) {
	to := &imagev1.ImageStream{}
	if err := runtime.DecodeInto(codec, value, to); err != nil {
		return 0, false, err
	}
	if current == nil {
		return v.writer.Replace(ctx, nil, to, 0)
	}
	from := &imagev1.ImageStream{}
	if current.Err != nil {
		return 0, false, current.Err
	}
	if err := runtime.DecodeInto(codec, current.Value.Body(), from); err != nil {
		return 0, false, err
	}
	return v.writer.Replace(ctx, from, to, current.Revision)
}

func (*imageStreams) prefixes() (own, source string) { return ImageStreamPrefix, records.ChangePrefix }

func (v *imageStreams) assemble(ctx context.Context, s *snapshot, sources []storage.Entry) ([]*storage.Entry, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	keys := make([]string, len(sources))
	for i := range sources {
		keys[i] = records.StreamPrefix + strings.TrimPrefix(sources[i].Key, records.ChangePrefix)
	}
	stored, err := s.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	tags, err := v.cache.tags(ctx, s, sources)
	if err != nil {
		return nil, err
	}
	objects := make([]*storage.Entry, len(sources))
	for i := range sources {
		if stored[keys[i]] == nil {
			continue
		}
		if objects[i], err = v.imageStream(&sources[i], stored[keys[i]], tags[i]); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// imageStream makes one object.
func (v *imageStreams) imageStream(change, stored *storage.Entry, tags *streams.Tags) (*storage.Entry, error) {
	stream, err := records.DecodeStream(stored)
	if err != nil {
		return corrupt(change, err), nil
	}
	repository, err := v.names.Repository(streams.Stream{Namespace: stream.Namespace, Name: stream.Name})
	if err != nil {
		return corrupt(change, err), nil
	}
	return encode(streams.ImageStream(stream, tags, v.hosts, repository), change.Revision)
}

func (*imageStreams) affected(_ context.Context, _ *snapshot, c *storage.Change) ([]string, error) {
	if strings.HasPrefix(c.Key, records.ChangePrefix) {
		return []string{c.Key}, nil
	}
	return nil, nil
}
