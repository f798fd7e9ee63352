package streams

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = metav1.NewTime(time.Date(2026, 1, 2, 14, 0, 0, 0, time.UTC))

func TestImageTagTable(t *testing.T) {
	spec := func(generation int64, kind, namespace, name string) *imagev1.TagReference {
		return &imagev1.TagReference{Generation: &generation, From: &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: name}}
	}
	reference, scheduled := spec(0, KindDockerImage, "", "a/b:c"), spec(0, KindImageStreamTag, "a", "b:c")
	reference.Reference, scheduled.ImportPolicy.Scheduled = true, true
	history := func(generations ...int64) *imagev1.NamedTagEventList {
		list := &imagev1.NamedTagEventList{}
		for _, generation := range generations {
			list.Items = append(list.Items, imagev1.TagEvent{Created: metav1.NewTime(now.Add(-time.Hour)), Image: "sha256:x", Generation: generation})
		}
		return list
	}
	failed := &imagev1.NamedTagEventList{Conditions: []imagev1.TagEventCondition{{Type: imagev1.ImportSuccess, Status: corev1.ConditionFalse, Reason: "AbjectFailure", LastTransitionTime: metav1.NewTime(now.Add(-2 * time.Minute))}}}
	for name, test := range map[string]struct {
		spec   *imagev1.TagReference
		status *imagev1.NamedTagEventList
		want   string
	}{
		"nothing":                         {nil, nil, "|||<nil>|"},
		"nothing that it is from":         {&imagev1.TagReference{From: &corev1.ObjectReference{}}, nil, "|Tag|InvalidRefKind|<nil>|"},
		"a reference":                     {reference, nil, "|Ref|a/b:c|<nil>|"},
		"a tag":                           {spec(0, KindImageStreamTag, "", "b:c"), nil, "|Tag|istag/b:c|<nil>|"},
		"a tag of a namespace, scheduled": {scheduled, nil, "|Scheduled|istag a/b:c|<nil>|"},
		"an image":                        {spec(0, KindImageStreamImage, "", "b@sha256:x"), nil, "|Tag|image/sha256:x|<nil>|"},
		"an image without an id":          {spec(0, KindImageStreamImage, "", "b"), nil, "|Tag|InvalidRefName|<nil>|"},
		"a failed import":                 {spec(1, KindDockerImage, "", "a/b:c"), failed, "|Tag|ImportFailed (AbjectFailure)|<nil>|2 minutes ago"},
		"an import under way":             {spec(2, KindDockerImage, "", "a/b:c"), history(1), "|Tag|Importing|1|About an hour ago"},
		"a push":                          {nil, history(1, 1), "|Push|image/sha256:x|2|About an hour ago"},
		"a push over a tag":               {spec(3, KindDockerImage, "", "a/b:c"), history(4), "|Push|image/sha256:x|1|About an hour ago"},
		"a tag that is tracked":           {spec(1, KindImageStreamTag, "", "other"), history(2), "|Track|image/sha256:x|1|About an hour ago"},
	} {
		cells := tagCells(&imagev1.ImageTag{Spec: test.spec, Status: test.status}, now.Time)
		var got []string
		for _, cell := range cells {
			got = append(got, fmt.Sprint(cell))
		}
		if strings.Join(got, "|") != test.want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, "|"), test.want)
		}
	}
}

