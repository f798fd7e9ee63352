package catalog

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// An Image is found by all repositories that hold it and all tags that point to it, also by those
// for which its annotations have no room. Their terms are in groups of their own: one for each
// repository, and shards of one for its tags, so that a tag changes a small part of the index alone.

const tagShards = 16

// letters returns n letters that stand for a text.
func letters(text string, n int) string {
	sum, out := sha256.Sum256([]byte(text)), make([]byte, n)
	for i := range out {
		out[i] = 'a' + sum[i]%tagShards
	}
	return string(out)
}

// placementGroup is the group of terms for a repository. The name of a group is up to 32 letters;
// two repositories with the same one would lose terms of each other.
func placementGroup(repository string) string { return "p" + letters(repository, 28) }

func fieldTerm(field, value string) string {
	label, is, err := rules.ConvertFieldLabel(field, value)
	if err != nil {
		panic(err) // both fields are known
	}
	term, _ := rules.FieldTerm(label, is)
	return term
}

// Finds reports whether an Image is found by a repository that holds its manifest and, unless it is "", by
// a tag of it. An Image that was copied from another store lacks terms for which its annotations had no
// room.
func (c *Catalog) Finds(ctx context.Context, repository, tag string, name digest.Digest) (bool, error) {
	entry, _, err := storage.GetEntry(ctx, c.backend, rest.Key(name), storage.Read{Terms: true, Sections: []string{}})
	if err != nil || entry == nil {
		return false, err
	}
	wanted := repositoryTerms(repository).Terms
	if tag != "" {
		wanted = append(wanted, tagTerms(repository, tag, storage.AddTerms).Terms...)
	}
	for _, term := range storage.HashTerms(wanted) {
		if !storage.HasTerm(entry.Terms, term) {
			return false, nil
		}
	}
	return true, nil
}

// lacksTerms is the opposite of Finds. An Image of which it is not known is written once more.
func (c *Catalog) lacksTerms(ctx context.Context, m Move) bool {
	found, err := c.Finds(ctx, m.Repository, m.Tag, m.To)
	return err != nil || !found
}

// repositoryTerms says that a repository holds the manifest of an Image.
func repositoryTerms(repository string) storage.TermChange {
	return storage.TermChange{Group: placementGroup(repository), Operation: storage.AddTerms, Terms: []string{fieldTerm("repository", repository)}}
}

// tagTerms adds or removes a tag.
func tagTerms(repository, tag string, operation storage.TermOperation) storage.TermChange {
	return storage.TermChange{
		Group: placementGroup(repository) + letters(tag, 1), Operation: operation,
		Terms: []string{fieldTerm("tag", repository+":"+tag), fieldTerm("tag", tag)},
	}
}

// withoutTags removes several tags, with one change of each group.
func withoutTags(repository string, tags []string) (changes []storage.TermChange) {
	for _, tag := range tags {
		change := tagTerms(repository, tag, storage.RemoveTerms)
		at := slices.IndexFunc(changes, func(c storage.TermChange) bool { return c.Group == change.Group })
		if at < 0 {
			changes = append(changes, change)
			continue
		}
		changes[at].Terms = append(changes[at].Terms, change.Terms...)
	}
	return changes
}

// noTerms removes a repository with all its tags.
func noTerms(repository string) []storage.TermChange {
	group := placementGroup(repository)
	changes := []storage.TermChange{{Group: group}}
	for shard := range tagShards {
		changes = append(changes, storage.TermChange{Group: group + string(rune('a'+shard))})
	}
	return changes
}
