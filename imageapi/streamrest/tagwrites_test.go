package streamrest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
)

// streamTag returns an ImageStreamTag with a spec from a source, "" for none.
func streamTag(name, source string) *imagev1.ImageStreamTag {
	tag := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if source != "" {
		tag.Tag = ptr.To(spec("", source))
	}
	return tag
}

// problem names the kind of an error.
func problem(err error) string {
	for name, is := range map[string]func(error) bool{
		"bad request": apierrors.IsBadRequest, "invalid": apierrors.IsInvalid, "conflict": apierrors.IsConflict, "exists": apierrors.IsAlreadyExists,
		"not found": apierrors.IsNotFound, "forbidden": apierrors.IsForbidden, "too many": apierrors.IsTooManyRequests,
	} {
		if is(err) {
			return name
		}
	}
	return fmt.Sprint(err)
}

// TestCreateStreamTag: an image stream tag is made where its tag has no spec, with its stream.
func TestCreateStreamTag(t *testing.T) {
	const is = streams.KindImageStreamTag
	with := func(tag *imagev1.ImageStreamTag, change func(*imagev1.ImageStreamTag)) *imagev1.ImageStreamTag {
		change(tag)
		return tag
	}
	for name, test := range map[string]struct {
		tag  *imagev1.ImageStreamTag
		want string // of the stream, or of the error
	}{
		"a new tag":                {streamTag("app:prod", is+" v1"), "3 prod=3 spec=2 | prod a#3 | spec a#2 | v1 a#1"},
		"over a push":              {streamTag("app:v1", is+" base:v1"), "3 spec=2 v1=3 | spec a#2 | v1 c#3 a#1"},
		"a new stream":             {streamTag("new:prod", is+" app:v1"), "1 prod=1 | prod a#1"},
		"an import":                {streamTag("new:v1", streams.KindDockerImage+" busybox"), "1 v1=1"},
		"no tag":                   {streamTag("new:", is+" app:v1"), "1 latest=1 | latest a#1"},
		"no colon":                 {streamTag("new", is+" app:v1"), "bad request"},
		"two colons":               {streamTag("new:a:b", is+" app:v1"), "bad request"},
		"no spec":                  {streamTag("new:v1", ""), "invalid: tag.from: Required"},
		"an empty spec":            {with(streamTag("new:v1", ""), func(t *imagev1.ImageStreamTag) { t.Tag = &imagev1.TagReference{} }), "invalid: tag.from: Required"},
		"no name of the source":    {streamTag("new:v1", is+" "), "invalid: tag.from.name: Required"},
		"no kind of the source":    {streamTag("new:v1", " a:b"), "invalid: tag.from.kind: Required"},
		"one with a spec":          {streamTag("app:spec", is+" v1"), "exists: imagestreamtags.image.openshift.io \"app:spec\""},
		"a stream with a bad name": {streamTag("New:v1", is+" app:v1"), "invalid: metadata.name: Invalid value: \"New\""},
		"another namespace":        {with(streamTag("new:v1", is+" app:v1"), func(t *imagev1.ImageStreamTag) { t.Namespace = "other" }), "bad request"},
		"other annotations": {with(streamTag("new:v1", is+" app:v1"), func(t *imagev1.ImageStreamTag) {
			t.Annotations, t.Tag.Annotations = map[string]string{"a": "b"}, map[string]string{"a": "c"}
		}), "invalid: tag.annotations: Invalid"},
		"what no user may read":   {streamTag("new:v1", is+" secret/app:v1"), `invalid: spec.tags[v1].from: Forbidden: secret/app`},
		"a tag that is not there": {streamTag("new:v1", is+" app:none"), `invalid: spec.tags[v1].from.name: Not found: "app:none"`},
		"refused by the registry": {streamTag("refused:v1", is+" app:v1"), `forbidden: imagestreamtags.image.openshift.io "refused:v1" is forbidden: it is immutable`},
		"not admitted":            {streamTag("busy:v1", is+" app:v1"), "too many"},
	} {
		h := newHouse(t)
		h.push("team/app:v1", "a")
		h.push("team/base:v1", "c")
		h.push("secret/app:v1", "e")
		h.denied["secret/app"] = true
		if _, err := h.create(h.streamTags, "team", streamTag("app:spec", is+" v1")); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(test.tag.Name, "refused") {
			h.refuses = &streamwriter.RefusedError{Reason: "it is immutable"}
		}
		var admit k8srest.ValidateObjectFunc = k8srest.ValidateAllObjectFunc
		if strings.HasPrefix(test.tag.Name, "busy") {
			admit = func(_ context.Context, _ runtime.Object) error { return apierrors.NewTooManyRequests("x", 1) }
		}
		created, err := h.streamTags.Create(h.as("team"), test.tag.DeepCopy(), admit, &metav1.CreateOptions{})
		if err != nil {
			kind, text, _ := strings.Cut(test.want, ": ")
			if problem(err) != kind || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
			continue
		}
		stream, _, _ := strings.Cut(test.tag.Name, ":")
		if got := h.shows(h.get(h.streams, "team", stream)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if got := created.(*imagev1.ImageStreamTag); got.Tag == nil || got.Name == "" || got.ResourceVersion == "" || got.UID == "" {
			t.Errorf("%s: answered %+v", name, got)
		}
	}
}

// TestUpdateStreamTag: an update of an image stream tag sets the spec and its annotations, of a new tag, too.
func TestUpdateStreamTag(t *testing.T) {
	const is = streams.KindImageStreamTag
	type object = imagev1.ImageStreamTag
	for name, test := range map[string]struct {
		tag     string
		change  func(*object)
		created bool
		want    string // of the stream and the annotations of the tag, or of the error
	}{
		"nothing":             {"app:spec", func(*object) {}, false, "2 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[desc:x]"},
		"annotations":         {"app:spec", func(o *object) { o.Annotations = map[string]string{"a": "b"} }, false, "3 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[a:b]"},
		"no annotations":      {"app:spec", func(o *object) { o.Annotations = nil }, false, "3 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[]"},
		"without its version": {"app:spec", func(o *object) { *o = *streamTag("app:spec", is+" v2") }, false, "3 spec=3 | spec b#3 a#2 | v1 a#1 | v2 b#1 map[desc:x]"},
		"annotations of the spec": {"app:spec", func(o *object) {
			*o = *streamTag("app:spec", is+" v2")
			o.Tag.Annotations = map[string]string{"a": "b"}
		}, false, "3 spec=3 | spec b#3 a#2 | v1 a#1 | v2 b#1 map[a:b]"},
		"annotations without the spec": {"app:spec", func(o *object) { o.Tag = nil; o.Annotations["a"] = "b" }, false, "3 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[a:b desc:x]"},
		"another source":               {"app:spec", func(o *object) { o.Tag.From.Name = "v2" }, false, "3 spec=3 | spec b#3 a#2 | v1 a#1 | v2 b#1 map[desc:x]"},
		"a push gets a spec":           {"app:v1", func(o *object) { o.Tag = ptr.To(spec("", is+" v2")) }, true, "3 spec=2 v1=3 | spec a#2 | v1 b#3 a#1 | v2 b#1 map[]"},
		"a push gets annotations":      {"app:v1", func(o *object) { o.Annotations = map[string]string{"a": "b"} }, false, "bad request: imagestreamtag v1 is not a spec tag in imagestream team/app"},
		"a new tag":                    {"app:new", func(o *object) { *o = *streamTag("app:new", is+" v1") }, true, "3 new=3 spec=2 | new a#3 | spec a#2 | v1 a#1 | v2 b#1 map[]"},
		"a new stream":                 {"new:v1", func(o *object) { *o = *streamTag("new:v1", is+" app:v1") }, true, "1 v1=1 | v1 a#1 map[]"},
		"a new tag at a version":       {"app:new", func(o *object) { *o = *streamTag("app:new", is+" v1"); o.ResourceVersion = "1" }, false, "not found"},
		"a stale version":              {"app:spec", func(o *object) { o.ResourceVersion = "1" }, false, "conflict"},
		"a label":                      {"app:spec", func(o *object) { o.Labels = map[string]string{"a": "b"} }, false, "invalid: metadata: Invalid value: \"\": may not update fields other than metadata.annotations"},
		"another name":                 {"app:spec", func(o *object) { o.Name = "app:v2" }, false, "bad request"},
		"its Image":                    {"app:spec", func(o *object) { o.Image.Name = "x"; o.Conditions = []imagev1.TagEventCondition{{}} }, false, "2 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[desc:x]"},
		"no source's name":             {"app:spec", func(o *object) { o.Tag.From.Name = "" }, false, "invalid: tag.from.name: Required"},
		"annotations of the server":    {"app:spec", func(o *object) { o.Annotations = map[string]string{"tallyman.dev/trusted": "team/app"} }, false, "3 spec=2 | spec a#2 | v1 a#1 | v2 b#1 map[tallyman.dev/trusted:team/app]"},
	} {
		h := newHouse(t)
		h.push("team/app:v1", "a")
		h.push("team/app:v2", "b")
		first := streamTag("app:spec", is+" v1")
		first.Annotations = map[string]string{"desc": "x"}
		if _, err := h.create(h.streamTags, "team", first); err != nil {
			t.Fatal(err)
		}
		updated, created, err := h.update(h.streamTags, "team", test.tag, func(obj runtime.Object) { test.change(obj.(*object)) })
		if err != nil {
			kind, text, _ := strings.Cut(test.want, ": ")
			if problem(err) != kind || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
			continue
		}
		got := updated.(*object)
		stream, _, _ := strings.Cut(test.tag, ":")
		if shown := fmt.Sprint(h.shows(h.get(h.streams, "team", stream)), " ", got.Annotations); shown != test.want || created != test.created {
			t.Errorf("%s: %s, created %t, want %s", name, shown, created, test.want)
		}
		for key, value := range got.Annotations {
			if server := strings.HasPrefix(key, "tallyman.dev/"); (got.Image.Annotations[key] == value) == server {
				t.Errorf("%s: its Image has %v", name, got.Image.Annotations)
			}
		}
	}
}

// TestWriteImageTag: an image tag is written by its spec alone.
func TestWriteImageTag(t *testing.T) {
	const is = streams.KindImageStreamTag
	type object = imagev1.ImageTag
	for name, test := range map[string]struct {
		tag     string
		change  func(*object)
		created bool
		want    string // of the stream, or of the error
	}{
		"nothing":               {"app:spec", func(*object) {}, false, "2 spec=2 | spec a#2 | v1 a#1 | v2 b#1"},
		"annotations":           {"app:spec", func(o *object) { o.Spec.Annotations = map[string]string{"a": "b"} }, false, "3 spec=2 | spec a#2 | v1 a#1 | v2 b#1"},
		"another source":        {"app:spec", func(o *object) { o.Spec.From.Name = "v2" }, false, "3 spec=3 | spec b#3 a#2 | v1 a#1 | v2 b#1"},
		"no spec any more":      {"app:spec", func(o *object) { o.Spec = nil }, false, "3 | spec a#2 | v1 a#1 | v2 b#1"},
		"a push gets a spec":    {"app:v1", func(o *object) { o.Spec = ptr.To(spec("v1", is+" v2")) }, true, "3 spec=2 v1=3 | spec a#2 | v1 b#3 a#1 | v2 b#1"},
		"without the status":    {"app:spec", func(o *object) { o.Status = nil; o.Spec.From.Name = "v2" }, false, "3 spec=3 | spec b#3 a#2 | v1 a#1 | v2 b#1"},
		"the status":            {"app:spec", func(o *object) { o.Status.Items[0].Generation = 0 }, false, "invalid: status: Invalid"},
		"a label":               {"app:spec", func(o *object) { o.Labels = map[string]string{"a": "b"} }, false, "invalid: metadata: Invalid"},
		"an annotation":         {"app:spec", func(o *object) { o.Annotations["a"] = "b" }, false, "invalid: metadata: Invalid"},
		"another name":          {"app:spec", func(o *object) { o.Spec.Name = "other" }, false, "invalid: spec.name: Invalid value: \"other\": must match image tag name"},
		"a stale version":       {"app:spec", func(o *object) { o.ResourceVersion = "1" }, false, "conflict"},
		"a new tag":             {"app:new", func(o *object) { o.Name = "app:new"; o.Spec = ptr.To(spec("new", is+" v1")) }, true, "3 new=3 spec=2 | new a#3 | spec a#2 | v1 a#1 | v2 b#1"},
		"a new stream":          {"new:v1", func(o *object) { o.Name = "new:v1"; o.Spec = ptr.To(spec("", is+" app:v1")) }, true, "1 v1=1 | v1 a#1"},
		"a new one, no spec":    {"app:new", func(o *object) { o.Name = "app:new" }, false, "not found"},
		"a source with no name": {"app:spec", func(o *object) { o.Spec.From.Name = "" }, false, "invalid: spec.from.name: Required"},
	} {
		h := newHouse(t)
		h.push("team/app:v1", "a")
		h.push("team/app:v2", "b")
		first := &object{ObjectMeta: metav1.ObjectMeta{Name: "app:spec"}, Spec: ptr.To(spec("", is+" v1"))}
		created, err := h.create(h.tags, "team", first.DeepCopy())
		if err != nil || created.(*object).Spec.Name != "spec" || *created.(*object).Spec.Generation != 2 || created.(*object).Image == nil {
			t.Fatal(created, err)
		}
		if _, err := h.create(h.tags, "team", first); !apierrors.IsAlreadyExists(err) {
			t.Errorf("again: %v", err)
		}
		updated, isNew, err := h.update(h.tags, "team", test.tag, func(obj runtime.Object) { test.change(obj.(*object)) })
		if err != nil {
			kind, text, _ := strings.Cut(test.want, ": ")
			if problem(err) != kind || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
			continue
		}
		stream, _, _ := strings.Cut(test.tag, ":")
		if shown := h.shows(h.get(h.streams, "team", stream)); shown != test.want || isNew != test.created {
			t.Errorf("%s: %s, created %t, want %s", name, shown, isNew, test.want)
		}
		if updated.(*object).ResourceVersion == "" {
			t.Errorf("%s: answered %+v", name, updated)
		}
	}
}

// TestCreateImageTagRefused: an image tag needs a spec of its own name.
func TestCreateImageTagRefused(t *testing.T) {
	h := newHouse(t)
	for name, test := range map[string]struct {
		tag  *imagev1.ImageTag
		want string
	}{
		"no spec":      {&imagev1.ImageTag{ObjectMeta: metav1.ObjectMeta{Name: "app:v1"}}, "spec: Required value: spec is a required field during creation"},
		"another name": {&imagev1.ImageTag{ObjectMeta: metav1.ObjectMeta{Name: "app:v1"}, Spec: ptr.To(spec("other", streams.KindDockerImage+" busybox"))}, "spec.name"},
	} {
		if _, err := h.create(h.tags, "team", test.tag); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDeleteSpec: the deletion of a tag takes its spec and its history, and no other tag's.
func TestDeleteSpec(t *testing.T) {
	const docker = streams.KindDockerImage
	h := newHouse(t)
	h.push("team/app:v1", "a")
	if _, err := h.create(h.streams, "team", newStream("other", spec("another", docker+" test:foo"), spec("latest", docker+" test:bar"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app:v1", "other:latest"} {
		if _, _, err := h.tags.Delete(h.as("team"), name, k8srest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := h.tags.Get(h.of("team"), name, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := h.shows(h.get(h.streams, "team", "other")); got != "2 another=1" {
		t.Error(got)
	}
}

// TestMapping: a mapping has a tag point to a manifest that the repository holds, as a push does.
func TestMapping(t *testing.T) {
	h := newHouse(t)
	a := h.push("team/app:v1", "a")
	elsewhere := h.push("team/other:v1", "b")
	mapping := func(stream, tag string, image digest.Digest) *imagev1.ImageStreamMapping {
		return &imagev1.ImageStreamMapping{ObjectMeta: metav1.ObjectMeta{Name: stream}, Tag: tag, Image: imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: image.String()}}}
	}
	for name, test := range map[string]struct {
		mapping *imagev1.ImageStreamMapping
		problem string
	}{
		"no stream":             {mapping("none", "v1", a), "not found: imagestreammappings.image.openshift.io \"none\""},
		"of another repository": {mapping("app", "v2", elsewhere), "invalid: image.metadata.name: Not found"},
		"no tag":                {mapping("app", "", a), "invalid: tag: Required"},
		"a bad tag":             {mapping("app", "a/b", a), "invalid: tag: Invalid"},
		"no image":              {mapping("app", "v2", ""), "invalid: image.metadata.name: Required"},
		"no digest":             {mapping("app", "v2", "latest"), "invalid: image.metadata.name: Invalid"},
		"no stream's name":      {mapping("", "v2", a), "invalid: metadata.name: Required"},
	} {
		_, err := h.create(h.mappings, "team", test.mapping)
		kind, text, _ := strings.Cut(test.problem, ": ")
		if problem(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %s", name, err, test.problem)
		}
	}
	if _, err := h.mappings.Create(h.as("team"), mapping("app", "v2", a), nil, &metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil || len(h.moves) > 0 {
		t.Errorf("dry run: %v, %v", err, h.moves)
	}
	var revision string
	for range 2 {
		answer, err := h.create(h.mappings, "team", mapping("app", "v2", a))
		if status, ok := answer.(*metav1.Status); err != nil || !ok || status.Code != 201 || status.Status != metav1.StatusSuccess {
			t.Errorf("%v, %v", answer, err)
		}
		stream := h.get(h.streams, "team", "app").(*imagev1.ImageStream)
		if got := h.shows(stream); got != "1 | v1 a#1 | v2 a#1" || revision != "" && stream.ResourceVersion != revision {
			t.Errorf("%s at %s, was at %s", got, stream.ResourceVersion, revision)
		}
		revision = stream.ResourceVersion
	}
}

func labelled(h *house) {
	h.t.Helper()
	_, _, err := h.update(h.streams, "team", "app", func(obj runtime.Object) {
		obj.(*imagev1.ImageStream).Labels = map[string]string{"a": "b"}
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestMappingConflict: a mapping comes after other changes of the stream, but not after a push of its tag.
func TestMappingConflict(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(h *house)
		problem   string
		shows     string
	}{
		"another tag is pushed":  {func(h *house) { h.push("team/app:v1", "b") }, "", "1 | v1 b#2 a#1 | v2 a#1"},
		"the tag is pushed":      {func(h *house) { h.push("team/app:v2", "b") }, "conflict", "1 | v1 a#1 | v2 b#1"},
		"the tag is pushed so":   {func(h *house) { h.push("team/app:v2", "a") }, "conflict", "1 | v1 a#1 | v2 a#1"},
		"the stream is labelled": {labelled, "", "1 | v1 a#1 | v2 a#1"},
	} {
		h := newHouse(t)
		a := h.push("team/app:v1", "a")
		h.before = func() {
			h.before = nil
			test.meanwhile(h)
		}
		mapping := &imagev1.ImageStreamMapping{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Tag: "v2", Image: imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: a.String()}}}
		_, err := h.create(h.mappings, "team", mapping)
		if got := h.shows(h.get(h.streams, "team", "app")); (err == nil) != (test.problem == "") || err != nil && problem(err) != test.problem || got != test.shows {
			t.Errorf("%s: %v and %s, want %q and %s", name, err, got, test.problem, test.shows)
		}
	}
}

// TestPoint: an item is the newest of a history unless that names the same image.
func TestPoint(t *testing.T) {
	for name, test := range map[string]struct {
		head, item imagev1.TagEvent // the head without anything is none
		want       string
	}{
		"no history":                     {imagev1.TagEvent{}, imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, "a=r#1"},
		"the same":                       {imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, "a=r#1"},
		"the same, asked for again":      {imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 2}, "a=r#2"},
		"the same, pushed since":         {imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 3}, imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 2}, "a=r#3"},
		"another reference of it":        {imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{Image: "a", DockerImageReference: "s", Generation: 1}, "a=r#1"},
		"another image":                  {imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{Image: "b", DockerImageReference: "s", Generation: 2}, "b=s#2 a=r#1"},
		"a mere reference, and the same": {imagev1.TagEvent{DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{DockerImageReference: "r", Generation: 2}, "=r#2"},
		"another mere reference":         {imagev1.TagEvent{DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{DockerImageReference: "s", Generation: 2}, "=s#2 =r#1"},
		"an image after a reference":     {imagev1.TagEvent{DockerImageReference: "r", Generation: 1}, imagev1.TagEvent{Image: "a", DockerImageReference: "r", Generation: 2}, "a=r#2 =r#1"},
	} {
		after := &imagev1.ImageStream{}
		if test.head != (imagev1.TagEvent{}) {
			after.Status.Tags = []imagev1.NamedTagEventList{{Tag: "v1", Items: []imagev1.TagEvent{test.head}, Conditions: []imagev1.TagEventCondition{{}}}}
		}
		(&resolution{after: after}).point("v1", test.item)
		var got []string
		for _, item := range after.Status.Tags[0].Items {
			got = append(got, fmt.Sprintf("%s=%s#%d", item.Image, item.DockerImageReference, item.Generation))
		}
		if strings.Join(got, " ") != test.want || len(after.Status.Tags[0].Conditions) > 0 {
			t.Errorf("%s: %v, want %s", name, got, test.want)
		}
	}
}
