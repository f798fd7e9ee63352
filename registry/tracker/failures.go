package tracker

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/catalog"
	"tallyman/internal/crash"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

// UnavailableError is the error of a change that could not be recorded, nor put off.
type UnavailableError struct {
	Repository string
	Err        error
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("the image store is not available, so %s could not be recorded; push again: %v", e.Repository, e.Err)
}

// Unwrap returns the reason.
func (e *UnavailableError) Unwrap() error { return e.Err }

// permanentError is a failure that trying again will not mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool {
	var permanent permanentError
	var panicked *crash.Error // the same input would panic again
	return errors.As(err, &permanent) || errors.As(err, &panicked) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// isContentError reports a permanent failure that is for the manifest's content alone.
func isContentError(err error) bool {
	var permanent permanentError
	return errors.As(err, &permanent)
}

// handleFailure handles the outcome of recording a change that the registry has stored: err is the
// error of recording it.
func (t *Tracker) handleFailure(ctx context.Context, m journal.Entry, err error) error {
	if err == nil {
		return nil
	}
	if isPermanent(err) {
		t.setAside(ctx, m, err)
		return nil
	}
	// A tag without a recorded manifest is no failure of the store: a pull-through cache
	// learns of tags before it has their manifests, and one client may delete a manifest while
	// another tags it. Nor is an Image that is being deleted: it comes back when it is gone.
	missing := apierrors.IsNotFound(err) || errors.Is(err, catalog.ErrTerminating)
	if t.options.OnStoreFailure == Reject && !missing {
		recordedTotal.WithLabelValues("rejected").Inc()
		logging.For(ctx).Error("push rejected: the image store is not available", append(m.Attributes(), "err", err)...)
		return &UnavailableError{m.Repository, err}
	}
	ctx, cancel := detached(ctx) // the store may have used up the time of the last one
	defer cancel()
	if _, markErr := t.journal.Add(ctx, m); markErr != nil {
		recordedTotal.WithLabelValues("rejected").Inc()
		logging.For(ctx).Error("push rejected: it can neither be recorded nor put off", append(m.Attributes(), "err", errors.Join(err, markErr))...)
		return &UnavailableError{m.Repository, errors.Join(err, markErr)}
	}
	t.wake()
	if missing {
		return nil
	}
	recordedTotal.WithLabelValues("deferred").Inc()
	logging.For(ctx).Warn("the image store is not available; will record when it is back", append(m.Attributes(), "err", err)...)
	return nil
}

// requeue requeues m.
func (t *Tracker) requeue(ctx context.Context, m journal.Entry) {
	if _, err := t.journal.Add(ctx, m); err != nil {
		logging.For(ctx).Warn("journal entry not written", append(m.Attributes(), "err", err)...)
	}
	t.wake()
}

// Failed handles the failure to record something of the registry that was found by a comparison. It
// is tried again later, unless it can never be recorded. away is true if the store is not available.
func (t *Tracker) Failed(ctx context.Context, m journal.Entry, err error) (away bool) {
	switch {
	case isPermanent(err):
		t.setAside(ctx, m, err)
		return false
	case t.options.Catalog.Ready() != nil:
		return true
	}
	logging.For(ctx).Error("cannot record existing content", append(m.Attributes(), "err", err)...)
	if m.Digest != "" || m.Tag != "" {
		t.requeue(ctx, m)
	}
	return false
}

// setAside reports a change that can never be recorded. Where that is for the manifest's content,
// it is reported once, and noted, so that a resync passes over the manifest until another version
// of this program may read it.
func (t *Tracker) setAside(ctx context.Context, m journal.Entry, err error) {
	if isContentError(err) && m.Digest != "" {
		first, noteErr := t.journal.SetAside(ctx, m, t.options.Version, err.Error())
		if noteErr != nil {
			logging.For(ctx).Warn("cannot note what is set aside", append(m.Attributes(), "err", noteErr)...)
		} else if !first {
			return
		}
	}
	recordedTotal.WithLabelValues("failed").Inc()
	logging.For(ctx).Error("cannot record a manifest in the Image API", append(m.Attributes(), "err", err)...)
}
