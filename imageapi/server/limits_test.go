package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"tallyman/imageapi"
)

// limited serves requests that wait until they are let go, under limits.
type limited struct {
	t       *testing.T
	handler http.Handler
	arrived chan struct{}
	letGo   chan struct{}
}

func newLimited(t *testing.T, l Limits) *limited {
	f := &limited{t: t, arrived: make(chan struct{}), letGo: make(chan struct{})}
	c := server.NewConfig(imageapi.Codecs)
	f.handler = withLimits(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "begun") {
			utilflowcontrol.WatchInitialized(r.Context())
		}
		f.arrived <- struct{}{}
		<-f.letGo
	}), &l, c)
	return f
}

// ask sends a request and returns its status, or 0 if it is in flight.
func (f *limited) ask(target, name, address string, groups ...string) int {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = address
	info, err := server.NewRequestInfoResolver(server.NewConfig(imageapi.Codecs)).NewRequestInfo(r)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx := request.WithRequestInfo(r.Context(), info)
	r = r.WithContext(request.WithUser(ctx, &user.DefaultInfo{Name: name, Groups: groups}))
	w, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		f.handler.ServeHTTP(w, r)
		close(done)
	}()
	select {
	case <-f.arrived:
		return 0
	case <-done:
		if w.Code == http.StatusTooManyRequests && (w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), `"reason":"TooManyRequests"`)) {
			f.t.Errorf("429 is %v %s", w.Header(), w.Body)
		}
		return w.Code
	}
}

// TestLimits: excess requests are 429, for that user or for all; administrators and health
// checks are let through; requests that end make room.
func TestLimits(t *testing.T) {
	const get, begin, watch = "/apis/image.openshift.io/v1/images/a", "/apis/image.openshift.io/v1/images?watch=1", "/apis/image.openshift.io/v1/images?watch=1&begun"
	type ask struct {
		target, name, address string
		groups                []string
		want                  int
	}
	for name, test := range map[string]struct {
		limits Limits
		asks   []ask
	}{
		"one user's requests": {Limits{RequestsPerUser: 1, WatchesPerUser: 1}, []ask{
			{target: get, name: "a"}, {target: get, name: "a", want: 429}, {target: get, name: "b"}, {target: watch, name: "a"},
		}},
		"no limits": {Limits{}, []ask{{target: get, name: "a"}, {target: get, name: "a"}, {target: watch, name: "a"}, {target: watch, name: "a"}}},
		"one user's watches": {Limits{WatchesPerUser: 1}, []ask{
			{target: watch, name: "a"}, {target: watch, name: "a", want: 429}, {target: watch, name: "b"}, {target: get, name: "a"},
		}},
		"all watches": {Limits{Watches: 2}, []ask{
			{target: watch, name: "a"}, {target: watch, name: "b"}, {target: watch, name: "c", want: 429}, {target: get, name: "c"},
		}},
		"watches that have yet to send what there is": {Limits{RequestsPerUser: 1}, []ask{
			{target: watch, name: "a"}, {target: begin, name: "a"}, {target: begin, name: "a", want: 429}, {target: watch, name: "b"}, {target: watch, name: "b"},
		}},
		"a watch that was refused does not count": {Limits{RequestsPerUser: 1, Watches: 2}, []ask{
			{target: begin, name: "a"}, {target: begin, name: "a", want: 429}, {target: watch, name: "b"}, {target: watch, name: "c", want: 429},
		}},
		"addresses without credentials": {Limits{RequestsPerUser: 1}, []ask{
			{target: get, name: user.Anonymous, address: "10.0.0.1:1"}, {target: get, name: user.Anonymous, address: "10.0.0.1:2", want: 429},
			{target: get, name: user.Anonymous, address: "10.0.0.2:1"}, {target: get, name: user.Anonymous, address: "@"},
		}},
		"administrators and health": {Limits{RequestsPerUser: 1}, []ask{
			{target: get, name: "a", groups: []string{user.SystemPrivilegedGroup}}, {target: get, name: "a", groups: []string{user.SystemPrivilegedGroup}},
			{target: get, name: "a"}, {target: "/readyz", name: "a"}, {target: "/livez", name: "a"}, {target: "/readyz/store", name: "a"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLimited(t, test.limits)
			for i, a := range test.asks {
				if got := f.ask(a.target, a.name, a.address, a.groups...); got != a.want {
					t.Errorf("request %d, %s by %s: %d, want %d", i, a.target, a.name, got, a.want)
				}
			}
			close(f.letGo)
		})
	}
	f := newLimited(t, Limits{RequestsPerUser: 1, WatchesPerUser: 1})
	for range 3 {
		for _, target := range []string{get, begin} {
			if got := f.ask(target, "a", ""); got != 0 {
				t.Fatalf("%s after the last has ended: %d", target, got)
			}
			f.letGo <- struct{}{}
			time.Sleep(20 * time.Millisecond) // for it to leave
		}
	}
}

// TestDeadlines: a body that does not arrive is 408, an answer that is not taken is
// given up, and an answer with pauses of the server's own is not.
func TestDeadlines(t *testing.T) {
	const timeout = 300 * time.Millisecond
	written := make(chan error, 1)
	handler := withDeadlines(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			var status apierrors.APIStatus
			if !errors.As(err, &status) {
				t.Errorf("a slow body is %v", err)
				return
			}
			http.Error(w, status.Status().Message, int(status.Status().Code))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/pauses") {
			for range 3 {
				time.Sleep(timeout * 3 / 2)
				_, _ = io.WriteString(w, "part")
				if r.URL.Path == "/pauses/flushed" {
					w.(http.Flusher).Flush()
				}
			}
			if err := r.Context().Err(); err != nil {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
			return
		}
		part := bytes.Repeat([]byte("x"), 4<<20)
		var err error
		for err == nil {
			_, err = w.Write(part)
		}
		written <- err
	}), &Limits{BodyTimeout: timeout, WriteTimeout: timeout})
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(handler)
	defer plain.Close()
	for name, s := range map[string]*httptest.Server{"HTTP/1.1": plain, "HTTP/2": server} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/pauses", "/pauses/flushed"} {
				response, err := s.Client().Get(s.URL + path)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(response.Body); err != nil || string(body) != "partpartpart" {
					t.Errorf("%s: %q, %v", path, body, err)
				}
				_ = response.Body.Close()
			}

			body, send := io.Pipe()
			go func() { _, _ = io.WriteString(send, "{") }()
			response, err := s.Client().Post(s.URL, "application/json", body)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(response.Body); response.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(text), "did not arrive within 300ms") {
				t.Errorf("a slow body: %s %s, %v", response.Status, text, err)
			}
			_ = send.Close()
			_ = response.Body.Close()

			response, err = s.Client().Get(s.URL + "/endless")
			if err != nil {
				t.Fatal(err)
			}
			if err := <-written; err == nil {
				t.Error("an answer that nobody takes was written")
			}
			_ = response.Body.Close()
		})
	}
	// A deadline for a body is over with it: the connection serves later requests.
	conn, err := net.Dial("tcp", strings.TrimPrefix(plain.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for range 2 {
		if _, err := io.WriteString(conn, "POST /pauses HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "partpartpart" {
			t.Errorf("after a body: %q, %v", body, err)
		}
	}
}
