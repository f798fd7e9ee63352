package resync

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"tallyman/registry/logging"
)

const (
	// quietTime is how long a repository must not have changed to have no change under way.
	quietTime = time.Minute
	// settleTimeout bounds the time in which a process that ends takes back its notes.
	settleTimeout = 15 * time.Second
)

// recoverRepositories compares the repositories that dead processes have changed with their records,
// and says that this process is alive.
func (r *Resyncer) recoverRepositories(ctx context.Context) {
	u := r.tracker.Underway()
	u.Settle(ctx, quietTime)
	orphaned, err := u.Orphaned(ctx)
	if err != nil {
		logging.For(ctx).Debug("cannot look for dead processes", "err", err)
		return
	}
	for process, repositories := range orphaned {
		for _, repository := range repositories {
			if !r.recoverOne(ctx, repository) || ctx.Err() != nil {
				return // it is tried again
			}
			if err := r.records.End(ctx, process, repository); err != nil {
				return
			}
		}
	}
}

// keepRecovering calls recoverRepositories again and again until ctx ends, when this process changes
// nothing any more.
func (r *Resyncer) keepRecovering(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if r.tracker.Ready() == nil {
			r.recoverRepositories(ctx)
		}
	}, interval)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	r.tracker.Underway().Settle(ctx, 0)
}

// recoverOne makes the records of a repository agree with the registry, in both directions.
// Records of things that the registry lacks go at once: a change was under way. It returns false if it
// could not be done.
func (r *Resyncer) recoverOne(ctx context.Context, repository string) bool {
	round := r.tracker.Round(ctx)
	c, err := r.compare(ctx, round, repository, true)
	if err != nil {
		return false
	}
	removed, suspects := 0, c.missing
	if len(suspects) >= manyRecords && 2*len(suspects) > c.known.number() {
		logging.For(ctx).Error("the registry lacks most of a repository; its records stay for now", "repository", repository, "missing", len(suspects), "records", c.known.number())
		for _, m := range suspects {
			if r.records.MarkMissing(ctx, m) != nil {
				return false
			}
		}
		suspects = nil
	}
	for _, m := range suspects {
		if err := round.Sync(ctx, r.entry(ctx, &m)); err != nil {
			if c.fail(ctx, r.entry(ctx, &m), err) != nil {
				return false
			}
			continue
		}
		removed++
	}
	changes.WithLabelValues("removed").Add(float64(removed))
	logging.For(ctx).Info("repository compared with its records, after a process died", "repository", repository, "recorded", c.recorded, "removed", removed, "failed", c.failed)
	return true
}
