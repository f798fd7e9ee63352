package migrate

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"tallyman/storage"
)

// others returns the sections of an entry that are not made of the body, such as the signatures of a
// referrer, and not the body.
func others(e *storage.Entry) (others storage.Value) {
	for _, s := range e.Value {
		if s.Name != storage.SectionBody && s.Name != storage.SectionBrief {
			others = append(others, s)
		}
	}
	return others
}

// lacking returns the sections of from, besides the body, that to does not hold as they are.
func lacking(to, from *storage.Entry) storage.Value {
	return slices.DeleteFunc(others(from), func(s storage.Section) bool { return to != nil && bytes.Equal(to.Value.Section(s.Name), s.Data) })
}

// put brings an entry of the source into the target, which was last seen to hold entry. before is the
// one that it replaced in the source: a target that still has that is a copy. Both may be nil.
func (c *copier) put(ctx context.Context, e, before, entry *storage.Entry) error {
	key := e.Key
	value, err := bodyOf(e)
	if err != nil {
		c.report.leaveOut(err)
		return nil
	}
	old, _ := bodyOf(before) // nil if it cannot be read: then the two are merged
	for {
		put, expect, count := value, int64(0), &c.report.Created
		if entry != nil {
			held := entry.Value.Body()
			expect, count = entry.Revision, &c.report.Merged
			if entry.Err != nil {
				held = nil // the source's value takes its place
			} else if old == nil || !bytes.Equal(held, old) {
				if put, err = c.Merge(key, value, held); err != nil {
					return fmt.Errorf("merge %s: %w", key, err)
				}
			}
			if bytes.Equal(put, held) && (!bytes.Equal(put, value) || len(lacking(entry, e)) == 0) {
				c.report.Same.Add(1)
				return nil
			}
		}
		result, err := c.To.Commit(ctx, storage.Mutation{Key: key, Expect: expect, Value: c.valueOf(key, put, value, entry, e), Terms: c.Terms.of(key, put)})
		if err != nil {
			return err
		}
		if result.Succeeded {
			count.Add(1)
			return nil
		}
		entry = result.Current
	}
}

// valueOf returns the value that has put as its body. If that is the source's, with e's other sections.
func (c *copier) valueOf(key string, put, source []byte, entry, e *storage.Entry) storage.Value {
	value := storage.Body(put)
	if c.Brief != nil {
		if brief := c.Brief(key, put); brief != nil {
			value = append(value, storage.Section{Name: storage.SectionBrief, Data: brief})
		}
	}
	if !bytes.Equal(put, source) {
		return value
	}
	value = append(value, lacking(entry, e)...)
	if entry != nil && !bytes.Equal(entry.Value.Body(), put) { // what it has besides was of another body
		for _, s := range others(entry) {
			if e.Value.Section(s.Name) == nil {
				value = append(value, storage.Section{Name: s.Name})
			}
		}
	}
	return value
}

// remove repeats a deletion of the source in the target, unless the target's value is another
// one.
func (c *copier) remove(ctx context.Context, key string, before *storage.Entry) error {
	entry, _, err := storage.GetEntry(ctx, c.To, key, bodies)
	if err != nil || entry == nil || before == nil || !bytes.Equal(entry.Value.Body(), before.Value.Body()) {
		return err
	}
	result, err := c.To.Commit(ctx, storage.Mutation{Operation: storage.Delete, Key: key, Expect: entry.Revision})
	if err == nil && result.Succeeded {
		c.report.Deleted.Add(1)
	}
	return err
}
