package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi"
	"tallyman/imageapi/protobuf"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rules"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// termGroup is the group of the terms that are made of the Image itself.
const termGroup = "image"

// imageIndex says by which terms Images are found. Its version changes with rules.Terms and that of
// imageBrief.
var imageIndex = objects.Index{
	Version: "4", Group: termGroup, Terms: rules.Terms, FieldTerm: rules.FieldTerm, LabelTerm: rules.LabelTerm,
}

// Key returns the key of the Image called name.
func Key(name digest.Digest) string { return KeyPrefix + name.String() }

// StoredTerms returns the terms that the store is to have for a value under key, which
// came from another store.
// It fails if the value is no Image, or no record.
func StoredTerms(key string, value []byte) ([]storage.TermChange, error) {
	if !strings.HasPrefix(key, KeyPrefix) {
		return records.StoredTerms(key, value)
	}
	image, err := decode(value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", key, err)
	}
	return []storage.TermChange{{Group: termGroup, Terms: rules.Terms(image)}}, nil
}

// StoredBrief returns what is stored beside a value under key, which came from another store, for answers
// that need no more: nil if that is no Image.
func StoredBrief(key string, value []byte) []byte {
	if !strings.HasPrefix(key, KeyPrefix) {
		return nil
	}
	image, err := decode(value)
	if err != nil {
		return nil
	}
	brief, err := imageBrief.Section(image, value)
	if err != nil {
		return nil
	}
	return brief
}

// imageBrief says what is stored beside an Image.
var imageBrief = objects.Brief{Version: rules.BriefVersion + "," + protobuf.Version, Of: briefOf}

// noSize stands for the size of a message that protobuf.Append does not make.
const noSize = "-"

// briefOf returns the size of the Image in protobuf, a space, and rules.Brief.
func briefOf(obj runtime.Object, data []byte) ([]byte, error) {
	cells, err := rules.Brief(obj)
	if err != nil {
		return nil, err
	}
	text := []byte(noSize)
	if size, ok := protobuf.SizeOf(data); ok {
		text = size.AppendText(nil)
	}
	return append(append(text, ' '), cells...), nil
}

// cutBrief returns the parts of briefOf.
func cutBrief(brief []byte) (size, cells []byte) {
	size, cells, _ = bytes.Cut(brief, []byte(" "))
	return size, cells
}

// IsTruncated reports whether the annotations of a stored Image lack some of its tags or repositories,
// by which it is found all the same.
func IsTruncated(value []byte) bool {
	return bytes.Contains(value, []byte(`"`+rules.AnnotationTruncated+`":"true"`))
}

// RebuildIndex fills the index of Images in a store anew, and returns when it is
// complete.
func RebuildIndex(ctx context.Context, backend storage.Backend) error {
	images, err := NewImages(backend, nil)
	if err != nil {
		return err
	}
	defer images.Close()
	return images.encoded.RebuildIndex(ctx)
}

// CompleteIndex completes the index of a store that has no Images, so that those that are copied there with
// their terms and briefs are in it. That of another store is left to the processes that serve it.
func CompleteIndex(ctx context.Context, backend storage.Backend) error {
	page, err := backend.Scan(ctx, storage.ScanRequest{From: KeyPrefix, To: KeyPrefix + "\xff", Limit: 1, KeysOnly: true})
	if err != nil || len(page.Entries) > 0 {
		return err
	}
	if err := RebuildIndex(ctx, backend); !errors.Is(err, storage.ErrNoIndex) {
		return err
	}
	return nil
}

// MergeStored merges two stored values of one key: from, in a store that is being moved or
// restored, and to, in the store that is in use. A referrer is taken from to, because the
// registry keeps it in step, and so are the derived parts of an Image, its repositories and
// tags. The result has the additions of users to either (rules.MergeUserData).
func MergeStored(key string, from, to []byte) ([]byte, error) {
	if !strings.HasPrefix(key, KeyPrefix) {
		return to, nil
	}
	older, err := decode(from)
	if err != nil {
		return nil, err
	}
	newer, err := decode(to)
	if err != nil {
		return nil, err
	}
	rules.MergeUserData(older, newer)
	return runtime.Encode(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), newer)
}

// Decode returns the Image of an entry under KeyPrefix. It fails for one that cannot be read.
func Decode(e *storage.Entry) (*imagev1.Image, error) {
	if e.Err != nil {
		return nil, e.Err
	}
	return decode(e.Value.Body())
}

func decode(value []byte) (*imagev1.Image, error) {
	image := &imagev1.Image{}
	if decodeStored(value, image) {
		return image, nil
	}
	return image, runtime.DecodeInto(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), value, image)
}

// decodeStored decodes the JSON of a stored Image into an empty one, as imageapi.DecodeStored does. If it
// returns false, it leaves it empty.
func decodeStored(data []byte, into runtime.Object) bool {
	image, ok := into.(*imagev1.Image)
	if !ok {
		return false
	}
	if !imageapi.DecodeStored(data, "Image", image) {
		*image = imagev1.Image{}
		return false
	}
	return true
}

// FindStored returns the Image called name, if name is not empty, or else the one that
// repository's tag points to; nil if there is none. It goes over the store for a tag.
func FindStored(ctx context.Context, s storage.Scanner, repository, tag string, name digest.Digest) (found *imagev1.Image, err error) {
	err = storage.Each(ctx, s, KeyPrefix+name.String(), false, func(e *storage.Entry) error {
		if name == "" && !bytes.Contains(e.Value.Body(), []byte(repository+":"+tag)) {
			return nil
		}
		image, err := decode(e.Value.Body())
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		if slices.Contains(rules.Repositories(image), repository) && (image.Name == name.String() || name == "" && slices.Contains(rules.Tags(image), repository+":"+tag)) {
			found = image
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

var errFound = errors.New("found")
