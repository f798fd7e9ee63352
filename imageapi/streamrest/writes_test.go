package streamrest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
)

// as returns a context of alice's requests to a namespace.
func (h *house) as(namespace string) context.Context {
	return request.WithUser(h.of(namespace), &user.DefaultInfo{Name: "alice"})
}

// spec returns a spec tag with a source, as kind namespace/name.
func spec(name, source string) imagev1.TagReference {
	kind, rest, _ := strings.Cut(source, " ")
	namespace, from, ok := strings.Cut(rest, "/")
	if !ok || kind == streams.KindDockerImage {
		namespace, from = "", rest
	}
	return imagev1.TagReference{Name: name, From: &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: from}}
}

func newStream(name string, tags ...imagev1.TagReference) *imagev1.ImageStream {
	return &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: imagev1.ImageStreamSpec{Tags: tags}}
}

// create creates an object in a namespace.
func (h *house) create(in k8srest.Creater, namespace string, obj runtime.Object) (runtime.Object, error) {
	return in.Create(h.as(namespace), obj, k8srest.ValidateAllObjectFunc, &metav1.CreateOptions{})
}

// update updates an object by change, which gets a copy of it.
func (h *house) update(in k8srest.Updater, namespace, name string, change func(runtime.Object), options ...string) (runtime.Object, bool, error) {
	info := k8srest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		obj := old.DeepCopyObject()
		change(obj)
		return obj, nil
	})
	return in.Update(h.as(namespace), name, info, k8srest.ValidateAllObjectFunc, k8srest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{DryRun: options})
}

