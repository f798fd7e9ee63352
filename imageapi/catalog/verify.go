package catalog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/rest"
	"tallyman/internal/crash"
	"tallyman/storage"
)

// VerifyAll updates the signatures of all Images, by the content of repositories and by the
// present policies: after a policy has changed, or as time has passed. It returns the number
// of Images with signatures. An Image that cannot be written is logged and passed over;
// VerifyAll ends early if the store cannot be read.
func (c *Catalog) VerifyAll(ctx context.Context) (signed int, err error) {
	sign := func(name digest.Digest) error {
		signed++
		if err := crash.Guard("signature verification", func() error { return c.RefreshSignatures(ctx, name) }); err != nil {
			slog.WarnContext(ctx, "signature verification failed", "digest", name.String(), "err", err)
		}
		return ctx.Err()
	}
	if err := c.referrers.EachSubject(ctx, sign); err != nil {
		return signed, err
	}
	err = storage.Each(ctx, c.backend, rest.KeyPrefix, false, func(e *storage.Entry) error {
		if !bytes.Contains(e.Value.Body(), []byte(`"signatures":[`)) {
			return nil
		}
		return sign(digest.Digest(strings.TrimPrefix(e.Key, rest.KeyPrefix)))
	})
	return signed, err
}

// VerifyOutside calls fn, which takes locks, changes Images with the context that it is given, and
// frees the locks. It calls fn again when it has verified signatures that fn was to write.
func (c *Catalog) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	return c.images.VerifyOutside(ctx, fn)
}

// Policies are the signature policies. policy.Verifier is one.
type Policies interface {
	// Watch calls changed when a policy has changed, which it looks for by the period poll, until
	// ctx ends.
	Watch(ctx context.Context, poll time.Duration, changed func())
	// ClearCache forgets the results that depend on the time.
	ClearCache()
}

const (
	// policyPoll is how often the files of signature policies are looked at.
	policyPoll = 2 * time.Second
	// verifyRetry is the time until all signatures are verified again after a failure.
	verifyRetry = 5 * time.Second
)

// KeepVerified verifies all signatures at once, when a policy has changed, and by the interval,
// until ctx ends.
func (c *Catalog) KeepVerified(ctx context.Context, policies Policies, interval time.Duration) {
	changed := make(chan struct{}, 1)
	changed <- struct{}{} // trust may have changed while no process ran
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var watch sync.WaitGroup
	watch.Go(func() { policies.Watch(ctx, policyPoll, notify) })
	defer watch.Wait()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(interval):
			policies.ClearCache()
		}
		c.verifyAll(ctx)
	}
}

// verifyAll goes over all signatures, and again from the beginning if the store goes
// away.
func (c *Catalog) verifyAll(ctx context.Context) {
	for {
		start := time.Now()
		signed, err := c.VerifyAll(ctx)
		switch {
		case err == nil && signed > 0:
			slog.Info("signature verification complete", "images", signed, "took", time.Since(start).Round(time.Millisecond).String())
			return
		case err == nil || errors.Is(err, context.Canceled):
			return
		}
		slog.Warn("signature verification of all images failed, retrying", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(verifyRetry):
		}
	}
}
