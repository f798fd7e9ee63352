package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tallyman/config"
	"tallyman/imageapi"
	"tallyman/registry"
	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/check"
	"tallyman/storage/migrate"
)

func newMetadataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "metadata",
		Short: "Measure, export, import and move the store of Images",
		Long: "Measure, export, import and move the store of Images. All of it works while the registry\n" +
			"runs, and can be broken off and run again.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStatsCommand(), newExportCommand(), newImportCommand(), newMigrateCommand(), newCheckCommand(), newUpgradeCommand(), newCompactCommand())
	return cmd
}

// source is a store that is only read.
type source interface {
	check.Reader
	Close() error
}

// metadataOptions are shared by all metadata commands.
type metadataOptions struct {
	config        *config.Config
	dataDirectory string
}

// metadataCommand adds the flag for the data directory, and reads the
// configuration before run.
func metadataCommand(cmd *cobra.Command, run func(*cobra.Command, *metadataOptions) error) *cobra.Command {
	o := &metadataOptions{}
	addDataDirectoryFlag(cmd, &o.dataDirectory)
	cmd.Args = usage(cobra.MaximumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if o.config, err = loadForServe(args, o.dataDirectory); err != nil {
			return err
		}
		registry.UseLogger(&o.config.Registry.Log)
		return run(cmd, o)
	}
	return cmd
}

// configured is the name of the store that the configuration is about.
func (o *metadataOptions) configured() string {
	if o.config.UsesRedis() {
		return "redis"
	}
	return "bolt"
}

// openSource opens a store for reading, through the process that has it open if
// there is one.
func (o *metadataOptions) openSource(ctx context.Context, name string) (source, error) {
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
func (o *metadataOptions) openTarget(ctx context.Context, name string) (storage.Backend, error) {
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
	cmd := metadataCommand(&cobra.Command{
		Use:   "stats [config]",
		Short: "Show how much the store holds",
	}, func(cmd *cobra.Command, o *metadataOptions) (err error) {
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
		images, err := s.Scan(cmd.Context(), storage.ScanRequest{From: imageapi.KeyPrefix, To: imageapi.KeyPrefix + "\xff", Limit: 1, KeysOnly: true, Count: true})
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

func newExportCommand() *cobra.Command {
	var file string
	cmd := metadataCommand(&cobra.Command{
		Use:   "export [config]",
		Short: "Write all Images to a file, one JSON value a line",
	}, func(cmd *cobra.Command, o *metadataOptions) (err error) {
		s, err := o.openSource(cmd.Context(), o.configured())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if file == "-" {
			return exportTo(cmd, s, cmd.OutOrStdout())
		}
		out, err := os.CreateTemp(filepath.Dir(file), ".tallyman-export-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(out.Name()) }() // a complete file has been renamed
		if err := errors.Join(exportTo(cmd, s, out), out.Sync(), out.Close()); err != nil {
			return err
		}
		return os.Rename(out.Name(), file)
	})
	cmd.Flags().StringVarP(&file, "file", "f", "-", "the file to write; - is standard output")
	return cmd
}

func exportTo(cmd *cobra.Command, s source, w io.Writer) error {
	report, err := migrate.Export(cmd.Context(), s, w, progress(cmd, "exported"))
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	cmd.PrintErrf("exported %d images\n", report.Seen())
	warnCorrupt(cmd, report)
	return nil
}

func newImportCommand() *cobra.Command {
	var file string
	cmd := metadataCommand(&cobra.Command{
		Use:   "import [config]",
		Short: "Bring the Images of an export into the store",
		Long: "Bring the Images of an export into the store. Existing Images keep the fields derived from\n" +
			"their manifests, and get the labels, annotations and signatures that they lack. Nothing is\n" +
			"imported from a file that is cut short or damaged.",
	}, func(cmd *cobra.Command, o *metadataOptions) (err error) {
		in, err := openExport(cmd, file)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		to, err := o.openTarget(cmd.Context(), o.configured())
		if errors.Is(err, bolt.ErrLocked) {
			return fmt.Errorf("%w; an import into a store in use is possible with Redis only", err)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		report, err := migrate.Import(cmd.Context(), in, to, imageapi.MergeStored, imageapi.StoredTerms, progress(cmd, "imported"))
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		if err := migrate.CompareFile(cmd.Context(), in, to, imageapi.MergeStored, report); err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		return conclude(cmd, report)
	})
	cmd.Flags().StringVarP(&file, "file", "f", "", "the export; - is standard input (required)")
	return cmd
}

// openExport opens an export. Standard input, which cannot be read twice, is
// copied to a temporary file.
func openExport(cmd *cobra.Command, file string) (*os.File, error) {
	switch file {
	case "":
		return nil, exitError{errors.New("--file is required: want an export, or - for standard input"), exitUsage}
	case "-":
	default:
		return os.Open(file)
	}
	spool, err := os.CreateTemp("", "tallyman-import-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, err
	}
	if _, err := io.Copy(spool, cmd.InOrStdin()); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	_, err = spool.Seek(0, io.SeekStart)
	return spool, err
}

// progress returns a function that prints lines to standard error.
func progress(cmd *cobra.Command, verb string) func(*migrate.Report) {
	start := time.Now()
	return func(r *migrate.Report) {
		seen := r.Seen()
		rate := float64(seen) / max(time.Since(start).Seconds(), 0.001)
		cmd.PrintErrf("%s %d of %d images, %.0f/s\n", verb, seen, max(r.Total, seen), rate)
	}
}

// warnCorrupt says how much was left out.
func warnCorrupt(cmd *cobra.Command, r *migrate.Report) {
	if n := r.Corrupt.Load(); n > 0 {
		cmd.PrintErrf("%d images were left out, as they cannot be read: tallyman metadata check names them\n", n)
	}
}

// conclude prints the result, and fails if something is missing.
func conclude(cmd *cobra.Command, r *migrate.Report) error {
	cmd.Printf("%d created, %d merged, %d the same, %d deleted; %d compared, %d missing\n",
		r.Created.Load(), r.Merged.Load(), r.Same.Load(), r.Deleted.Load(), r.Compared, r.Missing)
	if r.Additional > 0 {
		cmd.PrintErrf("%d images are in the target only: its own, or deleted in the source before their deletion could be copied\n", r.Additional)
	}
	warnCorrupt(cmd, r)
	if r.Missing > 0 {
		return fmt.Errorf("%d images are missing, or lack something, in the target: run the command again", r.Missing)
	}
	return nil
}
