// Package openapi holds the OpenAPI definitions of the served types, generated
// from their Go comments, so that `kubectl explain` has every field's text, and has an API server
// serve them.
package openapi

//go:generate go tool openapi-gen --output-dir . --output-pkg tallyman/imageapi/openapi --output-file zz_generated.openapi.go --report-filename /dev/null --go-header-file /dev/null github.com/openshift/api/image/v1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version k8s.io/api/authorization/v1 k8s.io/api/authentication/v1
