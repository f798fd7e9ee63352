package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck [url]",
		Short: "Ask a running server whether it is ready",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			url := "http://127.0.0.1:5000/readyz"
			if len(args) > 0 {
				url = args[0]
			}
			return healthcheck(cmd.Context(), url)
		},
	}
}

func healthcheck(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return exitError{err, exitUsage}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // the status says enough
		return fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return nil
}
