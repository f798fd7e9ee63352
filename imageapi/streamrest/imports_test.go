package streamrest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"tallyman/imageapi/imports"
	"tallyman/imageapi/streams"
)

// upstream is another registry, with contents by repository:tag.
type upstream struct {
	mu       sync.Mutex
	contents map[string]string
	host     string
}

func newUpstream(t *testing.T) *upstream {
	u := &upstream{contents: map[string]string{}}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.host = strings.TrimPrefix(server.URL, "http://")
	return u
}

func (u *upstream) set(name, content string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.contents[name] = content; content == "" {
		delete(u.contents, name)
	}
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	repository, last, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if name, ok := strings.CutSuffix(repository, "/tags/list"); ok {
		var tags []string
		for full := range u.contents {
			if tag, ok := strings.CutPrefix(full, name+":"); ok {
				tags = append(tags, fmt.Sprintf("%q", tag))
			}
		}
		slices.Sort(tags)
		_, _ = fmt.Fprintf(w, `{"name":%q,"tags":[%s]}`, name, strings.Join(tags, ","))
		return
	}
	for full, content := range u.contents {
		body, name := contentOf(content)
		if full == repository+":"+last || path.Base(r.URL.Path) == name.String() {
			w.Header().Set("Content-Type", imagespec.MediaTypeImageIndex)
			w.Header().Set("Docker-Content-Digest", name.String())
			_, _ = io.WriteString(w, body)
			return
		}
	}
	http.NotFound(w, r)
}

// importOf returns a request to import images, each as "name" or "name to tag".
func (u *upstream) importOf(stream string, names ...string) *imagev1.ImageStreamImport {
	request := &imagev1.ImageStreamImport{ObjectMeta: metav1.ObjectMeta{Name: stream}, Spec: imagev1.ImageStreamImportSpec{Import: true}}
	for _, name := range names {
		name, to, ok := strings.Cut(name, " to ")
		image := imagev1.ImageImportSpec{From: corev1.ObjectReference{Kind: streams.KindDockerImage, Name: u.host + "/" + name}, ImportPolicy: imagev1.TagImportPolicy{Insecure: true}}
		if ok {
			image.To = &corev1.LocalObjectReference{Name: to}
		}
		request.Spec.Images = append(request.Spec.Images, image)
	}
	return request
}

// outcome prints the status of an import.
func outcome(answer *imagev1.ImageStreamImport) string {
	var text []string
	add := func(images []imagev1.ImageImportStatus) {
		for _, image := range images {
			text = append(text, fmt.Sprintf("%s %s%s %t", image.Tag, image.Status.Status, image.Status.Reason, image.Image != nil))
		}
	}
	add(answer.Status.Images)
	if repository := answer.Status.Repository; repository != nil {
		text = append(text, repository.Status.Status+" "+string(repository.Status.Reason))
		add(repository.Images)
		text = append(text, repository.AdditionalTags...)
	}
	return strings.Join(text, ", ")
}

func (h *house) doImport(request *imagev1.ImageStreamImport) *imagev1.ImageStreamImport {
	h.t.Helper()
	answer, err := h.create(h.imports, "team", request)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.(*imagev1.ImageStreamImport)
}

// conditions prints the conditions of the tags of a stream.
func conditions(stream *imagev1.ImageStream) (text string) {
	for i := range stream.Status.Tags {
		for _, c := range stream.Status.Tags[i].Conditions {
			text += fmt.Sprintf("%s %s=%s %s#%d ", stream.Status.Tags[i].Tag, c.Type, c.Status, c.Reason, c.Generation)
		}
	}
	return text
}

