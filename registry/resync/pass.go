package resync

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/imageapi/records"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// checkpointInterval is how often the state of a comparison is stored.
const checkpointInterval = 5 * time.Second

// pass is a comparison of the whole registry.
type pass struct {
	*Resyncer
	round    *tracker.Round
	bothWays bool // records may be too many, too

	order order

	mu     sync.Mutex // guards the following
	state  records.ResyncState
	stored time.Time
}

// compareAll compares everything, or goes on with a comparison that was broken off.
func (r *Resyncer) compareAll(ctx context.Context, request records.ResyncRequest, state records.ResyncState) {
	start, alone := time.Now(), r.tracker.Alone()
	if !state.Unfinished() || request.Revision > state.Handled {
		state = records.ResyncState{Handled: request.Revision, Started: r.options.Now().UTC()}
	}
	complete, err := r.tracker.Recorded(ctx)
	if err != nil {
		logging.For(ctx).Debug("resync not begun", "err", err)
		return
	}
	p := &pass{Resyncer: r, round: r.tracker.Round(ctx), bothWays: complete || request.Confirm || request.Grace != nil, state: state, order: order{done: map[int]bool{}}}
	placed := complete || p.relocate(ctx) == nil
	err = p.walk(ctx)
	if ctx.Err() != nil || errors.Is(err, errStoreAway) {
		p.breakOff(ctx)
		return
	}
	if err != nil { // additions have been made; removals need a whole list
		logging.For(ctx).Error("cannot go over all repositories", "err", err)
		p.state.Failed++
	} else if err = p.settle(ctx, &request); err != nil {
		logging.For(ctx).Error("cannot remove records of things that the registry lacks", "err", err)
	}
	if err == nil && placed && alone && !complete {
		r.completeRecords(ctx)
	}
	if r.tracker.Ready() != nil {
		p.breakOff(ctx)
		return
	}
	p.state.Finished, p.state.Checkpoint = r.options.Now().UTC(), ""
	if err := r.resyncs.SetState(ctx, &p.state); err != nil {
		logging.For(ctx).Warn("cannot note that the resync is complete", "err", err)
	}
	r.show(&p.state)
	logging.For(ctx).Info("resync complete", "repositories", p.state.Repositories, "manifests", p.state.Manifests, "tags", p.state.Tags,
		"recorded", p.state.Recorded, "failed", p.state.Failed, "setAside", p.state.SetAside,
		"missing", p.state.Missing, "removed", p.state.Removed, "took", time.Since(start).Round(time.Millisecond).String())
}

// relocate moves the tags of another default namespace, which the configuration had before.
func (r *Resyncer) relocate(ctx context.Context) error {
	moved, err := r.records.Relocate(ctx)
	if err != nil {
		logging.For(ctx).Error("image tags of a former namespace not moved", "moved", moved, "err", err)
		return err
	}
	if moved > 0 {
		logging.For(ctx).Info("image tags moved to the namespace that is configured now", "moved", moved)
	}
	return nil
}

// completeRecords notes that everything has its records, from the next comparison on in both directions.
func (r *Resyncer) completeRecords(ctx context.Context) {
	err := r.records.CompleteTerms(ctx) // those that were written in an older format lack them
	if err == nil {
		err = r.records.CompleteStreams(ctx)
	}
	if err == nil {
		err = r.records.SetComplete(ctx)
	}
	if err != nil {
		logging.For(ctx).Error("cannot note that everything is recorded", "err", err)
	}
}

// breakOff keeps the state for the process that goes on, which has it already if ctx has ended.
func (p *pass) breakOff(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	logging.For(ctx).Warn("the image store went away; the resync goes on when it is back")
	if err := p.resyncs.SetState(ctx, &p.state); err != nil {
		logging.For(ctx).Debug("cannot note how far the resync is", "err", err)
	}
}

