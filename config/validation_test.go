package config_test

import (
	"fmt"
	"testing"
)

// TestForeignContent: layers that are elsewhere, and indexes with absent children, are accepted
// unless the configuration says something about them.
func TestForeignContent(t *testing.T) {
	for name, test := range map[string]struct{ validation, want string }{
		"nothing":            {"", "disabled=true urls=[] platforms="},
		"URLs alone":         {"validation: {manifests: {urls: {deny: [evil]}}}", "disabled=false urls=[] platforms=none"},
		"no URLs":            {"validation: {manifests: {urls: {allow: []}}}", "disabled=false urls=[] platforms=none"},
		"indexes alone":      {"validation: {manifests: {indexes: {platforms: all}}}", "disabled=false urls=[^https?://] platforms=all"},
		"all checks":         {"validation: {enabled: true}", "disabled=false urls=[] platforms="},
		"no checks":          {"validation: {disabled: true}", "disabled=true urls=[] platforms="},
		"both":               {"validation: {manifests: {urls: {allow: [a]}, indexes: {platforms: none}}}", "disabled=false urls=[a] platforms=none"},
		"an empty manifests": {"validation: {manifests: {}}", "disabled=false urls=[^https?://] platforms=none"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(t, minimal+test.validation+"\n")
			if err != nil {
				t.Fatal(err)
			}
			v := c.Registry.Validation
			if got := fmt.Sprintf("disabled=%t urls=%v platforms=%s", v.Disabled, v.Manifests.URLs.Allow, v.Manifests.Indexes.Platforms); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Setenv("REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS", "all")
	if c, err := parse(t, minimal); err != nil || c.Registry.Validation.Disabled {
		t.Errorf("with a variable of the environment: %+v, %v", c.Registry.Validation, err)
	}
}
