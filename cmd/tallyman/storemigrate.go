package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tallyman/imageapi/rest"
	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/migrate"
)

func newMigrateCommand() *cobra.Command {
	var from, to string
	var follow bool
	cmd := storeCommand(&cobra.Command{
		Use:   "migrate [config] --from bolt|redis --to bolt|redis",
		Short: "Move the store of Images from one kind to the other",
		Long: "Move the store of Images from one kind to the other, while the registry runs on the first.\n" +
			"The configuration names both: imageapi.store.path, and the redis section. Broken off, it goes\n" +
			"on where it stopped when it is run again.\n\n" +
			"With --follow it keeps copying changes until the registry is stopped (or, from Redis,\n" +
			"until it gets SIGINT or SIGTERM): then it copies the rest, compares, and ends.",
		Example: "  tallyman store migrate new.yml --from bolt --to redis --follow   # then stop the registry,\n" +
			"  tallyman serve new.yml                                               # and start it on Redis",
	}, func(cmd *cobra.Command, o *storeOptions) error {
		kinds := []string{"bolt", "redis"}
		if !slices.Contains(kinds, from) || !slices.Contains(kinds, to) || from == to {
			return exitError{fmt.Errorf("--from %q --to %q: want bolt and redis, or redis and bolt", from, to), exitUsage}
		}
		return migrateStore(cmd, o, from, to, follow)
	})
	cmd.Flags().StringVar(&from, "from", "", "the store to move from: bolt or redis")
	cmd.Flags().StringVar(&to, "to", "", "the store to move to")
	cmd.Flags().BoolVar(&follow, "follow", false, "keep copying changes until the registry is stopped")
	return withProgress(cmd)
}

func migrateStore(cmd *cobra.Command, o *storeOptions, from, to string, follow bool) (err error) {
	// A signal ends following; it must not end copying.
	ctx := context.WithoutCancel(cmd.Context())
	if !follow {
		ctx = cmd.Context()
	}
	source, err := o.openSource(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreClosed(source.Close())) }()
	target, err := o.openTarget(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := rest.CompleteIndex(ctx, target); err != nil {
		return err
	}
	before, err := target.Window(ctx)
	if err != nil {
		return err
	}
	meter := newMeter(cmd, "copied", "objects")
	defer meter.End()
	options := migrate.Options{From: source, To: target, Name: o.sourceName(from), Merge: rest.MergeStored, Terms: rest.StoredTerms, Brief: rest.StoredBrief, Progress: copied(meter)}
	if follow {
		options.Follow = cmd.Context()
		meter.Print("following; stop the registry to finish")
	}
	report, err := migrate.Copy(ctx, options)
	if errors.Is(err, migrate.ErrSourceClosed) {
		meter.Print("the registry has stopped; copying the rest")
		again, reopenErr := o.reopen(ctx, from)
		if reopenErr != nil {
			return reopenErr // source is still the store to close
		}
		source = again
		options.From, options.Follow = source, nil
		earlier := report
		report, err = migrate.Copy(ctx, options)
		report.Add(earlier)
	}
	meter.End()
	if err != nil {
		return brokenOff(cmd, fmt.Errorf("migrate: %w", err), "run the command again: it goes on where it stopped")
	}
	if err := migrate.Compare(ctx, source, target, rest.MergeStored, before.Current, report); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return conclude(cmd, report)
}

// reopen opens the file of a registry that is stopping.
func (o *storeOptions) reopen(ctx context.Context, name string) (source, error) {
	const patience = time.Minute
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		backend, err := o.openTarget(ctx, name)
		if !errors.Is(err, bolt.ErrLocked) || time.Now().After(deadline) {
			return backend, err
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, storage.ErrClosed) {
		return nil
	}
	return err
}

// sourceName says which store the target remembers the progress for.
func (o *storeOptions) sourceName(kind string) string {
	if kind == "bolt" {
		path, err := filepath.Abs(o.config.StorePath(o.dataDirectory))
		if err != nil {
			path = o.config.StorePath(o.dataDirectory)
		}
		return "bolt " + path
	}
	return fmt.Sprint("redis ", o.config.Registry.Redis.Options.Addrs, o.config.ImageAPI.Store.Redis.Prefix)
}
