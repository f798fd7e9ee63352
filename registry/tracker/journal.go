package tracker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
)

// journalRoot is where entries are in the registry's storage, outside of
// distribution's own tree.
const journalRoot = "/tallyman/pending"

// Entry names a manifest or a tag whose Image may not agree with the registry. It has no
// event in it: its handler reads the registry and makes the Image agree, so that it may be
// handled any number of times, in any order.
type Entry struct {
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest,omitempty"`
	Tag        string        `json:"tag,omitempty"`
	// Subject is the subject of the manifest, which is unknown once the manifest is deleted.
	Subject digest.Digest `json:"subject,omitempty"`
	// Host is the host[:port] for the pull reference.
	Host string `json:"host,omitempty"`

	file string // where the entry is kept
}

// about is the thing that the entry names.
func (m Entry) about() Entry {
	return Entry{Repository: m.Repository, Digest: m.Digest, Tag: m.Tag, Subject: m.Subject}
}

// manifest is the entry of the manifest in m alone, and tag that of the tag.
func (m Entry) manifest() Entry {
	m.Tag = ""
	return m
}

func (m Entry) tag() Entry { return Entry{Repository: m.Repository, Tag: m.Tag, Host: m.Host} }

func (m Entry) attributes() []any {
	attributes := []any{"repository", m.Repository}
	if m.Digest != "" {
		attributes = append(attributes, "digest", m.Digest.String())
	}
	if m.Tag != "" {
		attributes = append(attributes, "tag", m.Tag)
	}
	return attributes
}

// Journal is the set of entries, in the registry's own storage: it outlives the process, and
// all replicas see it. Each entry is a file of its own, even if there are several for one
// manifest: its handler removes that file alone, and never a newer entry of a later change.
type Journal struct{ driver driver.StorageDriver }

// NewJournal returns the Journal in a registry's storage.
func NewJournal(d driver.StorageDriver) *Journal { return &Journal{d} }

// Add stores m and returns it with its place.
func (j *Journal) Add(ctx context.Context, m Entry) (Entry, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	m.file = path.Join(journalRoot, rand.Text())
	return m, j.driver.PutContent(ctx, m.file, content)
}

// Remove removes an entry that List or Add returned.
func (j *Journal) Remove(ctx context.Context, m Entry) error {
	return ignoreMissing(j.driver.Delete(ctx, m.file))
}

// setAsideRoot is where notes are of manifests that cannot be read.
const setAsideRoot = "/tallyman/set-aside"

// setAsidePath is the file of a manifest's note for a version of this program.
func setAsidePath(m Entry, version string) string {
	key := digest.FromString(strings.Join([]string{version, m.Repository, m.Digest.String()}, "\n"))
	return path.Join(setAsideRoot, key.Encoded())
}

// SetAside notes that a version of this program cannot read the manifest of m, and why. first is
// false if that is noted already.
func (j *Journal) SetAside(ctx context.Context, m Entry, version, reason string) (first bool, err error) {
	if known, err := j.IsSetAside(ctx, m, version); known || err != nil {
		return false, err
	}
	content, err := json.Marshal(struct {
		Repository string        `json:"repository"`
		Digest     digest.Digest `json:"digest"`
		Version    string        `json:"version"`
		Reason     string        `json:"reason"`
	}{m.Repository, m.Digest, version, reason})
	if err != nil {
		return false, err
	}
	return true, j.driver.PutContent(ctx, setAsidePath(m, version), content)
}

// IsSetAside reports whether SetAside has noted it.
func (j *Journal) IsSetAside(ctx context.Context, m Entry, version string) (bool, error) {
	_, err := j.driver.Stat(ctx, setAsidePath(m, version))
	return err == nil, ignoreMissing(err)
}

// List returns the entries. Other files in their place are reported and left alone.
func (j *Journal) List(ctx context.Context) ([]Entry, error) {
	files, err := j.driver.List(ctx, journalRoot)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var entries []Entry
	var bad []error
	for _, file := range files {
		content, err := j.driver.GetContent(ctx, file)
		if err != nil {
			if ignoreMissing(err) != nil {
				bad = append(bad, err)
			}
			continue
		}
		var m Entry
		if err := json.Unmarshal(content, &m); err != nil || m.Repository == "" {
			bad = append(bad, fmt.Errorf("%s is not a journal entry", file))
			continue
		}
		m.file = file
		entries = append(entries, m)
	}
	return entries, errors.Join(bad...)
}

func ignoreMissing(err error) error {
	var missing driver.PathNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}
