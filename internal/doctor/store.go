package doctor

import (
	"context"
	"errors"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"tallyman/storage/bolt"
)

func checkStore(ctx context.Context, r *report, o *Options) {
	if o.Config.UsesRedis() {
		checkRedis(ctx, r, o)
		return
	}
	const key = "imageapi.store.path"
	if o.Config.Registry.Storage.Type() == "inmemory" && o.Config.ImageAPI.Store.Path == "" {
		r.ok("the embedded store is as temporary as the registry's storage")
		return
	}
	info, err := os.Stat(o.StorePath)
	switch {
	case os.IsNotExist(err):
		if _, err := writable(o.StorePath); err != nil {
			r.fail(key+": a file that this user may make", "the embedded store %s cannot be made: %v", o.StorePath, err)
			return
		}
		r.ok("%s is not there yet: the first start makes it", o.StorePath)
		return
	case err != nil:
		r.fail(key, "the embedded store: %v", err)
		return
	case info.Mode().Perm()&0o077 != 0:
		r.warn("chmod 600 "+o.StorePath, "%s has mode %#o: other users of this host can read or change the Images", o.StorePath, info.Mode().Perm())
	}
	attached, err := bolt.Attach(o.StorePath)
	if err != nil {
		checkClosed(r, o, key)
		return
	}
	defer func() { _ = attached.Close() }()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	window, err := attached.Window(ctx)
	if err != nil {
		r.fail("the log of the process says why", "the process that has %s open does not answer: %v", o.StorePath, err)
		return
	}
	r.ok("%s is open in the running process, at revision %d", o.StorePath, window.Current)
}

// checkClosed opens a file that no process has open, for reading only.
func checkClosed(r *report, o *Options, key string) {
	db, err := bbolt.Open(o.StorePath, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 100 * time.Millisecond})
	switch {
	case err == nil:
		r.ok("%s is whole; no process has it open", o.StorePath)
		_ = db.Close() // it was only read
	case errors.Is(err, bbolterrors.ErrTimeout):
		r.fail("stop the other process, or "+key, "another process has %s open, and is no tallyman of this version", o.StorePath)
	default:
		r.fail("tallyman store import of a backup, or remove it: it is made anew of the registry's content, without the additions of users", "%s cannot be read: %v", o.StorePath, err)
	}
}
