package extensions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/referrers"
	"tallyman/registry/logging"
)

const (
	// maxReferrers is how many bytes of descriptors one answer may have: clients
	// read manifests of up to 4 MiB.
	maxReferrers = 3 << 20
	// referrersPage is how many referrers are read from the store at once.
	referrersPage = 50
)

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
		next := url.URL{Path: "/v2/" + repository + "/referrers/" + subject.String(), RawQuery: query.Encode()}
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

// add adds a descriptor, unless the list is full.
func (l *referrersList) add(d imagespec.Descriptor) (added bool) {
	if l.artifactType != "" && d.ArtifactType != l.artifactType {
		return true
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		return true // texts and numbers are always JSON
	}
	if len(l.manifests) > 0 && (len(encoded) > l.left || l.most >= 0 && len(l.manifests) >= l.most) {
		return false
	}
	l.left -= len(encoded)
	l.manifests = append(l.manifests, d)
	return true
}

func (e *Extensions) listReferrers(ctx context.Context, list *referrersList, repository string, subject, last digest.Digest) error {
	list.manifests, list.last = []imagespec.Descriptor{}, last
	for {
		page, more, err := e.options.Referrers.List(ctx, subject, repository, list.last, referrersPage)
		if err != nil {
			return err
		}
		for _, referrer := range page {
			if !list.add(referrer.Descriptor) {
				list.more = true
				return nil
			}
			list.last = referrer.Descriptor.Digest
		}
		if !more {
			return e.addTagged(ctx, list, repository, subject)
		}
	}
}

// addTagged adds referrers that an older client has listed under the tag of the referrers tag
// schema, and that the store does not know by a subject. They follow on the last page.
func (e *Extensions) addTagged(ctx context.Context, list *referrersList, repository string, subject digest.Digest) error {
	stored := e.options.Referrers
	tagged, err := stored.Get(ctx, &referrers.Referrer{
		Subject: subject, Repository: repository, Tag: subject.Algorithm().String() + "-" + subject.Encoded(),
	})
	if err != nil || tagged == nil {
		return err
	}
	repo, err := e.options.Tracker.Repository(ctx, repository)
	if err != nil {
		return err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return err
	}
	for _, d := range tagged.Manifests {
		known, err := stored.Get(ctx, &referrers.Referrer{Subject: subject, Repository: repository, Descriptor: d})
		if err != nil {
			return err
		}
		if known != nil || d.Digest.Validate() != nil {
			continue
		}
		if exists, err := manifests.Exists(ctx, d.Digest); err != nil || !exists {
			continue // the index has outlived it
		}
		if list.artifactType == "" || d.ArtifactType == list.artifactType {
			list.manifests = append(list.manifests, d) // all of them: there is nothing to go on from
		}
	}
	return nil
}