func TestStreamCells(t *testing.T) {
	at := func(tag string, minutes int) imagev1.NamedTagEventList {
		return imagev1.NamedTagEventList{Tag: tag, Items: []imagev1.TagEvent{{Created: metav1.NewTime(now.Add(-time.Duration(minutes) * time.Minute))}}}
	}
	long := strings.Repeat("x", 60)
	for name, test := range map[string]struct {
		tags []imagev1.NamedTagEventList
		want string
	}{
		"none":                        {nil, "[app host/app  ]"},
		"the newest first":            {[]imagev1.NamedTagEventList{at("latest", 7), at("other", 8), at("third", 6)}, "[app host/app third,latest,other 6 minutes ago]"},
		"ties by name":                {[]imagev1.NamedTagEventList{at("b", 1), at("a", 1)}, "[app host/app a,b About a minute ago]"},
		"the first one, however long": {[]imagev1.NamedTagEventList{at(long, 1), at("b", 2), at("c", 3)}, "[app host/app " + long + " + 2 more... About a minute ago]"},
		"many":                        {[]imagev1.NamedTagEventList{at("version-000001", 1), at("version-000002", 2), at("version-000003", 3), at("version-000004", 4)}, "[app host/app version-000001,version-000002 + 2 more... About a minute ago]"},
		"one without history":         {[]imagev1.NamedTagEventList{{Tag: "pending"}}, "[app host/app pending ]"},
	} {
		stream := &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Status: imagev1.ImageStreamStatus{DockerImageRepository: "host/app", Tags: test.tags}}
		if got := fmt.Sprint(streamCells(stream, now.Time)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	stream := &imagev1.ImageStream{Spec: imagev1.ImageStreamSpec{DockerImageRepository: "spec"}, Status: imagev1.ImageStreamStatus{DockerImageRepository: "status"}}
	if cells := streamCells(stream, now.Time); cells[1] != "spec" {
		t.Errorf("the repository is %v", cells[1])
	}
	stream.Status.PublicDockerImageRepository = "public"
	if cells := streamCells(stream, now.Time); cells[1] != "public" {
		t.Errorf("the repository is %v", cells[1])
	}
}

// TestManyTags: a stream shows the tags that were pushed last, within its bound, and says that there are
// more.
func TestManyTags(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, number := range []int{100, 20_000} {
		tags := &Tags{}
		for n := range number {
			created := metav1.NewTime(now.Add(time.Duration(n*7919%number) * time.Second)) // in no order
			item := imagev1.TagEvent{Created: created, Image: digest, DockerImageReference: "host/team/app@" + digest}
			tags.Add(fmt.Sprintf("v%05d", n*7919%number), &imagev1.ImageTag{Status: &imagev1.NamedTagEventList{Items: []imagev1.TagEvent{item, item, item}}})
		}
		stream := ImageStream(&imagev1.ImageStream{}, tags, Hosts{Own: "host"}, "team/app")
		size := 0
		for i := range stream.Status.Tags {
			size += (&shownTag{status: stream.Status.Tags[i]}).bytes()
			if i > 0 && stream.Status.Tags[i].Tag <= stream.Status.Tags[i-1].Tag {
				t.Fatal("the tags are not in order")
			}
		}
		cut := stream.Annotations["tallyman.dev/truncated"] == "true"
		last := stream.Status.Tags[len(stream.Status.Tags)-1].Tag
		if first := stream.Status.Tags[0].Tag; size > maxTagBytes || cut != (number > 100) || last != fmt.Sprintf("v%05d", number-1) || cut && first != fmt.Sprintf("v%05d", number-len(stream.Status.Tags)) {
			t.Errorf("%d tags: %d from %s to %s with %d bytes, marked %t", number, len(stream.Status.Tags), first, last, size, cut)
		}
		want := fmt.Sprintf("v%05d,v%05d,v%05d,v%05d,v%05d + %d more...", number-1, number-2, number-3, number-4, number-5, number-5)
		if cell := streamCells(stream, now.Time)[2]; cell != want {
			t.Errorf("%d tags: the table says %s, want %s", number, cell, want)
		}
	}
}

// TestChangedTags: tags after changes are those that they would be if all were added anew, or say that they do
// not know.
func TestChangedTags(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, number := range []int{50, 3000, 15_000} {
		all, clock, unknown := map[string]*imagev1.ImageTag{}, 0, 0
		push := func(name string) {
			clock++
			item := imagev1.TagEvent{Created: metav1.NewTime(now.Add(time.Duration(clock) * time.Second)), Image: "sha256:" + strings.Repeat("0", 64), DockerImageReference: "host/team/app@sha256:" + strings.Repeat("0", 64+random.IntN(200))}
			items := []imagev1.TagEvent{item}
			if former := all[name]; former != nil && len(former.Status.Items) > 0 {
				items = append(items, former.Status.Items[0])
			}
			all[name] = &imagev1.ImageTag{Status: &imagev1.NamedTagEventList{Items: items}}
		}
		rebuild := func() *Tags {
			tags := &Tags{}
			for name, tag := range all {
				tags.Add(name, tag)
			}
			return tags
		}
		for n := range number {
			push(fmt.Sprint("v", n))
		}
		tags := rebuild()
		byAge := func() []string { // the oldest first
			names := slices.Sorted(maps.Keys(all))
			slices.SortStableFunc(names, func(a, b string) int { return pushed(all[a].Status).Compare(pushed(all[b].Status)) })
			return names
		}
		for round := range 22 {
			changes, former := map[string]TagChange{}, maps.Clone(all)
			switch names := byAge(); round {
			case 20: // those that are left out for long become others, which have never been pushed
				for _, name := range names[:len(names)/7] {
					all[name] = &imagev1.ImageTag{Spec: &imagev1.TagReference{Name: name}, Status: &imagev1.NamedTagEventList{}}
					changes[name] = TagChange{former[name], all[name]}
				}
			case 21: // and many of those that are shown go
				for _, name := range names[len(names)-len(names)*23/100:] {
					delete(all, name)
					changes[name] = TagChange{former[name], nil}
				}
			}
			for range 1 + random.IntN(3) {
				name := fmt.Sprint("v", random.IntN(number+10))
				switch random.IntN(4) {
				case 0:
					delete(all, name)
				case 1:
					all[name] = &imagev1.ImageTag{Spec: &imagev1.TagReference{Name: name}, Status: &imagev1.NamedTagEventList{}}
				default:
					push(name)
				}
				changes[name] = TagChange{former[name], all[name]}
			}
			next, ok := tags.Changed(changes)
			want := rebuild()
			if !ok {
				unknown++
				next = want
			}
			tags = next
			got, expected := ImageStream(&imagev1.ImageStream{}, tags, Hosts{Own: "host"}, "team/app"), ImageStream(&imagev1.ImageStream{}, want, Hosts{Own: "host"}, "team/app")
			if !equality.Semantic.DeepEqual(got, expected) {
				t.Fatalf("%d tags: %d and %d are shown", number, len(got.Status.Tags), len(expected.Status.Tags))
			}
		}
		if unknown > 12 || number < 15_000 && unknown > 0 {
			t.Errorf("%d tags: %d of 22 changes were not known", number, unknown)
		}
	}
}

// TestOldTagsKept: tags that are kept although newer ones were left out do not make up for those, when the
// newest go.
func TestOldTagsKept(t *testing.T) {
	tag := func(clock int) *imagev1.ImageTag {
		item := imagev1.TagEvent{Created: metav1.NewTime(now.Add(time.Duration(clock) * time.Second)), Image: "sha256:" + strings.Repeat("0", 64), DockerImageReference: strings.Repeat("x", 200)}
		return &imagev1.ImageTag{Status: &imagev1.NamedTagEventList{Items: []imagev1.TagEvent{item}}}
	}
	tags, name := &Tags{}, func(clock int) string { return fmt.Sprintf("v%06d", clock+100_000) }
	last := 0
	for before := 0; last < 15_000 || tags.size > before; last++ { // until others have just been left out
		before = tags.size
		tags.Add(name(last), tag(last))
	}
	each := tags.size / tags.Len()
	for clock := -1; tags.size < keptTagBytes+maxTagBytes-2*each; clock-- { // older than those that were left out
		tags.Add(name(clock), tag(clock))
	}
	changes := map[string]TagChange{}
	for n := range (keptTagBytes - maxTagBytes/2) / each {
		changes[name(last-1-n)] = TagChange{Before: tag(last - 1 - n)}
	}
	changed, ok := tags.Changed(changes)
	if ok || changed.size <= maxTagBytes {
		t.Errorf("%d bytes are kept, and known: %t", changed.size, ok)
	}
	if _, ok := tags.Changed(map[string]TagChange{name(last - 1): {Before: tag(last - 1)}, name(-1): {tag(-1), tag(last)}}); !ok {
		t.Error("a small change is not known")
	}
}
