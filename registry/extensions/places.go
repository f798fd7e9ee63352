package extensions

import (
	"context"
	"sync"
)

const (
	// maxRequests is the number of requests that are answered at a time, because an answer holds up
	// to 3 MiB. Others wait.
	maxRequests = 16
	// maxClientRequests is the number of those of one client: a place is held until the client has read
	// the answer.
	maxClientRequests = 4
)

// places are those of the requests that are answered at a time.
type places struct {
	all     chan struct{}
	mu      sync.Mutex
	clients map[string]*clientPlaces
}

// clientPlaces are those of one client with requests.
type clientPlaces struct {
	taken    chan struct{}
	requests int
}

func newPlaces() *places {
	return &places{all: make(chan struct{}, maxRequests), clients: map[string]*clientPlaces{}}
}

// take waits for a place for a request of client, until ctx ends: then ok is false.
func (p *places) take(ctx context.Context, client string) (free func(), ok bool) {
	own := p.enter(client)
	select {
	case own.taken <- struct{}{}:
	case <-ctx.Done():
		p.leave(client)
		return nil, false
	}
	select {
	case p.all <- struct{}{}:
		return func() {
			<-p.all
			<-own.taken
			p.leave(client)
		}, true
	case <-ctx.Done():
		<-own.taken
		p.leave(client)
		return nil, false
	}
}

func (p *places) enter(client string) *clientPlaces {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.clients[client]
	if own == nil {
		own = &clientPlaces{taken: make(chan struct{}, maxClientRequests)}
		p.clients[client] = own
	}
	own.requests++
	return own
}

func (p *places) leave(client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.clients[client]
	if own.requests--; own.requests == 0 {
		delete(p.clients, client)
	}
}
