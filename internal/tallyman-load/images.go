package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// api is the root of the Image API.
const api = "/apis/image.openshift.io/v1"

const (
	// known is how many of the Images that are there are got.
	known = 500
	// headOfList is how much of the beginning of a list is looked through for the token of its next page,
	// which some servers write at the end.
	headOfList = 4 << 10
	// parallel is how many requests at a time create the Images before the load.
	parallel = 8
)

var (
	continuation = regexp.MustCompile(`"continue":"([^"]+)"`)
	nameOfImage  = regexp.MustCompile(`"name":"(sha256[^"]+)"`)
)

// findImages has the API tell some of the Images that are there.
func (l *load) findImages(ctx context.Context) error {
	got, err := l.client.do(ctx, &request{
		method: http.MethodGet, path: fmt.Sprint(api, "/images?limit=", known), mediaType: accepted["metadata"],
	}, 64<<20)
	if err != nil {
		return err
	}
	for _, match := range nameOfImage.FindAllSubmatch(got.start, -1) {
		l.names = append(l.names, string(match[1]))
	}
	return nil
}

// createBefore creates the Images that are there before the load.
func (l *load) createBefore(ctx context.Context) error {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(parallel)
	for range l.options.created {
		workers.Go(func() error {
			name, err := l.create(ctx, newRichImage())
			if err == nil {
				l.mine <- name
			}
			return err
		})
	}
	return workers.Wait()
}

func (l *load) create(ctx context.Context, i *image) (name string, err error) {
	name = l.target.imageName(i.digest())
	_, err = l.client.do(ctx, &request{method: http.MethodPost, path: api + "/images", mediaType: accepted["json"], body: i.object(name)}, 0)
	l.born.Store(name, time.Now())
	return name, err
}

func (l *load) createOne(ctx context.Context) (done, error) {
	i := newRichImage()
	start := time.Now()
	_, err := l.create(ctx, i)
	return done{name: "create", start: start}, err
}

// deleteOne deletes an Image of createBefore. It is full if there is none left.
func (l *load) deleteOne(ctx context.Context) (done, error) {
	select {
	case name := <-l.mine:
		start := time.Now()
		_, err := l.client.do(ctx, &request{method: http.MethodDelete, path: imagePath(name), mediaType: accepted["json"]}, 0)
		return done{name: "delete", start: start}, err
	default:
		return done{full: true}, nil
	}
}

func (l *load) getOne(ctx context.Context) (done, error) {
	if len(l.names) == 0 {
		return done{full: true}, nil
	}
	name, start := l.names[int(l.reads.Add(1))%len(l.names)], time.Now()
	got, err := l.client.do(ctx, &request{method: http.MethodGet, path: imagePath(name), mediaType: accepted["json"]}, 0)
	return done{name: "get", start: start, bytes: got.bytes}, err
}

func imagePath(name string) string { return api + "/images/" + name }

// listAll lists all Images, page by page if there is a limit.
func (l *load) listAll(ctx context.Context) (done, error) {
	format := l.options.formats[int(l.lists.Add(1))%len(l.options.formats)]
	list := done{name: "list " + format, start: time.Now()}
	query := url.Values{}
	if l.options.fieldSelector != "" {
		query.Set("fieldSelector", l.options.fieldSelector)
	}
	if l.options.limit > 0 {
		query.Set("limit", fmt.Sprint(l.options.limit))
	}
	for {
		keep := int64(0)
		if l.options.limit > 0 {
			keep = headOfList
		}
		got, err := l.client.do(ctx, &request{
			method: http.MethodGet, path: strings.TrimSuffix(api+"/images?"+query.Encode(), "?"), mediaType: accepted[format],
			gzip: l.options.gzip && l.options.limit == 0, // the token of the next page is read
		}, keep)
		list.bytes += got.bytes
		next := continuation.FindSubmatch(got.start)
		if next == nil {
			next = continuation.FindSubmatch(got.end)
		}
		if err != nil || l.options.limit == 0 || next == nil {
			return list, err
		}
		query.Set("continue", string(next[1]))
	}
}
