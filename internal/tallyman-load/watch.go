package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	added       = `{"type":"ADDED"`
	failed      = `{"type":"ERROR"`
	watchBuffer = 64 << 10
)

// watch records the time from the end of each push or create to its event, which may come first.
func (l *load) watch(_, ending context.Context) {
	for ending.Err() == nil {
		err := l.watchOnce(ending)
		if ending.Err() != nil {
			return
		}
		l.recorder.add("watch", 0, 0, fmt.Errorf("the watch ended: %w", err))
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *load) watchOnce(ctx context.Context) error {
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	got, err := l.client.do(ctx, &request{method: http.MethodGet, path: api + "/images?limit=1", mediaType: accepted["metadata"]}, 1<<20)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(got.start, &list); err != nil {
		return err
	}
	format := accepted[l.options.watched[0]]
	if l.options.watched[0] == "metadata" {
		format = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	response, err := l.client.open(ctx, &request{
		method: http.MethodGet, path: api + "/images?watch=1&resourceVersion=" + list.Metadata.ResourceVersion, mediaType: format,
	})
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return l.readEvents(response.Body)
}

// readEvents reads lines, each an event. It does not decode them, which would cost more than to
// send them does.
func (l *load) readEvents(r io.Reader) error {
	lines := bufio.NewReaderSize(r, watchBuffer)
	for {
		line, err := lines.ReadSlice('\n')
		size := len(line)
		head := bytes.Clone(line[:min(len(line), len(added))])
		name := ""
		for errors.Is(err, bufio.ErrBufferFull) { // a longer one: its name stands in its beginning
			name = cmp.Or(name, findName(line))
			line, err = lines.ReadSlice('\n')
			size += len(line)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		switch string(head) {
		case added:
		case failed:
			return fmt.Errorf("%.500s", line)
		default:
			continue
		}
		took := time.Duration(0) // if the push or create has not ended yet
		if born, ok := l.born.Load(cmp.Or(name, findName(line))); ok {
			took = time.Since(born.(time.Time))
		}
		l.recorder.add("watch", took, int64(size), nil)
	}
}

// findName returns the name of an Image in JSON, "" if it is not in this part.
func findName(part []byte) string {
	if match := nameOfImage.FindSubmatch(part); match != nil {
		return string(match[1])
	}
	return ""
}
