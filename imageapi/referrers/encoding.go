package referrers

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/storage"
)

// Bounds of one referrer.
const (
	// MaxAnnotationBytes is the size of the annotations that a descriptor keeps. Others are left
	// out, the last ones by name first. The manifest itself has them all.
	MaxAnnotationBytes = 64 << 10
	// MaxListed is the number of manifests that an index of the referrers tag schema lists.
	MaxListed = 1000
)

// Sections of a referrer besides the body, for readers that need one of them. In former versions
// the body had all.
const (
	sectionAnnotations = "annotations" // of the descriptor
	sectionSignatures  = "signatures"
	sectionManifests   = "manifests"
)

// encode returns the value of a referrer. The sections that it does not have are named to be
// removed.
func (r *Referrer) encode() (storage.Value, error) {
	annotations := boundAnnotations(r.Descriptor.Annotations, MaxAnnotationBytes)
	body := Referrer{Descriptor: r.Descriptor}
	body.Descriptor.Annotations, body.Descriptor.Data = nil, nil
	value := storage.Value{{Name: storage.SectionBody}, {Name: sectionAnnotations}, {Name: sectionSignatures}, {Name: sectionManifests}}
	for i, part := range []struct {
		content any
		present bool
	}{
		{body, true},
		{annotations, len(annotations) > 0},
		{r.Signatures, len(r.Signatures) > 0},
		{boundManifests(r.Manifests), len(r.Manifests) > 0},
	} {
		if !part.present {
			continue
		}
		var err error
		if value[i].Data, err = json.Marshal(part.content); err != nil {
			return nil, err
		}
	}
	return value, nil
}

// boundAnnotations returns the first annotations by name that have up to most bytes together.
func boundAnnotations(annotations map[string]string, most int) map[string]string {
	kept := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if size := len(name) + len(annotations[name]); size <= most {
			most -= size
			kept[name] = annotations[name]
		}
	}
	return kept
}

// boundManifests returns up to MaxListed of listed, each digest once, sorted by it.
func boundManifests(listed []imagespec.Descriptor) []imagespec.Descriptor {
	sorted := slices.Clone(listed)
	slices.SortStableFunc(sorted, func(a, b imagespec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	sorted = slices.CompactFunc(sorted, func(a, b imagespec.Descriptor) bool { return a.Digest == b.Digest })
	sorted = sorted[:min(len(sorted), MaxListed)]
	for i := range sorted {
		sorted[i].Annotations = boundAnnotations(sorted[i].Annotations, MaxAnnotationBytes/16)
		sorted[i].Data = nil
	}
	return sorted
}

// parseReferrer is the inverse of key and of encode, for the sections that were read.
func parseReferrer(e *storage.Entry) (*Referrer, error) {
	r := &Referrer{}
	for _, part := range []struct {
		section string
		into    any
	}{
		{storage.SectionBody, r}, {sectionAnnotations, &r.Descriptor.Annotations},
		{sectionSignatures, &r.Signatures}, {sectionManifests, &r.Manifests},
	} {
		if data := e.Value.Section(part.section); data != nil {
			if err := json.Unmarshal(data, part.into); err != nil {
				return nil, fmt.Errorf("%s: %w", e.Key, err)
			}
		}
	}
	subject, rest, _ := strings.Cut(strings.TrimPrefix(e.Key, Prefix), "/")
	r.Subject = digest.Digest(subject)
	var byDigest bool
	if r.Repository, _, byDigest = strings.Cut(rest, "@"); !byDigest {
		r.Repository, r.Tag, _ = strings.Cut(rest, ":")
	}
	return r, nil
}