// put replaces an object.
func (h *house) put(in k8srest.Updater, namespace, name string, obj runtime.Object) (runtime.Object, bool, error) {
	return in.Update(h.as(namespace), name, k8srest.DefaultUpdatedObjectInfo(obj), k8srest.ValidateAllObjectFunc, k8srest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
}

// shows prints the tags of a stream: the spec's generation, and each item with its generation.
func (h *house) shows(obj runtime.Object) string {
	stream, names := obj.(*imagev1.ImageStream), []string{}
	for _, content := range slices.Sorted(maps.Keys(h.contents)) {
		names = append(names, h.contents[content].String(), content)
	}
	text := fmt.Sprint(stream.Generation)
	for i := range stream.Spec.Tags {
		text += fmt.Sprintf(" %s=%d", stream.Spec.Tags[i].Name, ptr.Deref(stream.Spec.Tags[i].Generation, -1))
	}
	for i := range stream.Status.Tags {
		text += " | " + stream.Status.Tags[i].Tag
		for _, item := range stream.Status.Tags[i].Items {
			name := item.Image
			if name == "" {
				name = "->" + item.DockerImageReference
			}
			text += fmt.Sprintf(" %s#%d", name, item.Generation)
		}
	}
	return strings.NewReplacer(names...).Replace(text)
}

// TestSpecTags: a spec tag moves the tag of the registry to the manifest that it names, where the user may
// read that.
func TestSpecTags(t *testing.T) {
	const is, image, docker = streams.KindImageStreamTag, streams.KindImageStreamImage, streams.KindDockerImage
	for name, test := range map[string]struct {
		tags    []imagev1.TagReference
		want    string // of the stream, or of the error
		reviews int
		moves   string
	}{
		"an import":                  {[]imagev1.TagReference{spec("t", docker+" busybox")}, "3 t=3 | v1 a#1 | v2 b#2 a#1", 0, ""},
		"a reference":                {[]imagev1.TagReference{referring("t", "busybox")}, "3 t=3 | t ->busybox#3 | v1 a#1 | v2 b#2 a#1", 0, ""},
		"a reference over a push":    {[]imagev1.TagReference{referring("v1", "busybox")}, "spec.tags[v1].reference: Forbidden", 0, ""},
		"no source":                  {[]imagev1.TagReference{{Name: "t"}}, "3 t=3 | v1 a#1 | v2 b#2 a#1", 0, ""},
		"a tag of the stream":        {[]imagev1.TagReference{spec("t", is+" v2")}, "3 t=3 | t b#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=b team/app"},
		"with its stream's name":     {[]imagev1.TagReference{spec("t", is+" app:v2")}, "3 t=3 | t b#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=b team/app"},
		"over a push":                {[]imagev1.TagReference{spec("v1", is+" v2")}, "3 v1=3 | v1 b#3 a#1 | v2 b#2 a#1", 0, "team/app:v1=b team/app"},
		"what it is already":         {[]imagev1.TagReference{spec("v1", image+" app@A")}, "3 v1=3 | v1 a#3 | v2 b#2 a#1", 0, ""},
		"an image":                   {[]imagev1.TagReference{spec("t", image+" app@A")}, "3 t=3 | t a#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=a team/app"},
		"an image by its beginning":  {[]imagev1.TagReference{spec("t", image+" A12")}, "3 t=3 | t a#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=a team/app"},
		"another stream":             {[]imagev1.TagReference{spec("t", is+" base:v1")}, "3 t=3 | t c#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=c team/base"},
		"another namespace":          {[]imagev1.TagReference{spec("t", is+" other/app:v1")}, "3 t=3 | t d#3 | v1 a#1 | v2 b#2 a#1", 1, "team/app:t=d other/app"},
		"twice":                      {[]imagev1.TagReference{spec("t", is+" other/app:v1"), spec("u", image+" other/app@D")}, "3 t=3 u=3 | t d#3 | u d#3 | v1 a#1 | v2 b#2 a#1", 1, "team/app:t=d other/app team/app:u=d other/app"},
		"the own namespace, said":    {[]imagev1.TagReference{spec("t", is+" team/base:v1")}, "3 t=3 | t c#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=c team/base"},
		"one that is denied":         {[]imagev1.TagReference{spec("t", is+" secret/app:v1")}, `spec.tags[t].from: Forbidden: secret/app: ""`, 1, ""},
		"denied and not there":       {[]imagev1.TagReference{spec("t", is+" secret/none:v1")}, `spec.tags[t].from: Forbidden: secret/none: ""`, 1, ""},
		"denied besides another":     {[]imagev1.TagReference{spec("t", is+" secret/app:v1"), spec("u", is+" other/app:v1")}, `spec.tags[t].from: Forbidden: secret/app: ""`, 2, ""},
		"a tag that is to come":      {[]imagev1.TagReference{spec("t", is+" later")}, "3 t=3 | v1 a#1 | v2 b#2 a#1", 0, ""},
		"no tag of another stream":   {[]imagev1.TagReference{spec("t", is+" base:none")}, `spec.tags[t].from.name: Not found: "base:none"`, 0, ""},
		"no stream":                  {[]imagev1.TagReference{spec("t", is+" none:v1")}, `spec.tags[t].from.name: Not found: "none:v1"`, 0, ""},
		"no image":                   {[]imagev1.TagReference{spec("t", image+" app@sha256:0000")}, `spec.tags[t].from.name: Not found: "app@sha256:0000"`, 0, ""},
		"several images":             {[]imagev1.TagReference{spec("t", image+" app@sha256:")}, `several images of the stream begin with "sha256:"`, 0, ""},
		"too many colons":            {[]imagev1.TagReference{spec("t", is+" a:b:c")}, "spec.tags[t].from.name: Invalid value: \"a:b:c\": must be of the form", 0, ""},
		"one after the other":        {[]imagev1.TagReference{spec("t", is+" u"), spec("u", is+" v2")}, "3 t=3 u=3 | t b#3 | u b#3 | v1 a#1 | v2 b#2 a#1", 0, "team/app:t=b team/app team/app:u=b team/app"},
		"moved, and followed":        {[]imagev1.TagReference{spec("t", is+" v1"), spec("v1", is+" v2")}, "3 t=3 v1=3 | t b#3 | v1 b#3 a#1 | v2 b#2 a#1", 0, "team/app:t=b team/app team/app:v1=b team/app"},
		"in a circle":                {[]imagev1.TagReference{spec("t", is+" u"), spec("u", is+" t")}, "3 t=3 u=3 | v1 a#1 | v2 b#2 a#1", 0, ""},
		"a tag that no registry has": {[]imagev1.TagReference{spec("a/b", is+" v1")}, "spec.tags[a/b].name: Invalid", 0, ""},
	} {
		h := newHouse(t)
		a, _ := h.push("team/app:v1", "a"), h.push("team/app:v2", "a")
		h.push("team/app:v2", "b")
		h.push("team/base:v1", "c")
		d := h.push("other/app:v1", "d")
		h.push("secret/app:v1", "e")
		h.denied["secret/app"], h.denied["secret/none"] = true, true
		for i := range test.tags {
			if from := test.tags[i].From; from != nil {
				from.Name = strings.NewReplacer("@A", "@"+a.String(), "A12", a.Encoded()[:12], "@D", "@"+d.Encoded()).Replace(from.Name)
			}
		}
		before := h.shows(h.get(h.streams, "team", "app"))
		change := func(obj runtime.Object) { obj.(*imagev1.ImageStream).Spec.Tags = test.tags }
		dry, _, dryErr := h.update(h.streams, "team", "app", change, metav1.DryRunAll)
		if after := h.shows(h.get(h.streams, "team", "app")); after != before || len(h.moves) > 0 {
			t.Errorf("%s: after a dry run %s, was %s, moves %v", name, after, before, h.moves)
		}
		h.reviews = nil
		updated, _, err := h.update(h.streams, "team", "app", change)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = h.shows(updated)
			if now := h.shows(h.get(h.streams, "team", "app")); now != got {
				t.Errorf("%s: answered %s, is %s", name, got, now)
			}
		}
		if err == nil && got != test.want || err != nil && (!strings.Contains(got, test.want) || !apierrors.IsInvalid(err) || strings.HasPrefix(test.want, "3")) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if err == nil && dryErr == nil {
			if got := h.shows(dry); got != test.want {
				t.Errorf("%s: the dry run answered %s, want %s", name, got, test.want)
			}
		} else if fmt.Sprint(dryErr) != fmt.Sprint(err) {
			t.Errorf("%s: the dry run fails with %v, not %v", name, dryErr, err)
		}
		if len(h.reviews) != test.reviews {
			t.Errorf("%s: reviews %v, want %d", name, h.reviews, test.reviews)
		}
		if got := h.madeMoves(); got != test.moves {
			t.Errorf("%s: moves %s, want %s", name, got, test.moves)
		}
	}
}

