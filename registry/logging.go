package registry

import (
	"context"
	"log/slog"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// UseLogger sends everything that is logged through log/slog and klog to the
// logger that distribution logs to, so that there is one stream, in the format
// and from the level that its configuration sets.
func UseLogger() {
	logger := slog.New(&logHandler{})
	slog.SetDefault(logger)
	klog.SetSlogLogger(logger)
}

// logHandler is a slog.Handler in front of logrus.
type logHandler struct {
	fields logrus.Fields
	group  string
}

var levels = map[slog.Level]logrus.Level{
	slog.LevelDebug: logrus.DebugLevel, slog.LevelInfo: logrus.InfoLevel,
	slog.LevelWarn: logrus.WarnLevel, slog.LevelError: logrus.ErrorLevel,
}

// level maps in-between levels, which klog's verbosity has, down.
func level(l slog.Level) logrus.Level {
	for _, known := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug} {
		if l >= known {
			return levels[known]
		}
	}
	return logrus.TraceLevel
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return logrus.IsLevelEnabled(level(l))
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	entry := logrus.WithFields(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		entry = entry.WithField(h.group+a.Key, value(a.Value))
		return true
	})
	entry.WithTime(r.Time).Log(level(r.Level), r.Message)
	return nil
}

func value(v slog.Value) any {
	v = v.Resolve()
	if err, ok := v.Any().(error); ok {
		return err.Error()
	}
	return v.Any()
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	fields := make(logrus.Fields, len(h.fields)+len(attrs))
	for key, v := range h.fields {
		fields[key] = v
	}
	for _, a := range attrs {
		fields[h.group+a.Key] = value(a.Value)
	}
	return &logHandler{fields: fields, group: h.group}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &logHandler{fields: h.fields, group: h.group + name + "."}
}
