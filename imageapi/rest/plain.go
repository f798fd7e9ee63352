package rest

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"

	"tallyman/imageapi"
)

type plainObjectsKey struct{}

// WithPlainObjects marks reads whose answer can be made of stored bytes: complete objects
// in JSON, not tables or metadata.
func WithPlainObjects(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			media, _, err := negotiation.NegotiateOutputMediaType(r, imageapi.Codecs, anyConversion{})
			if err == nil && media.Convert == nil && media.Accepted.MediaType == runtime.ContentTypeJSON {
				r = r.WithContext(context.WithValue(r.Context(), plainObjectsKey{}, true))
			}
		}
		next.ServeHTTP(w, r)
	})
}

func wantsPlainObjects(ctx context.Context) bool {
	plain, _ := ctx.Value(plainObjectsKey{}).(bool)
	return plain
}

// anyConversion lets the negotiation see every conversion that a client may ask
// for; the handlers decide which they make.
type anyConversion struct{}

var _ negotiation.EndpointRestrictions = anyConversion{}

// AllowsMediaTypeTransform implements negotiation.EndpointRestrictions.
func (anyConversion) AllowsMediaTypeTransform(string, string, *schema.GroupVersionKind) bool {
	return true
}

// AllowsServerVersion implements negotiation.EndpointRestrictions.
func (anyConversion) AllowsServerVersion(string) bool { return false }

// AllowsStreamSchema implements negotiation.EndpointRestrictions.
func (anyConversion) AllowsStreamSchema(s string) bool { return s == "watch" }
