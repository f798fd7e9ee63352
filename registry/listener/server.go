// Package listener listens on the one port of the registry and the API. It holds the listener,
// TLS with certificates that are reloaded when they change, and bounds on connections.
//
// # Guarantees
//
// A silent or slow connection delays no other and is closed in time. An invalid certificate
// file changes nothing.
package listener

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// headerTimeout bounds the wait for a new connection's first byte, for its TLS
	// handshake and for the header of a request.
	headerTimeout = 30 * time.Second
	// idleTimeout ends connections between requests. Load balancers that keep
	// connections must be the first to close them, or a request meets a connection
	// that is being closed; the most patient keep them 10 minutes.
	idleTimeout = 11 * time.Minute
	// maxStreams is how many requests one HTTP/2 connection may have at a time, as
	// many as net/http's own default.
	maxStreams = 250
)

// Options configures New.
type Options struct {
	// Listener accepts connections. Required. The Server closes it.
	Listener net.Listener
	// Handler answers requests. Required.
	Handler http.Handler
	// DisableHTTP2 leaves HTTP/1.1 only; UnencryptedHTTP2 takes HTTP/2 without TLS too.
	DisableHTTP2, UnencryptedHTTP2 bool
	// TLS says how TLS is served.
	TLS TLS

	headerTimeout time.Duration // for tests; zero is headerTimeout
}

// Server answers requests on one port. Create it with New.
type Server struct {
	http     *http.Server
	listener net.Listener
	tls      *tlsConfig
}

// New reads the certificates. Errors name the key of the configuration that is at
// fault.
func New(o Options) (*Server, error) {
	t, err := newTLS(&o.TLS, o.DisableHTTP2)
	if err != nil {
		return nil, err
	}
	timeout := cmp.Or(o.headerTimeout, headerTimeout)
	s := &Server{listener: o.Listener, tls: t, http: &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: timeout,
		IdleTimeout:       idleTimeout,
		Protocols:         protocols(&o),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          log.New(errorLog{handshake: handshakeLevel(&o.TLS)}, "", 0),
	}}
	switch {
	case t == nil:
	case o.TLS.plain():
		s.listener = newSniffingListener(o.Listener, t.config, timeout)
	default:
		s.listener = tls.NewListener(o.Listener, t.config)
	}
	return s, nil
}

func protocols(o *Options) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(!o.DisableHTTP2)
	p.SetUnencryptedHTTP2(o.UnencryptedHTTP2 && !o.DisableHTTP2)
	return p
}

// handshakeLevel is how a TLS handshake that fails is logged: where plain HTTP is spoken
// too, container tools try TLS first and do not like a generated certificate.
func handshakeLevel(o *TLS) slog.Level {
	if o.plain() {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// errorLog writes the messages of net/http: of handshakes, which fail at the client's will,
// and of real faults such as a panic.
type errorLog struct{ handshake slog.Level }

// Write implements io.Writer for one message.
func (l errorLog) Write(message []byte) (int, error) {
	level := slog.LevelError
	if bytes.HasPrefix(message, []byte("http: TLS handshake error")) {
		level = l.handshake
	}
	slog.Log(context.Background(), level, string(bytes.TrimSpace(message)))
	return len(message), nil
}

// Serve answers requests until Shutdown, and reads certificates again when they
// change until ctx ends. It returns http.ErrServerClosed after Shutdown.
func (s *Server) Serve(ctx context.Context) error {
	kind := "http"
	if s.tls != nil {
		s.tls.run(ctx)
		kind = "https"
	}
	if _, both := s.listener.(*sniffingListener); both {
		kind = "http and https"
	}
	slog.Info("listening", "address", s.listener.Addr().String(), "protocol", kind)
	return s.http.Serve(s.listener)
}

// Shutdown takes no more requests and waits for those in flight, until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("close connections: %w", err)
	}
	return nil
}
