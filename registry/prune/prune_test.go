package prune

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tallyman/registry/paths"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
)

const blob = digest.Digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

// place is a storage with the blob.
type place struct {
	driver.StorageDriver
	t *testing.T
	// before is called before a call of a method, such as "Move".
	before func(method string) error
}

func newPlace(t *testing.T, d driver.StorageDriver) *place {
	p := &place{StorageDriver: d, t: t}
	p.put(paths.Blob(blob), "content")
	p.put(paths.Repositories+"/team/app/_layers/sha256/"+strings.Repeat("f", 64)+"/link", "")
	p.put(paths.Repositories+"/team/app/_uploads/x/startedat", "")
	return p
}

func (p *place) put(name, content string) {
	p.t.Helper()
	if err := p.PutContent(p.t.Context(), name, []byte(content)); err != nil {
		p.t.Fatal(err)
	}
}

// link links a repository to the blob.
func (p *place) link(repository, kind string) {
	p.t.Helper()
	p.put(path.Join(paths.Repositories, repository, kind, "sha256", blob.Encoded(), "link"), blob.String())
}

// state says where the blob is.
func (p *place) state() string {
	p.t.Helper()
	state := "gone"
	if content, err := p.GetContent(p.t.Context(), paths.Blob(blob)); err == nil {
		state = string(content)
	}
	files, err := p.List(p.t.Context(), aside+"/sha256")
	if err != nil && !isMissing(err) {
		p.t.Fatal(err)
	}
	if len(files) > 0 {
		state += fmt.Sprintf(", %d aside", len(files))
	}
	return state
}

func (p *place) call(method string) error {
	if p.before == nil {
		return nil
	}
	return p.before(method)
}

// Stat implements driver.StorageDriver.
func (p *place) Stat(ctx context.Context, name string) (driver.FileInfo, error) {
	if err := p.call("Stat"); err != nil {
		return nil, err
	}
	return p.StorageDriver.Stat(ctx, name)
}

// Move implements driver.StorageDriver.
func (p *place) Move(ctx context.Context, from, to string) error {
	if err := p.call("Move"); err != nil {
		return err
	}
	err := p.StorageDriver.Move(ctx, from, to)
	return errors.Join(err, p.call("moved"))
}

// Walk implements driver.StorageDriver.
func (p *place) Walk(ctx context.Context, from string, fn driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	if err := p.call("Walk"); err != nil {
		return err
	}
	return p.StorageDriver.Walk(ctx, from, fn, options...)
}

// Delete implements driver.StorageDriver.
func (p *place) Delete(ctx context.Context, name string) error {
	if err := p.call("Delete"); err != nil {
		return err
	}
	return p.StorageDriver.Delete(ctx, name)
}

var errAway = errors.New("the storage is away")

