package registry

import (
	"context"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/base"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// probe is a driver that says whether its calls are recorded.
type probe struct {
	driver.StorageDriver
	recorded bool
}

func (p *probe) PutContent(ctx context.Context, path string, content []byte) error {
	p.recorded = trace.SpanFromContext(ctx).IsRecording()
	return p.StorageDriver.PutContent(ctx, path, content)
}

// TestUnreadSpans: without an exporter, calls of the storage make no spans, which distribution would
// encode and drop.
func TestUnreadSpans(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "")
	done := disableTracing()
	otel.SetTracerProvider(sdktrace.NewTracerProvider()) // as distribution does
	done()
	p := &probe{StorageDriver: inmemory.New()}
	if err := (&base.Base{StorageDriver: p}).PutContent(t.Context(), "/file", nil); err != nil {
		t.Fatal(err)
	}
	if p.recorded {
		t.Error("a call of the storage is recorded")
	}
	if _, span := otel.Tracer("any").Start(t.Context(), "any"); span.IsRecording() {
		t.Error("a span is recorded")
	}
}
