package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	upstreamlistener "github.com/distribution/distribution/v3/registry/listener"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	gorhandlers "github.com/gorilla/handlers"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"tallyman/registry/extensions"
	"tallyman/registry/listener"
	"tallyman/registry/prune"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/ui"
)

// defaultDrain is how long a shutdown waits for pushes in flight if the
// configuration does not say: just under the 30 s that Kubernetes grants.
const defaultDrain = 29 * time.Second

// API is the part of the Image API that Serve uses. imageapi.Server is one.
type API interface {
	// Handler answers the API's paths and hands all others to next.
	Handler(next http.Handler) http.Handler
	// NotReady fails readiness.
	NotReady()
	// Drain ends watches.
	Drain()
}

// ServeOptions configures Serve.
type ServeOptions struct {
	// Configuration is distribution's own. Serve adds the middleware to it.
	Configuration *configuration.Configuration
	// Tracker says how changes of the registry are recorded. Its required fields are required.
	Tracker tracker.Options
	// NewAPI makes the Image API, which changes the registry by the Changes. Required.
	NewAPI func(*Changes) (API, error)
	// IsAdminToken knows administrators' tokens, which the registry honours besides its own auth; nil
	// if there are none.
	IsAdminToken func(token string) bool
	// MayDelete returns the name of the user with a token if that user may delete all Images, and so the
	// manifests and blobs of all repositories, besides those whom the registry's own auth lets. nil for nobody.
	MayDelete func(r *http.Request, token string) (name string, ok bool)
	// ForgetBlob deletes a blob from the cache of blobs that all processes share; nil if there is none.
	ForgetBlob func(context.Context, digest.Digest) error
	// Certificate is served, besides plain HTTP on the same port, if http.tls has none.
	Certificate *tls.Certificate
	// SNICertificate and SNIKey are files with one more certificate, for clients that ask
	// for one of its names.
	SNICertificate, SNIKey string
	// SignatureEndpoint serves /extensions/v2/<name>/signatures/<digest>, where skopeo
	// and podman leave and find simple signing signatures; AdvertiseSignatures has them
	// use it.
	SignatureEndpoint, AdvertiseSignatures bool
	// Resync says how the registry is compared with its records. Its Tracker is set by Serve.
	Resync resync.Options
	// TagRules are the rules about tags.
	TagRules []TagRule
	// RecordedCatalog answers _catalog from the records.
	RecordedCatalog bool
	// Backfill records existing content at start-up.
	Backfill bool
	// UI serves the page for browsers at ui/ below http.prefix.
	UI bool
	// ShutdownDelay is how long everything is served on after readiness has
	// failed, for load balancers to notice.
	ShutdownDelay time.Duration
}

// Serve runs the registry with the API until ctx ends, and then drains it: new
// work is turned away, watches end, pushes in flight finish.
func Serve(ctx context.Context, o ServeOptions) error {
	drain := cmp.Or(o.Configuration.HTTP.DrainTimeout, defaultDrain)
	// Signals are ours: distribution would wait for watches to end by themselves.
	o.Configuration.HTTP.DrainTimeout = 0
	app, t, api, handler, err := newRegistry(ctx, o)
	if api != nil {
		defer api.Drain()
	}
	if err != nil {
		return err
	}
	if err := serveDebug(o.Configuration); err != nil {
		return err
	}
	var background sync.WaitGroup
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	background.Go(func() { t.Run(recording) })
	if !IsReadOnly(o.Configuration) {
		background.Go(func() { recoverBlobs(recording, t.Driver()) })
	}
	o.Resync.Tracker = t
	background.Go(func() { resync.New(o.Resync).Run(recording, o.Backfill) })
	defer background.Wait()
	defer stopRecording()

	server, err := listen(o, handler)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	slog.Info("shutting down", "delay", o.ShutdownDelay.String(), "drain", drain.String())
	api.NotReady()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-time.After(o.ShutdownDelay):
	}
	api.Drain()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	// distribution's own server has served nothing; its Shutdown closes the rest.
	if err := errors.Join(server.Shutdown(deadline), app.Shutdown(deadline)); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	slog.Info("stopped")
	return nil
}