// TestDelete: a blob goes if no repository has it, also if one gets it while it is deleted, and stays if the storage
// or the cache fails.
func TestDelete(t *testing.T) {
	const kept, deleted, gone = "content", "gone, 1 aside", "gone"
	nth := func(method string, n int, do func() error) func(string) error {
		return func(called string) error {
			if called != method {
				return nil
			}
			if n--; n != 0 {
				return nil
			}
			return do()
		}
	}
	away := func() error { return errAway }
	for name, test := range map[string]struct {
		prepare func(p *place)
		forget  error
		want    string // of the error
		soon    string // where the blob is then
		later   string // and after a minute
	}{
		"nobody has it":            {func(*place) {}, nil, "", deleted, gone},
		"as a layer":               {func(p *place) { p.link("team/app", "_layers") }, nil, "repository team/app has a link to it", kept, kept},
		"as a manifest":            {func(p *place) { p.link("a", "_manifests/revisions") }, nil, "repository a has a link to it", kept, kept},
		"deep":                     {func(p *place) { p.link("a/b/c/d", "_layers") }, nil, "repository a/b/c/d has a link to it", kept, kept},
		"in a tag's history alone": {func(p *place) { p.link("a", "_manifests/tags/v1/index") }, nil, "", deleted, gone},
		"linked while it is moved": {func(p *place) {
			p.before = nth("moved", 1, func() error { p.link("new", "_layers"); return nil })
		}, nil, "repository new has a link to it", kept, kept},
		"linked a moment later": {func(p *place) {
			time.AfterFunc(grace/2, func() { p.link("new", "_manifests/revisions") })
		}, nil, "", deleted, kept},
		"pushed again, and linked": {func(p *place) {
			time.AfterFunc(grace/2, func() { p.put(paths.Blob(blob), "again"); p.link("new", "_layers") })
		}, nil, "", deleted, "again"},
		"pushed again":          {func(p *place) { time.AfterFunc(grace/2, func() { p.put(paths.Blob(blob), "again") }) }, nil, "", deleted, "again"},
		"no look":               {func(p *place) { p.before = nth("Stat", 1, away) }, nil, errAway.Error(), kept, kept},
		"no first walk":         {func(p *place) { p.before = nth("Walk", 1, away) }, nil, errAway.Error(), kept, kept},
		"no move":               {func(p *place) { p.before = nth("Move", 1, away) }, nil, errAway.Error(), kept, kept},
		"no second walk":        {func(p *place) { p.before = nth("Walk", 2, away) }, nil, errAway.Error(), kept, kept},
		"no last walk at first": {func(p *place) { p.before = nth("Walk", 3, away) }, nil, "", deleted, gone},
		"no deletion at first":  {func(p *place) { p.before = nth("Delete", 1, away) }, nil, "", deleted, gone},
		"a cache that is away":  {func(*place) {}, errAway, errAway.Error(), kept, kept},
		"deleted by another one": {func(p *place) {
			p.before = nth("Move", 1, func() error { return p.StorageDriver.Delete(t.Context(), paths.Blob(blob)) })
		}, nil, ErrUnknown.Error(), gone, gone},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, d := range []driver.StorageDriver{inmemory.New(), filesystem.New(filesystem.DriverParameters{RootDirectory: t.TempDir(), MaxThreads: 100})} {
				p := newPlace(t, d)
				forgotten := 0
				test.prepare(p)
				size, err := New(Options{Driver: p, Forget: func(context.Context, digest.Digest) error { forgotten++; return test.forget }}).Delete(t.Context(), blob)
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || err == nil && (size != 7 || forgotten != 1) {
					t.Errorf("%s, %s: %d, %v, want %q; forgotten %d times", name, d.Name(), size, err, test.want, forgotten)
				}
				if got := p.state(); got != test.soon {
					t.Errorf("%s, %s: %s, want %s", name, d.Name(), got, test.soon)
				}
				time.Sleep(2*grace + time.Second)
				if got := p.state(); got != test.later {
					t.Errorf("%s, %s: a minute later %s, want %s", name, d.Name(), got, test.later)
				}
			}
		})
	}
	if _, err := New(Options{Driver: inmemory.New()}).Delete(t.Context(), blob); !errors.Is(err, ErrUnknown) {
		t.Errorf("an empty registry: %v", err)
	}
}

// TestRecover: a process that ends while a blob is aside leaves it to the next one.
func TestRecover(t *testing.T) {
	for name, test := range map[string]struct {
		linked      bool
		soon, later string
	}{
		"nobody has it":   {false, "gone, 1 aside", "gone"},
		"somebody has it": {true, "content", "content"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace(t, inmemory.New())
			p.before = func(method string) error {
				if method == "moved" {
					panic("killed")
				}
				return nil
			}
			func() {
				defer func() { _ = recover() }()
				_, _ = New(Options{Driver: p}).Delete(t.Context(), blob)
			}()
			if got := p.state(); got != "gone, 1 aside" {
				t.Fatal(got)
			}
			p.before = nil
			if test.linked {
				p.link("team/app", "_layers")
			}
			p.put(aside+"/sha256/none", "") // is left alone
			if err := New(Options{Driver: p}).Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if err := p.StorageDriver.Delete(t.Context(), aside+"/sha256/none"); err != nil {
				t.Error(err)
			}
			got := []string{p.state()}
			time.Sleep(grace + time.Second)
			if got = append(got, p.state()); !slices.Equal(got, []string{test.soon, test.later}) {
				t.Errorf("%s: %v, want %s and %s", name, got, test.soon, test.later)
			}
		})
	}
	if err := New(Options{Driver: inmemory.New()}).Recover(t.Context()); err != nil {
		t.Errorf("with none aside: %v", err)
	}
}
