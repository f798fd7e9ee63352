package streams

import (
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
)

// TestRepositories: a stream shows its repository by the addresses of the registry that there are.
func TestRepositories(t *testing.T) {
	for name, test := range map[string]struct {
		hosts        Hosts
		repository   string
		own, visible string
	}{
		"no address":            {Hosts{}, "a/b", "a/b", ""},
		"one that it was given": {Hosts{"registry:5000", "registry:5000"}, "foo/somerepo", "registry:5000/foo/somerepo", "registry:5000/foo/somerepo"},
		"where it listens":      {Hosts{Own: "127.0.0.1:5000"}, "team/app", "127.0.0.1:5000/team/app", ""},
		"two":                   {Hosts{"registry.svc", "registry.example.com"}, "app", "registry.svc/app", "registry.example.com/app"},
	} {
		stored := &imagev1.ImageStream{Status: imagev1.ImageStreamStatus{DockerImageRepository: "stored", PublicDockerImageRepository: "stored"}}
		status := ImageStream(stored, &Tags{}, test.hosts, test.repository).Status
		if status.DockerImageRepository != test.own || status.PublicDockerImageRepository != test.visible {
			t.Errorf("%s: %q and %q, want %q and %q", name, status.DockerImageRepository, status.PublicDockerImageRepository, test.own, test.visible)
		}
	}
}
