package server

import (
	"runtime/debug"
	"strings"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
)

// effectiveVersion is upstream's, with an Info that says which Kubernetes the
// handlers are from: without link-time flags upstream's own says v0.0.0-master,
// which kubectl cannot compare with its own version.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
}

func newEffectiveVersion() basecompatibility.EffectiveVersion {
	return effectiveVersion{compatibility.DefaultBuildEffectiveVersion()}
}

// Info implements basecompatibility.EffectiveVersion.
func (e effectiveVersion) Info() *version.Info {
	info := e.EffectiveVersion.Info()
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range build.Deps {
			if dep.Path == "k8s.io/apiserver" { // v0.37.2 is of Kubernetes v1.37.2
				info.GitVersion = "v1" + strings.TrimPrefix(dep.Version, "v0")
			}
		}
	}
	info.GitCommit, info.GitTreeState, info.BuildDate = "", "", ""
	return info
}
