package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tallyman/imageapi/rest"
	"tallyman/storage/bolt"
	"tallyman/storage/check"
	"tallyman/storage/redis"
)

func newCheckCommand() *cobra.Command {
	var rebuild bool
	cmd := storeCommand(&cobra.Command{
		Use:   "check [config]",
		Short: "Compare values, checksums, index and history of the store",
		Long: "Read the whole store and compare the values with their checksums, the index with the values,\n" +
			"and the history with the entries. Exits with 1 if something does not agree.",
	}, func(cmd *cobra.Command, o *storeOptions) (err error) {
		if rebuild {
			if err := rebuildIndex(cmd, o); err != nil {
				return err
			}
		}
		s, err := o.openSource(cmd.Context(), o.configured())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		meter := newMeter(cmd, "checked", "entries")
		report, err := check.Check(cmd.Context(), check.Options{
			Store: s, Index: rest.KeyPrefix, Terms: rest.StoredTerms, Partial: rest.IsTruncated, Progress: meter.Set,
			Problem: func(where, what string) { meter.Print(where + ": " + what) },
		})
		meter.End()
		if err != nil {
			return brokenOff(cmd, err, "it changes nothing; run the command again")
		}
		index := "complete"
		switch {
		case report.Format1:
			index = "none in format 1"
		case !report.Index.Complete:
			index = fmt.Sprintf("not complete, %d objects filled", report.Index.Filled)
		}
		cmd.Printf("%d entries, %d terms (index: %s), %d changes; %d problems\n", report.Entries, report.Terms, index, report.Changes, report.Problems)
		if report.Problems > 0 {
			return fmt.Errorf("the store has %d problems", report.Problems)
		}
		return nil
	})
	cmd.Flags().BoolVar(&rebuild, "rebuild-index", false, "fill the index of terms anew before the check")
	return withProgress(cmd)
}

func rebuildIndex(cmd *cobra.Command, o *storeOptions) (err error) {
	to, err := o.openTarget(cmd.Context(), o.configured())
	if errors.Is(err, bolt.ErrLocked) {
		return fmt.Errorf("%w: stop the registry to rebuild the index of the embedded store", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := rest.RebuildIndex(cmd.Context(), to); err != nil {
		return fmt.Errorf("rebuild the index: %w", err)
	}
	cmd.PrintErrln("index rebuilt")
	return nil
}

func newUpgradeCommand() *cobra.Command {
	return storeCommand(&cobra.Command{
		Use:   "upgrade [config]",
		Short: "Change the store to this version's format now",
		Long: "Change the store to this version's format now. A store in Redis is otherwise changed when no\n" +
			"process of an older version was connected for 30 seconds, and an embedded one when it is opened.\n" +
			"Older versions refuse the store from then on.",
	}, func(cmd *cobra.Command, o *storeOptions) (err error) {
		to, err := o.openTarget(cmd.Context(), o.configured())
		if errors.Is(err, bolt.ErrLocked) {
			return fmt.Errorf("%w, which upgrades it when it is of this version", err)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		s, ok := to.(*redis.Store)
		if !ok {
			cmd.Println("the embedded store has this version's format")
			return nil
		}
		from, format, err := s.Upgrade(cmd.Context())
		if err != nil {
			return err
		}
		if from != format {
			cmd.Printf("the store in Redis was upgraded from format %d to format %d\n", from, format)
		} else {
			cmd.Println("the store in Redis has this version's format")
		}
		return nil
	})
}
