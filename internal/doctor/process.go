package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
)

// checkProcess asks the running process how it is. It answers that to everybody.
func checkProcess(ctx context.Context, r *report, o *Options) {
	if o.Config.Registry.HTTP.Net == "unix" {
		r.ok("it serves a socket, which is not asked")
		return
	}
	scheme := "http"
	if o.Config.HasCertificate() {
		scheme = "https"
	}
	code, body, err := ask(ctx, o, scheme+"://"+o.Address+"/readyz?verbose")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		r.warn("tallyman serve", "no process serves %s", o.Address)
		return
	case err != nil:
		r.fail("http.addr", "%s does not answer: %v", o.Address, err)
		return
	case code == http.StatusNotFound:
		r.fail("http.addr: a port of its own, or stop the other program", "another program serves %s", o.Address)
		return
	}
	_, store, err := ask(ctx, o, scheme+"://"+o.Address+"/readyz/store")
	if err == nil {
		body += store
	}
	found := false
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		name, failing := strings.CutPrefix(line, "[-]")
		switch {
		case failing:
			r.fail("the log of the process says why", "the process is not ready: %s", name)
			found = true
		case strings.HasPrefix(line, "[+]resync ("):
			r.fail("see whether the registry's storage is whole; if so, tallyman store resync --confirm", "%s", strings.TrimSuffix(strings.TrimPrefix(line, "[+]"), " ok"))
			found = true
		case strings.HasPrefix(line, "[+]index ("):
			r.warn("wait: lists with selectors read every Image until then", "%s", strings.TrimSuffix(strings.TrimPrefix(line, "[+]"), " ok"))
			found = true
		}
	}
	switch {
	case code != http.StatusOK && !found:
		r.fail("the log of the process says why", "the process is not ready: %d %s", code, strings.TrimSpace(body))
	case !found:
		r.ok("the process at %s is ready", o.Address)
	}
}

// ask sends a GET to the process, whose certificate is for another name.
func ask(ctx context.Context, o *Options, url string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it sends nothing secret
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, "", err
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, string(content), errors.Join(err, response.Body.Close())
}
