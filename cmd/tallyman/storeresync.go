package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tallyman/imageapi/records"
	"tallyman/internal/progress"
	"tallyman/registry/gc"
	"tallyman/registry/resync"
	"tallyman/storage"
	"tallyman/storage/bolt"
)

const (
	// resyncPoll is how often the state is looked at.
	resyncPoll = 200 * time.Millisecond
	// resyncPatience bounds the time until a process takes up a request.
	resyncPatience = time.Minute
)

func newResyncCommand() *cobra.Command {
	var request records.ResyncRequest
	var grace time.Duration
	cmd := storeCommand(&cobra.Command{
		Use:   "resync [config]",
		Short: "Compare the registry with the Images and records, and make them agree",
		Long: "Compare the whole registry with the Images, and with the records of its tags and manifests, in\n" +
			"both directions, and wait for the end. The registry's process does it; if none has the embedded\n" +
			"store open, this one does. Exits with 1 if something could not be recorded, or if so much is\n" +
			"missing in the registry that its records stay: then look whether the registry's storage is whole,\n" +
			"and have the records removed by --confirm.",
	}, func(cmd *cobra.Command, o *storeOptions) error {
		if cmd.Flags().Changed("grace") {
			if grace < 0 {
				return exitError{fmt.Errorf("--grace %s: want at least 0s", grace), exitUsage}
			}
			request.Grace = &grace
		}
		state, err := resyncStore(cmd, o, request)
		if err != nil {
			return err
		}
		return reportResync(cmd, &state)
	})
	cmd.Flags().BoolVar(&request.Confirm, "confirm", false, "remove records of things that the registry lacks, however many they are")
	cmd.Flags().DurationVar(&grace, "grace", 0, "remove them this long after they were first found missing; 0s: now (default imageapi.resync.grace)")
	return withProgress(cmd)
}

// resyncStore has the comparison made, and returns its state at the end.
func resyncStore(cmd *cobra.Command, o *storeOptions, request records.ResyncRequest) (state records.ResyncState, err error) {
	path := o.config.StorePath(o.dataDirectory)
	if o.configured() == "bolt" && !fileExists(path) {
		return state, fmt.Errorf("there is no embedded store at %s", path)
	}
	backend, err := o.openTarget(cmd.Context(), o.configured())
	if errors.Is(err, bolt.ErrLocked) {
		attached, err := bolt.Attach(path)
		if err != nil {
			return state, err
		}
		state, err = awaitResync(cmd, records.NewResyncs(attached), request)
		return state, errors.Join(err, attached.Close())
	}
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	if o.configured() == "redis" {
		return awaitResync(cmd, records.NewResyncs(backend), request)
	}
	return resyncHere(cmd, o, backend, request)
}

// resyncHere makes the comparison in this process.
func resyncHere(cmd *cobra.Command, o *storeOptions, backend storage.Backend, request records.ResyncRequest) (records.ResyncState, error) {
	signing, policies, err := signatureOptions(o.config)
	if err != nil {
		return records.ResyncState{}, err
	}
	api, err := openImages(o.config, backend, policies, signing)
	if err != nil {
		return records.ResyncState{}, err
	}
	defer api.close()
	compare := resyncOptions(o.config, api)
	if compare.Tracker, err = gc.Tracker(cmd.Context(), o.config.Registry, trackerOptions(o.config, api)); err != nil {
		return records.ResyncState{}, err
	}
	meter := newMeter(cmd, "compared", comparedUnit)
	ctx, stop := context.WithCancel(cmd.Context())
	var showing sync.WaitGroup
	showing.Go(func() { showResync(ctx, records.NewResyncs(backend), meter) })
	state, err := resync.New(compare).Once(cmd.Context(), request)
	stop()
	showing.Wait()
	meter.End()
	return state, brokenOff(cmd, err, "run the command again, or start the registry: it goes on")
}

// comparedUnit are the things that a comparison counts.
const comparedUnit = "manifests and tags"

// showResync shows the progress of a comparison until ctx ends.
func showResync(ctx context.Context, resyncs *records.Resyncs, meter *progress.Meter) {
	for {
		select {
		case <-time.After(resyncPoll):
		case <-ctx.Done():
			return
		}
		if _, state, err := resyncs.State(ctx); err == nil {
			setResync(meter, &state)
		}
	}
}

func setResync(meter *progress.Meter, state *records.ResyncState) {
	meter.Set(int64(state.Manifests+state.Tags), int64(state.Records))
}

// awaitResync asks the registry's processes, and waits until one has done it.
func awaitResync(cmd *cobra.Command, resyncs *records.Resyncs, request records.ResyncRequest) (state records.ResyncState, err error) {
	if request, err = resyncs.Request(cmd.Context(), request); err != nil {
		return state, err
	}
	meter := newMeter(cmd, "compared", comparedUnit)
	defer meter.End()
	for began := time.Now(); ; {
		if _, state, err = resyncs.State(cmd.Context()); err != nil {
			return state, err
		}
		taken := state.Handled >= request.Revision
		switch {
		case taken && !state.Unfinished():
			return state, nil
		case !taken && !state.Unfinished() && time.Since(began) > resyncPatience:
			return state, fmt.Errorf("no process of the registry has taken up the request in %s: it is done when one runs", resyncPatience)
		case taken:
			setResync(meter, &state)
		}
		select {
		case <-time.After(resyncPoll):
		case <-cmd.Context().Done():
			return state, fmt.Errorf("%w: the registry goes on", context.Cause(cmd.Context()))
		}
	}
}

func reportResync(cmd *cobra.Command, state *records.ResyncState) error {
	cmd.Printf("%d repositories, %d manifests and %d tags compared with %d records: %d recorded, %d removed, %d missing in the registry, %d set aside, %d failed\n",
		state.Repositories, state.Manifests, state.Tags, state.Records, state.Recorded, state.Removed, state.Missing, state.SetAside, state.Failed)
	switch {
	case state.Blocked:
		return fmt.Errorf("the registry lacks %d of %d things that are recorded, so their records stay: look whether its storage is whole, and if so run this with --confirm", state.Missing, state.Records)
	case state.Failed > 0:
		return fmt.Errorf("%d things could not be recorded; the log of the registry says why", state.Failed)
	case state.Finished.IsZero():
		return errors.New("the comparison was broken off; the registry goes on with it")
	}
	return nil
}
