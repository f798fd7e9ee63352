package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tallyman/config"
	"tallyman/imageapi/rest"
	"tallyman/internal/progress"
	"tallyman/registry/logging"
	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/check"
	"tallyman/storage/migrate"
)

func newStoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Measure, compare, export, import and move the store of Images",
		Long: "Measure, compare, export, import and move the store of Images. All of it works while the\n" +
			"registry runs, and can be broken off and run again.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStatsCommand(), newExportCommand(), newImportCommand(), newMigrateCommand(), newCheckCommand(), newResyncCommand(), newUpgradeCommand(), newCompactCommand())
	return cmd
}

// newMetadataCommand is the former name of newStoreCommand.
func newMetadataCommand() *cobra.Command {
	cmd := newStoreCommand()
	cmd.Use, cmd.Hidden = "metadata", true
	cmd.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		cmd.PrintErrln(`Warning: "tallyman metadata" will go in the next release: use "tallyman store"`)
	}
	return cmd
}

// source is a store that is only read.
type source interface {
	check.Reader
	Close() error
}

// storeOptions are shared by all commands about the store.
type storeOptions struct {
	config        *config.Config
	dataDirectory string
}

// storeCommand adds the flag for the data directory, and reads the
// configuration before run.
func storeCommand(cmd *cobra.Command, run func(*cobra.Command, *storeOptions) error) *cobra.Command {
	o := &storeOptions{}
	addDataDirectoryFlag(cmd, &o.dataDirectory)
	cmd.Args = usage(cobra.MaximumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if o.config, err = loadForServe(args, o.dataDirectory); err != nil {
			return err
		}
		logging.Use(&o.config.Registry.Log)
		return run(cmd, o)
	}
	return cmd
}

// withProgress adds the flag of commands that show how far they are.
func withProgress(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolP("quiet", "q", false, "do not show how far it is")
	return cmd
}

// newMeter shows the progress of a command on standard error.
func newMeter(cmd *cobra.Command, verb, unit string) *progress.Meter {
	quiet, err := cmd.Flags().GetBool("quiet")
	return progress.New(progress.Options{Writer: cmd.ErrOrStderr(), Verb: verb, Unit: unit, Quiet: quiet && err == nil})
}

// copied shows the progress of a copy.
func copied(meter *progress.Meter) func(*migrate.Report) {
	return func(r *migrate.Report) { meter.Set(r.Seen(), r.Total) }
}

// brokenOff says how to go on if a signal has ended a command; otherwise it returns err.
func brokenOff(cmd *cobra.Command, err error, how string) error {
	if err != nil && cmd.Context().Err() != nil {
		return fmt.Errorf("broken off: %s (%w)", how, err)
	}
	return err
}

// configured is the name of the store that the configuration is about.
func (o *storeOptions) configured() string {
	if o.config.UsesRedis() {
		return "redis"
	}
	return "bolt"
}

// openSource opens a store for reading, through the process that has it open if
// there is one.
func (o *storeOptions) openSource(ctx context.Context, name string) (source, error) {
	if name == "redis" {
		return o.openTarget(ctx, name)
	}
	path := o.config.StorePath(o.dataDirectory)
	if !fileExists(path) {
		return nil, fmt.Errorf("there is no embedded store at %s", path)
	}
	backend, err := openBolt(o.config, path)
	if errors.Is(err, bolt.ErrLocked) {
		return bolt.Attach(path)
	}
	return backend, err
}

// openTarget opens a store for writing.
func (o *storeOptions) openTarget(ctx context.Context, name string) (storage.Backend, error) {
	if name == "bolt" {
		return openBolt(o.config, o.config.StorePath(o.dataDirectory))
	}
	if len(o.config.Registry.Redis.Options.Addrs) == 0 {
		return nil, errors.New("the configuration names no Redis: want redis.addrs, such as [127.0.0.1:6379]")
	}
	backend, err := openRedis(ctx, o.config, nil)
	if err != nil {
		return nil, err
	}
	if _, err := backend.Window(ctx); err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	return backend, nil
}

func newStatsCommand() *cobra.Command {
	var output string
	cmd := storeCommand(&cobra.Command{
		Use:   "stats [config]",
		Short: "Show how much the store holds",
	}, func(cmd *cobra.Command, o *storeOptions) (err error) {
		if output != "text" && output != "json" {
			return exitError{fmt.Errorf("--output %q: want text or json", output), exitUsage}
		}
		s, err := o.openSource(cmd.Context(), o.configured())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		stats, err := s.Stats(cmd.Context())
		if err != nil {
			return err
		}
		images, err := s.Scan(cmd.Context(), storage.ScanRequest{From: rest.KeyPrefix, To: rest.KeyPrefix + "\xff", Limit: 1, KeysOnly: true, Count: true})
		if err != nil {
			return err
		}
		stats.Objects = images.Count // without the notes of a migration
		return printStats(cmd.OutOrStdout(), output, o.configured(), &stats)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

type statsOutput struct {
	Store             string `json:"store"`
	Images            int64  `json:"images"`
	Bytes             int64  `json:"bytes"`
	StoredBytes       int64  `json:"storedBytes"`
	IndexTerms        int64  `json:"indexTerms"`
	LogEntries        int64  `json:"logEntries"`
	LogBytes          int64  `json:"logBytes"`
	ResourceVersion   int64  `json:"resourceVersion"`
	CompactedRevision int64  `json:"compactedRevision"`
}

func printStats(w io.Writer, output, name string, stats *storage.BackendStats) error {
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(statsOutput{name, stats.Objects, stats.Bytes, stats.StoredBytes, stats.Terms, stats.LogEntries, stats.LogBytes, stats.Current, stats.Compacted})
	}
	each := max(stats.Objects, 1)
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("store\t%s", name)
	line("images\t%d", stats.Objects)
	line("bytes\t%d\t(%d per image)", stats.Bytes, stats.Bytes/each)
	line("stored bytes\t%d\t(%d per image)", stats.StoredBytes, stats.StoredBytes/each)
	line("index terms\t%d\t(%d per image)", stats.Terms, stats.Terms/each)
	line("resourceVersion\t%d\t(%s)", stats.Current, time.UnixMicro(stats.Current).UTC().Format(time.RFC3339))
	line("changes kept\t%d\t(%d bytes, since %s)", stats.LogEntries, stats.LogBytes, time.UnixMicro(stats.Compacted).UTC().Format(time.RFC3339))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := io.WriteString(table, text.String())
	return errors.Join(err, table.Flush())
}

func newCompactCommand() *cobra.Command {
	return storeCommand(&cobra.Command{
		Use:   "compact [config]",
		Short: "Write the embedded store anew without the space of deleted Images",
		Long: "Write the file of the embedded store anew, without the space of deleted Images. The registry\n" +
			"must not run. A store in Redis needs no such thing.",
	}, func(cmd *cobra.Command, o *storeOptions) error {
		if o.configured() != "bolt" {
			return errors.New("images are kept in Redis: only the embedded store can be compacted")
		}
		before, after, err := bolt.CompactFile(o.config.StorePath(o.dataDirectory))
		if errors.Is(err, bolt.ErrLocked) {
			return fmt.Errorf("%w: stop the registry to compact the embedded store", err)
		}
		if err != nil {
			return err
		}
		cmd.Printf("the file had %d bytes and has %d\n", before, after)
		return nil
	})
}
