package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/apiserver/pkg/server/healthz"
	restclient "k8s.io/client-go/rest"

	"tallyman/config"
	"tallyman/imageapi/access"
	"tallyman/imageapi/importer"
	"tallyman/imageapi/imports"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/server"
	"tallyman/imageapi/streamrest"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/verification"
	"tallyman/internal/crash"
	"tallyman/internal/heap"
	"tallyman/registry"
	"tallyman/registry/logging"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/signatures/policy"
	"tallyman/storage/objects"
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
Or look at http://ADDRESS/ui/

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

// minimumHeap is the size in bytes up to which the heap grows before it is collected.
const minimumHeap = 64 << 20

func serve(cmd *cobra.Command, c *config.Config, dataDirectory string) (err error) {
	logging.Use(&c.Registry.Log)
	defer heap.SetMinimum(minimumHeap)()
	for _, p := range c.Problems {
		slog.Warn("configuration: " + p.Error())
	}
	for _, warning := range c.ImageAPI.Deprecated() {
		slog.Warn("configuration: " + warning)
	}
	prometheus.MustRegister(slices.Concat(crash.Collectors(), objects.Collectors(), tracker.Collectors(), resync.Collectors(), policy.Collectors(), rest.Collectors(), verification.Collectors(), importer.Collectors())...)
	if c.UsesRedis() {
		prometheus.MustRegister(redis.Collectors()...)
	}
	signing, policies, err := signatureOptions(c)
	if err != nil {
		return err
	}
	lost := make(chan struct{}, 1)
	backend, err := openStore(cmd.Context(), c, dataDirectory, func(string) {
		select {
		case lost <- struct{}{}:
		default: // the Tracker is told already
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	prometheus.MustRegister(historyMetrics(backend, &c.ImageAPI.Store)...)
	resources, err := openImages(c, backend, policies, signing)
	if err != nil {
		return err
	}
	defer resources.close()
	who, certificate, err := newAccess(cmd, c)
	if err != nil {
		return err
	}
	status := &resync.Status{}
	var background sync.WaitGroup
	ctx, stop := context.WithCancel(cmd.Context())
	defer background.Wait()
	defer stop()
	background.Go(func() { who.Run(ctx) })
	resources.verifier.Start(ctx)
	background.Go(func() { resources.verifier.Run(ctx, resources.catalog, c.ImageAPI.Signatures.VerifyInterval) })
	background.Go(func() { resources.catalog.Records().KeepExpiring(ctx) })
	compare := resyncOptions(c, resources)
	compare.Lost, compare.Status = lost, status
	newAPI := func(changes *registry.Changes) (registry.API, error) {
		api, err := newAPI(c, resources, who, status, changes)
		if err != nil {
			return nil, err // and no API that is a nil pointer
		}
		return api, nil
	}
	return serveRegistry(cmd.Context(), c, newAPI, who, certificate, trackerOptions(c, resources), compare)
}

func newAPI(c *config.Config, resources *images, who *access.Access, status *resync.Status, changes *registry.Changes) (*server.Server, error) {
	var cluster *restclient.Config
	if d := access.Delegation(c.ImageAPI.Auth.Delegation); d.Enabled {
		if d.GarbageCollector {
			resources.images.EnableGarbageCollection()
		}
		var err error
		if cluster, err = d.ClientConfig(); err != nil {
			return nil, fmt.Errorf("imageapi.auth.delegation: %w", err)
		}
		if !d.Admission {
			cluster = nil
		}
	}
	importing, err := importClient(c)
	if err != nil {
		return nil, err
	}
	namespaced, err := streamrest.New(streamrest.Options{
		Backend: resources.backend, Images: resources.images, Records: resources.catalog.Records(), Registry: changes,
		Hosts:      streams.Hosts{Own: cmp.Or(registryHost(c), externalAddress(c)), Public: registryHost(c)},
		Authorizer: who.Authorizer, Imports: importing, ImportInterval: c.ImageAPI.Imports.Interval, Leases: sharedBy[importer.Leases](resources.backend),
	})
	if err != nil {
		return nil, err
	}
	api, err := server.New(server.Options{
		Cluster:         cluster,
		Images:          resources.images,
		Signatures:      rest.NewImageSignatures(resources.images, resources.catalog),
		Streams:         namespaced,
		ExternalAddress: externalAddress(c),
		Access:          who,
		AccessLog:       !c.Registry.Log.AccessLog.Disabled,
		ShutdownDelay:   c.ImageAPI.ShutdownDelay,
		Audit:           auditOptions(c),
		Limits:          server.Limits(c.ImageAPI.Limits),
		ReadyChecks: []healthz.HealthChecker{
			healthz.NamedCheck("registry", func(r *http.Request) error { return registry.Healthy(r.Context()) }),
			server.Remark(status.Remark),
		},
	})
	if err != nil {
		namespaced.Close()
	}
	return api, err
}

// importClient returns the client for images of other registries, nil if none are imported.
func importClient(c *config.Config) (*imports.Client, error) {
	configured := &c.ImageAPI.Imports
	if !configured.Enabled {
		return nil, nil
	}
	o := imports.Options{CredentialsFile: configured.CredentialsFile, UserAgent: "tallyman/" + version}
	for _, registry := range configured.Registries {
		o.Allowed = append(o.Allowed, imports.Registry(registry))
	}
	client, err := imports.New(o)
	if err != nil {
		return nil, fmt.Errorf("imageapi.imports.credentialsfile: %w", err)
	}
	return client, nil
}

func serveRegistry(ctx context.Context, c *config.Config, newAPI func(*registry.Changes) (registry.API, error), who *access.Access, certificate *tls.Certificate, track tracker.Options, compare resync.Options) error {
	forget, err := forgetBlob(c)
	if err != nil {
		return err
	}
	return registry.Serve(ctx, registry.ServeOptions{
		Configuration: c.Registry,
		NewAPI:        newAPI,
		IsAdminToken:  who.IsAdminToken,
		MayDelete:     who.MayDeleteImages,
		ForgetBlob:    forget,
		Certificate:   certificate,

		SNICertificate: c.ImageAPI.TLS.Certificate,
		SNIKey:         c.ImageAPI.TLS.Key,

		Tracker:  track,
		Resync:   compare,
		TagRules: tagRules(c),
		Backfill: c.ImageAPI.Backfill,

		RecordedCatalog: c.ImageAPI.Catalog == "store",
		UI:              c.ImageAPI.UI.Enabled,
		ShutdownDelay:   c.ImageAPI.ShutdownDelay,

		SignatureEndpoint:   c.ImageAPI.Signatures.Endpoint,
		AdvertiseSignatures: c.ImageAPI.Signatures.Advertise,
	})
}

func tagRules(c *config.Config) (rules []registry.TagRule) {
	for _, rule := range c.ImageAPI.Tags {
		rules = append(rules, registry.TagRule(rule))
	}
	return rules
}

func inlineLimit(c *config.Config) int64 {
	if !c.ImageAPI.Inline {
		return -1
	}
	return c.ImageAPI.InlineLimit
}
