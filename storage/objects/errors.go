package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/features"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"tallyman/storage"
)

// maxCorrupt is how many corrupt objects a list reports before it gives up, as
// upstream's etcd3 store.
const maxCorrupt = 100

var errTooManyCorrupt = errors.New("too many errors, the list is truncated")

// corruption gathers the corrupt objects of a list, where Kubernetes' feature gate
// AllowUnsafeMalformedObjectDeletion asks for that, as it does by default: their deletion
// needs the names of all. Without the gate a list fails on the first.
type corruption struct {
	store  *Store
	gather bool
	causes []metav1.StatusCause
}

func (s *Store) newCorruption() *corruption {
	return &corruption{store: s, gather: reportsCorrupt()}
}

// skips reports whether a list or watch continues after err, the failure to read the
// object under key. It counts and logs the object.
func (s *Store) skips(key string, err error) bool {
	if !s.opts.SkipCorrupt || !errors.Is(err, storage.ErrCorrupt) {
		return false
	}
	corruptObjects.WithLabelValues(s.opts.GroupResource.Resource).Inc()
	s.logCorrupt.Do(func() {
		slog.Error("corrupt object skipped by a list or watch; tallyman store check names all", "key", key, "err", err)
	})
	return true
}

func reportsCorrupt() bool {
	return utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
}

// corruptObject makes a failure to read one corrupt object the error that tells
// a client so.
func corruptObject(key string, err error) error {
	if !reportsCorrupt() || !errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	return k8sstorage.NewCorruptObjError(key, err)
}

// note takes the failure to read the object under key, and returns the one that
// the list is to end with, nil if it is to go on.
func (c *corruption) note(key string, err error) error {
	if c.store.skips(key, err) {
		return nil
	}
	if !c.gather || !errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	c.causes = append(c.causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Field: key, Message: err.Error()})
	if len(c.causes) == maxCorrupt {
		return errTooManyCorrupt
	}
	return nil
}

// result returns the error of a list: all the corrupt objects, or else err, which ended it.
func (c *corruption) result(err error) error {
	if len(c.causes) == 0 {
		return err
	}
	resource := c.store.opts.GroupResource
	message := fmt.Sprintf("failed to read one or more %s from the storage: %s: %s", resource, c.causes[0].Field, c.causes[0].Message)
	if more := len(c.causes) - 1; more > 0 {
		message = fmt.Sprintf("%s (and %d more)", message, more)
	}
	switch {
	case errors.Is(err, errTooManyCorrupt):
		c.causes = append(c.causes, metav1.StatusCause{Type: metav1.CauseTypeTooMany, Message: err.Error()})
	case err != nil:
		c.causes = append(c.causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Message: err.Error()})
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Reason:  metav1.StatusReasonStoreReadError,
		Message: message,
		Details: &metav1.StatusDetails{Group: resource.Group, Kind: resource.Resource, Name: "list", Causes: c.causes},
	}}
}

// Unavailable turns a failure of the backend into the error for a client. It leaves the
// caller's own cancellation and Status errors as they are.
func Unavailable(err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil, errors.As(err, &status),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, storage.ErrCompacted), errors.Is(err, storage.ErrFuture), errors.Is(err, storage.ErrNoIndex):
		return err
	}
	if errors.Is(err, storage.ErrFull) {
		fullStore.Inc()
		return &noRoom{cause: err}
	}
	logOutages.Do(func() { slog.Error("the image store is not available", "err", err) })
	return &outage{cause: err}
}

// logOutages keeps an outage from filling the log.
var logOutages = rate.Sometimes{Interval: 10 * time.Second}

// outage is 503 for clients. Its details about the way to the store are in the log only.
type outage struct{ cause error }

// Error implements error, for the log.
func (o *outage) Error() string { return "the image store is not available: " + o.cause.Error() }

// Unwrap returns the cause.
func (o *outage) Unwrap() error { return o.cause }

// Status implements apierrors.APIStatus, for clients.
func (o *outage) Status() metav1.Status {
	status := apierrors.NewServiceUnavailable("the image store is not available; try again").Status()
	status.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return status
}

// noRoom is ErrFull for clients: 507 without Retry-After.
type noRoom struct{ cause error }

// Error implements error.
func (n *noRoom) Error() string { return n.cause.Error() }

// Unwrap returns the cause.
func (n *noRoom) Unwrap() error { return n.cause }

// Status implements apierrors.APIStatus.
func (n *noRoom) Status() metav1.Status {
	return metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: "InsufficientStorage",
		Message: "the image store is full: nothing can be added until images are deleted or it is given more memory",
	}
}
