package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Everything is pushed to one repository of the run, and one tag is moved.
const movedTag = "moved"

// pushBefore pushes the images that are there before the load.
func (l *load) pushBefore(ctx context.Context) error {
	for n := range l.options.images {
		i := newImage(l.options.layerBytes)
		if err := l.push(ctx, fmt.Sprint("before-", n), i); err != nil {
			return err
		}
		l.pushed = append(l.pushed, i)
		l.names = append(l.names, l.target.imageName(i.digest()))
	}
	if l.options.images == 0 {
		return nil
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
		if err := l.pushBlob(ctx, blob); err != nil {
			return err
		}
	}
	return l.putManifest(ctx, tag, i)
}

// pushBlob uploads content in one piece.
func (l *load) pushBlob(ctx context.Context, content []byte) error {
	begun, err := l.client.do(ctx, &request{method: http.MethodPost, path: "/v2/" + l.repository + "/blobs/uploads/"}, 0)
	if err != nil {
		return err
	}
	separator := "?"
	if strings.Contains(begun.location, "?") {
		separator = "&"
	}
	_, err = l.client.do(ctx, &request{
		method: http.MethodPut, path: begun.location + separator + "digest=" + digest.FromBytes(content).String(),
		mediaType: "application/octet-stream", body: content,
	}, 0)
	return err
}

func (l *load) putManifest(ctx context.Context, tag string, i *image) error {
	_, err := l.client.do(ctx, &request{
		method: http.MethodPut, path: "/v2/" + l.repository + "/manifests/" + tag, mediaType: imagespec.MediaTypeImageManifest, body: i.manifest,
	}, 0)
	l.born.Store(l.target.imageName(i.digest()), time.Now())
	return err
}

func (l *load) pushNew(ctx context.Context) (done, error) {
	i := newImage(l.options.layerBytes)
	start := time.Now()
	return done{name: "push", start: start}, l.push(ctx, "t-"+i.digest()[7:19], i)
}

func (l *load) putNew(ctx context.Context) (done, error) {
	i := l.pushed[int(l.reads.Add(1))%len(l.pushed)].again()
	start := time.Now()
	return done{name: "put manifest", start: start}, l.putManifest(ctx, "m-"+i.digest()[7:19], i)
}

func (l *load) moveTag(ctx context.Context) (done, error) {
	to, start := l.moved[l.moves.Add(1)%2], time.Now()
	return done{name: "move tag", start: start}, l.putManifest(ctx, movedTag, to)
}

// pullOne reads a manifest by tag, and its blobs.
func (l *load) pullOne(ctx context.Context) (done, error) {
	n := int(l.reads.Add(1)) % len(l.pushed)
	pull, i := done{name: "pull", start: time.Now()}, l.pushed[n]
	root := "/v2/" + l.repository
	got, err := l.client.do(ctx, &request{method: http.MethodGet, path: fmt.Sprint(root, "/manifests/before-", n), mediaType: imagespec.MediaTypeImageManifest}, 0)
	pull.bytes = got.bytes
	for _, blob := range [][]byte{i.config, i.layer} {
		if err != nil {
			return pull, err
		}
		got, err = l.client.do(ctx, &request{method: http.MethodGet, path: root + "/blobs/" + digest.FromBytes(blob).String()}, 0)
		pull.bytes += got.bytes
	}
	return pull, err
}
