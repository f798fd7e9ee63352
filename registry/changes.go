package registry

import (
	"context"
	"errors"
	"log/slog"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/streamrest"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// Changes changes the registry for the API. It goes the way of the registry's own clients, so that the
// rules about tags hold and each change is recorded.
type Changes struct {
	namespace distribution.Namespace
	refusal   string // of every change, "" for none
}

var _ streamrest.Registry = (*Changes)(nil)

// newChanges returns the Changes of the registry that the middleware has wrapped.
func newChanges(c *configuration.Configuration, namespace distribution.Namespace) *Changes {
	switch {
	case c.Proxy.RemoteURL != "":
		return &Changes{namespace, "the registry is a pull-through cache: its tags are those of another registry"}
	case isReadOnly(c):
		return &Changes{namespace, "the registry is read-only (storage.maintenance.readonly)"}
	}
	return &Changes{namespace, ""}
}

// isReadOnly reports whether distribution refuses changes.
func isReadOnly(c *configuration.Configuration) bool {
	readOnly, _ := c.Storage["maintenance"]["readonly"].(map[any]any)
	enabled, _ := readOnly["enabled"].(bool)
	return enabled
}

// Untag implements streamrest.Registry.
func (c *Changes) Untag(ctx context.Context, by, name, tag string, condition func(context.Context) error) error {
	if c.refusal != "" {
		return &streamrest.RefusedError{Reason: c.refusal}
	}
	ctx = logging.WithUser(ctx, by)
	opened, err := tracker.OpenRepository(ctx, c.namespace, name)
	if err != nil {
		return err
	}
	r := opened.(*repository)
	service := r.Repository.Tags(ctx)
	change := r.change(ctx, service, tag, "", func() error {
		if err := condition(ctx); err != nil {
			return err
		}
		err := service.Untag(ctx, tag)
		if gone := (driver.PathNotFoundError{}); errors.As(err, &gone) {
			return nil
		}
		return err
	})
	err = unavailable(ctx, r.tracker.Tagged(ctx, r.Repository, tag, "", service, change))
	logging.Audit(ctx, "untag", name, tag, "", err)
	return clientError(err)
}

// clientError returns the error for a client of the API.
func clientError(err error) error {
	var code errcode.Error
	var status apierrors.APIStatus
	switch {
	case err == nil, errors.As(err, &status):
		return err
	case errors.Is(err, distribution.ErrUnsupported):
		return &streamrest.RefusedError{Reason: "the registry deletes nothing: storage.delete.enabled is not true"}
	case errors.As(err, &code) && code.Code == errcode.ErrorCodeDenied:
		return &streamrest.RefusedError{Reason: code.Message}
	case errors.As(err, &code) && code.Code == errcode.ErrorCodeUnavailable:
		return apierrors.NewServiceUnavailable(code.Message)
	}
	slog.Error("change of the registry for the API failed", "err", err)
	return apierrors.NewInternalError(errors.New("the registry's storage failed; its log says why"))
}
