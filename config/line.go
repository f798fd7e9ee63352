package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Line returns the line, from 1, of a key such as "imageapi.store.path" in a file's content, or that of the nearest
// section above it; 0 if there is neither, or if the content is no YAML.
func Line(content []byte, key string) int {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil || len(document.Content) == 0 {
		return 0
	}
	line, at := 0, document.Content[0]
	for name := range strings.SplitSeq(key, ".") {
		var next *yaml.Node
		for i := 0; at.Kind == yaml.MappingNode && i+1 < len(at.Content); i += 2 {
			if at.Content[i].Value == strings.TrimSuffix(name, "[]") {
				line, next = at.Content[i].Line, at.Content[i+1]
			}
		}
		if next == nil {
			break
		}
		at = next
	}
	return line
}
