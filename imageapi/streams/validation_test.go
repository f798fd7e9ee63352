package streams

import (
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// wantProblem wants one problem with a text and a field, or none if want is "".
func wantProblem(t *testing.T, name string, problems field.ErrorList, want string) {
	t.Helper()
	if want == "" {
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		return
	}
	for _, problem := range problems {
		if strings.Contains(problem.Error(), want) {
			return
		}
	}
	t.Errorf("%s: %v, want %s", name, problems, want)
}

func TestValidateName(t *testing.T) {
	for name, test := range map[string]struct{ namespace, stream, want string }{
		"none":                {"ns", "", "metadata.name: Required"},
		"a slash":             {"ns", "foo/bar", "may not contain '/'"},
		"a percent sign":      {"ns", "foo%%bar", "may not contain '%'"},
		"a space":             {"ns", "foo bar", "must match"},
		"capitals":            {"ns", "Foo", "must match"},
		"an end":              {"ns", "foo-", "must match"},
		"one letter":          {"f", "g", ""},
		"all separators":      {"ns", "abc-123.dot_underscore-dash", ""},
		"a slash's stand-in":  {"ns", "a..b__c--d", ""},
		"the longest":         {strings.Repeat("a", 63), strings.Repeat("b", 191), ""},
		"too long":            {strings.Repeat("a", 63), strings.Repeat("b", 192), "longer than 255"},
		"no repository's":     {"ns", "a...b", "must match"},
		"another one's place": {DefaultNamespace, "ns..app", `is image stream "app" in namespace "ns"`},
	} {
		wantProblem(t, name, ValidateName(Names{}, test.namespace, test.stream), test.want)
	}
}

func TestValidateSpec(t *testing.T) {
	repository := func(name string) imagev1.ImageStreamSpec {
		return imagev1.ImageStreamSpec{DockerImageRepository: name}
	}
	tag := func(name, kind, from string, change func(*imagev1.TagReference)) imagev1.ImageStreamSpec {
		reference := imagev1.TagReference{Name: name, From: &corev1.ObjectReference{Kind: kind, Name: from}}
		SetDefaults(&reference)
		if change != nil {
			change(&reference)
		}
		return imagev1.ImageStreamSpec{Tags: []imagev1.TagReference{reference}}
	}
	scheduled := func(r *imagev1.TagReference) { r.ImportPolicy.Scheduled = true }
	mode := func(mode imagev1.ImportModeType) func(*imagev1.TagReference) {
		return func(r *imagev1.TagReference) { r.ImportPolicy.ImportMode = mode }
	}
	for name, test := range map[string]struct {
		spec imagev1.ImageStreamSpec
		want string
	}{
		"nothing":                     {imagev1.ImageStreamSpec{}, ""},
		"a repository":                {repository("registry.example.com/a/b"), ""},
		"no repository":               {repository("a-|///bbb"), "spec.dockerImageRepository: Invalid value: \"a-|///bbb\": invalid reference format"},
		"a repository with a tag":     {repository("a/b:tag"), "may not contain a tag"},
		"a repository with no digest": {repository("a/b@sha256:something"), "invalid reference format"},
		"a repository with a digest":  {repository("a/b@sha256:" + strings.Repeat("0", 64)), "may not contain an ID"},
		"another reference policy": {tag("t", KindDockerImage, "abc", func(r *imagev1.TagReference) { r.ReferencePolicy.Type = "Other" }),
			`spec.tags[t].referencePolicy.type: Invalid value: "Other": valid values are "Source", "Local"`},
		"a scheduled tag":        {tag("t", KindImageStreamTag, "other:latest", scheduled), "spec.tags[t].importPolicy.scheduled"},
		"a scheduled image":      {tag("t", KindImageStreamImage, "other@sha256:1", scheduled), "spec.tags[t].importPolicy.scheduled"},
		"a scheduled import":     {tag("t", KindDockerImage, "abc", scheduled), ""},
		"a reference with an id": {tag("t", KindDockerImage, "abc@badid", nil), "spec.tags[t].from.name: Invalid value: \"abc@badid\": invalid reference format"},
		"a namespace elsewhere":  {tag("t", KindDockerImage, "abc", func(r *imagev1.TagReference) { r.From.Namespace = "ns" }), "spec.tags[t].from.namespace"},
		"all parts":              {tag("t", KindDockerImage, "abc", mode(imagev1.ImportModePreserveOriginal)), ""},
		"another import mode":    {tag("t", KindDockerImage, "abc", mode("Invalid")), "invalid import mode"},
		"no source's name":       {tag("t", KindImageStreamTag, "", nil), "spec.tags[t].from.name: Required"},
		"no source's kind":       {tag("t", "", "abc", nil), "spec.tags[t].from.kind: Required"},
		"another kind":           {tag("t", "Image", "abc", nil), "spec.tags[t].from.kind: Required"},
		"a colon in the tag":     {tag("a:b", KindDockerImage, "abc", nil), "spec.tags[a:b].name: Invalid"},
		"a slash in the tag":     {tag("a/b", KindDockerImage, "abc", nil), "spec.tags[a/b].name: Invalid"},
		"no tag":                 {tag("", KindDockerImage, "abc", nil), "spec.tags[].name: Invalid"},
	} {
		wantProblem(t, name, ValidateSpec(&test.spec), test.want)
	}
}

func TestValidateStatusUpdate(t *testing.T) {
	item := func(image string) imagev1.TagEvent {
		return imagev1.TagEvent{Image: image, DockerImageReference: "host/app@" + image, Created: metav1.NewTime(time.Unix(int64(len(image)), 0))}
	}
	stream := func(tags ...imagev1.NamedTagEventList) *imagev1.ImageStream {
		return &imagev1.ImageStream{Status: imagev1.ImageStreamStatus{Tags: tags}}
	}
	tag := func(name string, items ...imagev1.TagEvent) imagev1.NamedTagEventList {
		return imagev1.NamedTagEventList{Tag: name, Items: items}
	}
	one, two, three := item("1"), item("22"), item("333")
	before := stream(tag("v1", three, two, one))
	for name, test := range map[string]struct {
		after *imagev1.ImageStream
		want  string
	}{
		"the same":        {before, ""},
		"without the end": {stream(tag("v1", three)), ""},
		"without a part":  {stream(tag("v1", three, one)), ""},
		"without the tag": {stream(), ""},
		"another order":   {stream(tag("v1", two, three)), "status.tags[v1]: Forbidden"},
		"another item":    {stream(tag("v1", three, item("4444"))), "status.tags[v1]: Forbidden"},
		"another tag":     {stream(tag("v2", one)), "status.tags[v2]: Forbidden"},
		"the same twice":  {stream(tag("v1", three), tag("v1", three)), "Duplicate"},
		"a new condition": {stream(imagev1.NamedTagEventList{Tag: "v1", Conditions: []imagev1.TagEventCondition{{Type: imagev1.ImportSuccess}}}), "Forbidden"},
	} {
		wantProblem(t, name, ValidateStatusUpdate(test.after, before), test.want)
	}
}
