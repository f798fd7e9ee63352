package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/apis/meta/v1beta1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/util/apihelpers"

	"tallyman/imageapi"
	"tallyman/imageapi/protobuf"
	"tallyman/imageapi/rules"
	"tallyman/storage"
	"tallyman/storage/encoding"
	"tallyman/storage/objects"
)

// listAnswer is the form in which a client asked for a list.
type listAnswer struct {
	objects.ListAnswer
	listed     *Listed
	codecs     runtime.NegotiatedSerializer
	version    schema.GroupVersion
	serializer runtime.Serializer
}

// newListAnswer returns the form that the negotiation with a client led to. It returns nil
// for a form that upstream's handler answers: metadata in v1beta1's protobuf, and kinds
// that are no lists.
func (l *Listed) newListAnswer(media negotiation.MediaTypeOptions, info runtime.SerializerInfo, r *http.Request) (*listAnswer, error) {
	a := &listAnswer{listed: l, codecs: imageapi.Codecs, version: imagev1.GroupVersion, serializer: info.Serializer}
	var kind string
	if media.Convert != nil {
		kind, a.version, a.codecs = media.Convert.Kind, media.Convert.GroupVersion(), apihelpers.GetMetaInternalVersionCodecs()
	}
	format, ok := listFormat(info)
	if !ok {
		return nil, nil
	}
	a.Format = format
	a.Encoder = a.codecs.EncoderForVersion(runtime.UseNondeterministicEncoding(info.Serializer), a.version).Identifier()
	switch {
	case kind == "":
		a.Empty, a.Item = a.emptyList(l.Empty), a.objectItem()
		if l.images && a.Format == encoding.Protobuf {
			a.Size = messageSize
		}
	case kind == "Table":
		options, err := tableOptions(r)
		if err != nil {
			return nil, err
		}
		a.useTable(options)
	case kind == "PartialObjectMetadataList" && (a.version == metav1.SchemeGroupVersion || format != encoding.Protobuf):
		a.useMetadata()
	default:
		return nil, nil
	}
	return a, nil
}

func listFormat(info runtime.SerializerInfo) (encoding.Format, bool) {
	switch info.MediaType {
	case runtime.ContentTypeJSON:
		if info.PrettySerializer != nil && info.Serializer.Identifier() == info.PrettySerializer.Identifier() {
			return encoding.IndentedJSON, true
		}
		return encoding.JSON, true
	case runtime.ContentTypeYAML:
		return encoding.YAML, true
	case runtime.ContentTypeCBOR:
		return encoding.CBOR, true
	case runtime.ContentTypeProtobuf:
		return encoding.Protobuf, true
	}
	return 0, false
}

// emptyList encodes lists without items.
func (a *listAnswer) emptyList(list func(metav1.ListMeta) runtime.Object) func(metav1.ListMeta) ([]byte, error) {
	encoder := a.codecs.EncoderForVersion(a.serializer, a.version)
	return func(m metav1.ListMeta) ([]byte, error) { return runtime.Encode(encoder, list(m)) }
}

// objectItem returns the encoding of an object: nil, for the stored bytes, where the format
// is written from JSON.
func (a *listAnswer) objectItem() func([]byte, *objects.Encoded) ([]byte, error) {
	if !a.Format.Binary() {
		return nil
	}
	return func(dst []byte, e *objects.Encoded) ([]byte, error) {
		if a.listed.images && a.Format == encoding.Protobuf {
			data, revision := e.Stored()
			if message, ok := protobuf.Append(dst, data, revision); ok {
				return message, nil
			}
		}
		obj, err := e.Object()
		if err != nil {
			return nil, err
		}
		bare := reflect.New(reflect.TypeOf(obj).Elem())
		bare.Elem().Set(reflect.ValueOf(obj).Elem())
		obj = bare.Interface().(runtime.Object)
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // the list has it
		return a.appendBinary(dst, obj)
	}
}

