package extensions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rules"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
	"tallyman/signatures"
)

// SupportsSignatures is the header by which skopeo and podman know that they can
// leave simple signing signatures here (containers/image, docs/signature-protocols.md).
const SupportsSignatures = "X-Registry-Supports-Signatures"

const (
	signatureSchema = 2
	// maxSignatures is how many bytes of signatures one answer may have: clients read
	// up to 4 MiB.
	maxSignatures = 3 << 20
)

// simpleSignature is a signature on the wire (docs/signature-protocols.md; OpenShift's
// image-registry, pkg/dockerregistry/server/signaturedispatcher.go).
type simpleSignature struct {
	SchemaVersion int `json:"schemaVersion"`
	// Name is <manifest digest>@<anything>.
	Name    string `json:"name"`
	Type    string `json:"type"`
	Content []byte `json:"content"`
}

// getSignatures answers with the simple signing signatures of a manifest that the
// repository holds, or with all kinds of them if the query says all. A client that
// knows the endpoint asks it on every pull, and fails the pull unless it answers:
// while the store is away the answer is that there are none.
func (e *Extensions) getSignatures(w http.ResponseWriter, r *http.Request, repository string, name digest.Digest) {
	if !e.holds(w, r, repository, name) {
		return
	}
	list := []simpleSignature{}
	image, err := e.options.Catalog.Get(r.Context(), name)
	var own map[string]bool
	if err == nil {
		image.Signatures = slices.DeleteFunc(image.Signatures, func(s imagev1.ImageSignature) bool {
			return !signatures.IsSimpleSigning(s.Type) && !r.URL.Query().Has("all")
		})
		own, err = e.ownSignatures(r.Context(), repository, image)
	}
	switch {
	case apierrors.IsNotFound(err):
		image = &imagev1.Image{}
	case err != nil:
		logging.For(r.Context()).Error("cannot read the signatures of an image; the answer is that it has none", "repository", repository, "digest", name.String(), "err", err)
		w.Header().Set("Warning", `299 tallyman "the image store is not available, so signatures may be missing"`)
		image = &imagev1.Image{}
	}
	left := maxSignatures
	for i := range image.Signatures {
		s := &image.Signatures[i]
		into := rules.SignatureRepositories(s)
		if rules.IsDerived(image, s) && !own[s.Name] || len(into) > 0 && !slices.Contains(into, repository) {
			continue // of another repository, which the client may not see
		}
		if left -= 2 * len(s.Content); left < 0 { // base64, and the rest
			break
		}
		listed := simpleSignature{SchemaVersion: signatureSchema, Name: s.Name, Type: s.Type, Content: s.Content}
		if signatures.IsSimpleSigning(s.Type) {
			listed.Type = signatures.TypeAtomic // the one name that clients take
		}
		list = append(list, listed)
	}
	writeJSON(w, http.StatusOK, "application/json; charset=utf-8", map[string][]simpleSignature{"signatures": list})
}

// ownSignatures returns the names of the derived signatures that the repository itself holds.
func (e *Extensions) ownSignatures(ctx context.Context, repository string, image *imagev1.Image) (map[string]bool, error) {
	own, subject := map[string]bool{}, digest.Digest(image.Name)
	if !slices.ContainsFunc(image.Signatures, func(s imagev1.ImageSignature) bool { return rules.IsDerived(image, &s) }) {
		return own, nil
	}
	return own, e.options.Referrers.EachSigning(ctx, subject, referrers.Share{Count: math.MaxInt, Bytes: maxSignatures}, func(r *referrers.Referrer) {
		if r.Repository != repository {
			return
		}
		for _, s := range r.Signatures {
			own[signatures.Name(subject, s)], own[signatures.FullName(subject, s)] = true, true
		}
	})
}

