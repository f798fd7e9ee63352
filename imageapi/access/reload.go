package access

import (
	"bytes"
	"context"
	"log/slog"
	"os"
)

// reloading returns a function that reads a file again if its content has changed.
func reloading(key, path string, load func([]byte) error) func(context.Context) {
	last, err := os.ReadFile(path)
	if err != nil {
		last = nil // then it is read again
	}
	return reporting(key, path, func(context.Context) error {
		content, err := os.ReadFile(path)
		if err != nil || bytes.Equal(content, last) {
			return err
		}
		if err := load(content); err != nil {
			return err
		}
		last = content
		slog.Info("file reloaded", "key", "imageapi.auth."+key, "path", path)
		return nil
	})
}

// reporting logs a failure, once for as long as it stays the same.
func reporting(key, path string, run func(context.Context) error) func(context.Context) {
	failure := ""
	return func(ctx context.Context) {
		err := run(ctx)
		switch {
		case err == nil:
			failure = ""
		case err.Error() != failure:
			failure = err.Error()
			slog.Error("file reload failed, keeping previous version", "key", "imageapi.auth."+key, "path", path, "err", err)
		}
	}
}
