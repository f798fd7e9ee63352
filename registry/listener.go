package registry

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// helloTimeout bounds the wait for a new connection's first byte.
const helloTimeout = time.Minute

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446, 5.1); no
// HTTP request starts with it.
const recordTypeHandshake = 0x16

// eitherListener accepts TLS and plain connections on one port: those that begin
// with a TLS handshake come out as *tls.Conn.
type eitherListener struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn
	failed chan error
	closed chan struct{}
	close  sync.Once
}

// newEitherListener asks clients that speak TLS for a certificate if askForOne is set.
func newEitherListener(inner net.Listener, certificate *tls.Certificate, askForOne bool) net.Listener {
	clientAuth := tls.NoClientCert
	if askForOne {
		clientAuth = tls.RequestClientCert
	}
	l := &eitherListener{
		Listener: inner,
		config: &tls.Config{
			Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: clientAuth,
		},
		ready: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{}),
	}
	go l.run()
	return l
}

func (l *eitherListener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			l.failed <- err
			return
		}
		go l.sort(conn)
	}
}

// sort looks at the first byte, which may be long in coming: not in run.
func (l *eitherListener) sort(conn net.Conn) {
	reader := bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout)) // a connection that has failed fails in Peek
	first, err := reader.Peek(1)
	if err != nil {
		_ = conn.Close() // nothing was asked, so nobody waits for an answer
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	conn = &peekedConn{Conn: conn, reader: reader}
	if first[0] == recordTypeHandshake {
		conn = tls.Server(conn, l.config)
	}
	select {
	case l.ready <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (l *eitherListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	}
}

// Close implements net.Listener.
func (l *eitherListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// peekedConn is a connection some of whose bytes have been read ahead.
type peekedConn struct {
	net.Conn
	reader *bufio.Reader
}

// Read implements net.Conn.
func (c *peekedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
