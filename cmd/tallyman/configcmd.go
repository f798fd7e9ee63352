package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tallyman/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check <config>",
			Short: "Report faults and keys that nobody reads; exit with 3 if there are any",
			Args:  usage(cobra.ExactArgs(1)),
			RunE:  checkConfig,
		},
		&cobra.Command{
			Use:   "show <config>",
			Short: "Print the configuration in effect, with the environment's overrides and without secrets",
			Args:  usage(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := config.Load(args[0])
				if err != nil {
					return err
				}
				text, err := c.Show()
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON Schema of the configuration",
			Args:  usage(cobra.MaximumNArgs(1)), // `schema CONFIG` is taken, too: the schema is the same
			RunE: func(cmd *cobra.Command, _ []string) error {
				text, err := config.Schema()
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), string(text))
				return err
			},
		},
	)
	return cmd
}

func checkConfig(cmd *cobra.Command, args []string) error {
	if _, err := os.Stat(args[0]); err != nil {
		return err
	}
	c, err := config.Load(args[0])
	if err != nil {
		return exitError{err, exitProblems}
	}
	if _, _, err := signatureOptions(c); err != nil {
		return exitError{err, exitProblems}
	}
	for _, warning := range c.ImageAPI.Deprecated() {
		cmd.PrintErrf("%s: %s\n", args[0], warning)
	}
	for _, p := range c.Problems {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", args[0], p); err != nil {
			return err
		}
	}
	if n := len(c.Problems); n > 0 {
		return exitError{fmt.Errorf("%s: %d keys are not read", args[0], n), exitProblems}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
	return err
}
