package streams

import (
	"fmt"
	"strings"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Kinds of references of a tag.
const (
	KindDockerImage      = "DockerImage"
	KindImageStreamTag   = "ImageStreamTag"
	KindImageStreamImage = "ImageStreamImage"
)

// ImageTagTable is the table of image tags.
var ImageTagTable = &Table{
	Columns: []metav1.TableColumnDefinition{
		nameColumn,
		column("Spec", 0, "How the tag came about: Push, Tag, Ref, Track or Scheduled."),
		column("Status", 0, "The image that the tag points to, or the one that it is to point to, or the state of its import."),
		{Name: "History", Type: "number", Description: "The number of images that the tag points to or pointed to."},
		updatedColumn,
	},
	Cells: func(obj runtime.Object, now time.Time) []any {
		if t, ok := obj.(*imagev1.ImageTag); ok {
			return tagCells(t, now)
		}
		return nil
	},
}

func tagCells(tag *imagev1.ImageTag, now time.Time) []any {
	spec, status := specCells(tag.Spec)
	var history any
	updated := ""
	if tag.Status != nil {
		if n := len(tag.Status.Items); n > 0 {
			history = int64(n)
			spec, status = headCells(tag, spec)
		}
		var newest metav1.Time
		for _, c := range tag.Status.Conditions {
			if c.Type == imagev1.ImportSuccess && c.Status == corev1.ConditionFalse {
				status = fmt.Sprintf("ImportFailed (%s)", c.Reason)
			}
			newest = later(newest, c.LastTransitionTime)
		}
		if len(tag.Status.Items) > 0 {
			newest = later(newest, tag.Status.Items[0].Created)
		}
		if !newest.IsZero() {
			updated = ago(newest, now)
		}
	}
	return []any{tag.Name, spec, status, history, updated}
}

func later(a, b metav1.Time) metav1.Time {
	if a.Before(&b) {
		return b
	}
	return a
}

// specCells returns the kind of a tag, and its source as far as its spec says.
func specCells(spec *imagev1.TagReference) (kind, source string) {
	if spec == nil || spec.From == nil {
		return "", ""
	}
	switch kind = "Tag"; {
	case spec.ImportPolicy.Scheduled:
		kind = "Scheduled"
	case spec.Reference:
		kind = "Ref"
	}
	switch from := spec.From; from.Kind {
	case KindDockerImage:
		return kind, from.Name
	case KindImageStreamImage:
		_, id, ok := strings.Cut(from.Name, "@")
		if !ok {
			return kind, "InvalidRefName"
		}
		return kind, "image/" + id
	case KindImageStreamTag:
		if !strings.Contains(from.Name, ":") {
			kind = "Track"
		}
		if from.Namespace != "" {
			return kind, fmt.Sprintf("istag %s/%s", from.Namespace, from.Name)
		}
		return kind, "istag/" + from.Name
	}
	return kind, "InvalidRefKind"
}

// headCells returns the kind and the source of a tag that points to something. kind is the one that its spec
// says.
func headCells(tag *imagev1.ImageTag, kind string) (shown, source string) {
	head := &tag.Status.Items[0]
	wanted := int64(0)
	if tag.Spec != nil && tag.Spec.Generation != nil {
		wanted = *tag.Spec.Generation
	}
	both := wanted > 0 && head.Generation > 0
	if both && head.Generation < wanted {
		return kind, "Importing"
	}
	if source = head.DockerImageReference; head.Image != "" {
		source = "image/" + head.Image
	}
	if kind == "" && source != "" || kind != "Track" && both && head.Generation > wanted {
		kind = "Push"
	}
	return kind, source
}
