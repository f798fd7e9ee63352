package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
)

// pendingRoot is where markers are in the registry's storage, outside of
// distribution's own tree.
const pendingRoot = "/tallyman/pending"

// marker names a manifest or a tag whose Image may not agree with the registry. It has no
// event in it: its handler reads the registry and makes the Image agree, so that it may be
// handled any number of times, in any order.
type marker struct {
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest,omitempty"`
	Tag        string        `json:"tag,omitempty"`
	// Subject is the subject of the manifest, which is unknown once the manifest is deleted.
	Subject digest.Digest `json:"subject,omitempty"`
	// Host is the host[:port] for the pull reference.
	Host string `json:"host,omitempty"`

	file string // where the marker is kept
}

// about is the thing that the marker names.
func (m marker) about() marker {
	return marker{Repository: m.Repository, Digest: m.Digest, Tag: m.Tag, Subject: m.Subject}
}

func (m marker) attributes() []any {
	attributes := []any{"repository", m.Repository}
	if m.Digest != "" {
		attributes = append(attributes, "digest", m.Digest.String())
	}
	if m.Tag != "" {
		attributes = append(attributes, "tag", m.Tag)
	}
	return attributes
}

// pending is the set of markers, in the registry's own storage: it outlives the process, and
// all replicas see it. Each marker is a file of its own, even if there are several for one
// manifest: its handler removes that file alone, and never a newer marker of a later change.
type pending struct{ driver driver.StorageDriver }

// add stores m and returns it with its place.
func (p *pending) add(ctx context.Context, m marker) (marker, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	m.file = path.Join(pendingRoot, rand.Text())
	return m, p.driver.PutContent(ctx, m.file, content)
}

func (p *pending) remove(ctx context.Context, m marker) error {
	return ignoreMissing(p.driver.Delete(ctx, m.file))
}

// list returns the markers. Other files in their place are reported and left alone.
func (p *pending) list(ctx context.Context) ([]marker, error) {
	files, err := p.driver.List(ctx, pendingRoot)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var markers []marker
	var bad []error
	for _, file := range files {
		content, err := p.driver.GetContent(ctx, file)
		if err != nil {
			if ignoreMissing(err) != nil {
				bad = append(bad, err)
			}
			continue
		}
		var m marker
		if err := json.Unmarshal(content, &m); err != nil || m.Repository == "" {
			bad = append(bad, fmt.Errorf("%s is not a pending marker", file))
			continue
		}
		m.file = file
		markers = append(markers, m)
	}
	return markers, errors.Join(bad...)
}

func ignoreMissing(err error) error {
	var missing driver.PathNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}
