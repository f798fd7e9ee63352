package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// api is the root of the Image API.
const api = "/apis/image.openshift.io/v1"

// Everything is pushed to one repository of the run, and one tag is moved.
const movedTag = "moved"

// load is the load on one target.
type load struct {
	options    *options
	target     *target
	client     *client
	repository string
	hasAPI     bool
	recorder   recorder
	processes  processes
	pushed     []*image  // before the load
	moved      [2]*image // by movedTag
	moves      atomic.Int64
	pushes     sync.Map // digest to the time at the end of its push
	reads      atomic.Int64
	lists      atomic.Int64
}

func newLoad(o *options, t *target) *load {
	return &load{options: o, target: t, client: newClient(t), repository: fmt.Sprintf("load/run-%x", time.Now().UnixNano()), processes: processes{pids: t.pids}}
}

// prepare pushes the images that are there before the load, and looks for the API.
func (l *load) prepare(ctx context.Context) error {
	_, err := l.client.do(ctx, http.MethodGet, api, "", nil)
	l.hasAPI = err == nil
	for n := range l.options.images {
		i := newImage(l.options.layerBytes)
		if err := l.push(ctx, fmt.Sprint("before-", n), i); err != nil {
			return err
		}
		l.pushed = append(l.pushed, i)
	}
	for n := range l.moved {
		l.moved[n] = newImage(l.options.layerBytes)
		if err := l.push(ctx, movedTag, l.moved[n]); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) push(ctx context.Context, tag string, i *image) error {
	for _, blob := range [][]byte{i.config, i.layer} {
		if err := l.client.pushBlob(ctx, l.repository, blob); err != nil {
			return err
		}
	}
	err := l.client.putManifest(ctx, l.repository, tag, i.manifest)
	l.pushes.Store(i.digest(), time.Now())
	return err
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
	case "repushers":
		return l.repeat(l.moveTag), false
	case "pullers":
		return l.repeat(l.pullOne), false
	case "getters":
		return l.repeat(l.getOne), true
	case "listers":
		return l.repeat(l.listAll), true
	}
	return l.watch, true
}

// repeat does an operation again and again. It returns the operation's name, and the time at which
// it began to count.
func (l *load) repeat(operation func(context.Context) (string, time.Time, error)) func(ctx, ending context.Context) {
	return func(ctx, ending context.Context) {
		for ending.Err() == nil {
			name, start, err := operation(ctx)
			if full := l.recorder.add(name, time.Since(start), err) >= l.options.most; full {
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

func (l *load) pushNew(ctx context.Context) (string, time.Time, error) {
	i := newImage(l.options.layerBytes)
	start := time.Now()
	return "push", start, l.push(ctx, "t-"+i.digest()[7:19], i)
}

func (l *load) moveTag(ctx context.Context) (string, time.Time, error) {
	to, start := l.moved[l.moves.Add(1)%2], time.Now()
	return "move tag", start, l.client.putManifest(ctx, l.repository, movedTag, to.manifest)
}

func (l *load) pullOne(ctx context.Context) (string, time.Time, error) {
	n := int(l.reads.Add(1)) % len(l.pushed)
	start := time.Now()
	return "pull", start, l.client.pull(ctx, l.repository, fmt.Sprint("before-", n), l.pushed[n])
}

func (l *load) getOne(ctx context.Context) (string, time.Time, error) {
	n := int(l.reads.Add(1)) % len(l.pushed)
	start := time.Now()
	_, err := l.client.do(ctx, http.MethodGet, api+"/images/"+l.pushed[n].digest(), accepted["json"], nil)
	return "get", start, err
}

func (l *load) listAll(ctx context.Context) (string, time.Time, error) {
	format := l.options.formats[int(l.lists.Add(1))%len(l.options.formats)]
	start := time.Now()
	_, err := l.client.do(ctx, http.MethodGet, api+"/images", accepted[format], nil)
	return "list " + format, start, err
}

// watch records the time from the end of each push to its event, which may come first.
func (l *load) watch(_, ending context.Context) {
	for ending.Err() == nil {
		err := l.watchOnce(ending)
		if ending.Err() != nil {
			return
		}
		l.recorder.add("watch", 0, fmt.Errorf("the watch ended: %w", err))
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *load) watchOnce(ctx context.Context) error {
	const metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	response, err := l.client.open(ctx, http.MethodGet, api+"/images?limit=1", accepted["metadata"], nil)
	if err != nil {
		return err
	}
	err = json.NewDecoder(response.Body).Decode(&list)
	_ = response.Body.Close()
	if err != nil {
		return err
	}
	response, err = l.client.open(ctx, http.MethodGet, api+"/images?watch=1&resourceVersion="+list.Metadata.ResourceVersion, metadata, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	events := json.NewDecoder(response.Body)
	for {
		var event struct {
			Type   string
			Object struct{ Metadata struct{ Name string } }
		}
		if err := events.Decode(&event); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		if event.Type != "ADDED" {
			continue
		}
		took := time.Duration(0) // if the push has not ended yet
		if pushed, ok := l.pushes.Load(event.Object.Metadata.Name); ok {
			took = time.Since(pushed.(time.Time))
		}
		l.recorder.add("watch", took, nil)
	}
}
