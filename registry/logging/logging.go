// Package logging has the one stream of log lines: distribution's logger, also behind log/slog
// and klog, and the attributes of a request.
package logging

import (
	"context"
	"log/slog"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// Use sends everything that is logged through log/slog and klog to the
// logger that distribution logs to, so that there is one stream, in the format
// and from the level that the configuration sets. Informational messages of Kubernetes'
// libraries, which are about their own workings, are at level debug.
func Use(c *configuration.Log) {
	configureLogrus(c)
	slog.SetDefault(slog.New(&logHandler{}))
	klog.SetSlogLogger(slog.New(&logHandler{quiet: true}))
}

// configureLogrus configures logrus as distribution does later, when its application is made.
// Distribution refuses an unknown formatter then.
func configureLogrus(c *configuration.Log) {
	if level, err := logrus.ParseLevel(string(c.Level)); err == nil {
		logrus.SetLevel(level)
	}
	switch c.Formatter {
	case "json":
		logrus.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano, DisableHTMLEscape: true})
	case "logstash":
		logrus.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano, FieldMap: logrus.FieldMap{logrus.FieldKeyFunc: "function"}})
	default:
		logrus.SetFormatter(&logrus.TextFormatter{TimestampFormat: time.RFC3339Nano})
	}
}

// logHandler is a slog.Handler in front of logrus.
type logHandler struct {
	fields logrus.Fields
	group  string
	quiet  bool // info becomes debug
}

var levels = map[slog.Level]logrus.Level{
	slog.LevelDebug: logrus.DebugLevel, slog.LevelInfo: logrus.InfoLevel,
	slog.LevelWarn: logrus.WarnLevel, slog.LevelError: logrus.ErrorLevel,
}

func (h *logHandler) level(l slog.Level) logrus.Level {
	if h.quiet && l < slog.LevelWarn {
		l = min(l, slog.LevelDebug)
	}
	return level(l)
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
	return logrus.IsLevelEnabled(h.level(l))
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	entry := logrus.WithFields(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		entry = entry.WithField(h.group+a.Key, value(a.Value))
		return true
	})
	entry.WithTime(r.Time).Log(h.level(r.Level), r.Message)
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
	return &logHandler{fields: fields, group: h.group, quiet: h.quiet}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &logHandler{fields: h.fields, group: h.group + name + ".", quiet: h.quiet}
}
