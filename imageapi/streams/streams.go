// Package streams maps repositories to the namespaces and names under which the API has them:
// repository team/app is image stream app in namespace team, and its tag v1 is image tag app:v1.
//
// # Mapping
//
// The first segment of a repository's name is the namespace. The rest is the stream, with ".."
// for "/": a name has no two separators of this kind in a row. Three kinds of repositories are in
// the default namespace with their whole name as stream: those with one segment, those whose first
// segment is no DNS label, and those whose first segment is the default namespace itself. So the
// mapping can be reversed.
package streams

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation"
)

// DefaultNamespace is the default namespace where the configuration does not say it.
const DefaultNamespace = "default"

const (
	slash = ".."
	// KeySeparator is between stream and tag in a key. It sorts below every character of a
	// name, so that the tags of app come before those of app-x.
	KeySeparator = "!"
)

// Stream names an image stream.
type Stream struct{ Namespace, Name string }

// Names maps names. Its zero value has DefaultNamespace.
type Names struct{ namespace string }

// New returns the Names with a default namespace. It fails if that cannot be one.
func New(namespace string) (Names, error) {
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return Names{}, fmt.Errorf("namespace %q: %s", namespace, strings.Join(problems, ", "))
	}
	return Names{namespace}, nil
}

// Default returns the default namespace.
func (n Names) Default() string {
	if n.namespace == "" {
		return DefaultNamespace
	}
	return n.namespace
}

// Stream returns the stream of a repository.
func (n Names) Stream(repository string) Stream {
	first, rest, ok := strings.Cut(repository, "/")
	if !ok || first == n.Default() || len(validation.IsDNS1123Label(first)) > 0 {
		return Stream{n.Default(), strings.ReplaceAll(repository, "/", slash)}
	}
	return Stream{first, strings.ReplaceAll(rest, "/", slash)}
}

// Repository returns the repository of a stream. It fails for one that no repository has.
func (n Names) Repository(s Stream) (string, error) {
	repository := strings.ReplaceAll(s.Name, slash, "/")
	if s.Namespace != n.Default() {
		repository = s.Namespace + "/" + repository
	}
	if _, err := reference.WithName(repository); err != nil {
		return "", fmt.Errorf("image stream %q in namespace %q: repository %q: %w", s.Name, s.Namespace, repository, err)
	}
	if theirs := n.Stream(repository); theirs != s {
		return "", fmt.Errorf("image stream %q in namespace %q: repository %q is image stream %q in namespace %q", s.Name, s.Namespace, repository, theirs.Name, theirs.Namespace)
	}
	return repository, nil
}

// TagName returns the name of an image tag.
func TagName(stream, tag string) string { return stream + ":" + tag }

// ParseTagName is the inverse of TagName. It fails for a name that no image tag has.
func ParseTagName(name string) (stream, tag string, err error) {
	stream, tag, ok := strings.Cut(name, ":")
	if !ok || stream == "" {
		return "", "", fmt.Errorf("name %q: want <stream>:<tag>", name)
	}
	if !IsName(stream) || !isTag(tag) {
		return "", "", fmt.Errorf("name %q: %w", name, errors.New("want the name of a stream, a colon and a tag of letters, digits, '_', '.' and '-'"))
	}
	return stream, tag, nil
}

func isTag(name string) bool {
	return reference.TagRegexp.MatchString(name) && reference.TagRegexp.FindString(name) == name
}

// IsName reports whether a stream may be called name, as far as keys are concerned.
func IsName(name string) bool { return name != "" && !strings.ContainsAny(name, "/:@"+KeySeparator) }

// Key returns the part of a key for an image tag called name in a namespace, so that the keys of
// one stream's tags follow each other.
func Key(namespace, stream, tag string) string {
	return namespace + "/" + stream + KeySeparator + tag
}

// KeyPrefix starts the keys of a stream's tags.
func KeyPrefix(s Stream) string { return Key(s.Namespace, s.Name, "") }
