package manifest

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
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
	decoder := jsontext.NewDecoder(bytes.NewBuffer(content), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	findRepeated(decoder, documentFields, "", found)
	return slices.Sorted(maps.Keys(found))
}

// findRepeated reads one value and notes the names of fields that an object has more than once. The
// content has been parsed, so that there are no errors.
func findRepeated(decoder *jsontext.Decoder, known fields, path string, found map[string]bool) {
	switch decoder.PeekKind() {
	case '[':
		_, _ = decoder.ReadToken()
		for decoder.PeekKind() != ']' && decoder.PeekKind() != 0 { // 0 is an error
			findRepeated(decoder, known, path, found)
		}
		_, _ = decoder.ReadToken()
	case '{':
		_, _ = decoder.ReadToken()
		findRepeatedFields(decoder, known, path, found)
	default:
		_ = decoder.SkipValue()
	}
}

func findRepeatedFields(decoder *jsontext.Decoder, known fields, path string, found map[string]bool) {
	var seen []string
	for decoder.PeekKind() == '"' {
		name, err := decoder.ReadValue()
		if err != nil {
			return
		}
		key, inner, isField := known.find(name)
		if !isField {
			_ = decoder.SkipValue()
			continue
		}
		if slices.Contains(seen, key) {
			found[where(path, key)] = true
		}
		seen = append(seen, key)
		if inner == nil {
			_ = decoder.SkipValue()
			continue
		}
		findRepeated(decoder, inner, where(path, key), found)
	}
	_, _ = decoder.ReadToken()
}

// where names a field of an object.
func where(path, key string) string {
	if proper, ok := canonical[key]; ok {
		key = proper
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// lower has the names of canonical, in quotes.
var lower = func() map[string]string {
	names := map[string]string{}
	for key, proper := range canonical {
		names[`"`+proper+`"`] = key
	}
	return names
}()

// find returns the field that encoding/json takes a name for, which is in quotes.
func (f fields) find(quoted []byte) (key string, inner fields, ok bool) {
	if key, ok = lower[string(quoted)]; ok {
		if inner, ok = f[key]; ok {
			return key, inner, true
		}
	}
	var space [32]byte
	name, _ := jsontext.AppendUnquote(space[:0], quoted)
	for key, inner := range f { // also letters that fold to the same, such as the long s
		if strings.EqualFold(key, string(name)) {
			return key, inner, true
		}
	}
	return "", nil, false
}
