package records

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// streamKeys returns the keys of a stream and of its last change.
func streamKeys(s streams.Stream) (stream, change string) {
	key := s.Namespace + "/" + s.Name
	return StreamPrefix + key, ChangePrefix + key
}

// streamKey returns the key of the stream of a repository.
func (s *Store) streamKey(repository string) string {
	stream, _ := streamKeys(s.options.Names.Stream(repository))
	return stream
}

// streamChanged adds the change of a stream that comes with changes of its tags, and the stream itself
// and its repository if there is none yet. Otherwise it depends on nothing, so that pushes of different
// tags do not wait for each other.
func (s *Store) streamChanged(ctx context.Context, b *storage.Batch, repository string) error {
	name := s.options.Names.Stream(repository)
	stream, change := streamKeys(name)
	if b.Changes(change) {
		return nil // with another tag
	}
	entries, err := s.get(ctx, stream)
	if err != nil {
		return err
	}
	if entries[0] == nil {
		if err := s.createStream(b, name, repository); err != nil {
			return err
		}
	}
	// It comes last: a list at the revision of the commit is not at one that several objects share.
	b.AddLast(storage.Mutation{Key: change, Expect: storage.AnyRevision, Value: storage.Body(s.changeValue())})
	return nil
}

// generation returns the generation of the stream of a repository, 1 for one that is not there yet, and
// whether tags of it track others.
func (s *Store) generation(ctx context.Context, repository string) (generation int64, tracked bool, err error) {
	entries, err := s.get(ctx, s.streamKey(repository))
	if err != nil || entries[0] == nil {
		return 1, false, err
	}
	var stream struct { // a push needs no more of it
		Metadata struct {
			Generation  int64             `json:"generation"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if entries[0].Err != nil || json.Unmarshal(entries[0].Value.Body(), &stream) != nil {
		return 1, false, nil //nolint:nilerr // one that cannot be read is for `store check`
	}
	return max(1, stream.Metadata.Generation), stream.Metadata.Annotations[annotationTracking] != "", nil
}

// changeValue is the value of a change, of which the revision alone is read.
func (s *Store) changeValue() []byte {
	return fmt.Appendf(nil, `{"changed":%q}`, s.options.Now().UTC().Format(time.RFC3339))
}

func (s *Store) createStream(b *storage.Batch, name streams.Stream, repository string) error {
	stream, _ := streamKeys(name)
	body, err := runtime.Encode(codec, &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{
		Name: name.Name, Namespace: name.Namespace, UID: uuid.NewUUID(), Generation: 1,
		CreationTimestamp: metav1.NewTime(s.options.Now().Truncate(time.Second)),
		Annotations:       map[string]string{AnnotationRepository: repository},
	}})
	if err != nil {
		return err
	}
	b.Add(storage.Mutation{Key: stream, Expect: 0, Value: storage.Body(body), Terms: streamTerms(&imagev1.ImageStream{})})
	b.Add(storage.Mutation{Key: repositoryKey(repository), Expect: storage.AnyRevision, Value: storage.Body(s.changeValue())})
	return nil
}

// CompleteStreams makes the streams that are missing of repositories with tags. An older version made
// none.
func (s *Store) CompleteStreams(ctx context.Context) error {
	return s.EachRepository(ctx, func(repository string) error { return s.CompleteStream(ctx, repository) })
}

// CompleteStream makes the stream of a repository if it is missing and the repository has tags.
func (s *Store) CompleteStream(ctx context.Context, repository string) error {
	for range streamTries {
		entry, _, err := storage.GetEntry(ctx, s.options.Backend, s.streamKey(repository), storage.Read{})
		if err != nil || entry != nil {
			return err
		}
		if has, err := s.hasTags(ctx, repository); err != nil || !has {
			return err
		}
		b := &storage.Batch{}
		if err := s.streamChanged(ctx, b, repository); err != nil {
			return err
		}
		if committed, err := b.Commit(ctx, s.options.Backend); committed || err != nil {
			return err
		}
	}
	return fmt.Errorf("the image stream of %s was not made: others come first each time", repository)
}

// streamTries bounds how often a stream is changed that others change meanwhile.
const streamTries = 5

// DecodeStream returns the ImageStream of an entry under StreamPrefix. It fails for one that cannot be read.
func DecodeStream(e *storage.Entry) (*imagev1.ImageStream, error) {
	stream := &imagev1.ImageStream{}
	return stream, decode(e, "ImageStream", stream)
}

// streamGroup is the group of terms of ImageStreams.
const streamGroup = "stream"

// terminatingTerm is the term of streams that are being deleted.
const terminatingTerm = "terminating=true"

func streamTerms(stream *imagev1.ImageStream) []storage.TermChange {
	change := storage.TermChange{Group: streamGroup}
	if stream.DeletionTimestamp != nil {
		change.Terms = []string{terminatingTerm}
	}
	return []storage.TermChange{change}
}

// EachTerminating calls fn with every stream that is being deleted.
func (s *Store) EachTerminating(ctx context.Context, fn func(*imagev1.ImageStream) error) error {
	terminating := func(e *storage.Entry) bool {
		stream, err := DecodeStream(e)
		return err == nil && stream.DeletionTimestamp != nil
	}
	return s.eachWhole(ctx, StreamPrefix, terminatingTerm, terminating, func(e *storage.Entry) error {
		stream, err := DecodeStream(e)
		if err != nil || stream.DeletionTimestamp == nil {
			return nil //nolint:nilerr // it has changed since, or is for `store check`
		}
		return fn(stream)
	})
}