// listen opens the port that the configuration names. It stands in for distribution's
// ListenAndServe, which reads certificates once and waits for slow clients without end.
func listen(o ServeOptions, handler http.Handler) (*listener.Server, error) {
	c := &o.Configuration.HTTP
	l, err := upstreamlistener.NewListener(c.Net, c.Addr)
	if err != nil {
		return nil, fmt.Errorf("http.addr: %w", err)
	}
	if traced() {
		handler = otelhttp.NewHandler(handler, "", otelhttp.WithSpanNameFormatter(
			func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }))
	}
	server, err := listener.New(listener.Options{
		Listener: l, Handler: handler, DisableHTTP2: c.HTTP2.Disabled, UnencryptedHTTP2: c.H2C.Enabled,
		TLS: listener.TLS{
			Certificate: c.TLS.Certificate, Key: c.TLS.Key, LetsEncrypt: listener.LetsEncrypt(c.TLS.LetsEncrypt),
			MinimumTLS: c.TLS.MinimumTLS, CipherSuites: c.TLS.CipherSuites,
			ClientCAs: c.TLS.ClientCAs, ClientAuth: string(c.TLS.ClientAuth),
			SNICertificate: o.SNICertificate, SNIKey: o.SNIKey, Generated: o.Certificate,
		},
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return server, nil
}

// recoverBlobs decides about blobs that a process has put aside before it has ended.
func recoverBlobs(ctx context.Context, d driver.StorageDriver) {
	if err := prune.New(prune.Options{Driver: d}).Recover(ctx); err != nil {
		slog.Error("blobs that were put aside are still there", "err", err)
	}
}

// keepsBlobs returns the reason for which blobs are not deleted while the registry is served, "" for none.
func keepsBlobs(c *configuration.Configuration, changes *Changes) string {
	switch {
	case !changes.deletes:
		return "storage.delete.enabled is not true"
	case changes.refusal != "":
		return changes.refusal
	case BlobCache(c) == "inmemory":
		return "storage.cache.blobdescriptor is inmemory, which does not hear of deletions: redis does"
	}
	return ""
}

// BlobCache returns the kind of distribution's cache of blobs, such as "redis", nil for none.
func BlobCache(c *configuration.Configuration) any {
	cache := c.Storage["cache"]
	return cmp.Or(cache["blobdescriptor"], cache["layerinfo"]) // its former name
}

// newRegistry builds distribution's registry with the middleware and the API in
// it. distribution panics on most faults of its configuration; here they are
// errors.
func newRegistry(ctx context.Context, o ServeOptions) (app *registry.Registry, t *tracker.Tracker, api API, handler http.Handler, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("configuration error: %v", fault)
		}
	}()
	if err := registerMiddleware(); err != nil {
		return nil, nil, nil, nil, err
	}
	c := o.Configuration
	known := administrators{isToken: o.IsAdminToken, mayDelete: o.MayDelete}
	if err := addAdministrators(c, known); err != nil {
		return nil, nil, nil, nil, err
	}
	var changes *Changes
	if c.Middleware == nil {
		c.Middleware = map[string][]configuration.Middleware{}
	}
	c.Middleware["registry"] = append(c.Middleware["registry"], configuration.Middleware{
		Name: middlewareName, Options: configuration.Parameters{
			rulesOption: tagRules(o.TagRules), catalogOption: o.RecordedCatalog,
			trackerOption: newTracker(func(inner distribution.Namespace, d driver.StorageDriver) *tracker.Tracker {
				t = tracker.New(inner, d, o.Tracker)
				return t
			}),
			wrappedOption: func(wrapped distribution.Namespace) { changes = newChanges(c, wrapped) },
		},
	})
	switch {
	case !o.SignatureEndpoint || o.Tracker.PullThrough: // there is no endpoint
	case o.AdvertiseSignatures:
		if c.HTTP.Headers == nil {
			c.HTTP.Headers = http.Header{}
		}
		c.HTTP.Headers.Set(extensions.SupportsSignatures, "1")
	default:
		slog.Info("GPG signature endpoint not advertised: skopeo and podman use lookaside storage; imageapi.signatures.advertise has them use the endpoint and nothing else")
	}
	var ownErr error
	quiet := c.Log.AccessLog.Disabled
	c.Log.AccessLog.Disabled = true // distribution's, which has the status before withPutNotes replaces it
	registry.RegisterHandler(func(_ *configuration.Configuration, next http.Handler) http.Handler {
		c.Log.AccessLog.Disabled = quiet
		if next = withPutNotes(next); !quiet {
			next = gorhandlers.CombinedLoggingHandler(os.Stdout, next)
		}
		var own *extensions.Extensions // the Tracker and the Changes are there by now
		if own, ownErr = extensions.New(extensions.Options{
			Configuration: c, Anonymous: AnonymousPull(c), Tracker: t, Catalog: o.Tracker.Catalog, Referrers: o.Tracker.Referrers,
			SignatureLimit: o.Tracker.SignatureLimits.Content, Signatures: o.SignatureEndpoint,
			MayDelete: known.deleter, KeepsBlobs: keepsBlobs(c, changes), Pruner: prune.New(prune.Options{Driver: t.Driver(), Forget: o.ForgetBlob}),
		}); ownErr != nil {
			return next
		}
		if api, ownErr = o.NewAPI(changes); ownErr != nil {
			return next
		}
		doors := withStallTimeout(own.Handler(next), stallTimeout)
		if o.UI {
			doors = ui.Handler(c.HTTP.Prefix, doors)
		}
		handler = api.Handler(doors)
		return handler
	})
	defer disableTracing()()
	app, err = registry.NewRegistry(ctx, c)
	return app, t, api, handler, errors.Join(err, ownErr)
}
