package main

import (
	"context"
	"crypto/tls"
	"errors"
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
			if len(args) > 0 {
				return healthcheck(cmd.Context(), http.DefaultClient, args[0])
			}
			return healthcheckHere(cmd.Context(), "127.0.0.1:5000")
		},
	}
}

// healthcheckHere asks a server on this host, by HTTP or, with http.tls, by HTTPS. Its certificate is
// for another name.
func healthcheckHere(ctx context.Context, address string) error {
	err := healthcheck(ctx, http.DefaultClient, "http://"+address+"/readyz")
	if err == nil {
		return nil
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // to the loopback interface
	defer transport.CloseIdleConnections()
	secureErr := healthcheck(ctx, &http.Client{Transport: transport}, "https://"+address+"/readyz")
	if secureErr == nil {
		return nil
	}
	return errors.Join(err, secureErr)
}

func healthcheck(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return exitError{err, exitUsage}
	}
	response, err := client.Do(request)
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