// madeMoves prints the moves by alice, with contents for their digests.
func (h *house) madeMoves() string {
	var names []string
	for content, name := range h.contents {
		names = append(names, name.Encoded(), content, name.Encoded()[:12], content)
	}
	return strings.ReplaceAll(strings.NewReplacer(names...).Replace(strings.Join(h.moves, " ")), "alice: ", "")
}

// referring returns a spec tag that is a pull reference alone.
func referring(name, to string) imagev1.TagReference {
	tag := spec(name, streams.KindDockerImage+" "+to)
	tag.Reference = true
	return tag
}

// TestNewStream: a stream is made with its tags, once, in a repository's place.
func TestNewStream(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	options := h.options("metadata.name=new", "")
	_, options.ResourceVersion = h.list(h.of("team"), h.streams, h.options("", "")) // else it may begin later
	w := h.watch(h.of("team"), h.streams, options)
	stream := newStream("new", spec("prod", streams.KindImageStreamTag+" app:v1"), spec("ext", streams.KindDockerImage+" busybox"))
	stream.Annotations = map[string]string{"tallyman.dev/repository": "mine", "note": "x"}
	stream.Status.Tags = []imagev1.NamedTagEventList{{Tag: "forged", Items: []imagev1.TagEvent{{Image: "sha256:1", DockerImageReference: "a"}}}}
	created, err := h.create(h.streams, "team", stream.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	got := created.(*imagev1.ImageStream)
	if h.shows(got) != "1 ext=1 prod=1 | prod a#1" || got.UID == "" || got.Annotations["tallyman.dev/repository"] != "team/new" || got.Annotations["note"] != "x" || got.Status.DockerImageRepository != "host:5000/team/new" || got.Status.PublicDockerImageRepository != "registry.example.com/team/new" {
		t.Errorf("%s: %+v", h.shows(got), got)
	}
	if kind, obj := w.next(); kind != watch.Added || h.shows(obj) != "1 ext=1" {
		t.Errorf("%s %s", kind, h.shows(obj))
	}
	if kind, obj := w.next(); kind != watch.Modified || h.shows(obj) != "1 ext=1 prod=1 | prod a#1" || obj.(*imagev1.ImageStream).ResourceVersion != got.ResourceVersion {
		t.Errorf("%s %s", kind, h.shows(obj))
	}
	if _, err := h.create(h.streams, "team", stream); !apierrors.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	if _, err := h.create(h.streams, "team", newStream("No")); !apierrors.IsInvalid(err) {
		t.Errorf("with a bad name: %v", err)
	}
	var tags []imagev1.TagReference
	for n := range streamwriter.MaxEdits + 1 {
		tags = append(tags, spec(fmt.Sprint("t", n), streams.KindDockerImage+" busybox"))
	}
	if _, err := h.create(h.streams, "team", newStream("large", tags...)); !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("with many tags: %v", err)
	}
	if _, err := h.create(h.streams, "team", newStream("large", tags[1:]...)); err != nil {
		t.Errorf("with almost as many: %v", err)
	}
}

