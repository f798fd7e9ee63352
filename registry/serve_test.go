package registry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// TestOutage: a request that met an outage is 503 with Retry-After, with any status of
// distribution; others are left alone.
func TestOutage(t *testing.T) {
	for name, test := range map[string]struct {
		fails  bool
		status int
		want   int
	}{
		"an outage that became 500": {true, http.StatusInternalServerError, http.StatusServiceUnavailable},
		"a failure of another kind": {false, http.StatusInternalServerError, http.StatusInternalServerError},
		"a success":                 {false, http.StatusCreated, http.StatusCreated},
	} {
		t.Run(name, func(t *testing.T) {
			handler := withPutNotes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.fails {
					_ = unavailable(r.Context(), entry{Repository: "a"}, errDown)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, "distribution's own")
			}))
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPut, "/v2/a/manifests/x", nil))
			if recorder.Code != test.want || (recorder.Header().Get("Retry-After") != "") != test.fails {
				t.Errorf("%d, %v", recorder.Code, recorder.Header())
			}
			if got := recorder.Body.String(); strings.Contains(got, `"code":"UNAVAILABLE"`) != test.fails || strings.Contains(got, "distribution's") == test.fails {
				t.Errorf("the body is %s", got)
			}
		})
	}
}

// TestLogger: slog's records come out of logrus with their level and fields.
func TestLogger(t *testing.T) {
	var out bytes.Buffer
	logger := logrus.StandardLogger()
	before, formatter := logger.Out, logger.Formatter
	logger.SetOutput(&out)
	logger.SetFormatter(&logrus.JSONFormatter{})
	defer func() {
		logger.SetOutput(before)
		logger.SetFormatter(formatter)
	}()
	l := slog.New(&logHandler{}).With("a", 1).WithGroup("g").With("b", "two")
	l.WarnContext(context.Background(), "hello", "err", errDown)
	l.Debug("not at this level")
	for _, want := range []string{`"level":"warning"`, `"msg":"hello"`, `"a":1`, `"g.b":"two"`, `"g.err":"down"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "not at this level") {
		t.Errorf("a debug line at level info: %s", out.String())
	}
	for given, want := range map[slog.Level]logrus.Level{slog.LevelError: logrus.ErrorLevel, -1: logrus.DebugLevel, -9: logrus.TraceLevel, 2: logrus.InfoLevel} {
		if got := level(given); got != want {
			t.Errorf("level %v is %v, want %v", given, got, want)
		}
	}
}