// putSignature adds a signature to the Image of a manifest that the repository holds.
func (e *Extensions) putSignature(w http.ResponseWriter, r *http.Request, repository string, name digest.Digest) {
	if e.readOnly {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The registry is read-only.", nil)
		return
	}
	s, status, err := e.readSignature(w, r, name)
	if err != nil {
		fail(w, status, "SIGNATURE_INVALID", "invalid image signature", err.Error())
		return
	}
	if !e.holds(w, r, repository, name) {
		return
	}
	err = e.createSignature(r, repository, name, s)
	logging.Audit(r.Context(), "sign", repository, "", name.String(), err)
	attributes := []any{"repository", repository, "digest", name.String(), "signature", s.Name}
	switch {
	case err == nil:
		logging.For(r.Context()).Info("signature recorded", attributes...)
		w.WriteHeader(http.StatusCreated)
	case apierrors.IsAlreadyExists(err):
		fail(w, http.StatusConflict, "SIGNATURE_EXISTS", "image signature already exists", s.Name)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		fail(w, http.StatusBadRequest, "SIGNATURE_INVALID", "invalid image signature", err.Error())
	case apierrors.IsNotFound(err):
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest has no Image, as one that is a signature itself", name.String())
	default:
		logging.For(r.Context()).Error("cannot record a signature", append(attributes, "err", err)...)
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the image store is not available; try again", nil)
	}
}

// createSignature records the manifest first if that was put off.
func (e *Extensions) createSignature(r *http.Request, repository string, name digest.Digest, s *simpleSignature) error {
	create := func() error {
		signature := &imagev1.ImageSignature{Type: s.Type, Content: s.Content}
		signature.Name = s.Name
		return e.options.Catalog.PutSignature(r.Context(), repository, signature)
	}
	err := create()
	if !apierrors.IsNotFound(err) {
		return err
	}
	if err := e.options.Tracker.Reconcile(r.Context(), repository, name, r.Host); err != nil {
		return err
	}
	return create()
}

// readSignature reads the body and ignores its Content-Type: clients send none.
func (e *Extensions) readSignature(w http.ResponseWriter, r *http.Request, name digest.Digest) (*simpleSignature, int, error) {
	most := e.options.SignatureLimit
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most/3*4+4096)) // base64, and the rest
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("a signature may have at most %d bytes", most)
	case err != nil:
		return nil, http.StatusBadRequest, err
	}
	var s struct {
		simpleSignature
		Version int `json:"version"` // as old documentation had it
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("the body is not a signature: %w", err)
	}
	image, id, _ := strings.Cut(s.Name, "@")
	switch {
	case s.SchemaVersion != signatureSchema && (s.SchemaVersion != 0 || s.Version != signatureSchema):
		return nil, http.StatusBadRequest, errors.New("only schemaVersion=2 is currently supported")
	case image != name.String() || id == "" || strings.Contains(id, "@"):
		return nil, http.StatusBadRequest, fmt.Errorf("name %q is not valid: want %s@ and a name of its own", s.Name, name)
	case len(s.Content) == 0:
		return nil, http.StatusBadRequest, errors.New("content is required: the signature in base64")
	case int64(len(s.Content)) > most:
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("a signature may have at most %d bytes", most)
	}
	if s.Type == "" {
		s.Type = signatures.TypeAtomicV1
	}
	return &s.simpleSignature, 0, nil
}

// holds answers 404 if the repository does not hold the manifest.
func (e *Extensions) holds(w http.ResponseWriter, r *http.Request, repository string, name digest.Digest) bool {
	repo, err := e.options.Tracker.Repository(r.Context(), repository)
	if err != nil {
		fail(w, http.StatusBadRequest, "NAME_INVALID", "invalid repository name", err.Error())
		return false
	}
	manifests, err := repo.Manifests(r.Context())
	if err == nil {
		var exists bool
		if exists, err = manifests.Exists(r.Context(), name); err == nil && exists {
			return true
		}
	}
	if err != nil && !tracker.IsManifestUnknown(err) {
		logging.For(r.Context()).Error("cannot look up a manifest", "repository", repository, "digest", name.String(), "err", err)
		fail(w, http.StatusInternalServerError, "UNKNOWN", "unknown error", nil)
		return false
	}
	fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown", map[string]string{"name": repository, "revision": name.String()})
	return false
}