// TestStreamConflict: a stream that has changed since it was read is not written, also by a push.
func TestStreamConflict(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	stale := h.get(h.streams, "team", "app").(*imagev1.ImageStream)
	h.push("team/app:v2", "b")
	stale.Labels = map[string]string{"a": "b"}
	if _, _, err := h.put(h.streams, "team", "app", stale.DeepCopy()); !apierrors.IsConflict(err) {
		t.Errorf("%v", err)
	}
	stale.ResourceVersion = ""
	if _, _, err := h.put(h.streams, "team", "app", stale.DeepCopy()); !apierrors.IsInvalid(err) {
		t.Errorf("without a version: %v", err)
	}
	if _, _, err := h.put(h.streams, "team", "none", newStream("none")); !apierrors.IsNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	if got := h.shows(h.get(h.streams, "team", "app")); got != "1 | v1 a#1 | v2 b#1" {
		t.Error(got)
	}
	labeled, _, err := h.update(h.streams, "team", "app", func(obj runtime.Object) { obj.(*imagev1.ImageStream).Labels = map[string]string{"a": "b"} })
	if err != nil || labeled.(*imagev1.ImageStream).Generation != 1 {
		t.Errorf("%v, %v", labeled, err)
	}
	if tag := h.get(h.streamTags, "team", "app:v1").(*imagev1.ImageStreamTag); tag.Labels["a"] != "b" {
		t.Errorf("%v", tag.Labels)
	}
}

