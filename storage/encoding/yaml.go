package encoding

import (
	"bytes"
	"encoding/json"
	"strconv"

	"go.yaml.in/yaml/v2"
)

const (
	// yamlBatch is the size of the JSON of items that are encoded together.
	yamlBatch = 32 << 10
	// yamlChunk is the size of a chunk in YAML. k8s.io/apiserver compresses answers whose
	// first chunk is larger than 128 KiB.
	yamlChunk = 160 << 10
)

// yamlItems are decoded items. They are encoded many at a time, because an encoder begins
// with buffers of 400 KiB.
type yamlItems struct {
	decoded []any
	size    int // of their JSON
}

// yamlItem writes an item from JSON.
func (o *ListWriter) yamlItem(item []byte) error {
	var object any
	decoder := json.NewDecoder(bytes.NewReader(item))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return err
	}
	o.yaml.decoded = append(o.yaml.decoded, yamlNumbers(object))
	if o.yaml.size += len(item); o.yaml.size < yamlBatch {
		return nil
	}
	if err := o.encodeYAML(); err != nil || len(o.buffer) < yamlChunk {
		return err
	}
	return o.flush()
}

// encodeYAML moves the decoded items to the buffer. It encodes them in a list, because the
// folding of long lines depends on their indentation.
func (o *ListWriter) encodeYAML() error {
	if len(o.yaml.decoded) == 0 {
		return nil
	}
	text, err := yaml.Marshal(map[string]any{"items": o.yaml.decoded})
	o.buffer = append(o.buffer, bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("items:")), []byte("\n"))...)
	clear(o.yaml.decoded)
	o.yaml = yamlItems{decoded: o.yaml.decoded[:0]}
	return err
}

// yamlNumbers replaces the numbers in a decoded JSON value by integers and floats.
func yamlNumbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = yamlNumbers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = yamlNumbers(v[i])
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return value
}
