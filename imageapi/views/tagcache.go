package views

import (
	"context"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

const (
	// cachedTags is how many streams with many tags are remembered, each within streams.Tags' bounds, and each
	// once more after a change.
	cachedTags = 16
	// manyTags is the number of tags from which on a stream is remembered.
	manyTags = 200
)

// tagCache remembers the tags of streams with many, so that the followers of a log read those alone that a
// commit has changed. The revision of a stream's change says which tags it has.
type tagCache struct {
	last *lru.Cache[changeID, *streams.Tags]
}

// changeID is the change of a stream.
type changeID struct {
	key      string
	revision int64
}

func idOf(change *storage.Entry) changeID { return changeID{change.Key, change.Revision} }

func newTagCache() *tagCache {
	last, err := lru.New[changeID, *streams.Tags](cachedTags)
	if err != nil {
		panic(err) // the size is one
	}
	return &tagCache{last}
}

// tags returns the tags of streams that follow each other, by their changes.
func (c *tagCache) tags(ctx context.Context, s *snapshot, changes []storage.Entry) ([]*streams.Tags, error) {
	all := make([]*streams.Tags, len(changes))
	for from := 0; from < len(changes); {
		to := from
		for ; to < len(changes); to++ {
			if known, ok := c.known(s, &changes[to]); ok {
				all[to] = known
				break
			}
		}
		read, err := c.read(ctx, s, changes[from:to])
		if err != nil {
			return nil, err
		}
		copy(all[from:], read)
		from = to + 1 // the one at to is known
	}
	return all, nil
}

// read reads the tags of streams that follow each other, and remembers those of streams with many.
func (c *tagCache) read(ctx context.Context, s *snapshot, changes []storage.Entry) ([]*streams.Tags, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	read, err := tagsIn(ctx, s, changes)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		c.remember(&changes[i], read[i])
	}
	return read, nil
}

func (c *tagCache) remember(change *storage.Entry, tags *streams.Tags) {
	if tags.Len() >= manyTags {
		c.last.Add(idOf(change), tags)
	}
}

// known returns the tags of a stream if they are remembered, or follow from those before a commit.
func (c *tagCache) known(s *snapshot, change *storage.Entry) (*streams.Tags, bool) {
	if tags, ok := c.last.Get(idOf(change)); ok {
		return tags, true
	}
	if s.before == nil || s.before.known[change.Key] == nil {
		return nil, false
	}
	former, ok := c.last.Get(idOf(s.before.known[change.Key]))
	if !ok {
		return nil, false
	}
	prefix, changed := tagPrefix(change), map[string]streams.TagChange{}
	for key, entry := range s.known {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		changed[name] = streams.TagChange{Before: readableTag(s.before.known[key]), After: readableTag(entry)}
	}
	tags, ok := former.Changed(changed)
	if ok {
		c.remember(change, tags)
	}
	return tags, ok
}

// readableTag returns a tag, nil for none and for one that cannot be read, which is for `store check`.
func readableTag(e *storage.Entry) *imagev1.ImageTag {
	tag, err := records.DecodeTag(e)
	if err != nil {
		return nil
	}
	return tag
}

// tagPrefix starts the keys of the tags of a stream with a change.
func tagPrefix(change *storage.Entry) string {
	return records.TagPrefix + strings.TrimPrefix(change.Key, records.ChangePrefix) + streams.KeySeparator
}

// tagsIn returns the tags of streams that follow each other, in one pass over the records.
func tagsIn(ctx context.Context, s *snapshot, changes []storage.Entry) ([]*streams.Tags, error) {
	tags, at := make([]*streams.Tags, len(changes)), 0
	for i := range tags {
		tags[i] = &streams.Tags{}
	}
	prefix := func(i int) string { return tagPrefix(&changes[i]) }
	request := storage.ScanRequest{From: prefix(0), To: prefix(len(changes)-1) + "\xff", Limit: tagsPage}
	err := s.each(ctx, request, func(e *storage.Entry) error {
		for at < len(changes)-1 && e.Key >= prefix(at)+"\xff" {
			at++
		}
		if !strings.HasPrefix(e.Key, prefix(at)) {
			return nil // of a stream that is not there yet
		}
		if tag := readableTag(e); tag != nil {
			tags[at].Add(tagName(tag), tag)
		}
		return nil
	})
	return tags, err
}

// tagsPage is how many tags are read at once.
const tagsPage = 500

func tagName(tag *imagev1.ImageTag) string {
	_, name, _ := strings.Cut(tag.Name, ":")
	return name
}