// TestMovedMeanwhile: a tag that is pushed between the change of its stream and its own move stays as it was
// pushed, and the client is told of a conflict or, if it wants anything, the move comes after the push.
func TestMovedMeanwhile(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	h.push("team/app:prod", "a")
	h.push("team/app:v2", "b")
	pushed := false
	h.before = func() {
		if !pushed {
			pushed = true
			h.push("team/app:prod", "c")
		}
	}
	stream := h.get(h.streams, "team", "app").(*imagev1.ImageStream)
	stream.Spec.Tags = []imagev1.TagReference{spec("prod", streams.KindImageStreamTag+" v2")}
	if _, _, err := h.put(h.streams, "team", "app", stream); !apierrors.IsConflict(err) {
		t.Errorf("%v", err)
	}
	if got, want := h.shows(h.get(h.streams, "team", "app")), "2 | prod c#2 a#1 | v1 a#1 | v2 b#1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	pushed = false
	tag := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "app:prod"}, Tag: ptr.To(spec("", streams.KindImageStreamTag+" v2"))}
	if _, created, err := h.put(h.streamTags, "team", "app:prod", tag); err != nil || !created {
		t.Errorf("%t %v", created, err)
	}
	if got, want := h.shows(h.get(h.streams, "team", "app")), "3 prod=3 | prod b#3 c#2 a#1 | v1 a#1 | v2 b#1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestStatus: clients shorten histories by the status, and nothing else. A tag that loses its head is
