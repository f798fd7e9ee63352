package views

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// ImageStreamTagPrefix starts the keys of ImageStreamTags. The rest of a key is streams.Key.
const ImageStreamTagPrefix = "/imagestreamtags/"

// ImageStreamTags returns the ImageStreamTags of the records in a store: one for each tag that points to a
// manifest of which there is an Image.
func ImageStreamTags(b storage.Backend) *Backend { return &Backend{b, imageStreamTags{}} }

type imageStreamTags struct{}

func (imageStreamTags) prefixes() (own, source string) {
	return ImageStreamTagPrefix, records.TagPrefix
}

func (imageStreamTags) assemble(ctx context.Context, s *snapshot, sources []storage.Entry) ([]*storage.Entry, error) {
	tags := make([]*imagev1.ImageTag, len(sources))
	objects := make([]*storage.Entry, len(sources))
	var keys []string
	for i := range sources {
		var err error
		if tags[i], err = records.DecodeTag(&sources[i]); err != nil {
			tags[i], objects[i] = nil, corrupt(&sources[i], err)
			continue
		}
		if name := records.PointsTo(tags[i]); name != "" {
			keys = append(keys, rest.KeyPrefix+name, streamOf(sources[i].Key))
		}
	}
	parts, err := s.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for i, tag := range tags {
		if tag == nil {
			continue
		}
		image, stream := parts[rest.KeyPrefix+records.PointsTo(tag)], parts[streamOf(sources[i].Key)]
		if records.PointsTo(tag) == "" || image == nil {
			continue
		}
		if objects[i], err = imageStreamTag(ctx, s, &sources[i], tag, stream, image); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// streamOf returns the key of the stream of a tag under key.
func streamOf(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, records.TagPrefix), streams.KeySeparator)
	return records.StreamPrefix + name
}

// imageStreamTag makes one object. A stream that is not there yet has no labels.
func imageStreamTag(ctx context.Context, s *snapshot, source *storage.Entry, tag *imagev1.ImageTag, streamEntry, imageEntry *storage.Entry) (*storage.Entry, error) {
	stream, revision := &imagev1.ImageStream{}, max(source.Revision, imageEntry.Revision)
	if streamEntry != nil {
		revision = max(revision, streamEntry.Revision)
		var err error
		if stream, err = records.DecodeStream(streamEntry); err != nil {
			return corrupt(source, err), nil
		}
	}
	image, err := rest.Decode(imageEntry)
	if err != nil {
		return corrupt(source, err), nil
	}
	shown, err := imageIn(ctx, s.backend, s.revision, image, tag.Annotations[records.AnnotationRepository], tag.Status.Items[0].DockerImageReference)
	if err != nil {
		return nil, err
	}
	return encode(streams.ImageStreamTag(stream, tag, shown), revision)
}

// ImageIn returns an Image as a repository that holds it shows it (streams.ImageIn).
func ImageIn(ctx context.Context, b storage.Backend, image *imagev1.Image, repository, reference string) (*imagev1.Image, error) {
	return imageIn(ctx, b, 0, image, repository, reference)
}

func imageIn(ctx context.Context, b storage.Backend, revision int64, image *imagev1.Image, repository, reference string) (*imagev1.Image, error) {
	var held []referrers.Referrer
	for i := range image.Signatures {
		if !rules.IsDerived(image, &image.Signatures[i]) {
			continue
		}
		var err error
		if held, err = referrers.NewStore(b).SigningIn(ctx, digest.Digest(image.Name), repository, revision); err != nil {
			return nil, err
		}
		break
	}
	return streams.ImageIn(image, repository, reference, func(signature *imagev1.ImageSignature) bool {
		for i := range held {
			if held[i].Carries(signature.Type, signature.Content) {
				return true
			}
		}
		return false
	}), nil
}

func (imageStreamTags) affected(ctx context.Context, s *snapshot, c *storage.Change) ([]string, error) {
	name, isImage := strings.CutPrefix(c.Key, rest.KeyPrefix)
	stream, isStream := strings.CutPrefix(c.Key, records.StreamPrefix)
	request := storage.ScanRequest{KeysOnly: true, Limit: keysPage}
	switch {
	case strings.HasPrefix(c.Key, records.TagPrefix):
		return []string{c.Key}, nil
	case isImage:
		request.From, request.To, request.Term = records.TagPrefix, records.TagPrefix+"\xff", records.ImageTerm(digest.Digest(name))
	case isStream:
		request.From, request.To = records.TagPrefix+stream+streams.KeySeparator, records.TagPrefix+stream+streams.KeySeparator+"\xff"
	default:
		return nil, nil
	}
	var keys []string
	err := s.each(ctx, request, func(e *storage.Entry) error {
		keys = append(keys, e.Key)
		return nil
	})
	if errors.Is(err, storage.ErrNoIndex) { // records in the format of an older version
		return tagsOf(ctx, s, digest.Digest(name))
	}
	return keys, err
}

// keysPage is how many keys are read at once.
const keysPage = 1000

// tagsOf returns the keys of the tags that point to a manifest, of which it reads all.
func tagsOf(ctx context.Context, s *snapshot, to digest.Digest) (keys []string, err error) {
	err = s.each(ctx, storage.ScanRequest{From: records.TagPrefix, To: records.TagPrefix + "\xff", Limit: keysPage}, func(e *storage.Entry) error {
		if tag, err := records.DecodeTag(e); err == nil && records.PointsTo(tag) == to.String() {
			keys = append(keys, e.Key)
		}
		return nil
	})
	return keys, err
}
