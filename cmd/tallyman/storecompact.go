package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tallyman/storage/bolt"
)

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
