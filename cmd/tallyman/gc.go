package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tallyman/config"
	"tallyman/registry/gc"
	"tallyman/registry/logging"
	"tallyman/storage/bolt"
)

func newGarbageCollectCommand() *cobra.Command {
	var options gc.Options
	var dataDirectory string
	cmd := &cobra.Command{
		Use:   "garbage-collect <config>",
		Short: "Delete layers not referenced by any manifest",
		Long: "Delete layers not referenced by any manifest, as distribution's command of the same name does,\n" +
			"and update the Images.",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := configurationPath(args)
			if path == "" {
				return exitError{errors.New("configuration error: configuration path unspecified"), exitUsage}
			}
			c, err := load(path)
			if err != nil {
				return err
			}
			return garbageCollect(cmd, c, options, dataDirectory)
		},
	}
	cmd.Flags().BoolVarP(&options.DryRun, "dry-run", "d", false, "do everything except remove the blobs")
	cmd.Flags().BoolVarP(&options.RemoveUntagged, "delete-untagged", "m", false, "delete manifests that are not currently referenced via tag")
	cmd.Flags().BoolVarP(&options.Quiet, "quiet", "q", false, "silence output")
	addDataDirectoryFlag(cmd, &dataDirectory)
	return cmd
}

func garbageCollect(cmd *cobra.Command, c *config.Config, options gc.Options, dataDirectory string) error {
	logging.Use(&c.Registry.Log)
	meter := newMeter(cmd, "read", "repositories")
	if !options.Quiet {
		options.Progress = meter.Set
	}
	if term.IsTerminal(int(os.Stdout.Fd())) && !options.DryRun {
		options.Quiet = true // distribution's line for each blob would drive the bar away
	}
	removed, err := gc.Collect(cmd.Context(), c.Registry, options)
	meter.End()
	if err != nil || removed == 0 {
		return brokenOff(cmd, err, "run it again; what is deleted stays so")
	}
	left, err := drainJournal(cmd.Context(), c, dataDirectory)
	if errors.Is(err, bolt.ErrLocked) {
		cmd.PrintErrf("%d manifests are gone; the server that is running takes them off their Images\n", removed)
		return nil
	}
	if err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d manifests are gone, but could not be taken off their Images yet; the server will at its next start", left)
	}
	return nil
}
