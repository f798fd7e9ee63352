// Package journal is the set of changes of the registry that are still to be recorded, in the
// registry's own storage: it outlives the process, and all replicas see it.
package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
)

// Root is this program's directory in the registry's storage, outside of distribution's own tree.
const Root = "/tallyman"

const (
	// pending has the entries.
	pending = Root + "/pending"
	// setAside has the notes of manifests that cannot be read.
	setAside = Root + "/set-aside"
)

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

// About is the thing that the entry names.
func (m Entry) About() Entry {
	return Entry{Repository: m.Repository, Digest: m.Digest, Tag: m.Tag, Subject: m.Subject}
}

// OfManifest is the entry of the manifest in m alone.
func (m Entry) OfManifest() Entry {
	m.Tag = ""
	return m
}

// OfTag is the entry of the tag in m alone.
func (m Entry) OfTag() Entry { return Entry{Repository: m.Repository, Tag: m.Tag, Host: m.Host} }

// IsStored reports whether m is in the Journal, by Add or Read.
func (m Entry) IsStored() bool { return m.file != "" }

// Attributes are those of a log line about m.
func (m Entry) Attributes() []any {
	attributes := []any{"repository", m.Repository}
	if m.Digest != "" {
		attributes = append(attributes, "digest", m.Digest.String())
	}
	if m.Tag != "" {
		attributes = append(attributes, "tag", m.Tag)
	}
	return attributes
}

// Journal is the set of entries. Each entry is a file of its own, even if there are several for one
// manifest: its handler removes that file alone, and never a newer entry of a later change.
type Journal struct{ driver driver.StorageDriver }

// New returns the Journal in a registry's storage.
func New(d driver.StorageDriver) *Journal { return &Journal{d} }

// timeFormat starts the names of files, so that they sort by time.
const timeFormat = "20060102t150405.000000"

// Add stores m and returns it with its place.
func (j *Journal) Add(ctx context.Context, m Entry) (Entry, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	file := path.Join(pending, time.Now().UTC().Format(timeFormat)+"-"+strings.ToLower(rand.Text()))
	if err := j.driver.PutContent(ctx, file, content); err != nil {
		return m, err
	}
	m.file = file
	return m, nil
}

// Remove removes an entry that Read or Add returned.
func (j *Journal) Remove(ctx context.Context, m Entry) error {
	return IgnoreMissing(j.driver.Delete(ctx, m.file))
}

// Files returns the places of the entries, newest first. Those of former versions, whose names say
// no time, are the last.
func (j *Journal) Files(ctx context.Context) ([]string, error) {
	files, err := j.driver.List(ctx, pending)
	if err != nil {
		return nil, IgnoreMissing(err)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(-cmp.Compare(added(a), added(b)), -cmp.Compare(a, b)) })
	return files, nil
}

// added returns the time in the name of a file, "" if it has none.
func added(file string) string {
	moment, _, named := strings.Cut(path.Base(file), "-")
	if !named {
		return ""
	}
	return moment
}

// Read reads the entry in a file. known is false if it is not there any more.
func (j *Journal) Read(ctx context.Context, file string) (m Entry, known bool, err error) {
	content, err := j.driver.GetContent(ctx, file)
	if err != nil {
		return m, false, IgnoreMissing(err)
	}
	if err := json.Unmarshal(content, &m); err != nil || m.Repository == "" {
		return m, false, fmt.Errorf("%s is not a journal entry", file)
	}
	m.file = file
	return m, true, nil
}

// setAsidePath is the file of a manifest's note for a version of this program.
func setAsidePath(m Entry, version string) string {
	key := digest.FromString(strings.Join([]string{version, m.Repository, m.Digest.String()}, "\n"))
	return path.Join(setAside, key.Encoded())
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
	return err == nil, IgnoreMissing(err)
}

// IgnoreMissing returns nil for the error of a path that is not there, and any other error as it is.
func IgnoreMissing(err error) error {
	var missing driver.PathNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}
