package resync

import (
	"context"
	"encoding/json"
	"path"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

const (
	// watermarkInterval is the interval at which a new watermark is stored.
	watermarkInterval = 10 * time.Second
	watermarkRetry    = time.Second
)

var watermarkFile = path.Join(journal.Root, "watermark")

// watermark is a revision that the image store has reached. It is kept in the registry's
// own storage: a store that is restored from an older copy while no process runs has a
// lower revision than its watermark.
type watermark struct {
	Revision int64 `json:"revision"`
}

// keepWatermark compares the store with the last watermark and then keeps the watermark
// up to date, until ctx ends.
func (r *Resyncer) keepWatermark(ctx context.Context) {
	_ = wait.PollUntilContextCancel(ctx, watermarkRetry, true, func(ctx context.Context) (done bool, _ error) {
		err := r.checkWatermark(ctx)
		if err != nil {
			logging.For(ctx).Debug("watermark not compared yet", "err", err)
		}
		return err == nil, nil
	})
	last := int64(0)
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		revision, err := r.storeWatermark(ctx, last)
		if err != nil && ctx.Err() == nil {
			logging.For(ctx).Debug("watermark not stored", "err", err)
		}
		last = revision
	}, watermarkInterval)
}

// checkWatermark detects a store that has lost acknowledged changes. It raises the
// revision of such a store above the watermark, so that all clients list again, and starts
// a comparison.
func (r *Resyncer) checkWatermark(ctx context.Context) error {
	content, err := r.tracker.Driver().GetContent(ctx, watermarkFile)
	if err != nil {
		return journal.IgnoreMissing(err)
	}
	var mark watermark
	if err := json.Unmarshal(content, &mark); err != nil {
		logging.For(ctx).Warn("malformed watermark ignored", "file", watermarkFile, "err", err)
		return nil
	}
	revision, err := r.tracker.Catalog().Revision(ctx)
	if err != nil || revision >= mark.Revision {
		return err
	}
	if err := r.tracker.Catalog().Advance(ctx, mark.Revision+1); err != nil {
		return err
	}
	lostAtStart.Inc()
	logging.For(ctx).Error("image store has lost acknowledged changes, starting resync", "revision", revision, "watermark", mark.Revision)
	r.behind.Store(true)
	r.wanted.Store(true)
	return nil
}

// storeWatermark stores the revision of the store if it is not last, and returns it.
func (r *Resyncer) storeWatermark(ctx context.Context, last int64) (int64, error) {
	revision, err := r.tracker.Catalog().Revision(ctx)
	if err != nil || revision == last {
		return last, err
	}
	content, err := json.Marshal(watermark{revision})
	if err != nil {
		return last, err
	}
	if err := r.tracker.Driver().PutContent(ctx, watermarkFile, content); err != nil {
		return last, err
	}
	return revision, nil
}
