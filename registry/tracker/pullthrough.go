package tracker

import (
	"context"

	"tallyman/registry/journal"

	"github.com/opencontainers/go-digest"
)

// BlobArrived looks whether an Image waits for this config.
func (t *Tracker) BlobArrived(config digest.Digest) {
	t.mu.Lock()
	waiting := t.awaiting[config]
	delete(t.awaiting, config)
	t.mu.Unlock()
	for _, m := range waiting {
		ctx, cancel := detached(context.Background())
		if err := t.sync(ctx, m, t.imagesByTag(ctx)); err != nil {
			_ = t.handleFailure(ctx, m, err)
		}
		cancel()
	}
}

func (t *Tracker) await(config digest.Digest, m journal.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 10_000 // a client may fetch manifests only; start-up looks again
	if len(t.awaiting) < most {
		t.awaiting[config] = append(t.awaiting[config], m)
	}
}
