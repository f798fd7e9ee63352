package resync

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/imageapi/records"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// manyRecords is the number of records from which on the registry is not believed to have lost more
// than a part of them.
const manyRecords = 50

// tooMany reports whether that many of the records are missing that an operator is to confirm it.
// Of a registry that has no repository, any are.
func (r *Resyncer) tooMany(missing, of, repositories int) bool {
	return missing > 0 && (repositories == 0 || of >= manyRecords && missing*100 > of*r.options.Removals)
}

func blockedText(state *records.ResyncState) string {
	return fmt.Sprintf("the registry lacks %d of %d things that are recorded: their records stay until `tallyman store resync --confirm`", state.Missing, state.Records)
}

// isMissing reads whether the registry lacks the thing of m.
func (r *Resyncer) isMissing(ctx context.Context, m *records.Missing) (bool, error) {
	if m.Tag != "" {
		to, err := r.layout.pointsTo(ctx, m.Repository, m.Tag)
		return to == "", err
	}
	held, err := r.layout.holds(ctx, m.Repository, m.Digest)
	return !held, err
}

// removeMissing removes the records whose grace period is over, if the registry still lacks their
// things. It returns their number. A failure does not keep the others from going.
func (r *Resyncer) removeMissing(ctx context.Context, grace time.Duration) (removed int, err error) {
	var tags, manifests []records.Missing
	now := r.options.Now()
	err = r.records.EachMissing(ctx, func(m records.Missing) error {
		switch {
		case now.Sub(m.Since) < grace:
		case m.Tag != "":
			tags = append(tags, m)
		default:
			manifests = append(manifests, m)
		}
		return nil
	})
	if err != nil || len(tags)+len(manifests) == 0 {
		return 0, err
	}
	var gone atomic.Int64
	round := r.tracker.Round(ctx)
	for _, due := range [][]records.Missing{tags, manifests} { // the manifest would take its tags with it
		var group errgroup.Group
		group.SetLimit(workers)
		for _, m := range due {
			group.Go(func() error {
				did, err := r.remove(ctx, round, m)
				if did {
					gone.Add(1)
				}
				if err != nil && ctx.Err() == nil {
					logging.For(ctx).Warn("cannot remove the record of something that the registry lacks", "repository", m.Repository, "tag", m.Tag, "digest", m.Digest.String(), "err", err)
				}
				return errors.Join(err, ctx.Err())
			})
		}
		err = errors.Join(err, group.Wait())
	}
	changes.WithLabelValues("removed").Add(float64(gone.Load()))
	return int(gone.Load()), err
}

// removeLater is removeMissing with the configured grace period, after a comparison, unless that has
// found too many.
func (r *Resyncer) removeLater(ctx context.Context) error {
	_, state, err := r.resyncs.State(ctx)
	if err != nil || state.Blocked {
		return err
	}
	removed, err := r.removeMissing(ctx, r.options.Grace)
	if err != nil || removed == 0 {
		return err
	}
	left, err := r.records.CountMissing(ctx)
	if err != nil {
		return err
	}
	state.Removed, state.Missing = state.Removed+removed, int(left)
	return r.resyncs.SetState(ctx, &state)
}

// remove removes one record, unless it has changed or its thing is there again.
func (r *Resyncer) remove(ctx context.Context, round *tracker.Round, m records.Missing) (removed bool, err error) {
	same, err := r.records.Unchanged(ctx, m)
	if err != nil {
		return false, err
	}
	if same {
		if same, err = r.isMissing(ctx, &m); err != nil {
			return false, err
		}
	}
	if same {
		if err := round.Sync(ctx, r.entry(ctx, &m)); err != nil {
			return false, err
		}
		logging.For(ctx).Info("record removed of something that the registry lacks",
			"repository", m.Repository, "tag", m.Tag, "digest", m.Digest.String(), "since", m.Since)
	}
	return same, r.records.UnmarkMissing(ctx, m)
}

// entry returns the entry of the thing of m, with its subject.
func (r *Resyncer) entry(ctx context.Context, m *records.Missing) journal.Entry {
	e := journal.Entry{Repository: m.Repository, Digest: m.Digest, Tag: m.Tag}
	if m.Digest == "" {
		return e
	}
	if holding, err := r.records.Holding(ctx, m.Repository, m.Digest); err == nil && holding != nil {
		e.Subject = holding.Subject
	}
	return e
}
