// Command tallyman is a container registry that keeps an Image object of
// everything pushed to it: the CNCF distribution registry and the
// image.openshift.io/v1 API in one process.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/silly"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/proxy"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/azure"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/gcs"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/cloudfront"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/redirect"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/rewrite"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitProblems = 3 // a check found something
)

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Service managers and log rotation send it to have files read again, which happens by itself.
	signal.Ignore(syscall.SIGHUP)
	code := run(ctx, newRootCommand())
	stop()
	os.Exit(code)
}

// run runs a command, prints its error and returns its exit code.
func run(ctx context.Context, cmd *cobra.Command) int {
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	cmd.PrintErrln("Error:", err)
	var withCode exitError
	if errors.As(err, &withCode) {
		return withCode.code
	}
	return exitFailed
}

// version is set at link time: -X main.version=v1.2.3.
var version = "v0.1.0-dev"

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tallyman",
		Short: "A container registry with the image.openshift.io/v1 API of its images",
		Long: "tallyman is the CNCF distribution registry with a Kubernetes-style API of Image objects:\n" +
			"an image that is pushed with docker appears under `kubectl get images`.",
		Version:       version,
		SilenceErrors: true,
		// Usage is for wrong usage, not for every failure.
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { cmd.SilenceUsage = true },
	}
	root.SetVersionTemplate(fmt.Sprintf("tallyman %s distribution %s\n", version, distributionVersion()))
	root.Flags().BoolP("version", "v", false, "show the version and exit")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{err, exitUsage} })
	root.AddCommand(newServeCommand(), newGarbageCollectCommand(), newVerifyCommand(), newStoreCommand(), newMetadataCommand(), newConfigCommand(), newDoctorCommand(), newHealthcheckCommand(), newVersionCommand())
	return root
}

// usage makes an argument check end with the exit code of wrong usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return exitError{err, exitUsage}
		}
		return nil
	}
}

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

type versionInfo struct {
	Version      string `json:"version"`
	Revision     string `json:"revision,omitempty"`
	Distribution string `json:"distribution"`
	Go           string `json:"go"`
	API          string `json:"api"`
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of tallyman and its main libraries",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printVersion(cmd.OutOrStdout(), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printVersion(w io.Writer, output string) error {
	info := versionInfo{
		Version: version, Revision: setting("vcs.revision"), Distribution: distributionVersion(),
		Go: runtime.Version(), API: "image.openshift.io/v1",
	}
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(info)
	case "text":
		_, err := fmt.Fprintf(w, "tallyman %s\ndistribution %s\n%s\nserves %s\n", info.Version, info.Distribution, info.Go, info.API)
		return err
	}
	return exitError{fmt.Errorf("unknown output %q: want text or json", output), exitUsage}
}

func setting(key string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == key {
				return s.Value
			}
		}
	}
	return ""
}

func distributionVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/distribution/distribution/v3" {
				return dep.Version
			}
		}
	}
	return "unknown"
}