// deleted.
func TestStatus(t *testing.T) {
	h := newHouse(t)
	for _, content := range []string{"a", "b", "c"} {
		h.push("team/app:v1", content)
		h.push("team/app:v2", content)
	}
	if _, err := h.create(h.streamTags, "team", &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "app:v2"}, Tag: ptr.To(spec("", streams.KindImageStreamTag+" v1"))}); err != nil {
		t.Fatal(err)
	}
	status := h.status
	got, _, err := h.update(status, "team", "app", func(obj runtime.Object) {
		stream := obj.(*imagev1.ImageStream)
		stream.Labels, stream.Spec.LookupPolicy.Local, stream.Spec.Tags = map[string]string{"a": "b"}, true, nil
		stream.Status.Tags[0].Items = stream.Status.Tags[0].Items[:1]
	})
	if err != nil {
		t.Fatal(err)
	}
	stream := got.(*imagev1.ImageStream)
	if got, want := h.shows(stream), "4 v2=4 | v1 c#3 | v2 c#4 b#2 a#1"; got != want || stream.Labels != nil || stream.Spec.LookupPolicy.Local {
		t.Errorf("%s, want %s: %+v", got, want, stream)
	}
	got, _, err = h.update(status, "team", "app", func(obj runtime.Object) {
		stream := obj.(*imagev1.ImageStream)
		stream.Status.Tags = []imagev1.NamedTagEventList{{Tag: "v2", Items: stream.Status.Tags[1].Items[1:]}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.shows(got), "4 v2=4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := h.madeMoves(), "team/app:v1= team/app team/app:v2= team/app"; got != want {
		t.Errorf("moves %s, want %s", got, want)
	}
	_, _, err = h.update(status, "team", "app", func(obj runtime.Object) {
		obj.(*imagev1.ImageStream).Status.Tags = []imagev1.NamedTagEventList{{Tag: "v9", Items: []imagev1.TagEvent{{Image: "sha256:1", DockerImageReference: "x"}}}}
	})
	if !apierrors.IsInvalid(err) {
		t.Errorf("an addition: %v", err)
	}
}

// TestDeleteStream: the tags of a stream go, and then the stream. Tags that were pushed after the deletion
// stay, in a new one.
func TestDeleteStream(t *testing.T) {
	for name, test := range map[string]struct {
		later string // is pushed after the deletion
		want  string
	}{
		"all":            {"", ""},
		"pushed since":   {"team/app:v3", "1 | v3 z#3"},
		"the same since": {"team/app:v1", "1 | v1 z#3 a#1"},
	} {
		h := newHouse(t)
		h.push("team/app:v1", "a")
		h.push("team/app:v2", "b")
		h.push("team/app-x:v1", "x")
		ext := &imagev1.ImageTag{ObjectMeta: metav1.ObjectMeta{Name: "app:ext"}, Spec: ptr.To(referring("", "busybox"))}
		if _, err := h.create(h.tags, "team", ext); err != nil {
			t.Fatal(err)
		}
		before := h.get(h.streams, "team", "app").(*imagev1.ImageStream)
		w := h.watch(h.of("team"), h.streams, h.options("metadata.name=app", ""))
		w.next()
		obj, gone, err := h.streams.Delete(h.as("team"), "app", k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
		if err != nil || gone || obj.(*imagev1.ImageStream).DeletionTimestamp == nil {
			t.Fatalf("%s: %v %t %v", name, obj, gone, err)
		}
		if test.later != "" {
			h.push(test.later, "z")
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			h.Run(ctx)
			close(done)
		}()
		for {
			if kind, _ := w.next(); kind == watch.Deleted {
				break
			}
		}
		if test.want != "" {
			kind, obj := w.next()
			if got := h.shows(obj); kind != watch.Added || got != test.want || obj.(*imagev1.ImageStream).UID == before.UID {
				t.Errorf("%s: %s %s, want %s", name, kind, got, test.want)
			}
		} else if _, err := h.streams.Get(h.of("team"), "app", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
		stop()
		<-done
		if got := h.shows(h.get(h.streams, "team", "app-x")); got != "1 | v1 x#1" {
			t.Errorf("%s: the other stream has %s", name, got)
		}
	}
}

// TestDeleteStreamRefused: a stream whose tags the registry keeps is not deleted at all.
func TestDeleteStreamRefused(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	h.refuses = &streamwriter.RefusedError{Reason: "immutable"}
	_, _, err := h.streams.Delete(h.as("team"), "app", k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("%v", err)
	}
	if _, err := h.streams.DeleteCollection(h.as("team"), k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{}, h.options("", "")); !apierrors.IsForbidden(err) {
		t.Errorf("all: %v", err)
	}
	if stream := h.get(h.streams, "team", "app").(*imagev1.ImageStream); stream.DeletionTimestamp != nil {
		t.Error("it is being deleted")
	}
}

// TestFinalizer: a client cannot take the finalizer of a stream away.
func TestFinalizer(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	got, _, err := h.update(h.streams, "team", "app", func(obj runtime.Object) { obj.(*imagev1.ImageStream).Finalizers = []string{"example.com/mine"} })
	if err != nil || !slices.Equal(got.(*imagev1.ImageStream).Finalizers, []string{"example.com/mine", streams.FinalizerTags}) {
		t.Errorf("%v %v", got, err)
	}
	if _, _, err := h.streams.Delete(h.as("team"), "app", k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got, _, err = h.update(h.streams, "team", "app", func(obj runtime.Object) { obj.(*imagev1.ImageStream).Finalizers = nil })
	if err != nil || h.get(h.streams, "team", "app").(*imagev1.ImageStream).DeletionTimestamp == nil {
		t.Errorf("while it is deleted: %v %v", got, err)
	}
}

// TestForeignFinalizer: a stream that is deleted stays as long as a finalizer of others is on it.
func TestForeignFinalizer(t *testing.T) {
	h := newHouse(t)
	h.push("team/app:v1", "a")
	finalizers := func(names ...string) func(runtime.Object) {
		return func(obj runtime.Object) { obj.(*imagev1.ImageStream).Finalizers = names }
	}
	if _, _, err := h.update(h.streams, "team", "app", finalizers("example.com/mine")); err != nil {
		t.Fatal(err)
	}
	w := h.watch(h.of("team"), h.streams, h.options("metadata.name=app", ""))
	w.next()
	if _, _, err := h.streams.Delete(h.as("team"), "app", k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		h.Run(ctx)
		close(done)
	}()
	defer func() {
		stop()
		<-done
	}()
	for {
		kind, obj := w.next()
		if kind == watch.Deleted {
			t.Fatal("it is gone")
		}
		if len(obj.(*imagev1.ImageStream).Status.Tags) == 0 {
			break
		}
	}
	if _, _, err := h.update(h.streams, "team", "app", finalizers()); err != nil {
		t.Fatal(err)
	}
	for {
		if kind, _ := w.next(); kind == watch.Deleted {
			return
		}
	}
}
