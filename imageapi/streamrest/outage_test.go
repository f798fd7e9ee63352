package streamrest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// partlyAway is a store that fails to read what the source of a tag is found by.
type partlyAway struct {
	storage.Backend
	away atomic.Bool
}

var errAway = errors.New("dial tcp 10.0.0.7:6379: connection refused")

func (p *partlyAway) Get(ctx context.Context, r storage.GetRequest) (*storage.GetResult, error) {
	if p.away.Load() && slices.ContainsFunc(r.Keys, func(key string) bool { return strings.HasPrefix(key, records.StreamPrefix+"other/") }) {
		return nil, errAway
	}
	return p.Backend.Get(ctx, r)
}

func (p *partlyAway) Scan(ctx context.Context, r storage.ScanRequest) (*storage.ScanResult, error) {
	if p.away.Load() && strings.HasPrefix(r.From, records.HoldingPrefix) {
		return nil, errAway
	}
	return p.Backend.Scan(ctx, r)
}

// TestOutageWhileResolving: if the store goes away while the source of a tag is looked for, the answer is 503,
// without the way to the store, and nothing is written.
func TestOutageWhileResolving(t *testing.T) {
	from := func(source string) imagev1.TagReference { return spec("t", source) }
	const tag, image = streams.KindImageStreamTag + " other/app:v1", streams.KindImageStreamImage + " other/app@sha256:"
	for name, write := range map[string]func(h *house) (runtime.Object, error){
		"create a stream": func(h *house) (runtime.Object, error) {
			return h.create(h.streams, "team", &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Spec: imagev1.ImageStreamSpec{Tags: []imagev1.TagReference{from(tag)}}})
		},
		"update a stream": func(h *house) (runtime.Object, error) {
			obj, err := h.streams.Get(h.as("team"), "app", &metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			stream := obj.(*imagev1.ImageStream)
			stream.Spec.Tags = append(stream.Spec.Tags, from(image))
			obj, _, err = h.put(h.streams, "team", "app", stream)
			return obj, err
		},
		"create an image stream tag": func(h *house) (runtime.Object, error) {
			return h.create(h.streamTags, "team", &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "app:t"}, Tag: ptr.To(spec("", tag))})
		},
		"create an image tag": func(h *house) (runtime.Object, error) {
			return h.create(h.tags, "team", &imagev1.ImageTag{ObjectMeta: metav1.ObjectMeta{Name: "app:t"}, Spec: ptr.To(from(image))})
		},
		"create a mapping": func(h *house) (runtime.Object, error) {
			return h.create(h.mappings, "team", &imagev1.ImageStreamMapping{
				ObjectMeta: metav1.ObjectMeta{Name: "app"}, Tag: "t", Image: imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: h.contents["a"].String()}},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &partlyAway{Backend: memory.New(memory.Options{})}
			if err := rest.CompleteIndex(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			h := newHouseOn(t, store)
			h.push("team/app:v1", "a")
			h.push("other/app:v1", "b")
			store.away.Store(true)
			before, err := store.Window(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			obj, err := write(h)
			var status apierrors.APIStatus
			if !apierrors.IsServiceUnavailable(err) || !errors.As(err, &status) || strings.Contains(status.Status().Message, "10.0.0.7") {
				t.Errorf("%+v, %v", obj, err)
			}
			if after, err := store.Window(t.Context()); err != nil || after.Current != before.Current || len(h.moves) > 0 {
				t.Errorf("something was written: %v, %v, %v", after, h.moves, err)
			}
			store.away.Store(false)
			if _, err := write(h); err != nil && !apierrors.IsInvalid(err) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
