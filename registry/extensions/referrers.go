package extensions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/referrers"
	"tallyman/registry/logging"
)

// maxReferrers is the size of the descriptors of one answer in bytes: clients read manifests of up
// to 4 MiB.
const maxReferrers = 3 << 20

// getReferrers implements the referrers API (distribution-spec, Listing Referrers): an
// index of the manifests in the repository that refer to subject. It is read from the
// store. An answer that would be too long, or longer than the query's n, ends with a
// Link to the next.
func (e *Extensions) getReferrers(w http.ResponseWriter, r *http.Request, repository string, subject digest.Digest) {
	query := r.URL.Query()
	list := &referrersList{artifactType: query.Get("artifactType"), left: maxReferrers, most: -1}
	if n := query.Get("n"); n != "" {
		most, err := strconv.Atoi(n)
		if err != nil || most < 1 {
			fail(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "invalid number of results requested", map[string]string{"n": n})
			return
		}
		list.most = most
	}
	last := digest.Digest(query.Get("last"))
	if last != "" && last.Validate() != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "last has to be a digest", map[string]string{"last": last.String()})
		return
	}
	if err := e.listReferrers(r.Context(), list, repository, subject, last); err != nil {
		logging.For(r.Context()).Error("cannot list referrers", "repository", repository, "digest", subject.String(), "err", err)
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the image store is not available; try again", nil)
		return
	}
	if list.artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if list.more {
		query.Set("last", list.last.String())
		next := url.URL{Path: e.prefix + "/v2/" + repository + "/referrers/" + subject.String(), RawQuery: query.Encode()}
		w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, next.String()))
	}
	writeJSON(w, http.StatusOK, imagespec.MediaTypeImageIndex, imagespec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imagespec.MediaTypeImageIndex, Manifests: list.manifests,
	})
}

// referrersList is one answer.
type referrersList struct {
	artifactType string // only these, "" for all
	most, left   int    // descriptors, -1 for any number; bytes
	manifests    []imagespec.Descriptor
	last         digest.Digest // that was looked at
	more         bool          // there may be others after last
}

// wants reports whether the query selects the descriptor.
func (l *referrersList) wants(d imagespec.Descriptor) bool {
	return l.artifactType == "" || d.ArtifactType == l.artifactType
}

// add adds a descriptor that the query selects. added is false if the list is full.
func (l *referrersList) add(d imagespec.Descriptor) (added bool) {
	if !l.wants(d) {
		l.last = d.Digest
		return true
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		return true // texts and numbers are always JSON
	}
	if len(l.manifests) > 0 && (len(encoded) > l.left || l.most >= 0 && len(l.manifests) >= l.most) {
		l.more = true
		return false
	}
	l.left -= len(encoded)
	l.manifests = append(l.manifests, d)
	l.last = d.Digest
	return true
}

// listReferrers lists the referrers after last in the order of their digests: those with the
// subject, and those that an older client has listed under the tag of the referrers tag schema.
func (e *Extensions) listReferrers(ctx context.Context, list *referrersList, repository string, subject, last digest.Digest) error {
	tagged, err := e.taggedReferrers(ctx, repository, subject, last)
	if err != nil {
		return err
	}
	list.manifests, list.last = []imagespec.Descriptor{}, last
	limit := max(0, list.most+1) // one more tells whether there are others
	for more := true; more; {
		var page []referrers.Referrer
		if page, more, err = e.options.Referrers.List(ctx, subject, repository, last, limit); err != nil {
			return err
		}
		for i := range page {
			d := page[i].Descriptor
			if !tagged.addUntil(ctx, list, d.Digest) || !list.add(d) {
				return ctx.Err()
			}
			last = d.Digest
		}
	}
	tagged.addUntil(ctx, list, "")
	return ctx.Err()
}

// taggedList are the manifests listed under a tag of the referrers tag schema, sorted by digest.
type taggedList struct {
	left      []imagespec.Descriptor
	manifests distribution.ManifestService
}

// taggedReferrers returns those after last.
func (e *Extensions) taggedReferrers(ctx context.Context, repository string, subject, last digest.Digest) (*taggedList, error) {
	stored, err := e.options.Referrers.Get(ctx, &referrers.Referrer{
		Subject: subject, Repository: repository, Tag: subject.Algorithm().String() + "-" + subject.Encoded(),
	})
	if err != nil || stored == nil {
		return &taggedList{}, err
	}
	repo, err := e.options.Tracker.Repository(ctx, repository)
	if err != nil {
		return nil, err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(stored.Manifests, func(d imagespec.Descriptor) bool { return d.Digest <= last || d.Digest.Validate() != nil })
	slices.SortFunc(left, func(a, b imagespec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return &taggedList{left, manifests}, nil
}

// addUntil adds those before next, "" for all. It passes over next itself, whose subject says
// more, and what the repository does not hold any more. added is false once the list is full, or
// the client has left.
func (l *taggedList) addUntil(ctx context.Context, list *referrersList, next digest.Digest) (added bool) {
	for len(l.left) > 0 && (next == "" || l.left[0].Digest <= next) {
		d := l.left[0]
		if ctx.Err() != nil {
			return false
		}
		if d.Digest != next && list.wants(d) {
			if exists, err := l.manifests.Exists(ctx, d.Digest); err == nil && exists && !list.add(d) {
				return false
			}
		}
		l.left = l.left[1:]
	}
	return true
}
