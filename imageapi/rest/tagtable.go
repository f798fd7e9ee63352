package rest

import (
	"context"
	"fmt"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"tallyman/imageapi/records"
	"tallyman/imageapi/rules"
)

// tagTable makes the table of `kubectl get imagetags`.
type tagTable struct{}

var tagColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "Image", Type: "string", Description: "The manifest that the tag points to."},
	{Name: "Pushed", Type: "string", Description: "Time since the tag was made to point to it."},
	{Name: "Pushes", Type: "integer", Priority: 1, Description: "Times that the tag was made to point to another manifest."},
	{Name: "Image Reference", Type: "string", Priority: 1, Description: "The string that can be used to pull the image."},
}

// ConvertToTable implements rest.TableConvertor.
func (tagTable) ConvertToTable(_ context.Context, obj runtime.Object, options runtime.Object) (*metav1.Table, error) {
	return rules.NewTable(obj, options, tagColumns, func(obj runtime.Object) ([]any, error) {
		tag, ok := obj.(*imagev1.ImageTag)
		if !ok {
			return nil, fmt.Errorf("%T is not an ImageTag", obj)
		}
		return tagCells(tag, time.Now()), nil
	})
}

// tagCells are the cells of an ImageTag's row at the time now.
func tagCells(tag *imagev1.ImageTag, now time.Time) []any {
	if tag.Status == nil || len(tag.Status.Items) == 0 {
		return []any{tag.Name, "<none>", "<unknown>", int64(0), ""}
	}
	newest := &tag.Status.Items[0]
	return []any{tag.Name, records.PointsTo(tag), duration.HumanDuration(now.Sub(newest.Created.Time)), newest.Generation, newest.DockerImageReference}
}
