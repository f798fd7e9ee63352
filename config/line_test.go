package config_test

import (
	"testing"

	"tallyman/config"
)

func TestLine(t *testing.T) {
	const content = "version: 0.1\nhttp:\n  addr: :5000\n  tls:\n    key: k\nimageapi: {store: {\n  path: x}}\n"
	for key, want := range map[string]int{
		"http.tls.key": 5, "http.tls.certificate": 4, "http.debug.addr": 2, "imageapi.store.path": 7, "imageapi.auth": 6,
		"imageapi.signatures.policies[].scopes": 6, "auth": 0, "": 0, "http.addr.x": 3,
	} {
		if got := config.Line([]byte(content), key); got != want {
			t.Errorf("%s: line %d, want %d", key, got, want)
		}
	}
	for _, content := range []string{"", "a: [", "- a", "text"} {
		if got := config.Line([]byte(content), "a"); got != 0 {
			t.Errorf("%q: line %d", content, got)
		}
	}
}
