package listener

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446, 5.1); no
// HTTP request starts with it.
const recordTypeHandshake = 0x16

// sniffingListener accepts TLS and plain connections on one port: those that begin
// with a TLS handshake come out as *tls.Conn.
type sniffingListener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration // for the first byte
	ready   chan net.Conn
	failed  chan error
	closed  chan struct{}
	close   sync.Once
}

func newSniffingListener(inner net.Listener, config *tls.Config, timeout time.Duration) *sniffingListener {
	l := &sniffingListener{
		Listener: inner, config: config, timeout: timeout,
		ready: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{}),
	}
	go l.run()
	return l
}

func (l *sniffingListener) run() {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			go l.sort(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Such as too many open files: the server waits a little before it accepts again,
		// and so does this.
		select {
		case l.failed <- err:
		case <-l.closed:
		}
	}
}

// sort looks at the first byte, which may be long in coming: not in run.
func (l *sniffingListener) sort(conn net.Conn) {
	reader := bufio.NewReaderSize(conn, 16)             // the least there is, as many connections say nothing
	_ = conn.SetReadDeadline(time.Now().Add(l.timeout)) // a connection that has failed fails in Peek
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
func (l *sniffingListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *sniffingListener) Close() error {
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
