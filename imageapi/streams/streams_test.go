package streams

import (
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

func TestStream(t *testing.T) {
	long := strings.Repeat("x", 64)
	for repository, want := range map[string]Stream{
		"team/app":          {"team", "app"},
		"team/app/base":     {"team", "app..base"},
		"team/a.b__c/d-e":   {"team", "a.b__c..d-e"},
		"app":               {"default", "app"},
		"default/app":       {"default", "default..app"},
		"default/a/b":       {"default", "default..a..b"},
		"my_team/app":       {"default", "my_team..app"},
		"my.team/app":       {"default", "my.team..app"},
		long + "/app":       {"default", long + "..app"},
		"team--x/app":       {"team--x", "app"},
		"1/2":               {"1", "2"},
		"default-x/default": {"default-x", "default"},
	} {
		got := Names{}.Stream(repository)
		if got != want {
			t.Errorf("%s is %v, want %v", repository, got, want)
		}
		if back, err := (Names{}).Repository(got); err != nil || back != repository {
			t.Errorf("%v is %q, %v, want %s", got, back, err, repository)
		}
	}
	others, err := New("images")
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]Stream{"app": {"images", "app"}, "default/app": {"default", "app"}, "images/app": {"images", "images..app"}} {
		if got := others.Stream(repository); got != want {
			t.Errorf("%s is %v, want %v", repository, got, want)
		}
	}
	if _, err := New("No_Label"); err == nil {
		t.Error("a namespace that is none was taken")
	}
}

func TestNoRepository(t *testing.T) {
	for stream, want := range map[Stream]string{
		{"team", ""}:               "invalid reference format",
		{"team", "App"}:            "invalid reference format",
		{"team", "a/b"}:            `is image stream "a..b" in namespace "team"`,
		{"default", "team..app"}:   `is image stream "app" in namespace "team"`,
		{"team", "a...b"}:          "invalid reference format",
		{"my_team", "app"}:         `is image stream "my_team..app" in namespace "default"`,
		{"default", "default/app"}: `is image stream "default..app"`,
	} {
		if repository, err := (Names{}).Repository(stream); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %q, %v, want %s", stream, repository, err, want)
		}
	}
}

func TestTagNames(t *testing.T) {
	if stream, tag, err := ParseTagName(TagName("app..base", "v1.0_x")); stream != "app..base" || tag != "v1.0_x" || err != nil {
		t.Errorf("%q, %q, %v", stream, tag, err)
	}
	for _, name := range []string{"", "app", ":v1", "app:", "app:v1:v2", "app:-v", "a/b:v1", "a!b:v1", "app:" + strings.Repeat("x", 129)} {
		if stream, tag, err := ParseTagName(name); err == nil {
			t.Errorf("%q is tag %q of stream %q", name, tag, stream)
		}
	}
}

// TestKeys: the tags of a stream follow each other.
func TestKeys(t *testing.T) {
	var keys []string
	for _, stream := range []string{"app", "app-x", "app.x", "app..x", "app0", "app_x"} {
		for _, tag := range []string{"v1", "v2", "Z", "_"} {
			key := Key("team", stream, tag)
			keys = append(keys, key)
			if !strings.HasPrefix(key, KeyPrefix(Stream{"team", stream})) {
				t.Errorf("%s does not start with %s", key, KeyPrefix(Stream{"team", stream}))
			}
		}
	}
	slices.Sort(keys)
	last, seen := "", map[string]bool{}
	for _, key := range keys {
		stream, _, _ := strings.Cut(key, KeySeparator)
		if stream != last && seen[stream] {
			t.Errorf("%s comes after another stream: %v", key, keys)
		}
		last, seen[stream] = stream, true
	}
}

func FuzzNames(f *testing.F) {
	f.Add("team/app", "default", "a..b")
	f.Add("app", "team", "b")
	f.Add("default/a/b", "default", "default..a")
	f.Fuzz(func(t *testing.T, repository, namespace, stream string) {
		if _, err := reference.WithName(repository); err == nil {
			s := Names{}.Stream(repository)
			if back, err := (Names{}).Repository(s); err != nil || back != repository {
				t.Errorf("%q is %v, and that %q, %v", repository, s, back, err)
			}
		}
		s := Stream{namespace, stream}
		if repository, err := (Names{}).Repository(s); err == nil && (Names{}).Stream(repository) != s {
			t.Errorf("%v is %q, and that %v", s, repository, Names{}.Stream(repository))
		}
	})
}
