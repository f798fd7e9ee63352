package registry

import (
	"context"
)

// audit writes one line with the user, the change in the registry and its outcome. Requests
// that the registry's own auth refuses are in the access log only.
func audit(ctx context.Context, verb, repository, tag, name string, err error) {
	outcome, attributes := "success", []any{"verb", verb, "repository", repository, "tag", tag, "digest", name}
	if err != nil {
		outcome, attributes = "failure", append(attributes, "err", err.Error())
	}
	attributes = append(attributes, "outcome", outcome)
	for _, key := range []string{"http.request.remoteaddr", "http.request.useragent"} {
		if value, ok := ctx.Value(key).(string); ok {
			attributes = append(attributes, key, value)
		}
	}
	log(ctx).Info("registry audit", attributes...)
}
