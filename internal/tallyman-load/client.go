package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// client sends requests to a target.
type client struct {
	target *target
	http   *http.Client
}

func newClient(t *target) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1000 // one for each worker, and none is dialed in the load
	return &client{target: t, http: &http.Client{Transport: transport}}
}

// open sends a request and returns the answer, whose status is below 400.
func (c *client) open(ctx context.Context, method, path, mediaType string, body []byte) (*http.Response, error) {
	where := path
	if strings.HasPrefix(path, "/") {
		where = c.target.url + path
	}
	request, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(body)) //nolint:gosec // it goes where the user says
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		request.Header.Set("Accept", mediaType)
		request.Header.Set("Content-Type", mediaType)
	}
	if c.target.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.target.token)
	}
	response, err := c.http.Do(request) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // as much as there is says why
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(text))
	}
	return response, nil
}

// do is open for an answer that is read to its end, and returns its Location.
func (c *client) do(ctx context.Context, method, path, mediaType string, body []byte) (location string, err error) {
	response, err := c.open(ctx, method, path, mediaType, body)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	return response.Header.Get("Location"), nil
}

// pushBlob uploads content in one piece.
func (c *client) pushBlob(ctx context.Context, repository string, content []byte) error {
	location, err := c.do(ctx, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	_, err = c.do(ctx, http.MethodPut, location+separator+"digest="+digest.FromBytes(content).String(), "application/octet-stream", content)
	return err
}

func (c *client) putManifest(ctx context.Context, repository, tag string, manifest []byte) error {
	_, err := c.do(ctx, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, imagespec.MediaTypeImageManifest, manifest)
	return err
}

// pull reads a manifest by tag, and its blobs.
func (c *client) pull(ctx context.Context, repository, tag string, i *image) error {
	if _, err := c.do(ctx, http.MethodGet, "/v2/"+repository+"/manifests/"+tag, imagespec.MediaTypeImageManifest, nil); err != nil {
		return err
	}
	for _, blob := range [][]byte{i.config, i.layer} {
		if _, err := c.do(ctx, http.MethodGet, "/v2/"+repository+"/blobs/"+digest.FromBytes(blob).String(), "", nil); err != nil {
			return err
		}
	}
	return nil
}
