package registry

import (
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // on the debug port alone, as in distribution's own binary
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"
)

// serveDebug opens distribution's debug port: health, profiles, and, if enabled,
// Prometheus metrics of the registry, the API and the store together.
func serveDebug(c *configuration.Configuration) error {
	if c.HTTP.Debug.Addr == "" {
		return nil
	}
	hideConfiguration()
	mux := http.NewServeMux()
	mux.Handle("/", http.DefaultServeMux) // where distribution and pprof put theirs
	if c.HTTP.Debug.Prometheus.Enabled {
		path := c.HTTP.Debug.Prometheus.Path
		if path == "" {
			path = "/metrics"
		}
		mux.Handle(path, promhttp.HandlerFor(gatherer(), promhttp.HandlerOpts{}))
	}
	listener, err := net.Listen("tcp", c.HTTP.Debug.Addr)
	if err != nil {
		return fmt.Errorf("listen on http.debug.addr: %w", err)
	}
	slog.Info("debug server listening", "address", listener.Addr().String())
	go func() {
		server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("debug server failed", "err", err)
		}
	}()
	return nil
}

// hideConfiguration removes the configuration, which has Redis' password in it, from
// distribution's /debug/vars.
func hideConfiguration() {
	vars, ok := expvar.Get("registry").(*expvar.Map)
	if !ok {
		return
	}
	shown, ok := vars.Get("redis").(expvar.Func)
	if !ok {
		return
	}
	vars.Set("redis", expvar.Func(func() any {
		all, _ := shown().(map[string]any)
		return map[string]any{"Active": all["Active"]}
	}))
}

// gatherer merges distribution's and our registry with that of k8s.io, which
// has the runtime's metrics once more.
func gatherer() prometheus.Gatherer {
	kubernetes := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := legacyregistry.DefaultGatherer.Gather()
		kept := families[:0]
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") {
				kept = append(kept, f)
			}
		}
		return kept, err
	})
	return prometheus.Gatherers{prometheus.DefaultGatherer, kubernetes}
}
