package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// client sends requests to a target.
type client struct {
	target *target
	http   *http.Client
}

// answer is one that was read to its end.
type answer struct {
	location string
	bytes    int64
	// start has the first bytes, as far as they were asked for, and end the last ones behind those.
	start, end []byte
}

// tail is an io.Writer that keeps the last bytes.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if more := len(*t) - tailSize; more > tailSize {
		*t = append((*t)[:0], (*t)[more:]...)
	}
	return len(p), nil
}

// tailSize is how many of the last bytes of an answer are kept.
const tailSize = 64 << 10

func newClient(t *target) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1000 // one for each worker, and none is dialed in the load
	transport.DisableCompression = true  // what is compressed is not unpacked
	transport.TLSClientConfig = &tls.Config{RootCAs: t.authorities, MinVersion: tls.VersionTLS12}
	return &client{target: t, http: &http.Client{Transport: transport}}
}

// request is a request for open. A path that does not begin with a slash is a whole URL.
type request struct {
	method, path string
	// mediaType is that of the body, if there is one, and the one that is accepted.
	mediaType string
	gzip      bool // is accepted
	body      []byte
}

// open sends a request and returns the answer, whose status is below 400.
func (c *client) open(ctx context.Context, r *request) (*http.Response, error) {
	where := r.path
	if strings.HasPrefix(where, "/") {
		where = c.target.url + where
	}
	request, err := http.NewRequestWithContext(ctx, r.method, where, bytes.NewReader(r.body)) //nolint:gosec // it goes where the user says
	if err != nil {
		return nil, err
	}
	if r.mediaType != "" {
		request.Header.Set("Accept", r.mediaType)
		request.Header.Set("Content-Type", r.mediaType)
	}
	if r.gzip {
		request.Header.Set("Accept-Encoding", "gzip")
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
		return nil, fmt.Errorf("%s %s: %s: %s", r.method, r.path, response.Status, bytes.TrimSpace(text))
	}
	return response, nil
}

// do is open for an answer that is read to its end. It keeps the first bytes of the answer and, unless that
// is 0, the last ones.
func (c *client) do(ctx context.Context, r *request, keep int64) (answer, error) {
	response, err := c.open(ctx, r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	start, err := io.ReadAll(io.LimitReader(response.Body, keep))
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	var end tail
	var rest int64
	if keep > 0 {
		rest, err = io.Copy(&end, response.Body)
	} else {
		rest, err = io.Copy(io.Discard, response.Body)
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	return answer{response.Header.Get("Location"), int64(len(start)) + rest, start, end}, nil
}
