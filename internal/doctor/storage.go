package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"golang.org/x/sys/unix"

	"tallyman/registry"
)

// directory is where the doctor writes, beside the registry's /docker.
const directory = "/tallyman-doctor"

// mostSkew is the difference of clocks from which on it is worth a warning.
const mostSkew = 5 * time.Second

func checkStorage(ctx context.Context, r *report, o *Options) {
	c := o.Config.Registry
	kind := c.Storage.Type()
	key := "storage." + kind
	if registry.IsReadOnly(c) {
		r.warn("storage.maintenance.readonly.enabled: false", "the registry is read-only: pushes are refused")
	}
	if registry.DeletesContent(c) && registry.BlobCache(c) == "inmemory" {
		r.warn("storage.cache.blobdescriptor: redis, or no cache", "the cache of blobs is inmemory, which does not hear of deletions: `oc adm prune images` cannot delete blobs, and garbage-collect alone frees their space")
	}
	if kind == "inmemory" {
		r.warn("storage: {filesystem: {rootdirectory: /var/lib/registry}}", "inmemory: all content is gone when the process ends")
		return
	}
	d, err := factory.Create(ctx, kind, c.Storage.Parameters())
	if err != nil {
		r.fail(key, "%s: %v", kind, err)
		return
	}
	r.storage = d // not before: some drivers return a nil pointer with their error
	if kind == "filesystem" {
		root, _ := c.Storage.Parameters()["rootdirectory"].(string)
		if root == "" {
			root = "/var/lib/registry"
		}
		if there, err := writable(root); err != nil {
			r.fail(key+".rootdirectory: a directory that this user may write to", "%v", err)
			return
		} else if !there {
			r.ok("%s is not there yet: the first push makes it", root)
			return
		}
	}
	checkDriver(ctx, r, key, d)
}

// writable reports whether a directory is there. It is an error if it, or the nearest directory above it that is
// there, cannot be written to.
func writable(path string) (there bool, err error) {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			continue
		case err != nil:
			return false, err
		case !info.IsDir():
			return false, fmt.Errorf("%s is not a directory", at)
		case unix.Access(at, unix.W_OK|unix.X_OK) != nil:
			return false, fmt.Errorf("%s may not be written to", at)
		}
		return at == path, nil
	}
}

// checkDriver writes, reads, moves and removes a file.
func checkDriver(ctx context.Context, r *report, key string, d driver.StorageDriver) {
	name := directory + "/" + rand.Text()
	moved, content := name+"-moved", rand.Text()
	defer func() {
		if err := d.Delete(ctx, directory); err != nil && !errors.As(err, &driver.PathNotFoundError{}) {
			r.fail(key, "%s cannot be removed from the storage: %v; remove it", directory, err)
		}
	}()
	if err := d.PutContent(ctx, name, []byte(content)); err != nil {
		r.fail(key, "a file cannot be written: %v", err)
		return
	}
	if read, err := d.GetContent(ctx, name); err != nil || string(read) != content {
		r.fail(key, "a file that was written cannot be read: %v", err)
		return
	}
	info, err := d.Stat(ctx, name)
	if err != nil {
		r.fail(key, "a file that was written cannot be found: %v", err)
		return
	}
	if err := d.Move(ctx, name, moved); err != nil {
		r.fail(key, "a file cannot be renamed, as the end of each upload is: %v", err)
		return
	}
	if err := d.Delete(ctx, moved); err != nil {
		r.fail(key, "a file cannot be deleted: %v", err)
		return
	}
	r.ok("%s: a file was written, read, renamed and deleted", d.Name())
	if skew := time.Since(info.ModTime()); skew.Abs() > mostSkew {
		r.warn("the clocks of this host and of the storage", "the storage's clock differs from this host's by %s: abandoned uploads are purged by age", skew.Round(time.Second))
	}
}
