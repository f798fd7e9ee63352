package logging

import (
	"context"
	"log/slog"
)

// Audit writes one line with the user, the change in the registry and its outcome. Requests
// that the registry's own auth refuses are in the access log only.
func Audit(ctx context.Context, verb, repository, tag, name string, err error) {
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
	For(ctx).Info("registry audit", attributes...)
}

type userKey struct{}

// WithUser notes the user of a request to one of our own endpoints. distribution notes that of
// a request to its own.
func WithUser(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, userKey{}, name)
}

// For returns a logger with the request's id and user, which distribution keeps
// in the context under these names.
func For(ctx context.Context) *slog.Logger {
	logger := slog.Default()
	for _, key := range []string{"http.request.id", "auth.user.name"} {
		if value, ok := ctx.Value(key).(string); ok && value != "" {
			logger = logger.With(key, value)
		}
	}
	if user, ok := ctx.Value(userKey{}).(string); ok && user != "" { // of our own endpoints
		logger = logger.With("auth.user.name", user)
	}
	return logger
}
