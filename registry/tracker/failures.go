package tracker

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/distribution/distribution/v3/registry/storage/driver"
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
		t.requeue(ctx, m) // the registry has what the client does not push again
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

// requeue has m reconciled again. An entry that cannot be written is kept in memory until it can.
func (t *Tracker) requeue(ctx context.Context, m journal.Entry) {
	defer t.wake()
	if m.IsStored() {
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if _, err := t.journal.Add(ctx, m); err != nil {
		logging.For(ctx).Warn("journal entry not written yet", append(m.Attributes(), "err", err)...)
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.unwritten) < mostUnwritten {
			t.unwritten = append(t.unwritten, m)
		}
	}
}

// mostUnwritten bounds the entries in memory; a comparison with the registry finds the others.
const mostUnwritten = 100_000

// writeEntries writes the entries that could not be written before. It returns the number of those
// that still cannot.
func (t *Tracker) writeEntries(ctx context.Context) (left int) {
	t.mu.Lock()
	unwritten := t.unwritten
	t.unwritten = nil
	t.mu.Unlock()
	for i, m := range unwritten {
		if _, err := t.journal.Add(ctx, m); err != nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.unwritten = append(t.unwritten, unwritten[i:]...)
			return len(t.unwritten)
		}
	}
	return 0
}

// isFull reports whether an error of the registry's storage says that it is full.
func isFull(err error) bool {
	var failure driver.Error // without Unwrap
	if errors.As(err, &failure) {
		err = failure.Detail
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
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
