package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// TestClientPaths: clients that list all groups, the core group with them, find what there is, and
// oc learns who it is. Both take credentials where reading does.
func TestClientPaths(t *testing.T) {
	s := serving(t)
	config, err := clientcmd.BuildConfigFromFlags("", s.dir+"/kubeconfig")
	must(t, err)
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	get := func(path string, into any) {
		t.Helper()
		response, err := client.Get(config.Host + path)
		must(t, err)
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s, %s", path, response.Status, response.Header.Get("Content-Type"))
		}
		must(t, json.NewDecoder(response.Body).Decode(into))
	}
	var versions struct {
		Kind     string
		Versions []string
	}
	if get("/api", &versions); versions.Kind != "APIVersions" || versions.Versions == nil {
		t.Errorf("/api: %+v", versions)
	}
	var list struct {
		Kind, GroupVersion string
		Resources          []any
	}
	if get("/api/v1", &list); list.Kind != "APIResourceList" || list.GroupVersion != "v1" || list.Resources == nil {
		t.Errorf("/api/v1: %+v", list)
	}
	var namespace struct {
		Kind, APIVersion string
		Metadata         struct{ Name string }
		Status           struct{ Phase string }
	}
	// kubectl asks for the namespace of an object that it has not found, and reports its lack instead.
	if get("/api/v1/namespaces/team", &namespace); namespace.Kind != "Namespace" || namespace.APIVersion != "v1" || namespace.Metadata.Name != "team" || namespace.Status.Phase != "Active" {
		t.Errorf("a namespace: %+v", namespace)
	}
	for _, path := range []string{"/api/v1/namespaces/team/pods", "/api/v1/namespaces/Team", "/api/v1/namespaces/"} {
		response, err := client.Get(config.Host + path)
		must(t, err)
		must(t, response.Body.Close())
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	var user struct {
		Kind, APIVersion string
		Metadata         struct{ Name string }
		Groups           []string
	}
	if get("/apis/user.openshift.io/v1/users/~", &user); user.Kind != "User" || user.Metadata.Name == "" || len(user.Groups) == 0 {
		t.Errorf("users/~: %+v", user)
	}
	// The registry of this test pulls without credentials, so its API can be discovered without.
	for path, status := range map[string]int{"/api": 200, "/apis/user.openshift.io/v1/users/~": 403} {
		response, err := http.Get("http://" + s.addr + path)
		must(t, err)
		must(t, response.Body.Close())
		if response.StatusCode != status {
			t.Errorf("%s without credentials: %s, want %d", path, response.Status, status)
		}
	}
	groups, resources, err := discovery.NewDiscoveryClientForConfigOrDie(config).ServerGroupsAndResources()
	if err != nil || len(groups) == 0 || len(resources) == 0 {
		t.Errorf("discovery: %d groups, %d resources, %v", len(groups), len(resources), err)
	}
}
