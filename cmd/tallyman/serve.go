package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/server/healthz"

	"tallyman/config"
	"tallyman/imageapi"
	"tallyman/registry"
	"tallyman/storage"
	"tallyman/storage/bolt"
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
			return serve(cmd, c, dataDirectory)
		},
	}
	addDataDirectoryFlag(cmd, &dataDirectory)
	return cmd
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
	registry.UseLogger()
	for _, p := range c.Problems {
		slog.Warn("configuration: " + p.Error())
	}
	prometheus.MustRegister(append(storage.Collectors(), registry.Collectors()...)...)
	backend, err := openStore(c, dataDirectory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	certificate, authenticators, err := credentials(cmd, c)
	if err != nil {
		return err
	}
	api, err := imageapi.New(imageapi.Options{
		Backend:         backend,
		ExternalAddress: externalAddress(c),
		Authenticators:  authenticators,
		AnonymousRead:   registry.AnonymousPull(c.Registry),
		InlineLimit:     inlineLimit(c),
		AccessLog:       !c.Registry.Log.AccessLog.Disabled,
		ReadyChecks: []healthz.HealthChecker{
			healthz.NamedCheck("registry", func(r *http.Request) error { return registry.Healthy(r.Context()) }),
		},
	})
	if err != nil {
		return err
	}
	defer api.Drain()
	return registry.Serve(cmd.Context(), registry.ServeOptions{
		Configuration: c.Registry,
		API:           api,
		Certificate:   certificate,
		Backfill:      c.ImageAPI.Backfill,
		Recorder: registry.NewRecorder(registry.RecorderOptions{
			Writer:         api.Writer(),
			OnStoreFailure: registry.FailurePolicy(c.ImageAPI.OnStoreFailure),
			Host:           registryHost(c),
			DefaultHost:    externalAddress(c),
			PullThrough:    c.Registry.Proxy.RemoteURL != "",
		}),
	})
}

// openStore opens the embedded store. The registry's inmemory storage gets one
// that is gone with the process too.
func openStore(c *config.Config, dataDirectory string) (storage.Backend, error) {
	path := c.StorePath(dataDirectory)
	temporary := ""
	if c.Registry.Storage.Type() == "inmemory" && c.ImageAPI.Store.Path == "" {
		var err error
		if temporary, err = os.MkdirTemp("", "tallyman-"); err != nil {
			return nil, err
		}
		path = temporary + "/tallyman.db"
	}
	backend, err := bolt.Open(bolt.Options{Path: path, LogMaxEntries: c.ImageAPI.Store.LogEntries, LogMaxAge: c.ImageAPI.Store.LogAge})
	if errors.Is(err, bolt.ErrLocked) {
		return nil, fmt.Errorf("%w: stop it first, or give this one another imageapi.store.path", err)
	}
	if err != nil {
		return nil, err
	}
	slog.Info("images are kept in the embedded store", "path", path)
	if len(c.Registry.Redis.Options.Addrs) > 0 {
		slog.Info("redis is for the registry's own cache; this version keeps no images in it")
	}
	if temporary != "" {
		return temporaryStore{backend, temporary}, nil
	}
	return backend, nil
}

// temporaryStore removes its directory when it is closed.
type temporaryStore struct {
	storage.Backend
	directory string
}

// Close implements storage.Backend.
func (s temporaryStore) Close() error {
	return errors.Join(s.Backend.Close(), os.RemoveAll(s.directory))
}

// credentials sets up who may write, and the certificate that kubectl needs to
// send a token.
func credentials(cmd *cobra.Command, c *config.Config) (*tls.Certificate, []authenticator.Request, error) {
	var all []authenticator.Request
	var certificate *tls.Certificate
	if file := c.ImageAPI.Auth.KubeconfigFile; file != "" {
		k, err := prepareKubeconfig(file, externalAddress(c), c.Registry.HTTP.TLS.Certificate)
		if err != nil {
			return nil, nil, fmt.Errorf("imageapi.auth.kubeconfigfile: %w", err)
		}
		all, certificate = append(all, imageapi.AdminToken(k.token)), k.certificate
		cmd.PrintErrf("kubectl --kubeconfig %s get images\n", file)
	}
	if file := c.ImageAPI.Auth.TokenFile; file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("imageapi.auth.tokenfile: %w", err)
		}
		token := strings.TrimSpace(string(content))
		if token == "" {
			return nil, nil, fmt.Errorf("imageapi.auth.tokenfile: %s is empty: want a token", file)
		}
		all = append(all, imageapi.AdminToken(token))
	}
	check, err := registry.PasswordCheck(c.Registry)
	if err != nil {
		return nil, nil, err
	}
	if check != nil {
		all = append(all, imageapi.RegistryUsers(check))
	}
	return certificate, all, nil
}

func inlineLimit(c *config.Config) int64 {
	if !c.ImageAPI.Inline {
		return -1
	}
	return c.ImageAPI.InlineLimit
}

// replayPending handles what garbage-collect has left to do, in the embedded
// store that no server has open.
func replayPending(ctx context.Context, c *config.Config, dataDirectory string) (left int, err error) {
	backend, err := openStore(c, dataDirectory)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	writer, err := imageapi.NewWriter(backend, inlineLimit(c))
	if err != nil {
		return 0, err
	}
	return registry.ReplayPending(ctx, c.Registry, registry.NewRecorder(registry.RecorderOptions{Writer: writer, Host: registryHost(c), DefaultHost: externalAddress(c)}))
}
