package records

import (
	"encoding/json"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prepend makes the change the newest item of the history, which no clock puts before the one
// below it.
func (s *Store) prepend(tag *imagev1.ImageTag, c TagChange, by Pusher) {
	item := imagev1.TagEvent{Created: metav1.NewTime(s.options.Now().Truncate(time.Second)), DockerImageReference: c.Reference, Image: c.To.String(), Generation: 1}
	items := tag.Status.Items
	if len(items) > 0 {
		item.Generation = items[0].Generation + 1
		if item.Created.Time.Before(items[0].Created.Time) {
			item.Created = items[0].Created
		}
	}
	s.setHistory(tag, append([]imagev1.TagEvent{item}, items...), append([]Pusher{by}, pushersOf(tag)...))
}

// setHistory sets the items of a tag, each with its Pusher, as many as are kept.
func (s *Store) setHistory(tag *imagev1.ImageTag, items []imagev1.TagEvent, pushers []Pusher) {
	kept := min(len(items), s.options.Depth)
	text, err := json.Marshal(pushers[:kept])
	if err != nil {
		panic(err) // two texts each
	}
	tag.Status.Items, tag.Annotations[AnnotationPushers] = items[:kept], string(text)
}

// pushersOf returns the Pusher of each item of a tag.
func pushersOf(tag *imagev1.ImageTag) []Pusher {
	pushers := make([]Pusher, len(tag.Status.Items))
	var stored []Pusher
	_ = json.Unmarshal([]byte(tag.Annotations[AnnotationPushers]), &stored) // unknown ones stay empty
	copy(pushers, stored)
	return pushers
}
