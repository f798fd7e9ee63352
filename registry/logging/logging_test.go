package logging

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

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
	l.WarnContext(context.Background(), "hello", "err", errors.New("down"))
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
