package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/imageapi/derive"
	"tallyman/internal/crash"
	"tallyman/signatures"
)

// maxConfig is the largest config that is read; a larger one counts as absent.
const maxConfig = 4 << 20

// permanentError is a failure that trying again will not mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool {
	var permanent permanentError
	var panicked *crash.Error // the same input would panic again
	return errors.As(err, &permanent) || errors.As(err, &panicked) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// record derives the Image of a manifest that repo holds, and stores it.
func (r *Recorder) record(ctx context.Context, repo distribution.Repository, name digest.Digest, parsed *signatures.Manifest, payload []byte, host, tag string) error {
	start := time.Now()
	if parsed.Subject != "" {
		if err := r.recordReferrer(ctx, repo, name, payload, parsed); err != nil {
			return err
		}
	}
	if !parsed.HasImage() {
		return r.recordWithoutImage(ctx, repo.Named().Name(), name, tag, parsed, start)
	}
	push := imageapi.Push{Repository: repo.Named().Name(), Digest: name, MediaType: parsed.MediaType, Manifest: payload, Host: host}
	config, hasConfig := configOf(payload)
	if hasConfig {
		var err error
		if push.Config, err = readBlob(ctx, repo, config, maxConfig); err != nil {
			return err
		}
	}
	derived, err := r.derive(ctx, push)
	if err != nil {
		return permanentError{err}
	}
	deriveTime := time.Since(start)
	derivationSeconds.Observe(deriveTime.Seconds())
	if err := r.options.Writer.Record(ctx, push, derived); err != nil {
		return err
	}
	if hasConfig && push.Config == nil && r.options.PullThrough {
		r.await(config, entry{Repository: push.Repository, Digest: name, Host: host})
	}
	recordedTotal.WithLabelValues("recorded").Inc()
	log(ctx).Info("image recorded",
		"repository", push.Repository, "tag", tag, "digest", name.String(), "kind", kindOf(derived),
		"derive", deriveTime.Round(time.Microsecond).String(), "total", time.Since(start).Round(time.Microsecond).String())
	return nil
}

// recordWithoutImage makes sure that a signature or attestation has no Image of its own, as it
// had before the server knew signatures.
func (r *Recorder) recordWithoutImage(ctx context.Context, repository string, name digest.Digest, tag string, m *signatures.Manifest, start time.Time) error {
	if err := r.options.Writer.Remove(ctx, repository, name); err != nil {
		return err
	}
	recordedTotal.WithLabelValues("recorded").Inc()
	log(ctx).Info("manifest about an image recorded",
		"repository", repository, "tag", tag, "digest", name.String(), "kind", string(m.Kind), "subject", m.Subject.String(),
		"total", time.Since(start).Round(time.Microsecond).String())
	return nil
}

// derive derives the Image, without its config if that is not the blob that the
// manifest names.
func (r *Recorder) derive(ctx context.Context, push imageapi.Push) (*imagev1.Image, error) {
	derived, err := r.options.Writer.Derive(push)
	if err == nil || push.Config == nil {
		return derived, err
	}
	log(ctx).Warn("image derived without its config", "repository", push.Repository, "digest", push.Digest.String(), "err", err)
	push.Config = nil
	return r.options.Writer.Derive(push)
}

// configOf returns the digest of the config that a manifest names.
func configOf(manifest []byte) (config digest.Digest, ok bool) {
	var m struct {
		Config struct {
			Digest digest.Digest `json:"digest"`
		} `json:"config"`
	}
	if json.Unmarshal(manifest, &m) != nil || m.Config.Digest.Validate() != nil {
		return "", false
	}
	return m.Config.Digest, true
}

// readBlob returns nil for a blob that is not there or larger than most.
func readBlob(ctx context.Context, repo distribution.Repository, name digest.Digest, most int64) ([]byte, error) {
	store := repo.Blobs(ctx)
	stat, err := store.Stat(ctx, name)
	if errors.Is(err, distribution.ErrBlobUnknown) || (err == nil && stat.Size > most) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", name, err)
	}
	content, err := store.Get(ctx, name)
	if errors.Is(err, distribution.ErrBlobUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", name, err)
	}
	if content == nil {
		content = []byte{}
	}
	return content, nil
}

// kindOf names the kind of a pushed manifest, for the log.
func kindOf(image *imagev1.Image) string {
	if artifact := image.Annotations[derive.AnnotationArtifactType]; artifact != "" {
		return artifact
	}
	return image.DockerImageManifestMediaType
}
