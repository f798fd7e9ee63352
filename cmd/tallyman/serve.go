package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/apiserver/pkg/server/healthz"

	"tallyman/config"
	"tallyman/imageapi"
	"tallyman/internal/crash"
	"tallyman/registry"
	"tallyman/signatures/policy"
	"tallyman/storage"
	"tallyman/storage/redis"
)

func newServeCommand() *cobra.Command {
	var dataDirectory string
	cmd := &cobra.Command{
		Use:   "serve [config]",
		Short: "Run the registry and the Image API",
		Long: "Run the registry and the Image API with distribution's config.yml, or, without one, on\n" +
			"127.0.0.1:5000 with everything kept in one data directory.",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadForServe(args, dataDirectory)
			if err != nil {
				return err
			}
			if configurationPath(args) == "" {
				if err := begin(cmd, c); err != nil {
					return err
				}
			}
			return serve(cmd, c, dataDirectory)
		},
	}
	addDataDirectoryFlag(cmd, &dataDirectory)
	return cmd
}

// begin prepares a registry without a configuration. On a terminal it prints commands for
// a newcomer to paste.
func begin(cmd *cobra.Command, c *config.Config) error {
	// The purge of abandoned uploads logs an error where there are no repositories.
	root, _ := c.Registry.Storage.Parameters()["rootdirectory"].(string)
	if err := os.MkdirAll(filepath.Join(root, "docker", "registry", "v2", "repositories"), 0o750); err != nil {
		return err
	}
	if f, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		cmd.PrintErr(firstSteps(externalAddress(c), c.ImageAPI.Auth.KubeconfigFile))
	}
	return nil
}

// firstSteps returns commands that push an image, list images and watch them.
func firstSteps(address, kubeconfig string) string {
	return strings.NewReplacer("ADDRESS", address, "FILE", kubeconfig).Replace(`Push, list, watch:
  docker pull busybox && docker tag busybox ADDRESS/busybox && docker push ADDRESS/busybox
  kubectl --kubeconfig FILE get images
  kubectl --kubeconfig FILE get images --watch

`)
}

// configurationPath returns the file that the arguments or the environment name,
// as distribution does; "" if neither does.
func configurationPath(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return os.Getenv("REGISTRY_CONFIGURATION_PATH")
}

func load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, fmt.Errorf("configuration error: %w", err)
	}
	return c, nil
}

// loadForServe reads the named configuration, or makes the default one.
func loadForServe(args []string, dataDirectory string) (*config.Config, error) {
	if path := configurationPath(args); path != "" {
		return load(path)
	}
	if dataDirectory == "" {
		return nil, errors.New("no place for data: give a configuration or --data-dir")
	}
	content, err := defaultConfiguration(dataDirectory)
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("configuration error: %w", err)
	}
	return c, nil
}

func serve(cmd *cobra.Command, c *config.Config, dataDirectory string) (err error) {
	registry.UseLogger(&c.Registry.Log)
	for _, p := range c.Problems {
		slog.Warn("configuration: " + p.Error())
	}
	prometheus.MustRegister(slices.Concat(crash.Collectors(), storage.Collectors(), registry.Collectors(), policy.Collectors())...)
	signing, verifier, err := signatureOptions(c)
	if err != nil {
		return err
	}
	if c.UsesRedis() {
		prometheus.MustRegister(redis.Collectors()...)
	}
	var recorder atomic.Pointer[registry.Recorder]
	backend, err := openStore(cmd.Context(), c, dataDirectory, func(string) {
		if r := recorder.Load(); r != nil {
			r.Backfill()
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	who, certificate, err := newAccess(cmd, c)
	if err != nil {
		return err
	}
	api, err := imageapi.New(imageapi.Options{
		Backend:         backend,
		ExternalAddress: externalAddress(c),
		Access:          who,
		InlineLimit:     inlineLimit(c),
		AccessLog:       !c.Registry.Log.AccessLog.Disabled,
		ShutdownDelay:   c.ImageAPI.ShutdownDelay,
		Signatures:      signing,
		Audit:           auditOptions(c),
		Limits:          imageapi.Limits(c.ImageAPI.Limits),
		ReadyChecks: []healthz.HealthChecker{
			healthz.NamedCheck("registry", func(r *http.Request) error { return registry.Healthy(r.Context()) }),
		},
	})
	if err != nil {
		return err
	}
	defer api.Drain()
	recorder.Store(registry.NewRecorder(registry.RecorderOptions{
		Writer:          api.Writer(),
		OnStoreFailure:  registry.FailurePolicy(c.ImageAPI.OnStoreFailure),
		Host:            registryHost(c),
		DefaultHost:     externalAddress(c),
		PullThrough:     c.Registry.Proxy.RemoteURL != "",
		Lock:            lockOf(backend),
		SignatureLimits: signing.Limits,
	}))
	go who.Run(cmd.Context())
	defer keepVerifying(cmd.Context(), c, verifier, api.Writer())()
	return registry.Serve(cmd.Context(), registry.ServeOptions{
		Configuration: c.Registry,
		API:           api,
		Certificate:   certificate,

		SNICertificate: c.ImageAPI.TLS.Certificate,
		SNIKey:         c.ImageAPI.TLS.Key,

		Backfill:      c.ImageAPI.Backfill,
		Recorder:      recorder.Load(),
		ShutdownDelay: c.ImageAPI.ShutdownDelay,

		SignatureEndpoint:   c.ImageAPI.Signatures.Endpoint,
		AdvertiseSignatures: c.ImageAPI.Signatures.Advertise,
	})
}

func inlineLimit(c *config.Config) int64 {
	if !c.ImageAPI.Inline {
		return -1
	}
	return c.ImageAPI.InlineLimit
}
