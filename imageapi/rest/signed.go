package rest

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// EachSigned calls fn with the name of every Image with signatures. It ends with the first error of
// fn. Where the index cannot answer it reads all Images.
func (i *Images) EachSigned(ctx context.Context, fn func(name string) error) error {
	named := func(key string) error { return fn(strings.TrimPrefix(key, KeyPrefix)) }
	err := i.encoded.EachWithTerm(ctx, rules.TermSignatures, named)
	if !errors.Is(err, storage.ErrNoIndex) {
		return err
	}
	return storage.Each(ctx, i.backend, KeyPrefix, false, func(e *storage.Entry) error {
		if !bytes.Contains(e.Value.Body(), []byte(`"signatures":[`)) {
			return nil
		}
		return named(e.Key)
	})
}

// EachPending calls fn with the name of every Image whose signatures are not all verified. It fails
// with storage.ErrNoIndex while the index cannot answer, and ends with the first error of fn.
func (i *Images) EachPending(ctx context.Context, fn func(name string) error) error {
	return i.encoded.EachWithTerm(ctx, rules.TermPending, func(key string) error { return fn(strings.TrimPrefix(key, KeyPrefix)) })
}
