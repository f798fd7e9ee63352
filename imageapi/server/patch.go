package server

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi"
	"tallyman/imageapi/rest"
)

// withSignaturePatches makes strategic merge patches of Image.signatures work. openshift/api's
// types say that entries are merged by "name", which is not a field of an entry, so upstream's
// patch code refuses every such patch. A patch with signatures in it is handled as a JSON
// merge patch whose signatures are merged by metadata.name; those of `kubectl apply`, which has
// the whole list, replace it. Everything common to strategic and merge patches stays the same. A
// patch with strategic features (directives, lists that merge) is left to fail.
func withSignaturePatches(next http.Handler, limit int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		contentType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // not a patch if it cannot be parsed
		info, ok := request.RequestInfoFrom(r.Context())
		if r.Method != http.MethodPatch || contentType != string(types.StrategicMergePatchType) || !ok || info.Resource != imageapi.Images.Resource {
			next.ServeHTTP(w, r)
			return
		}
		// One byte more than the limit, for the handler to find it too large.
		body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
		r.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), r.Body}
		if err == nil && isSignaturePatch(body) {
			r.Header.Set("Content-Type", string(types.MergePatchType))
			if !bytes.Contains(body, []byte(corev1.LastAppliedConfigAnnotation)) {
				r = r.WithContext(rest.WithMergedSignatures(r.Context()))
			}
		}
		next.ServeHTTP(w, r)
	})
}

func isSignaturePatch(body []byte) bool {
	var patch struct {
		Signatures json.RawMessage `json:"signatures"`
		Metadata   struct {
			Finalizers      json.RawMessage `json:"finalizers"`
			OwnerReferences json.RawMessage `json:"ownerReferences"`
		} `json:"metadata"`
	}
	return json.Unmarshal(body, &patch) == nil && strings.HasPrefix(string(patch.Signatures), "[") &&
		patch.Metadata.Finalizers == nil && patch.Metadata.OwnerReferences == nil &&
		!bytes.Contains(body, []byte(`"$patch"`)) && !bytes.Contains(body, []byte(`"$setElementOrder`)) && !bytes.Contains(body, []byte(`"$delete`))
}