// walk compares every repository of the registry, and those that have records alone.
func (p *pass) walk(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	listed, from := map[string]bool{}, p.state.Checkpoint
	begin := func(name string, number int) error {
		group.Go(func() error { return p.compareOne(ctx, name, number) })
		return ctx.Err()
	}
	skipping := from != ""
	var skipped []string
	err := tracker.EachRepository(ctx, p.tracker.Registry(), func(name string) error {
		listed[name] = true
		if skipping {
			skipping = name != from
			skipped = append(skipped, name)
			return nil
		}
		return begin(name, p.order.next(name))
	})
	if err == nil && skipping { // the repository of the checkpoint is gone
		p.state = records.ResyncState{Handled: p.state.Handled, Started: p.state.Started}
		for _, name := range skipped {
			if err = begin(name, p.order.next(name)); err != nil {
				break
			}
		}
	}
	if err == nil && p.bothWays {
		err = p.records.EachRepository(ctx, func(name string) error {
			if listed[name] {
				return nil
			}
			return begin(name, unordered)
		})
	}
	if walkErr := group.Wait(); walkErr != nil {
		err = walkErr
	}
	if err == nil {
		p.state.Repositories = len(listed)
	}
	return err
}

// unordered is the number of a repository that cannot be a checkpoint.
const unordered = -1

// compareOne compares a repository, and notes its missing things.
func (p *pass) compareOne(ctx context.Context, name string, number int) error {
	c, err := p.compare(ctx, p.round, name, p.bothWays)
	if err != nil {
		return err
	}
	for _, m := range c.missing {
		if err := p.records.MarkMissing(ctx, m); err != nil {
			return errors.Join(err, errStoreAway)
		}
	}
	if state := p.count(c, number); state != nil {
		if err := p.resyncs.SetState(ctx, state); err != nil {
			logging.For(ctx).Debug("cannot note how far the resync is", "err", err)
		}
	}
	return nil
}

// count counts a comparison. It returns the state if it is to be stored, from time to time, else nil.
func (p *pass) count(c *comparison, number int) *records.ResyncState {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Manifests += c.manifests
	p.state.Tags += c.tags
	p.state.Records += c.known.number()
	p.state.Recorded += c.recorded
	p.state.Failed += c.failed
	p.state.SetAside += c.setAside
	if number != unordered {
		p.state.Checkpoint = cmp.Or(p.order.finish(number), p.state.Checkpoint)
	}
	if time.Since(p.stored) < checkpointInterval {
		return nil
	}
	p.stored = time.Now()
	state := p.state
	return &state
}

// settle removes the records whose grace period is over, unless they are too many.
func (p *pass) settle(ctx context.Context, request *records.ResyncRequest) error {
	missing, err := p.records.CountMissing(ctx)
	if err != nil {
		return err
	}
	p.state.Missing = int(missing)
	if p.state.Blocked = p.tooMany(p.state.Missing, p.state.Records, p.state.Repositories) && !request.Confirm; p.state.Blocked {
		logging.For(ctx).Error(blockedText(&p.state), "missing", p.state.Missing, "records", p.state.Records)
		return nil
	}
	grace := p.options.Grace
	if request.Grace != nil {
		grace = *request.Grace
	}
	removed, err := p.removeMissing(ctx, grace)
	p.state.Removed += removed
	left, countErr := p.records.CountMissing(ctx)
	p.state.Missing = int(left)
	return errors.Join(err, countErr)
}

// order finds the last of a row of repositories before which all are done.
type order struct {
	mu     sync.Mutex
	names  []string // from the one with the number first on
	first  int
	number int
	done   map[int]bool
}

// next numbers a repository.
func (o *order) next(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names = append(o.names, name)
	o.number++
	return o.number - 1
}

// finish returns the last repository that is done with all before it, "" if that is none new.
func (o *order) finish(number int) (last string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[number] = true
	for len(o.names) > 0 && o.done[o.first] {
		delete(o.done, o.first)
		last, o.names = o.names[0], o.names[1:]
		o.first++
	}
	return last
}
