package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
)

// ListFormat is a serialization in which lists are streamed.
type ListFormat int

// The formats, each as Kubernetes' own serializers write it.
const (
	JSON ListFormat = iota
	IndentedJSON
	YAML
	CBOR
	Protobuf
)

// Binary reports that items have a binary form. Such a format states their number or size
// ahead of them.
func (f ListFormat) Binary() bool { return f == CBOR || f == Protobuf }

// ListAnswer describes the answer that a list is streamed to.
type ListAnswer struct {
	// Encoder identifies the answer's encoder. Any other encoder gets the whole list.
	Encoder runtime.Identifier
	// Format is the serialization that Encoder makes.
	Format ListFormat
	// Empty encodes the list with this metadata and no items. Required.
	Empty func(metav1.ListMeta) ([]byte, error)
	// Item appends an item to dst: as JSON, also for YAML, or in the binary form of CBOR
	// and Protobuf. Nil appends the stored JSON.
	Item func(dst []byte, e *Encoded) ([]byte, error)
}

// decodes reports that making an item takes several times the memory of its stored JSON.
func (a *ListAnswer) decodes() bool { return a.Item != nil || a.Format == YAML }

// listWriter writes a list item by item, in chunks.
type listWriter struct {
	w        io.Writer
	format   ListFormat
	tail     []byte // of the list, after its items
	buffer   []byte
	yaml     yamlItems // not written yet
	items    int       // number of items written
	size     int       // of those in a binary format
	begun    bool      // something was written
	progress func()    // called when something was
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

// begin writes the list's head. empty is the encoded list without items; of these there
// are count, with size bytes, in a binary format.
func (o *listWriter) begin(empty []byte, count, size int) error {
	head, tail, ok := o.format.frame(empty, count, size)
	if !ok {
		return fmt.Errorf("the encoded list without items has no place for them: %.200q", empty)
	}
	o.buffer, o.tail = append(o.buffer, head...), tail
	return nil
}

// item writes one item: JSON, or the form of a binary format.
func (o *listWriter) item(item []byte) error {
	o.items++
	if o.format == YAML {
		return o.yamlItem(item)
	}
	if len(o.buffer) > 0 && len(o.buffer)+len(item) > writeChunk {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if o.items > 1 && (o.format == JSON || o.format == IndentedJSON) {
		o.buffer = append(o.buffer, ',')
	}
	if o.format != IndentedJSON {
		before := len(o.buffer)
		o.buffer = o.format.appendItem(o.buffer, item)
		o.size += len(o.buffer) - before
		return nil
	}
	indented := bytes.NewBuffer(append(o.buffer, "\n    "...))
	err := json.Indent(indented, item, "    ", "  ")
	o.buffer = indented.Bytes()
	return err
}

// appendItem appends an item with the length that Protobuf puts ahead of it.
func (f ListFormat) appendItem(dst, item []byte) []byte {
	if f == Protobuf {
		dst = binary.AppendUvarint(append(dst, itemTag), uint64(len(item)))
	}
	return append(dst, item...)
}

// end writes the list's tail.
func (o *listWriter) end() error {
	if err := o.encodeYAML(); err != nil {
		return err
	}
	switch {
	case o.format == YAML && o.items == 0:
		o.buffer = append(o.buffer, " []"...)
	case o.format == IndentedJSON && o.items > 0:
		o.buffer = append(o.buffer, "\n  "...)
	}
	o.buffer = append(o.buffer, o.tail...)
	return o.flush()
}

func (o *listWriter) flush() error {
	o.begun = true
	_, err := o.w.Write(o.buffer)
	o.progress()
	o.buffer = o.buffer[:0]
	return err
}
