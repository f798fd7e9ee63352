package registry

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// TestStall: a body that stops coming is given up, over either protocol; one that pauses
// now and then, for less, is not, and neither is one whose server is slow.
func TestStall(t *testing.T) {
	const timeout = 300 * time.Millisecond
	failures := make(chan error, 1)
	server := httptest.NewUnstartedServer(withStallTimeout(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow-server" {
			_, _ = r.Body.Read(make([]byte, 1))
			time.Sleep(2 * timeout)
		}
		_, err := io.Copy(io.Discard, r.Body)
		failures <- err
	}), timeout))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	http2, http1 := server.Client(), &http.Client{Transport: http1Transport(t, server)}
	for name, client := range map[string]*http.Client{"HTTP/1.1": http1, "HTTP/2": http2} {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				path   string
				pause  time.Duration
				stalls bool
			}{
				{"/", timeout / 3, false}, {"/slow-server", 0, false}, {"/", 20 * timeout, true},
			} {
				body, send := io.Pipe()
				stop := make(chan struct{})
				go func() {
					for range 6 {
						if _, err := io.WriteString(send, "part"); err != nil {
							break
						}
						select {
						case <-time.After(test.pause):
						case <-stop:
						}
					}
					_ = send.Close()
				}()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, server.URL+test.path, body)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					if response, err := client.Do(request); err == nil {
						_ = response.Body.Close()
					}
				}()
				err = <-failures
				close(stop)
				if errors.Is(err, os.ErrDeadlineExceeded) != test.stalls || !test.stalls && err != nil {
					t.Errorf("%s with pauses of %s: %v", test.path, test.pause, err)
				}
			}
		})
	}
}

func http1Transport(t *testing.T, server *httptest.Server) *http.Transport {
	t.Helper()
	shared, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no http.Transport")
	}
	transport := shared.Clone()
	transport.ForceAttemptHTTP2 = false
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return transport
}
