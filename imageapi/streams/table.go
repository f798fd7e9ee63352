package streams

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi/rules"
)

// Table makes the tables of `kubectl get`, with OpenShift's columns
// (https://github.com/openshift/openshift-apiserver/blob/master/pkg/image/printers/internalversion/printer.go).
// It implements rest.TableConvertor.
type Table struct {
	Columns []metav1.TableColumnDefinition
	// Cells returns those of an object's row at the time now, nil for an object of another kind.
	Cells func(obj runtime.Object, now time.Time) []any
}

// ConvertToTable implements rest.TableConvertor.
func (t *Table) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return rules.NewTable(obj, options, t.Columns, func(obj runtime.Object) ([]any, error) {
		cells := t.Cells(obj, time.Now())
		if cells == nil {
			return nil, fmt.Errorf("%T has no table here", obj)
		}
		return cells, nil
	})
}

var (
	nameColumn      = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
	updatedColumn   = column("Updated", 0, "Time since the last change of what the tag or tags point to.")
	imageNameColumn = column("Image Name", 1, "The name of the Image.")
)

func column(name string, priority int32, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Priority: priority, Description: description}
}

// The tables of the resources.
var (
	ImageStreamTable = &Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn, column("Image Repository", 0, "The repository, as pull references have it."), column("Tags", 0, "The tags, those that were pushed last first."), updatedColumn,
		},
		Cells: func(obj runtime.Object, now time.Time) []any {
			if s, ok := obj.(*imagev1.ImageStream); ok {
				return streamCells(s, now)
			}
			return nil
		},
	}
	ImageStreamTagTable = &Table{
		Columns: []metav1.TableColumnDefinition{nameColumn, column("Image Reference", 0, "The string that can be used to pull the image."), updatedColumn, imageNameColumn},
		Cells: func(obj runtime.Object, now time.Time) []any {
			if t, ok := obj.(*imagev1.ImageStreamTag); ok {
				return []any{t.Name, t.Image.DockerImageReference, ago(t.CreationTimestamp, now), t.Image.Name}
			}
			return nil
		},
	}
	ImageStreamImageTable = &Table{
		Columns: []metav1.TableColumnDefinition{nameColumn, updatedColumn, column("Image Reference", 1, "The string that can be used to pull the image."), imageNameColumn},
		Cells: func(obj runtime.Object, now time.Time) []any {
			if i, ok := obj.(*imagev1.ImageStreamImage); ok {
				return []any{i.Name, ago(i.CreationTimestamp, now), i.Image.DockerImageReference, i.Image.Name}
			}
			return nil
		},
	}
)

func streamCells(s *imagev1.ImageStream, now time.Time) []any {
	repository := s.Spec.DockerImageRepository
	if repository == "" {
		repository = s.Status.DockerImageRepository
	}
	if s.Status.PublicDockerImageRepository != "" {
		repository = s.Status.PublicDockerImageRepository
	}
	updated, tags := "", slices.Clone(s.Status.Tags)
	slices.SortStableFunc(tags, newestFirst)
	if len(tags) > 0 && len(tags[0].Items) > 0 {
		updated = ago(tags[0].Items[0].Created, now)
	}
	all := len(tags)
	if n, err := strconv.Atoi(s.Annotations[rules.AnnotationTagCount]); err == nil {
		all = n
	}
	return []any{s.Name, repository, tagsCell(tags, all), updated}
}

func ago(t metav1.Time, now time.Time) string { return units.HumanDuration(now.Sub(t.Time)) + " ago" }

// Widths of the cell of tags, as OpenShift has them: of all, of one that is shown in any case, and of the
// text that stands for the rest.
const (
	tagsWidth  = 40
	tagsExcess = 10
)

// tagsCell is such as "v3,v2,v1 + 5 more...", for the newest of all tags.
func tagsCell(tags []imagev1.NamedTagEventList, all int) string {
	var shown []string
	remaining := tagsWidth
	for i := range tags {
		tag := tags[i].Tag
		remaining -= len(tag) + 1
		fits := remaining >= 0 || tagsExcess < remaining+len(tag) && tagsExcess >= -remaining
		if i > 0 && !fits {
			return fmt.Sprintf("%s + %d more...", strings.Join(shown, ","), all-i)
		}
		shown = append(shown, tag)
	}
	return strings.Join(shown, ",")
}

// pushed returns the time of the last change of a tag, in seconds.
func pushed(tag *imagev1.NamedTagEventList) time.Time {
	if len(tag.Items) == 0 {
		return time.Time{}
	}
	return tag.Items[0].Created.Round(time.Second)
}
