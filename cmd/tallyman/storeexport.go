package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tallyman/imageapi/rest"
	"tallyman/storage/bolt"
	"tallyman/storage/migrate"
)

func newExportCommand() *cobra.Command {
	var file string
	cmd := storeCommand(&cobra.Command{
		Use:   "export [config]",
		Short: "Write all Images to a file, one JSON value a line",
	}, func(cmd *cobra.Command, o *storeOptions) (err error) {
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
	return withProgress(cmd)
}

func exportTo(cmd *cobra.Command, s source, w io.Writer) error {
	meter := newMeter(cmd, "exported", "objects")
	report, err := migrate.Export(cmd.Context(), s, w, copied(meter))
	meter.End()
	if err != nil {
		return brokenOff(cmd, fmt.Errorf("export: %w", err), "nothing was written; run the command again")
	}
	cmd.PrintErrf("exported %d objects\n", report.Seen())
	warnCorrupt(cmd, report)
	return nil
}

func newImportCommand() *cobra.Command {
	var file string
	cmd := storeCommand(&cobra.Command{
		Use:   "import [config]",
		Short: "Bring the Images of an export into the store",
		Long: "Bring the Images of an export into the store. Existing Images keep the fields derived from\n" +
			"their manifests, and get the labels, annotations and signatures that they lack. Nothing is\n" +
			"imported from a file that is cut short or damaged.",
	}, func(cmd *cobra.Command, o *storeOptions) (err error) {
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
		if err := rest.CompleteIndex(cmd.Context(), to); err != nil {
			return err
		}
		meter := newMeter(cmd, "imported", "objects")
		report, err := migrate.Import(cmd.Context(), in, migrate.Options{
			To: to, Merge: rest.MergeStored, Terms: rest.StoredTerms, Brief: rest.StoredBrief, Progress: copied(meter),
		})
		meter.End()
		if err != nil {
			return brokenOff(cmd, fmt.Errorf("import: %w", err), "run the command again: whatever is in the store already stays as it is")
		}
		if err := migrate.CompareFile(cmd.Context(), in, to, rest.MergeStored, report); err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		return conclude(cmd, report)
	})
	cmd.Flags().StringVarP(&file, "file", "f", "", "the export; - is standard input (required)")
	return withProgress(cmd)
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

// warnCorrupt says how much was left out.
func warnCorrupt(cmd *cobra.Command, r *migrate.Report) {
	if n := r.Corrupt.Load(); n > 0 {
		cmd.PrintErrf("%d objects were left out, as they cannot be read: tallyman store check names them\n", n)
	}
}

// conclude prints the result, and fails if something is missing.
func conclude(cmd *cobra.Command, r *migrate.Report) error {
	cmd.Printf("%d created, %d merged, %d the same, %d deleted; %d compared, %d missing\n",
		r.Created.Load(), r.Merged.Load(), r.Same.Load(), r.Deleted.Load(), r.Compared, r.Missing)
	if r.Additional > 0 {
		cmd.PrintErrf("%d objects are in the target only: its own, or deleted in the source before their deletion could be copied\n", r.Additional)
	}
	warnCorrupt(cmd, r)
	if r.Missing > 0 {
		return fmt.Errorf("%d objects are missing, or lack something, in the target: run the command again", r.Missing)
	}
	return nil
}
