package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load is the load on one target.
type load struct {
	options    *options
	target     *target
	client     *client
	repository string
	hasAPI     bool
	recorder   recorder
	processes  processes
	pushed     []*image    // before the load
	names      []string    // of Images that were there before the load
	mine       chan string // names of those that were created before the load
	moved      [2]*image   // by movedTag
	moves      atomic.Int64
	born       sync.Map // name of an Image to the time at the end of its push or create
	reads      atomic.Int64
	lists      atomic.Int64
}

// done is an operation that has ended.
type done struct {
	name  string
	start time.Time // when it began to count
	bytes int64     // of the answer
	// full says that nothing was done and nothing is left to do.
	full bool
}

func newLoad(o *options, t *target) *load {
	return &load{
		options: o, target: t, client: newClient(t), repository: fmt.Sprintf("load/run-%x", time.Now().UnixNano()),
		processes: processes{pids: t.pids}, mine: make(chan string, o.created),
	}
}

// prepare looks for the API, and pushes and creates what is there before the load.
func (l *load) prepare(ctx context.Context) error {
	_, err := l.client.do(ctx, &request{method: http.MethodGet, path: api}, 0)
	l.hasAPI = err == nil
	if err := l.pushBefore(ctx); err != nil {
		return err
	}
	if !l.hasAPI {
		return nil
	}
	first, then := l.createBefore, l.findImages
	if *l.options.workers["deleters"] > 0 { // Images that they delete are not got
		first, then = then, first
	}
	if err := first(ctx); err != nil {
		return err
	}
	return then(ctx)
}

// turn runs all workers for a time.
func (l *load) turn(ctx context.Context, duration time.Duration) error {
	if err := l.processes.begin(); err != nil {
		return err
	}
	ending, stop := context.WithTimeout(ctx, duration)
	defer stop()
	start := time.Now()
	var workers sync.WaitGroup
	for _, kind := range kinds {
		operation, needsAPI := l.operation(kind.name)
		if needsAPI && !l.hasAPI {
			continue
		}
		for range *l.options.workers[kind.name] {
			workers.Go(func() { operation(ctx, ending) })
		}
	}
	workers.Wait()
	l.recorder.time += time.Since(start)
	return errors.Join(l.processes.end(), ctx.Err())
}

// operation returns the work of a kind of worker. It starts nothing new after ending.
func (l *load) operation(kind string) (work func(ctx, ending context.Context), needsAPI bool) {
	switch kind {
	case "pushers":
		return l.repeat(l.pushNew), false
	case "putters":
		return l.repeat(l.putNew), false
	case "repushers":
		return l.repeat(l.moveTag), false
	case "pullers":
		return l.repeat(l.pullOne), false
	case "getters":
		return l.repeat(l.getOne), true
	case "listers":
		return l.repeat(l.listAll), true
	case "creators":
		return l.repeat(l.createOne), true
	case "deleters":
		return l.repeat(l.deleteOne), true
	}
	return l.watch, true
}

// repeat does an operation again and again.
func (l *load) repeat(operation func(context.Context) (done, error)) func(ctx, ending context.Context) {
	return func(ctx, ending context.Context) {
		for ending.Err() == nil {
			did, err := operation(ctx)
			if did.full || l.recorder.add(did.name, time.Since(did.start), did.bytes, err) >= l.options.most {
				return
			}
			if err != nil { // such as a registry that is gone
				select {
				case <-ending.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}
	}
}
