package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
)

// Table makes the table that `kubectl get images` prints: the two columns
// that OpenShift has, and more with -o wide.
type Table struct{}

// Columns are the table's columns.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "Image Reference", Type: "string", Description: "The string that can be used to pull this image."},
	{Name: "Size", Type: "string", Priority: 1, Description: "Size of the config and the distinct layers."},
	{Name: "Layers", Type: "string", Priority: 1, Description: "Number of layers, or of manifests in an index."},
	{Name: "Architecture", Type: "string", Priority: 1, Description: "Platform of the image, platforms of an index, or type of an artifact."},
	{Name: "Signatures", Type: "string", Priority: 1, Description: "Number of signatures, and of those that are trusted."},
	{Name: "Age", Type: "string", Priority: 1, Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
}

// ConvertToTable implements rest.TableConvertor.
func (Table) ConvertToTable(_ context.Context, obj runtime.Object, options runtime.Object) (*metav1.Table, error) {
	return NewTable(obj, options, Columns, func(obj runtime.Object) ([]any, error) {
		image, ok := obj.(*imagev1.Image)
		if !ok {
			return nil, fmt.Errorf("%T is not an Image", obj)
		}
		return Cells(image, time.Now()), nil
	})
}

// NewTable returns the table of an object or a list, as TableOptions say. cells returns the cells
// of an object's row.
func NewTable(obj, options runtime.Object, columns []metav1.TableColumnDefinition, cells func(runtime.Object) ([]any, error)) (*metav1.Table, error) {
	table := &metav1.Table{}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		table.ColumnDefinitions = columns
	}
	if list, err := meta.ListAccessor(obj); err == nil {
		table.ResourceVersion = list.GetResourceVersion()
		table.Continue = list.GetContinue()
		table.RemainingItemCount = list.GetRemainingItemCount()
	} else if object, err := meta.CommonAccessor(obj); err == nil {
		table.ResourceVersion = object.GetResourceVersion()
	}
	var err error
	table.Rows, err = metatable.MetaToTableRow(obj, func(obj runtime.Object, _ metav1.Object, _, _ string) ([]any, error) { return cells(obj) })
	return table, err
}

// Cells are the cells of an Image's row at the time now.
func Cells(image *imagev1.Image, now time.Time) []any {
	return append(lastingCells(image), age(image.CreationTimestamp.Time, now))
}

// age is the cell that is another one as time goes by.
func age(created, now time.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(created))
}

// lastingCells are the other cells.
func lastingCells(image *imagev1.Image) []any {
	layers := fmt.Sprint(len(image.DockerImageLayers))
	if manifest.IsIndex(image.DockerImageManifestMediaType) {
		layers = fmt.Sprintf("%d manifests", len(image.DockerImageManifests))
	}
	return []any{
		image.Name, image.DockerImageReference, humanSize(Metadata(image).Size), layers,
		platformCell(image), signatureCell(image),
	}
}

// platformCell describes an Image in one column: its platform, those of an index, or the kind
// of artifact.
func platformCell(image *imagev1.Image) string {
	if kind := image.Annotations[derive.AnnotationArtifactType]; kind != "" {
		return kind
	}
	if platform := image.Annotations[derive.AnnotationPlatform]; platform != "" {
		return platform
	}
	var all []string
	for _, m := range image.DockerImageManifests {
		if m.OS != "" && m.OS != "unknown" {
			all = append(all, strings.TrimSuffix(strings.Join([]string{m.OS, m.Architecture, m.Variant}, "/"), "/"))
		}
	}
	if len(all) > 0 {
		return strings.Join(all, ",")
	}
	if architecture := Metadata(image).Architecture; architecture != "" {
		return architecture
	}
	return "<none>"
}

// signatureCell is such as "2 signed, 1 trusted".
func signatureCell(image *imagev1.Image) string {
	signed, trusted := countSignatures(image)
	if len(image.Signatures) == 0 {
		return "<none>"
	}
	return fmt.Sprintf("%d signed, %d trusted", signed, trusted)
}

// humanSize prints bytes in the decimal units that `docker images` uses.
func humanSize(size int64) string {
	if size <= 0 {
		return "<unknown>"
	}
	value, units := float64(size), []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= 1000 && len(units) > 1 {
		value, units = value/1000, units[1:]
	}
	return fmt.Sprintf("%.4g%s", value, units[0])
}

// BriefVersion is changed with Brief, and with the columns of the table.
const BriefVersion = "1"

// Brief returns what AppendCells makes the row of an Image of: the time of its creation, in seconds since
// 1970 or 0, and the other cells.
func Brief(obj runtime.Object) ([]byte, error) {
	image, ok := obj.(*imagev1.Image)
	if !ok {
		return nil, fmt.Errorf("%T is not an Image", obj)
	}
	cells, err := json.Marshal(lastingCells(image))
	if err != nil {
		return nil, err
	}
	created := int64(0)
	if !image.CreationTimestamp.IsZero() {
		created = image.CreationTimestamp.Unix()
	}
	return append(append(strconv.AppendInt(nil, created, 10), ' '), cells...), nil
}

// AppendCells appends the cells of a row at the time now, as JSON, which are those of Cells.
func AppendCells(dst, brief []byte, now time.Time) ([]byte, error) {
	seconds, cells, ok := bytes.Cut(brief, []byte(" "))
	unix, err := strconv.ParseInt(string(seconds), 10, 64)
	if !ok || err != nil || !bytes.HasSuffix(cells, []byte("]")) {
		return dst, fmt.Errorf("brief %.40q is none", brief)
	}
	created := time.Time{}
	if unix != 0 {
		created = time.Unix(unix, 0)
	}
	text, err := json.Marshal(age(created, now))
	dst = append(append(dst, cells[:len(cells)-1]...), ',')
	return append(append(dst, text...), ']'), err
}
