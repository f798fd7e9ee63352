package registry

import (
	"context"
	"errors"
	"log/slog"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streamwriter"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// Changes changes the registry for the API. It goes the way of the registry's own clients, so that the
// rules about tags hold and each change is recorded.
type Changes struct {
	namespace distribution.Namespace
	refusal   string // of every change, "" for none
	deletes   bool   // the configuration lets clients delete
}

var _ streamwriter.Registry = (*Changes)(nil)

// newChanges returns the Changes of the registry that the middleware has wrapped.
func newChanges(c *configuration.Configuration, namespace distribution.Namespace) *Changes {
	deletes := DeletesContent(c)
	switch {
	case c.Proxy.RemoteURL != "":
		return &Changes{namespace, "the registry is a pull-through cache: its tags are those of another registry", deletes}
	case IsReadOnly(c):
		return &Changes{namespace, "the registry is read-only (storage.maintenance.readonly)", deletes}
	}
	return &Changes{namespace, "", deletes}
}

// DeletesContent reports whether the configuration lets clients delete.
func DeletesContent(c *configuration.Configuration) bool {
	enabled, _ := c.Storage["delete"]["enabled"].(bool)
	return enabled
}

// IsReadOnly reports whether distribution refuses changes.
func IsReadOnly(c *configuration.Configuration) bool {
	readOnly, _ := c.Storage["maintenance"]["readonly"].(map[any]any)
	enabled, _ := readOnly["enabled"].(bool)
	return enabled
}

// MayUntag implements streamwriter.Registry.
func (c *Changes) MayUntag(ctx context.Context, name string, tags []string) error {
	r, err := c.open(ctx, name)
	if err != nil {
		return err
	}
	if !c.deletes {
		return clientError(distribution.ErrUnsupported)
	}
	service := r.Repository.Tags(ctx)
	for _, tag := range tags {
		if err := r.mayPoint(ctx, service, tag, ""); err != nil {
			return clientError(err)
		}
	}
	return nil
}

// Untag implements streamwriter.Registry.
func (c *Changes) Untag(ctx context.Context, m streamwriter.Move) error {
	m.To = ""
	return c.move(ctx, m, "untag", func(ctx context.Context, service distribution.TagService) error {
		err := service.Untag(ctx, m.Tag)
		if gone := (driver.PathNotFoundError{}); errors.As(err, &gone) {
			return nil
		}
		return err
	})
}

// Tag implements streamwriter.Registry.
func (c *Changes) Tag(ctx context.Context, m streamwriter.Move) error {
	return c.move(ctx, m, "tag", func(ctx context.Context, service distribution.TagService) error {
		return service.Tag(ctx, m.Tag, imagespec.Descriptor{Digest: m.To})
	})
}

// open returns a repository to be changed.
func (c *Changes) open(ctx context.Context, name string) (*repository, error) {
	if c.refusal != "" {
		return nil, &streamwriter.RefusedError{Reason: c.refusal}
	}
	opened, err := tracker.OpenRepository(ctx, c.namespace, name)
	if err != nil {
		return nil, err
	}
	return opened.(*repository), nil
}

// move makes a move by change, and logs it.
func (c *Changes) move(ctx context.Context, m streamwriter.Move, verb string, change func(context.Context, distribution.TagService) error) error {
	ctx = logging.WithUser(ctx, m.User)
	r, err := c.open(ctx, m.Repository)
	if err != nil {
		return err
	}
	if err := r.tracker.Ready(); err != nil {
		return clientError(unavailableFor(ctx))
	}
	if m.To != "" {
		if err := c.provide(ctx, r, &m); err != nil {
			return clientError(err)
		}
	}
	service := r.Repository.Tags(ctx)
	guarded := r.change(ctx, service, m.Tag, m.To, func() error {
		if err := m.Condition(ctx); err != nil {
			return err
		}
		return change(ctx, service)
	})
	tracked := &records.Tracked{}
	err = unavailable(ctx, r.tracker.Tagged(records.WithTracked(ctx, tracked), r.Repository, m.Tag, m.To, service, guarded))
	logging.Audit(ctx, verb, m.Repository, m.Tag, m.To.String(), err)
	if err == nil && tracked.Is() {
		r.follow(ctx, m.Tag, imagespec.Descriptor{Digest: m.To})
	}
	return clientError(err)
}

// Add implements streamwriter.Registry.
func (c *Changes) Add(ctx context.Context, user, name string, manifest digest.Digest, content streamwriter.Content) error {
	ctx = logging.WithUser(ctx, user)
	to, err := c.open(ctx, name)
	if err != nil {
		return err
	}
	if err := to.tracker.Ready(); err != nil {
		return clientError(unavailableFor(ctx))
	}
	err = addManifest(ctx, elsewhere{content}, to, manifest)
	if source := (contentError{}); errors.As(err, &source) {
		return err
	}
	return clientError(err)
}

// provide makes sure that the repository of a tag has the manifest that the tag is to point to, with its
// content.
func (c *Changes) provide(ctx context.Context, to *repository, m *streamwriter.Move) error {
	if m.From == m.Repository {
		service, err := to.Repository.Manifests(ctx)
		if err != nil {
			return err
		}
		there, err := service.Exists(ctx, m.To)
		if err == nil && !there {
			err = distribution.ErrManifestUnknownRevision{Name: m.Repository, Revision: m.To}
		}
		return err
	}
	from, err := c.open(ctx, m.From)
	if err != nil {
		return err
	}
	if err := to.mayPoint(ctx, to.Repository.Tags(ctx), m.Tag, m.To); err != nil {
		return err
	}
	return addManifest(ctx, sibling{from}, to, m.To)
}

// clientError returns the error for a client of the API.
func clientError(err error) error {
	var code errcode.Error
	var status apierrors.APIStatus
	var unknown distribution.ErrManifestUnknownRevision
	switch {
	case err == nil, errors.As(err, &status):
		return err
	case errors.As(err, &unknown):
		return apierrors.NewNotFound(imageapi.Images, unknown.Revision.String())
	case errors.Is(err, distribution.ErrUnsupported):
		return &streamwriter.RefusedError{Reason: "the registry deletes nothing: storage.delete.enabled is not true"}
	case errors.As(err, &code) && code.Code == errcode.ErrorCodeDenied:
		return &streamwriter.RefusedError{Reason: code.Message}
	case errors.As(err, &code) && code.Code == errcode.ErrorCodeUnavailable:
		return apierrors.NewServiceUnavailable(code.Message)
	}
	slog.Error("change of the registry for the API failed", "err", err)
	return apierrors.NewInternalError(errors.New("the registry's storage failed; its log says why"))
}
