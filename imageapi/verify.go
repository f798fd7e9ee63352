package imageapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/internal/crash"
	"tallyman/storage"
)

// VerifyAll updates the signatures of all Images, by the content of repositories and by the
// present policies: after a policy has changed, or as time has passed. It returns the number
// of Images with signatures. An Image that cannot be written is logged and passed over;
// VerifyAll ends early if the store cannot be read.
func (w *Writer) VerifyAll(ctx context.Context) (signed int, err error) {
	sign := func(name digest.Digest) error {
		signed++
		if err := crash.Guard("signature verification", func() error { return w.RefreshSignatures(ctx, name) }); err != nil {
			slog.WarnContext(ctx, "signature verification failed", "digest", name.String(), "err", err)
		}
		return ctx.Err()
	}
	var last digest.Digest
	err = eachEntry(ctx, w.images.backend, referrerPrefix, true, func(e *storage.Entry) error {
		subject, _, _ := strings.Cut(strings.TrimPrefix(e.Key, referrerPrefix), "/")
		if digest.Digest(subject) == last {
			return nil
		}
		last = digest.Digest(subject)
		return sign(last)
	})
	if err != nil {
		return signed, err
	}
	err = eachEntry(ctx, w.images.backend, KeyPrefix, false, func(e *storage.Entry) error {
		if !bytes.Contains(e.Value.Body(), []byte(`"signatures":[`)) {
			return nil
		}
		return sign(digest.Digest(strings.TrimPrefix(e.Key, KeyPrefix)))
	})
	return signed, err
}

// eachEntry calls fn with every entry whose key starts with prefix, page by page. Pages are
// small because an Image may be large.
func eachEntry(ctx context.Context, s Scanner, prefix string, keysOnly bool, fn func(*storage.Entry) error) error {
	page := 32
	if keysOnly {
		page = 500
	}
	request := storage.ScanRequest{From: prefix, To: prefix + "\xff", Limit: page, KeysOnly: keysOnly}
	for {
		result, err := s.Scan(ctx, request)
		if err != nil {
			return err
		}
		for i := range result.Entries {
			if err := fn(&result.Entries[i]); err != nil {
				return err
			}
		}
		if !result.More {
			return nil
		}
		request.From = result.Entries[len(result.Entries)-1].Key + "\x00"
	}
}

// Scanner is a store that can be read through in order of its keys.
type Scanner interface {
	Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error)
}

// FindStored returns the Image called name, if name is not empty, or else the one that
// repository's tag points to; nil if there is none. It goes over the store for a tag.
func FindStored(ctx context.Context, s Scanner, repository, tag string, name digest.Digest) (found *imagev1.Image, err error) {
	err = eachEntry(ctx, s, KeyPrefix+name.String(), false, func(e *storage.Entry) error {
		if name == "" && !bytes.Contains(e.Value.Body(), []byte(repository+":"+tag)) {
			return nil
		}
		image := &imagev1.Image{}
		if err := runtime.DecodeInto(Codecs.LegacyCodec(imagev1.GroupVersion), e.Value.Body(), image); err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		if slices.Contains(Repositories(image), repository) && (image.Name == name.String() || name == "" && slices.Contains(Tags(image), repository+":"+tag)) {
			found = image
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

var errFound = errors.New("found")
