package rules

import (
	"context"
	"fmt"
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
	age := "<unknown>"
	if !image.CreationTimestamp.IsZero() {
		age = duration.HumanDuration(now.Sub(image.CreationTimestamp.Time))
	}
	layers := fmt.Sprint(len(image.DockerImageLayers))
	if manifest.IsIndex(image.DockerImageManifestMediaType) {
		layers = fmt.Sprintf("%d manifests", len(image.DockerImageManifests))
	}
	return []any{
		image.Name, image.DockerImageReference, humanSize(Metadata(image).Size), layers,
		platformCell(image), signatureCell(image), age,
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
