package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/distribution/distribution/v3/configuration"
	"go.yaml.in/yaml/v3"
)

// Problem is a key that nobody reads.
type Problem struct {
	// Line is where it is in the file, from 1.
	Line int
	// Path is the key with those above it, such as "http.adr".
	Path string
	// Nearest is the known key that is most like it, "" if none is.
	Nearest string
	// Duplicate is set if the key is known but was given before.
	Duplicate bool

	ours bool
}

// Error implements error.
func (p Problem) Error() string {
	if p.Duplicate {
		return fmt.Sprintf("line %d: key %q is given twice; the last one counts", p.Line, p.Path)
	}
	s := fmt.Sprintf("line %d: unknown key %q", p.Line, p.Path)
	if p.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", p.Nearest)
	}
	return s
}

// storageSettings are the keys of distribution's storage section that are not drivers.
// storageDrivers and authTypes are the ones that this binary has.
var (
	storageSettings = []string{"cache", "delete", "maintenance", "redirect", "tag"}
	storageDrivers  = []string{"azure", "filesystem", "gcs", "inmemory", "s3"}
	authTypes       = []string{"htpasswd", "none", "silly", "token"}
)

// check finds the keys that nobody reads, in both parts of the file.
func check(document *yaml.Node) ([]Problem, error) {
	root := document
	if root.Kind == yaml.DocumentNode {
		root = root.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("the configuration is empty, or not a mapping of keys to values")
	}
	c := &checker{}
	known := fieldsOf(reflect.TypeFor[configuration.Configuration]())
	known[section] = reflect.TypeFor[ImageAPI]()
	c.mapping(root, "", known)
	return c.problems, nil
}

type checker struct{ problems []Problem }

// mapping checks the keys of node; known gives the type of each value, nil for
// one that is not looked into.
func (c *checker) mapping(node *yaml.Node, path string, known map[string]reflect.Type) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		kind, ok := known[key.Value]
		switch {
		case !ok:
			c.report(Problem{Line: key.Line, Path: full, Nearest: nearest(key.Value, slices.Collect(maps.Keys(known)))})
			continue
		case seen[key.Value]:
			c.report(Problem{Line: key.Line, Path: full, Duplicate: true})
		}
		seen[key.Value] = true
		c.value(value, full, kind)
	}
}

func (c *checker) report(p Problem) {
	p.ours = p.Path != section && strings.HasPrefix(p.Path, section+".")
	c.problems = append(c.problems, p)
}

func (c *checker) value(node *yaml.Node, path string, kind reflect.Type) {
	for kind != nil && kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	if kind == nil || node.Kind == yaml.ScalarNode || node.Kind == yaml.AliasNode {
		return
	}
	switch {
	case kind == reflect.TypeFor[configuration.Storage]():
		c.named(node, path, append(slices.Clone(storageSettings), storageDrivers...))
	case kind == reflect.TypeFor[configuration.Auth]():
		c.named(node, path, authTypes)
	case kind.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		c.mapping(node, path, fieldsOf(kind))
	case kind.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		for i, item := range node.Content {
			c.value(item, fmt.Sprintf("%s[%d]", path, i), kind.Elem())
		}
	case kind.Kind() == reflect.Map && kind.Elem().Kind() == reflect.Slice && node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			c.value(node.Content[i+1], path+"."+node.Content[i].Value, kind.Elem())
		}
	}
}

// named checks a section whose keys are names. It does not check their values.
func (c *checker) named(node *yaml.Node, path string, names []string) {
	known := map[string]reflect.Type{}
	for _, name := range names {
		known[name] = nil
	}
	if node.Kind == yaml.MappingNode {
		c.mapping(node, path, known)
	}
}

// fieldsOf returns the keys that a struct is read from, with their types.
func fieldsOf(kind reflect.Type) map[string]reflect.Type {
	known := map[string]reflect.Type{}
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(options, "inline"):
			maps.Copy(known, fieldsOf(field.Type))
		case name == "":
			known[strings.ToLower(field.Name)] = field.Type
		case name != "-":
			known[name] = field.Type
		}
	}
	return known
}

// nearest returns the candidate that is most like name, "" if none is like it.
func nearest(name string, candidates []string) string {
	slices.Sort(candidates)
	best, bestDistance := "", max(3, len(name)/2+1)
	for _, candidate := range candidates {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// child returns the value of a top-level key, nil if there is none.
func child(document *yaml.Node, name string) *yaml.Node {
	root := document
	if root.Kind == yaml.DocumentNode {
		root = root.Content[0]
	}
	var found *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			found = root.Content[i+1]
		}
	}
	return found
}
