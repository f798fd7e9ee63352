package doctor

import (
	"context"
	"time"

	"tallyman/imageapi/records"
	"tallyman/registry/journal"
	"tallyman/storage/bolt"
)

// checkRecords says whether the records agree with the registry, as far as it is known without a comparison.
func checkRecords(ctx context.Context, r *report, o *Options) {
	if r.storage == nil {
		return // there is nothing, or the storage's own check says so
	}
	switch files, err := journal.New(r.storage).Files(ctx); {
	case err != nil:
		r.fail("storage."+o.Config.Registry.Storage.Type(), "the journal of changes cannot be listed: %v", err)
	case len(files) > 0:
		r.warn("the log of the process says why", "%d changes of the registry wait to be recorded", len(files))
	default:
		r.ok("no change of the registry waits to be recorded")
	}
	if o.Config.UsesRedis() {
		return // the process says so, if removals wait
	}
	attached, err := bolt.Attach(o.StorePath)
	if err != nil {
		return // no process has it open
	}
	defer func() { _ = attached.Close() }()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if _, state, err := records.NewResyncs(attached).State(ctx); err == nil && !state.Started.IsZero() {
		judgeResync(r, &state, o.Config.ImageAPI.Resync.Period, time.Now())
	}
}

// judgeResync judges the last comparison of the registry with its records.
func judgeResync(r *report, state *records.ResyncState, period time.Duration, now time.Time) {
	switch {
	case state.Blocked:
		r.fail("see whether the registry's storage is whole; if so, tallyman store resync --confirm", "the registry lacks %d of %d things that are recorded: their records stay", state.Missing, state.Records)
	case state.Failed > 0:
		r.warn("the log of the process says why", "%d manifests or tags could not be recorded by the last comparison", state.Failed)
	case state.Finished.IsZero():
		r.ok("the registry is being compared with its records since %s", state.Started.Format(time.RFC3339))
	case period > 0 && now.Sub(state.Finished) > 2*period:
		r.warn("imageapi.resync.period, or the log of the process", "the registry was last compared with its records on %s", state.Finished.Format(time.RFC3339))
	default:
		r.ok("the registry was compared with its records on %s: %d recorded, %d removed, %d missing", state.Finished.Format(time.RFC3339), state.Recorded, state.Removed, state.Missing)
	}
}
