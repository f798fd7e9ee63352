package derive

import (
	"encoding/json"

	"github.com/openshift/api/image/docker10"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// config has the fields of an image's config, or of a schema 1 history entry, that an Image
// shows.
type config struct {
	ID              string
	Parent          string
	Comment         string
	Created         metav1.Time
	Container       string
	ContainerConfig docker10.DockerConfig
	DockerVersion   string
	Author          string
	Config          *docker10.DockerConfig
	Architecture    string
	OS              string
	Variant         string
	Size            int64
}

// parseConfig parses a config leniently: any content may be a config, and a field of the wrong
// type does not prevent the others.
func parseConfig(data []byte) *config {
	c := &config{}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return c
	}
	for name, into := range map[string]any{
		"id": &c.ID, "parent": &c.Parent, "comment": &c.Comment, "created": &c.Created,
		"container": &c.Container, "docker_version": &c.DockerVersion, "author": &c.Author,
		"architecture": &c.Architecture, "os": &c.OS, "variant": &c.Variant,
		"Size": &c.Size,
	} {
		lenient(fields[name], into)
	}
	if container := parseContainerConfig(fields["container_config"]); container != nil {
		c.ContainerConfig = *container
	}
	c.Config = parseContainerConfig(fields["config"])
	return c
}

// parseContainerConfig reads field by field; nil if data is not an object.
func parseContainerConfig(data json.RawMessage) *docker10.DockerConfig {
	var fields map[string]json.RawMessage
	if data == nil || json.Unmarshal(data, &fields) != nil || fields == nil {
		return nil
	}
	c := &docker10.DockerConfig{}
	for name, raw := range fields {
		one, err := json.Marshal(map[string]json.RawMessage{name: raw})
		if err != nil {
			continue
		}
		before := *c
		if kjson.UnmarshalCaseSensitivePreserveInts(one, c) != nil {
			*c = before // half of a list is worse than none
		}
	}
	return c
}

func (c *config) metadata() docker10.DockerImage {
	return docker10.DockerImage{
		ID: c.ID, Parent: c.Parent, Comment: c.Comment, Created: c.Created, Container: c.Container,
		ContainerConfig: c.ContainerConfig, DockerVersion: c.DockerVersion, Author: c.Author,
		Config: c.Config, Architecture: c.Architecture,
	}
}

// lenient fills into with raw if raw fits, and leaves it alone otherwise.
func lenient[T any](raw json.RawMessage, into T) {
	if raw == nil {
		return
	}
	_ = json.Unmarshal(raw, into) // a field that does not fit is as good as absent
}
