package configs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blobStore(t *testing.T) distribution.BlobStore {
	t.Helper()
	registry, err := storage.NewRegistry(t.Context(), inmemory.New())
	if err != nil {
		t.Fatal(err)
	}
	name, err := reference.WithName("app")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.Repository(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return repo.Blobs(t.Context())
}

// TestFollow: a small blob is kept that was written in one request or in several, and nothing else.
func TestFollow(t *testing.T) {
	large := strings.Repeat("x", maxBlob)
	for name, test := range map[string]struct {
		parts  []string // each in a request of its own
		missed int      // a part that another process took
		commit string   // the digest is that of it
		kept   bool
	}{
		"at once":                      {[]string{"config"}, -1, "config", true},
		"nothing first":                {[]string{"", "config"}, -1, "config", true},
		"two parts":                    {[]string{"con", "fig", ""}, -1, "config", true},
		"the largest":                  {[]string{large}, -1, large, true},
		"too large":                    {[]string{large, "x"}, -1, large + "x", false},
		"too large, then more":         {[]string{large + "x", "y"}, -1, large + "xy", false},
		"empty":                        {[]string{""}, -1, "", false},
		"a part went elsewhere":        {[]string{"con", "fig"}, 0, "config", false},
		"another digest than promised": {[]string{"config"}, -1, "other", false},
	} {
		t.Run(name, func(t *testing.T) {
			store, cache := blobStore(t), New()
			id := ""
			var w distribution.BlobWriter
			for n, part := range test.parts {
				var err error
				if id == "" {
					w, err = store.Create(t.Context())
				} else {
					w, err = store.Resume(t.Context(), id)
				}
				if err != nil {
					t.Fatal(err)
				}
				id = w.ID()
				if n != test.missed {
					w = cache.Follow(w)
				}
				if n%2 == 0 {
					_, err = w.ReadFrom(strings.NewReader(part))
				} else {
					_, err = w.Write([]byte(part))
				}
				if err != nil {
					t.Fatal(err)
				}
				if n < len(test.parts)-1 {
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
			written, wanted := strings.Join(test.parts, ""), digest.FromString(test.commit)
			_, err := w.Commit(t.Context(), imagespec.Descriptor{Digest: wanted})
			if (err == nil) != (written == test.commit) {
				t.Fatalf("commit of %q as %s: %v", written, wanted, err)
			}
			_ = w.Close()
			want := []byte(nil)
			if test.kept {
				want = []byte(test.commit)
			}
			if got := cache.Get(wanted); !bytes.Equal(got, want) {
				t.Errorf("%d bytes are kept, want %d", len(got), len(want))
			}
			if got := cache.Get(digest.FromString(written)); !test.kept && got != nil {
				t.Errorf("%d bytes are kept of what was written", len(got))
			}
		})
	}
}

// TestBounded: the least recently used go first, and uploads that nobody ends, too.
func TestBounded(t *testing.T) {
	store, cache := blobStore(t), New()
	content := func(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, maxBlob/2) }
	const all = 2 * maxBytes / maxBlob
	for n := range all {
		w, err := store.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w = cache.Follow(w)
		if _, err := w.Write(content(n)); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			_ = w.Close()
			continue
		}
		if _, err := w.Commit(t.Context(), imagespec.Descriptor{Digest: digest.FromBytes(content(n))}); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n < all; n += 2 {
		if got := cache.Get(digest.FromBytes(content(n))); !bytes.Equal(got, content(n)) {
			t.Errorf("blob %d has %d bytes", n, len(got))
		}
	}
	for n := range all {
		cache.blobs.add(digest.FromBytes(content(all+n)), content(all+n))
		cache.uploads.add(string(content(n)[:2]), content(n))
	}
	for _, b := range []int{cache.blobs.size, cache.uploads.size} {
		if b != maxBytes {
			t.Errorf("%d bytes are kept, want %d", b, maxBytes)
		}
	}
	if cache.Get(digest.FromBytes(content(1))) != nil || cache.Get(digest.FromBytes(content(2*all-1))) == nil {
		t.Error("the newest went")
	}
}
