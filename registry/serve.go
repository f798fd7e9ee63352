package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
)

// defaultDrain is how long a shutdown waits for pushes in flight if the
// configuration does not say: just under the 30 s that Kubernetes grants.
const defaultDrain = 29 * time.Second

// API is what Serve needs of the Image API. imageapi.Server is one.
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
	// Recorder records what the registry is told. Required.
	Recorder *Recorder
	// API is the Image API. Required.
	API API
	// Certificate, if set, lets clients speak TLS as well as plain HTTP on the
	// one port: kubectl sends credentials over TLS only, while container tools
	// expect plain HTTP on the loopback interface.
	Certificate *tls.Certificate
	// SignatureEndpoint serves /extensions/v2/<name>/signatures/<digest>, where skopeo
	// and podman leave and find simple signing signatures; AdvertiseSignatures has them
	// use it.
	SignatureEndpoint, AdvertiseSignatures bool
	// Backfill records existing content at start-up.
	Backfill bool
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
	app, handler, err := newRegistry(ctx, o)
	if err != nil {
		return err
	}
	if err := serveDebug(o.Configuration); err != nil {
		return err
	}
	var background sync.WaitGroup
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	background.Go(func() { o.Recorder.Run(recording, o.Backfill) })
	defer background.Wait()
	defer stopRecording()

	var own *http.Server
	served := make(chan error, 1)
	if o.Certificate != nil {
		own = &http.Server{
			Handler: handler, ReadHeaderTimeout: time.Minute, Protocols: protocols(),
			// Container tools try TLS first, and do not like the certificate.
			ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		}
		listener, err := net.Listen(cmp.Or(o.Configuration.HTTP.Net, "tcp"), o.Configuration.HTTP.Addr)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		slog.Info("listening, plain and tls", "address", listener.Addr().String())
		go func() {
			served <- own.Serve(newEitherListener(listener, o.Certificate, o.Configuration.HTTP.TLS.ClientAuth == configuration.ClientAuthRequestClientCert))
		}()
	} else {
		go func() { served <- app.ListenAndServe() }()
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	slog.Info("shutting down", "delay", o.ShutdownDelay.String(), "drain", drain.String())
	o.API.NotReady()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-time.After(o.ShutdownDelay):
	}
	o.API.Drain()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	var errs []error
	if own != nil {
		errs = append(errs, own.Shutdown(deadline))
	}
	errs = append(errs, app.Shutdown(deadline))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	slog.Info("stopped")
	return nil
}

// newRegistry builds distribution's registry with the middleware and the API in
// it. distribution panics on most faults of its configuration; here they are
// errors.
func newRegistry(ctx context.Context, o ServeOptions) (app *registry.Registry, handler http.Handler, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("configuration error: %v", fault)
		}
	}()
	if err := registerMiddleware(); err != nil {
		return nil, nil, err
	}
	c := o.Configuration
	if c.Middleware == nil {
		c.Middleware = map[string][]configuration.Middleware{}
	}
	c.Middleware["registry"] = append(c.Middleware["registry"], configuration.Middleware{
		Name: middlewareName, Options: configuration.Parameters{recorderOption: o.Recorder},
	})
	own, err := newEndpoints(c, o.Recorder)
	if err != nil {
		return nil, nil, err
	}
	if o.SignatureEndpoint && o.AdvertiseSignatures {
		if c.HTTP.Headers == nil {
			c.HTTP.Headers = http.Header{}
		}
		c.HTTP.Headers.Set(supportsSignatures, "1")
		own.headers = c.HTTP.Headers
	}
	registry.RegisterHandler(func(_ *configuration.Configuration, next http.Handler) http.Handler {
		handler = o.API.Handler(own.handler(withPutNotes(next), o.SignatureEndpoint, !c.Log.AccessLog.Disabled))
		return handler
	})
	disableTracing()
	app, err = registry.NewRegistry(ctx, c)
	return app, handler, err
}

// disableTracing keeps the OpenTelemetry exporter, whose default is to send to a
// collector on this host, from reporting that there is none.
func disableTracing() {
	for _, name := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if os.Getenv(name) != "" {
			return
		}
	}
	_ = os.Setenv("OTEL_TRACES_EXPORTER", "none") // cannot fail: the name is well-formed
}

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	return p
}
