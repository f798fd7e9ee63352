// Package imports reads images of other registries, from those that the operator allows.
//
// # Guarantees
//
// Requests go to registries that are allowed, and to the places that these name: servers of tokens, and
// redirects. Content has the digest by which it was asked for. Plain HTTP and certificates that cannot be
// verified are for registries alone that the operator calls insecure, where a client asks for it.
package imports

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// maxManifest bounds a manifest, in bytes, as distribution does.
const maxManifest = 4 << 20

// Registry is a registry that images may come from.
type Registry struct {
	// Host is its host[:port]. "*" and "?" stand for any characters and any one. Without a port it is 443,
	// or 80, too, of an insecure one.
	Host string
	// Insecure lets clients ask for plain HTTP, or a certificate that cannot be verified.
	Insecure bool
}

// Options configures New.
type Options struct {
	// Allowed are the registries that images may come from. None means no import.
	Allowed []Registry
	// CredentialsFile is a Docker configuration file with credentials for registries, "" for none.
	CredentialsFile string
	// UserAgent is sent with each request.
	UserAgent string
}

// Client reads other registries.
type Client struct {
	allowed        []Registry
	secure, unsafe *auth.Client
}

// New returns a Client. It fails if the file of credentials cannot be read.
func New(o Options) (*Client, error) {
	c := &Client{allowed: o.Allowed, secure: &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // of registries that the operator calls insecure
	c.unsafe = &auth.Client{Client: &http.Client{Transport: retry.NewTransport(transport)}, Cache: auth.NewCache()}
	if o.CredentialsFile != "" {
		store, err := credentials.NewFileStore(o.CredentialsFile)
		if err != nil {
			return nil, err
		}
		c.secure.Credential = credentials.Credential(store)
		c.unsafe.Credential = c.secure.Credential
	}
	for _, client := range []*auth.Client{c.secure, c.unsafe} {
		client.SetUserAgent(o.UserAgent)
	}
	return c, nil
}

// NotAllowedError is the error for a registry that is not allowed.
type NotAllowedError struct{ Host, Allowed string }

// Error implements error.
func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("registry %q not allowed by allow list: %s", e.Host, e.Allowed)
}

// shownHosts is how many allowed registries an error names.
const shownHosts = 5

// allow returns the registry that a host may be reached as, by the first entry of the list with its name.
func (c *Client) allow(host string) (*Registry, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
	}
	for i := range c.allowed {
		entry := &c.allowed[i]
		wantName, wantPort, err := net.SplitHostPort(entry.Host)
		if err != nil {
			wantName, wantPort = entry.Host, ""
		}
		if ok, err := path.Match(wantName, name); err != nil || !ok {
			continue
		}
		switch {
		case wantPort == port, wantPort == "*", wantPort == "" && port == "443", wantPort == "443" && port == "", entry.Insecure && wantPort == "" && port == "80":
			return entry, nil
		}
	}
	var shown []string
	for i := range c.allowed {
		if i == shownHosts {
			shown = append(shown, fmt.Sprintf("and %d more", len(c.allowed)-i))
			break
		}
		shown = append(shown, fmt.Sprintf("%q", c.allowed[i].Host))
	}
	return nil, &NotAllowedError{host, strings.Join(shown, ", ")}
}

// Repository is a repository of another registry.
type Repository struct {
	// Name is its name with the host.
	Name   string
	remote *remote.Repository
	plain  bool // plain HTTP may be tried
}

// Repository returns a repository by its name with the host. insecure asks for an insecure way, where the
// registry has one. It fails with a NotAllowedError.
func (c *Client) Repository(named reference.Named, insecure bool) (*Repository, error) {
	entry, err := c.allow(reference.Domain(named))
	if err != nil {
		return nil, err
	}
	r, err := remote.NewRepository(named.Name())
	if err != nil {
		return nil, err
	}
	r.Client = c.secure
	if insecure && entry.Insecure {
		r.Client = c.unsafe
	}
	return &Repository{named.Name(), r, insecure && entry.Insecure}, nil
}

// Manifest is a manifest as a registry has it.
type Manifest struct {
	MediaType string
	Digest    digest.Digest
	Content   []byte
}

// Manifest returns the manifest of a tag or a digest.
func (r *Repository) Manifest(ctx context.Context, of string) (m *Manifest, err error) {
	err = r.try(func() error {
		m, err = r.manifest(ctx, of)
		return err
	})
	return m, err
}

// try calls fn, again with plain HTTP if that may be and the registry has nothing else.
func (r *Repository) try(fn func() error) error {
	err := fn()
	if r.plain && !r.remote.PlainHTTP && errors.Is(err, http.ErrSchemeMismatch) {
		r.remote.PlainHTTP = true
		err = fn()
	}
	return err
}

func (r *Repository) manifest(ctx context.Context, of string) (*Manifest, error) {
	descriptor, body, err := r.remote.Manifests().FetchReference(ctx, of)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	content, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxManifest:
		return nil, fmt.Errorf("the manifest is larger than %d bytes", maxManifest)
	}
	name := descriptor.Digest.Algorithm().FromBytes(content)
	if asked := digest.Digest(of); name != descriptor.Digest || asked.Validate() == nil && name != asked {
		return nil, fmt.Errorf("the manifest has the digest %s, not %s", name, descriptor.Digest)
	}
	return &Manifest{descriptor.MediaType, name, content}, nil
}

// Blob returns the content of a blob, which is not verified.
func (r *Repository) Blob(ctx context.Context, blob imagespec.Descriptor) (io.ReadCloser, error) {
	return r.remote.Blobs().Fetch(ctx, blob)
}

// Tags returns all tags.
func (r *Repository) Tags(ctx context.Context) (tags []string, err error) {
	err = r.try(func() error {
		return r.remote.Tags(ctx, "", func(page []string) error {
			tags = append(tags, page...)
			return nil
		})
	})
	return tags, err
}

// KindOf returns the HTTP status by which an error is known: 404 for no such image, 401 or 403 for no access,
// 400 for a registry without TLS, and 0 for all else.
func KindOf(err error) int {
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return http.StatusUnauthorized
	case errors.Is(err, http.ErrSchemeMismatch):
		return http.StatusBadRequest
	case errors.As(err, &answer):
		return answer.StatusCode
	}
	return 0
}
