package manifest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// AnnotationAmbiguous is the annotation of an Image with the names of Manifest.Ambiguous.
const AnnotationAmbiguous = "tallyman.dev/ambiguous"

// fields has the fields of an object by their names in lower case, each with the fields of its
type fields map[string]fields

var (
	platformFields   = fields{"architecture": nil, "os": nil, "os.version": nil, "variant": nil}
	descriptorFields = fields{"mediatype": nil, "digest": nil, "size": nil, "urls": nil, "artifacttype": nil, "platform": platformFields}
	documentFields   = fields{
		"schemaversion": nil, "mediatype": nil, "artifacttype": nil, "annotations": nil,
		"config": descriptorFields, "layers": descriptorFields, "blobs": descriptorFields, "manifests": descriptorFields, "subject": descriptorFields,
		"fslayers": {"blobsum": nil}, "history": {"v1compatibility": nil},
	}
)

// canonical are the names that are not in lower case.
var canonical = map[string]string{
	"schemaversion": "schemaVersion", "mediatype": "mediaType", "artifacttype": "artifactType", "fslayers": "fsLayers",
	"blobsum": "blobSum", "v1compatibility": "v1Compatibility",
}

// ambiguous returns Manifest.Ambiguous.
func ambiguous(d *document, m *Manifest, content []byte) []string {
	found := map[string]bool{}
	foreign := func(name string, given bool) {
		if given {
			found[name] = true
		}
	}
	index, schema1 := m.IsIndex(), m.MediaType == MediaTypeSchema1
	foreign("config", d.Config.given && (index || schema1))
	foreign("layers", d.Layers.given && (index || schema1))
	foreign("manifests", d.Manifests.given && !index)
	foreign("fsLayers", d.FSLayers.given && !schema1)
	foreign("history", d.History.given && !schema1)
	findRepeated(json.NewDecoder(bytes.NewReader(content)), documentFields, "", found)
	return slices.Sorted(maps.Keys(found))
}

// findRepeated reads one value and notes the names of fields that an object has more than once.
func findRepeated(decoder *json.Decoder, known fields, path string, found map[string]bool) {
	token, err := decoder.Token()
	if err != nil {
		return // never: the content has been parsed
	}
	switch token {
	case json.Delim('['):
		for decoder.More() {
			findRepeated(decoder, known, path, found)
		}
		_, _ = decoder.Token()
	case json.Delim('{'):
		findRepeatedFields(decoder, known, path, found)
	}
}

func findRepeatedFields(decoder *json.Decoder, known fields, path string, found map[string]bool) {
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return
		}
		name, _ := token.(string)
		key, inner, isField := known.find(name)
		if isField {
			at := key
			if proper, ok := canonical[key]; ok {
				at = proper
			}
			if path != "" {
				at = path + "." + at
			}
			if seen[key] {
				found[at] = true
			}
			seen[key] = true
			if inner != nil {
				findRepeated(decoder, inner, at, found)
				continue
			}
		}
		var skipped json.RawMessage
		if decoder.Decode(&skipped) != nil {
			return
		}
	}
	_, _ = decoder.Token()
}

// find returns the field that encoding/json takes name for.
func (f fields) find(name string) (key string, inner fields, ok bool) {
	key = strings.ToLower(name)
	if inner, ok = f[key]; ok {
		return key, inner, true
	}
	for key, inner := range f { // other letters that fold to the same, such as the long s
		if strings.EqualFold(key, name) {
			return key, inner, true
		}
	}
	return "", nil, false
}
