package registry

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"
)

// traced reports whether spans go anywhere.
func traced() bool {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	return exporter != "none" && cmp.Or(exporter, os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) != ""
}

// disableTracing keeps distribution from making spans that go nowhere. It would send them to a
// collector on this host, and write each as JSON to a log that drops it. Call it before the registry is
// made, and done afterwards.
func disableTracing() (done func()) {
	if traced() {
		return func() {}
	}
	_ = os.Setenv("OTEL_TRACES_EXPORTER", "none")    // cannot fail: the name is well-formed
	otel.SetTracerProvider(noop.NewTracerProvider()) // that of the tracers which are there already
	return func() {                                  // its tracers make no spans from then on
		provider, ok := otel.GetTracerProvider().(interface {
			Shutdown(ctx context.Context) error
		})
		if !ok {
			return
		}
		if err := provider.Shutdown(context.Background()); err != nil { // its queue is empty
			slog.Warn("tracing not shut down", "err", err)
		}
	}
}
