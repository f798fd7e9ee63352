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

// User returns the user that WithUser has put into ctx, or distribution has; "" for none.
func User(ctx context.Context) string {
	for _, key := range []any{userKey{}, "auth.user.name"} {
		if name, ok := ctx.Value(key).(string); ok {
			return name
		}
	}
	return ""
}

// For returns a logger with the request's id and user, which distribution keeps
// in the context under these names.
func For(ctx context.Context) *slog.Logger {
	logger := slog.Default()
	if id, ok := ctx.Value("http.request.id").(string); ok && id != "" {
		logger = logger.With("http.request.id", id)
	}
	if user := User(ctx); user != "" {
		logger = logger.With("auth.user.name", user)
	}
	return logger
}
