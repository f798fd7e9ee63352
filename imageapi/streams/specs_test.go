package streams

import (
	"fmt"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// ref returns a spec tag of a source, as kind namespace/name, "" for none.
func ref(source string, change ...func(*imagev1.TagReference)) *imagev1.TagReference {
	tag := &imagev1.TagReference{Name: "t"}
	if source != "" {
		kind, rest, _ := strings.Cut(source, " ")
		namespace, name, ok := strings.Cut(rest, "/")
		if !ok {
			namespace, name = "", rest
		}
		tag.From = &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: name}
	}
	for _, fn := range change {
		fn(tag)
	}
	return tag
}

func generation(n int64) func(*imagev1.TagReference) {
	return func(r *imagev1.TagReference) { r.Generation = ptr.To(n) }
}

func TestChanged(t *testing.T) {
	const is = KindImageStreamTag
	isReference := func(r *imagev1.TagReference) { r.Reference = true }
	whole := func(r *imagev1.TagReference) { r.ImportPolicy.ImportMode = imagev1.ImportModePreserveOriginal }
	annotated := func(r *imagev1.TagReference) { r.Annotations = map[string]string{"a": "b"} }
	for name, test := range map[string]struct {
		before, after *imagev1.TagReference
		want          bool
	}{
		"no source before and after":          {ref(""), ref(""), false},
		"a new tag without a source":          {nil, ref(""), false},
		"the same name":                       {ref(is + " a"), ref(is + " a"), false},
		"another name":                        {ref(is + " a"), ref(is + " b"), true},
		"an empty source":                     {ref(is + " a"), ref(" "), false},
		"the source is gone":                  {ref(is + " a"), ref(""), false},
		"a new tag":                           {nil, ref(is + " a"), true},
		"a new source":                        {ref(""), ref(is + " a"), true},
		"another namespace":                   {ref(is + " a"), ref(is + " another/a"), true},
		"the own namespace instead":           {ref(is + " something/a"), ref(is + " a"), true},
		"the own namespace, said and not":     {ref(is + " ns/a"), ref(is + " a"), false},
		"a reference alone":                   {ref(is + " a"), ref(is+" a", isReference), true},
		"another import mode":                 {ref(is + " a"), ref(is+" a", whole), true},
		"another kind":                        {ref(is + " a"), ref(KindDockerImage + " a"), true},
		"asked for again":                     {ref(is+" a", generation(3)), ref(is+" a", generation(0)), true},
		"another generation":                  {ref(is+" a", generation(3)), ref(is+" a", generation(7)), false},
		"asked for again before it was known": {ref(is+" a", generation(0)), ref(is+" a", generation(0)), false},
		"annotations":                         {ref(is + " a"), ref(is+" a", annotated), false},
	} {
		if got := Changed("ns", test.before, test.after); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestSetGenerations: a change of the spec is one more generation, which the spec tags that changed have, too.
func TestSetGenerations(t *testing.T) {
	stream := func(n int64, tags ...*imagev1.TagReference) *imagev1.ImageStream {
		s := &imagev1.ImageStream{}
		s.Generation = n
		for i, tag := range tags {
			named := *tag
			named.Name = fmt.Sprint("t", i)
			s.Spec.Tags = append(s.Spec.Tags, named)
		}
		return s
	}
	pushed := stream(2)
	pushed.Status.Tags = []imagev1.NamedTagEventList{{Tag: "p", Items: []imagev1.TagEvent{{Generation: 7}}}}
	a, b := ref(KindDockerImage+" a", generation(2)), ref(KindDockerImage+" b")
	for name, test := range map[string]struct {
		before, after *imagev1.ImageStream
		want          string
	}{
		"new":                         {nil, stream(9, ref(KindDockerImage+" a", generation(5))), "1: 1"},
		"unchanged":                   {stream(3, a), stream(8, a), "3: 2"},
		"unchanged, other generation": {stream(3, a), stream(3, ref(KindDockerImage+" a", generation(9))), "3: 2"},
		"another source":              {stream(3, a), stream(3, b), "4: 4"},
		"asked for again":             {stream(3, a), stream(3, ref(KindDockerImage+" a", generation(0))), "4: 4"},
		"one more":                    {stream(3, a), stream(3, a, b), "4: 2 4"},
		"a tag goes":                  {stream(3, a, b), stream(3, a), "4: 2"},
		"a tag goes from one without": {stream(3, b, b), stream(3, b), "4: 4"},
		"pushes have counted on":      {pushed, stream(2, b), "8: 8"},
	} {
		SetGenerations(test.before, test.after)
		got := fmt.Sprintf("%d:", test.after.Generation)
		for i := range test.after.Spec.Tags {
			got += fmt.Sprintf(" %d", ptr.Deref(test.after.Spec.Tags[i].Generation, -1))
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestNormalize: of two tags with one name the later one counts, and the rest is sorted and has defaults.
func TestNormalize(t *testing.T) {
	spec := imagev1.ImageStreamSpec{Tags: []imagev1.TagReference{{Name: "v3.5.0"}, {Name: "b", Reference: true}, {Name: "3.5.0"}, {Name: "b"}}}
	Normalize(&spec)
	got := ""
	for _, tag := range spec.Tags {
		got += fmt.Sprintf("%s %t %s %s\n", tag.Name, tag.Reference, tag.ReferencePolicy.Type, tag.ImportPolicy.ImportMode)
	}
	if want := "3.5.0 false Source Legacy\nb false Source Legacy\nv3.5.0 false Source Legacy\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSource(t *testing.T) {
	own := Stream{"ns", "app"}
	for from, want := range map[string]string{
		KindImageStreamTag + " v1":            "ns/app v1 true",
		KindImageStreamTag + " other:v1":      "ns/other v1 true",
		KindImageStreamTag + " team/other:v1": "team/other v1 true",
		KindImageStreamTag + " a:b:c":         "ns/a b:c false",
		KindImageStreamTag + " :v1":           "ns/ v1 false",
		KindImageStreamTag + " a:":            "ns/a  false",
		KindImageStreamImage + " sha256:12":   "ns/app sha256:12 true",
		KindImageStreamImage + " other@12":    "ns/other 12 true",
		KindImageStreamImage + " a@b@c":       "ns/a b@c false",
		KindDockerImage + " a:b":              "/  false",
		"":                                    "/  false",
	} {
		stream, name, ok := Source(own, ref(from).From)
		if got := fmt.Sprintf("%s/%s %s %t", stream.Namespace, stream.Name, name, ok); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
}
