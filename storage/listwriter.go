package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"
)

// ListFormat is a form in which lists are streamed.
type ListFormat int

// The formats, each as Kubernetes' own serializers write it.
const (
	JSON ListFormat = iota
	IndentedJSON
	YAML
)

// listHead is a list without its items.
type listHead struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ListMeta `json:"metadata"`
}

// listWriter writes a list item by item, in chunks.
type listWriter struct {
	w        io.Writer
	format   ListFormat
	buffer   []byte
	scratch  []byte
	items    bool
	begun    bool   // something was written
	progress func() // called when something was
}

// fail returns err if nothing was written yet. Otherwise it aborts the connection, so that
// no client takes the list for a complete one.
func (o *listWriter) fail(ctx context.Context, err error) error {
	if !o.begun {
		return err
	}
	if ctx.Err() == nil {
		abortedLists.Inc()
		klog.ErrorS(err, "A list was aborted after its beginning was sent")
	}
	panic(http.ErrAbortHandler)
}

// begin writes what comes before the items.
func (o *listWriter) begin(head listHead) error {
	if o.format == YAML {
		o.buffer = append(o.buffer, "apiVersion: "+head.APIVersion+"\nitems:"...)
		return nil
	}
	data, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if o.format == JSON {
		o.buffer = append(append(o.buffer, data[:len(data)-1]...), `,"items":[`...)
		return nil
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "  "); err != nil {
		return err
	}
	o.buffer = append(append(o.buffer, bytes.TrimSuffix(indented.Bytes(), []byte("\n}"))...), ",\n  \"items\": ["...)
	return nil
}

// item writes one item.
func (o *listWriter) item(s splicer, revision int64) error {
	item := s.appendItemTo(o.scratch[:0], revision)
	o.scratch = item[:0]
	if o.format == YAML {
		var err error
		if item, err = yamlItem(item); err != nil {
			return err
		}
	}
	if len(o.buffer) > 0 && len(o.buffer)+len(item) > writeChunk {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if o.items && o.format != YAML {
		o.buffer = append(o.buffer, ',')
	}
	o.items = true
	if o.format != IndentedJSON {
		o.buffer = append(o.buffer, item...)
		return nil
	}
	indented := bytes.NewBuffer(append(o.buffer, "\n    "...))
	if err := json.Indent(indented, item, "    ", "  "); err != nil {
		return err
	}
	o.buffer = indented.Bytes()
	return nil
}

// yamlItem converts a JSON object to an element of a YAML list. It converts a list with
// one element, because the folding of long lines depends on their indentation.
func yamlItem(item []byte) ([]byte, error) {
	const head, tail = `{"items":[`, "]}"
	text, err := yaml.JSONToYAML(slices.Concat([]byte(head), item, []byte(tail)))
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("items:")), []byte("\n")), nil
}

// end writes what comes after the items.
func (o *listWriter) end(head listHead) error {
	switch o.format {
	case YAML:
		rest, err := yaml.Marshal(struct {
			Kind     string          `json:"kind"`
			Metadata metav1.ListMeta `json:"metadata"`
		}{head.Kind, head.Metadata})
		if err != nil {
			return err
		}
		if !o.items {
			o.buffer = append(o.buffer, " []"...)
		}
		o.buffer = append(append(o.buffer, '\n'), rest...)
	case IndentedJSON:
		if o.items {
			o.buffer = append(o.buffer, "\n  "...)
		}
		o.buffer = append(o.buffer, "]\n}"...)
	default:
		o.buffer = append(o.buffer, "]}\n"...)
	}
	return nil
}

func (o *listWriter) flush() error {
	o.begun = true
	_, err := o.w.Write(o.buffer)
	o.progress()
	o.buffer = o.buffer[:0]
	return err
}