// messageSize returns the size of an Image in protobuf that was read in brief.
func messageSize(e *objects.Encoded) (int, bool) {
	text, _ := cutBrief(e.Extra())
	size, ok := protobuf.ParseSize(text)
	_, revision := e.Stored()
	return size.At(revision), ok
}

// useMetadata makes a the list of the objects' metadata.
func (a *listAnswer) useMetadata() {
	a.Brief = a.listed.images
	a.Empty = a.emptyList(func(m metav1.ListMeta) runtime.Object {
		if a.version == metav1beta1.SchemeGroupVersion {
			return &metav1beta1.PartialObjectMetadataList{ListMeta: m, Items: []metav1.PartialObjectMetadata{}}
		}
		return &metav1.PartialObjectMetadataList{ListMeta: m, Items: []metav1.PartialObjectMetadata{}}
	})
	if a.Format.Binary() {
		a.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
			partial := &metav1.PartialObjectMetadata{}
			if err := json.Unmarshal(a.appendPartial(nil, e), partial); err != nil {
				return nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
			}
			return a.appendBinary(dst, partial)
		}
		return
	}
	a.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) { return a.appendPartial(dst, e), nil }
}

// appendPartial appends a PartialObjectMetadata, as JSON.
func (a *listAnswer) appendPartial(dst []byte, e *objects.Encoded) []byte {
	dst = append(append(dst, `{"kind":"PartialObjectMetadata","apiVersion":"`...), a.version.String()...)
	dst = append(dst, `","metadata":`...)
	return append(e.AppendMetadata(dst), '}')
}

// appendBinary appends an object in CBOR or protobuf, without the prefix of a document.
func (a *listAnswer) appendBinary(dst []byte, obj runtime.Object) ([]byte, error) {
	if a.Format == encoding.Protobuf {
		message, err := obj.(interface{ Marshal() ([]byte, error) }).Marshal()
		return append(dst, message...), err
	}
	const selfDescribed = "\xd9\xd9\xf7" // RFC 8949, section 3.4.6
	document := bytes.NewBuffer(nil)
	err := a.serializer.Encode(obj, document)
	return append(dst, bytes.TrimPrefix(document.Bytes(), []byte(selfDescribed))...), err
}

// useTable makes a a table.
func (a *listAnswer) useTable(options *metav1.TableOptions) {
	a.Empty = a.emptyList(func(m metav1.ListMeta) runtime.Object {
		table := &metav1.Table{ListMeta: m, Rows: []metav1.TableRow{}}
		if !options.NoHeaders {
			table.ColumnDefinitions = a.listed.Columns
		}
		return table
	})
	a.Brief = a.listed.images && options.IncludeObject != metav1.IncludeObject
	now := time.Now()
	a.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
		dst, err := a.listed.appendCells(append(dst, `{"cells":`...), e, now)
		if err != nil {
			return nil, err
		}
		dst = append(dst, `,"object":`...)
		switch options.IncludeObject {
		case metav1.IncludeObject:
			dst = e.AppendJSON(dst)
		case metav1.IncludeNone:
			dst = append(dst, "null"...)
		default:
			dst = a.appendPartial(dst, e)
		}
		return append(dst, '}'), nil
	}
}

// appendCells appends the cells of an object's row.
func (l *Listed) appendCells(dst []byte, e *objects.Encoded, now time.Time) ([]byte, error) {
	if brief := e.Extra(); brief != nil {
		_, cells := cutBrief(brief)
		return rules.AppendCells(dst, cells, now)
	}
	obj, err := e.Object()
	if err != nil {
		return nil, err
	}
	row, err := json.Marshal(l.Cells(obj, now))
	return append(dst, row...), err
}

// tableOptions reads and validates a request's options, as upstream's handler does.
func tableOptions(r *http.Request) (*metav1.TableOptions, error) {
	options := &metav1.TableOptions{}
	if err := internalscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, options); err != nil {
		return nil, err
	}
	switch errs := validation.ValidateTableOptions(options); len(errs) {
	case 0:
		return options, nil
	case 1:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs[0].Error()))
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs))
	}
}