// TestImport: images of another registry become tags of the stream, and a failure is a condition of the tag
// until it succeeds.
func TestImport(t *testing.T) {
	u := newUpstream(t)
	h := newHouse(t, imports.Registry{Host: u.host, Insecure: true})
	h.push("elsewhere/app:v1", "a")
	h.push("elsewhere/app:v1", "b")
	u.set("up/app:v1", "a")
	for _, step := range []struct {
		name, change           string
		request                *imagev1.ImageStreamImport
		outcome, shows, failed string
		keeps                  bool // the stream's resourceVersion
	}{
		{"a new stream", "a", u.importOf("new", "up/app:v1"), "v1 Success true", "1 v1=1 | v1 a#1", "", false},
		{"the same again", "a", u.importOf("new", "up/app:v1"), "v1 Success true", "1 v1=1 | v1 a#1", "", true},
		{"to another tag", "a", u.importOf("new", "up/app:v1 to prod"), "prod Success true", "2 prod=2 v1=1 | prod a#2 | v1 a#1", "", false},
		{"another image", "b", u.importOf("new", "up/app:v1"), "v1 Success true", "3 prod=2 v1=3 | prod a#2 | v1 b#3 a#1", "", false},
		{"one that is gone", "", u.importOf("new", "up/app:v1"), "v1 FailureNotFound false", "4 prod=2 v1=4 | prod a#2 | v1 b#3 a#1", "v1 ImportSuccess=False NotFound#4 ", false},
		{"and again", "", u.importOf("new", "up/app:v1"), "v1 FailureNotFound false", "4 prod=2 v1=4 | prod a#2 | v1 b#3 a#1", "v1 ImportSuccess=False NotFound#4 ", true},
		{"back as it was", "b", u.importOf("new", "up/app:v1"), "v1 Success true", "5 prod=2 v1=5 | prod a#2 | v1 b#5 a#1", "", false},
		{"a new tag of none", "", u.importOf("new", "up/app:v9"), "v9 FailureNotFound false", "6 prod=2 v1=5 v9=6 | prod a#2 | v1 b#5 a#1 | v9", "v9 ImportSuccess=False NotFound#6 ", false},
	} {
		if u.set("up/app:v1", step.change); step.change == "" {
			u.set("up/app:v1", "")
		}
		before := ""
		if obj, err := h.streams.Get(h.of("team"), "new", &metav1.GetOptions{}); err == nil {
			before = obj.(*imagev1.ImageStream).ResourceVersion
		}
		reading := step.request.DeepCopy()
		reading.Spec.Import = false
		if got := outcome(h.doImport(reading)); got != step.outcome {
			t.Errorf("%s, only read: %s, want %s", step.name, got, step.outcome)
		}
		answer := h.doImport(step.request)
		if got := outcome(answer); got != step.outcome {
			t.Errorf("%s: %s, want %s", step.name, got, step.outcome)
		}
		if got := h.shows(answer.Status.Import); got != step.shows || conditions(answer.Status.Import) != step.failed {
			t.Errorf("%s: %s with %s, want %s with %s", step.name, got, conditions(answer.Status.Import), step.shows, step.failed)
		}
		if kept := answer.Status.Import.ResourceVersion == before; kept != step.keeps {
			t.Errorf("%s: from %s to %s", step.name, before, answer.Status.Import.ResourceVersion)
		}
	}
	stream := h.get(h.streams, "team", "new").(*imagev1.ImageStream)
	if tag := streams.SpecTag(stream, "prod"); tag.From.Kind != streams.KindDockerImage || tag.From.Name != u.host+"/up/app:v1" || !tag.ImportPolicy.Insecure {
		t.Errorf("%+v", tag)
	}
	if head := streams.Head(stream, "prod"); !strings.HasPrefix(head.DockerImageReference, "host:5000/team/new@sha256:") {
		t.Errorf("%+v", head)
	}
}

// TestImportKeepsPolicy: an import keeps the referencePolicy of a tag that has one, and brings its own to others.
func TestImportKeepsPolicy(t *testing.T) {
	u := newUpstream(t)
	h := newHouse(t, imports.Registry{Host: u.host, Insecure: true})
	h.push("elsewhere/app:v1", "a")
	u.set("up/app:v1", "a")
	policy := func(stream *imagev1.ImageStream, tag string) imagev1.TagReferencePolicyType {
		return streams.SpecTag(stream, tag).ReferencePolicy.Type
	}
	importWith := func(tag string, want imagev1.TagReferencePolicyType) *imagev1.ImageStream {
		request := u.importOf("new", "up/app:v1 to "+tag)
		request.Spec.Images[0].ReferencePolicy.Type = want
		return h.doImport(request).Status.Import
	}
	if got := policy(importWith("local", imagev1.LocalTagReferencePolicy), "local"); got != imagev1.LocalTagReferencePolicy {
		t.Errorf("a new tag has %q", got)
	}
	if got := policy(importWith("unset", ""), "unset"); got != imagev1.SourceTagReferencePolicy {
		t.Errorf("a new tag without one has %q", got)
	}
	if got := policy(importWith("unset", imagev1.LocalTagReferencePolicy), "unset"); got != imagev1.SourceTagReferencePolicy {
		t.Errorf("a tag with one has %q now", got)
	}
}

