package extensions

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/gorilla/mux"

	"tallyman/registry/prune"
)

// deleteBlob serves DELETE /admin/blobs/<digest>, by which `oc adm prune images` deletes blobs
// (https://github.com/openshift/image-registry, pkg/dockerregistry/server/admin.go).
func (e *Extensions) deleteBlob(w http.ResponseWriter, r *http.Request) {
	e.setHeaders(w)
	if r.Method != http.MethodDelete {
		w.Header().Set("Allow", http.MethodDelete)
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.", nil)
		return
	}
	user, ok := e.options.MayDelete(r)
	switch {
	case user == "":
		w.Header().Set("WWW-Authenticate", `Basic realm="tallyman"`)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required", "the password is a token of the API")
		return
	case !ok:
		fail(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied", user+" may not delete all images")
		return
	}
	name, err := digestOf(mux.Vars(r)["digest"])
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", err.Error())
		return
	}
	if e.options.KeepsBlobs != "" {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.", e.options.KeepsBlobs)
		return
	}
	free, ok := e.places.take(r.Context(), "user "+user)
	if !ok {
		return // nobody waits for the answer
	}
	defer free()
	size, err := e.options.Pruner.Delete(r.Context(), name)
	inUse := (*prune.InUseError)(nil)
	switch {
	case errors.Is(err, prune.ErrUnknown):
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry", name)
	case errors.As(err, &inUse):
		fail(w, http.StatusConflict, "DENIED", "the blob is in use: "+err.Error(), name)
	case err != nil:
		slog.Error("blob not deleted", "user", user, "digest", name.String(), "err", err)
		fail(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry's storage does not answer; try again", nil)
	default:
		slog.Info("blob deleted", "user", user, "digest", name.String(), "size", size)
		w.WriteHeader(http.StatusNoContent)
	}
}
