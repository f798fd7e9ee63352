package encoding

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
)

// Format is a serialization in which lists are streamed.
type Format int

// The formats, each as Kubernetes' own serializers write it.
const (
	JSON Format = iota
	IndentedJSON
	YAML
	CBOR
	Protobuf
)

// Binary reports that items have a binary form. Such a format states their number or size
// ahead of them.
func (f Format) Binary() bool { return f == CBOR || f == Protobuf }

// ListWriter writes a list item by item, in chunks.
type ListWriter struct {
	w        io.Writer
	format   Format
	tail     []byte // of the list, after its items
	buffer   []byte
	yaml     yamlItems // not written yet
	items    int       // number of items written
	size     int       // of those in a binary format
	begun    bool      // something was written
	progress func()    // called when something was
}

// Chunk is about how many bytes of a list are written at a time.
const Chunk = 256 << 10

// NewListWriter returns a writer of one list to w. It calls progress after each chunk.
func NewListWriter(w io.Writer, format Format, progress func()) *ListWriter {
	return &ListWriter{w: w, format: format, progress: progress, buffer: make([]byte, 0, Chunk)}
}

var abortedLists = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "imageapi_lists_aborted_total",
	Help: "Lists whose connection was closed because they failed after their beginning was sent.",
})

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector { return []prometheus.Collector{abortedLists} }

// Fail returns err if nothing was written yet. Otherwise it aborts the connection, so that
// no client takes the list for a complete one.
func (o *ListWriter) Fail(ctx context.Context, err error) error {
	if !o.begun {
		return err
	}
	if ctx.Err() == nil {
		abortedLists.Inc()
		klog.ErrorS(err, "A list was aborted after its beginning was sent")
	}
	panic(http.ErrAbortHandler)
}

// Begin writes the list's head. empty is the encoded list without items; of these there
// are count, with size bytes, in a binary format.
func (o *ListWriter) Begin(empty []byte, count, size int) error {
	head, tail, ok := o.format.frame(empty, count, size)
	if !ok {
		return fmt.Errorf("the encoded list without items has no place for them: %.200q", empty)
	}
	o.buffer, o.tail = append(o.buffer, head...), tail
	return nil
}

// Item writes one item: JSON, or the form of a binary format.
func (o *ListWriter) Item(item []byte) error {
	o.items++
	if o.format == YAML {
		return o.yamlItem(item)
	}
	if len(o.buffer) > 0 && len(o.buffer)+len(item) > Chunk {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if o.items > 1 && (o.format == JSON || o.format == IndentedJSON) {
		o.buffer = append(o.buffer, ',')
	}
	if o.format != IndentedJSON {
		before := len(o.buffer)
		o.buffer = o.format.AppendItem(o.buffer, item)
		o.size += len(o.buffer) - before
		return nil
	}
	indented := bytes.NewBuffer(append(o.buffer, "\n    "...))
	err := json.Indent(indented, item, "    ", "  ")
	o.buffer = indented.Bytes()
	return err
}

// AppendItem appends an item with the length that Protobuf puts ahead of it.
func (f Format) AppendItem(dst, item []byte) []byte {
	if f == Protobuf {
		dst = binary.AppendUvarint(append(dst, itemTag), uint64(len(item)))
	}
	return append(dst, item...)
}

// ItemSize returns the number of bytes that AppendItem appends for an item of size bytes.
func (f Format) ItemSize(size int) int {
	if f != Protobuf {
		return size
	}
	return 1 + len(binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64), uint64(size))) + size
}

// End writes the list's tail.
func (o *ListWriter) End() error {
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

func (o *ListWriter) flush() error {
	o.begun = true
	_, err := o.w.Write(o.buffer)
	o.progress()
	o.buffer = o.buffer[:0]
	return err
}

// Encoded writes items that Format.AppendItem has made: count of them.
func (o *ListWriter) Encoded(items []byte, count int) error {
	o.items += count
	o.size += len(items)
	for {
		fitting := min(len(items), max(0, Chunk-len(o.buffer)))
		o.buffer = append(o.buffer, items[:fitting]...)
		if items = items[fitting:]; len(items) == 0 {
			return nil
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

// Written returns the number of items, and their size in a binary format.
func (o *ListWriter) Written() (items, size int) { return o.items, o.size }