// importPending imports that which tags ask for, as the importer does.
func (h *house) importPending(scheduled bool) (errs []string) {
	h.t.Helper()
	if err := h.catalog.Records().SetComplete(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	err := h.catalog.Records().EachImport(h.t.Context(), scheduled, func(tag *imagev1.ImageTag) error {
		if err := h.imports.importTag(h.t.Context(), tag); err != nil {
			errs = append(errs, err.Error())
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return errs
}

// TestImportOfTags: tags with a source in another registry are imported once after each change of the source, and
// scheduled ones again and again.
func TestImportOfTags(t *testing.T) {
	u := newUpstream(t)
	h := newHouse(t, imports.Registry{Host: u.host, Insecure: true})
	h.push("elsewhere/app:v1", "a")
	h.push("elsewhere/app:v1", "b")
	u.set("up/app:v1", "a")
	set := func(tag, from string, change func(*imagev1.TagReference)) {
		t.Helper()
		spec := &imagev1.TagReference{From: &corev1.ObjectReference{Kind: streams.KindDockerImage, Name: from}, ImportPolicy: imagev1.TagImportPolicy{Insecure: true}}
		if change != nil {
			change(spec)
		}
		object := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "new:" + tag}, Tag: spec}
		if _, _, err := h.put(h.streamTags, "team", object.Name, object); err != nil {
			t.Fatal(err)
		}
	}
	scheduled := func(spec *imagev1.TagReference) { spec.ImportPolicy.Scheduled = true }
	here := u.host + "/up/app:v1"
	for _, step := range []struct {
		name          string
		do            func()
		scheduled     bool
		shows, failed string
	}{
		{"a new tag", func() { set("v1", here, nil) }, false, "2 v1=2 | v1 a#2", ""},
		{"nothing to do", func() { u.set("up/app:v1", "b") }, false, "2 v1=2 | v1 a#2", ""},
		{"a scheduled one", func() { set("s", here, scheduled) }, false, "4 s=4 v1=2 | s b#4 | v1 a#2", ""},
		{"which is as it was", nil, true, "4 s=4 v1=2 | s b#4 | v1 a#2", ""},
		{"and is another one", func() { u.set("up/app:v1", "a") }, true, "5 s=5 v1=2 | s a#5 b#4 | v1 a#2", ""},
		{"one that is gone", func() { u.set("up/app:v1", "") }, true, "6 s=6 v1=2 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 "},
		{"and again", nil, true, "6 s=6 v1=2 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 "},
		{"which is not pending", nil, false, "6 s=6 v1=2 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 "},
		{"another source", func() { set("v1", "registry.ltd/x/y:z", nil) }, false, "8 s=6 v1=8 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 v1 ImportSuccess=False Forbidden#8 "},
		{"the same, asked for again", func() {
			set("v1", "registry.ltd/x/y:z", func(spec *imagev1.TagReference) { spec.Generation = ptr.To[int64](0) })
		}, false, "10 s=6 v1=10 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 v1 ImportSuccess=False Forbidden#10 "},
		{"which is not pending, either", nil, false, "10 s=6 v1=10 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 v1 ImportSuccess=False Forbidden#10 "},
		{"a mere reference", func() {
			set("r", here, func(spec *imagev1.TagReference) { spec.Reference = true })
		}, false, "11 r=11 s=6 v1=10 | r ->" + here + "#11 | s a#5 b#4 | v1 a#2", "s ImportSuccess=False NotFound#6 v1 ImportSuccess=False Forbidden#10 "},
	} {
		if step.do != nil {
			step.do()
		}
		h.importPending(step.scheduled)
		stream := h.get(h.streams, "team", "new").(*imagev1.ImageStream)
		if got := h.shows(stream); got != step.shows || conditions(stream) != step.failed {
			t.Errorf("%s: %s with %q, want %s with %q", step.name, got, conditions(stream), step.shows, step.failed)
		}
	}
	if last := h.moves[len(h.moves)-1]; !strings.Contains(last, "system:image-import-controller") {
		t.Errorf("the last move is %s", last)
	}
}

// TestImportOfChangedTag: a source that is set while the former one is imported stays.
func TestImportOfChangedTag(t *testing.T) {
	u := newUpstream(t)
	h := newHouse(t, imports.Registry{Host: u.host, Insecure: true})
	h.push("elsewhere/app:v1", "a")
	u.set("up/app:v1", "a")
	object := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "new:v1"}, Tag: &imagev1.TagReference{
		From: &corev1.ObjectReference{Kind: streams.KindDockerImage, Name: u.host + "/up/app:v1"}, ImportPolicy: imagev1.TagImportPolicy{Insecure: true},
	}}
	if _, _, err := h.put(h.streamTags, "team", object.Name, object); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(tag *imagev1.ImageTag){
		"found":     func(*imagev1.ImageTag) {},
		"not found": func(tag *imagev1.ImageTag) { tag.Spec.From.Name = u.host + "/up/app:none" },
	} {
		if err := h.catalog.Records().SetComplete(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := h.catalog.Records().EachImport(t.Context(), false, func(tag *imagev1.ImageTag) error {
			change(tag)
			tag.Spec.Generation = ptr.To(*tag.Spec.Generation - 1) // as it was before
			return h.imports.importTag(t.Context(), tag)
		})
		stream := h.get(h.streams, "team", "new").(*imagev1.ImageStream)
		if got := h.shows(stream); err != nil || got != "1 v1=1" || conditions(stream) != "" {
			t.Errorf("%s: %s with %q, %v", name, got, conditions(stream), err)
		}
	}
}

// TestImportRepository: the tags of a repository that are wanted most are imported.
func TestImportRepository(t *testing.T) {
	u := newUpstream(t)
	h := newHouse(t, imports.Registry{Host: u.host, Insecure: true})
	h.push("elsewhere/app:v1", "a")
	for n := range maxTags + 1 {
		u.set(fmt.Sprintf("up/app:1.%d", n), "a")
	}
	request := &imagev1.ImageStreamImport{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Spec: imagev1.ImageStreamImportSpec{Import: true, Repository: &imagev1.RepositoryImportSpec{
		From: corev1.ObjectReference{Kind: streams.KindDockerImage, Name: u.host + "/up/app"}, ImportPolicy: imagev1.TagImportPolicy{Insecure: true},
	}}}
	answer := h.doImport(request)
	if got := outcome(answer); !strings.HasPrefix(got, "Success , 1.50 Success true, 1.49 Success true") || !strings.HasSuffix(got, "1.1 Success true, 1.0") {
		t.Error(got)
	}
	if got := len(answer.Status.Import.Status.Tags); got != maxTags {
		t.Errorf("%d tags", got)
	}
	request.Spec.Repository.From.Name = u.host + "/up/none"
	if got := outcome(h.doImport(request)); got != "Success " { // this registry lists no tags of it
		t.Error(got)
	}
}

// TestImportRefused: requests that are not carried out at all.
func TestImportRefused(t *testing.T) {
	u := newUpstream(t)
	allowed := imports.Registry{Host: u.host, Insecure: true}
	with := func(change func(*imagev1.ImageStreamImport)) *imagev1.ImageStreamImport {
		request := u.importOf("app", "up/app:v1")
		change(request)
		return request
	}
	for name, test := range map[string]struct {
		request *imagev1.ImageStreamImport
		want    string
	}{
		"another kind":         {with(func(r *imagev1.ImageStreamImport) { r.Spec.Images[0].From.Kind = streams.KindImageStreamTag }), "invalid: spec.images[0].from.kind: Invalid value: \"ImageStreamTag\": only DockerImage is supported"},
		"no name":              {with(func(r *imagev1.ImageStreamImport) { r.Spec.Images[0].From.Name = "" }), "invalid: spec.images[0].from.name: Required"},
		"nothing":              {with(func(r *imagev1.ImageStreamImport) { r.Spec.Images = nil }), "invalid: you must specify at least one image"},
		"a tag without a name": {with(func(r *imagev1.ImageStreamImport) { r.Spec.Images[0].To = &corev1.LocalObjectReference{} }), "invalid: spec.images[0].to.name: Required"},
		"a tag of a repository": {with(func(r *imagev1.ImageStreamImport) {
			r.Spec.Repository = &imagev1.RepositoryImportSpec{From: r.Spec.Images[0].From}
		}), "invalid: you must specify an image repository, not a tag or ID"},
		"a bad stream":      {with(func(r *imagev1.ImageStreamImport) { r.Name = "App" }), "invalid: metadata.name"},
		"another registry":  {with(func(r *imagev1.ImageStreamImport) { r.Spec.Images[0].From.Name = "registry.ltd/a/b" }), `invalid: spec.images[0].from.name: Forbidden: importing images from registry "registry.ltd" is forbidden: registry "registry.ltd" not allowed by allow list`},
		"a stale version":   {with(func(r *imagev1.ImageStreamImport) { r.ResourceVersion = "1" }), "conflict: the image stream was updated from \"1\" to"},
		"a version of none": {with(func(r *imagev1.ImageStreamImport) { r.Name, r.ResourceVersion = "none", "1" }), "not found"},
		"another namespace": {with(func(r *imagev1.ImageStreamImport) { r.Namespace = "other" }), "bad request"},
	} {
		h := newHouse(t, allowed)
		h.push("team/app:v1", "a")
		_, err := h.create(h.imports, "team", test.request)
		kind, text, _ := strings.Cut(test.want, ": ")
		if err == nil || problem(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		if len(h.moves) > 0 {
			t.Errorf("%s: moves %v", name, h.moves)
		}
	}
	if _, err := newHouse(t).create(newHouse(t).imports, "team", u.importOf("app", "up/app:v1")); !apierrors.IsForbidden(err) {
		t.Errorf("where there are no imports: %v", err)
	}
}
