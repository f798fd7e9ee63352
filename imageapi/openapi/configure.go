package openapi

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"tallyman/imageapi"
)

// Configure has an API server that serves imageapi.PublicScheme say so under /openapi/v2 and
// /openapi/v3.
func Configure(c *server.Config) {
	namer := apiopenapi.NewDefinitionNamer(imageapi.PublicScheme)
	name := func(goName string) (string, spec.Extensions) { return namer.GetDefinitionName(friendlyName(goName)) }
	c.OpenAPIConfig = server.DefaultOpenAPIConfig(definitions, namer)
	c.OpenAPIConfig.Info.Title = "tallyman"
	c.OpenAPIConfig.GetDefinitionName = name
	c.OpenAPIV3Config = server.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIV3Config.Info.Title = "tallyman"
	c.OpenAPIV3Config.GetDefinitionName = name
}

// friendlyName turns a Go path into the name that OpenAPI uses. openshift/api's
// types have no OpenAPIModelName method, so openapi-gen keys them by their path.
func friendlyName(name string) string {
	if strings.Contains(name, "/") {
		return util.ToRESTFriendlyName(name)
	}
	return name
}

func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := GetOpenAPIDefinitions(func(path string) spec.Ref { return ref(friendlyName(path)) })
	mendSignatures(all["github.com/openshift/api/image/v1.Image"])
	all["k8s.io/api/core/v1.ObjectReference"] = objectReference()
	all["k8s.io/api/core/v1.LocalObjectReference"] = localObjectReference()
	all["k8s.io/api/core/v1.Secret"] = secret(ref)
	return all
}

// localObjectReference is the definition of the target of an import.
func localObjectReference() common.OpenAPIDefinition {
	docs, name := (corev1.LocalObjectReference{}).SwaggerDoc(), spec.StringProperty()
	name.Description = docs["name"]
	s := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Description: docs[""], Properties: map[string]spec.Schema{"name": *name}}}
	s.AddExtension("x-kubernetes-map-type", "atomic")
	return common.OpenAPIDefinition{Schema: s}
}

// secret is the definition of the items of imagestreams/secrets.
func secret(ref common.ReferenceCallback) common.OpenAPIDefinition {
	text, bytes := spec.StringProperty(), spec.StrFmtProperty("byte")
	meta := metav1.ObjectMeta{}.OpenAPIModelName()
	properties := map[string]spec.Schema{
		"kind": *text, "apiVersion": *text, "type": *text, "immutable": *spec.BooleanProperty(), "data": *spec.MapProperty(bytes), "stringData": *spec.MapProperty(text),
		"metadata": {SchemaProps: spec.SchemaProps{Ref: ref(meta)}},
	}
	docs := (corev1.Secret{}).SwaggerDoc()
	for field, property := range properties {
		property.Description = docs[field]
		properties[field] = property
	}
	return common.OpenAPIDefinition{
		Schema:       spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Description: docs[""], Properties: properties}},
		Dependencies: []string{meta},
	}
}

// objectReference is the definition of the type of the core group that spec tags have.
func objectReference() common.OpenAPIDefinition {
	s := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{}}}
	for field, text := range (corev1.ObjectReference{}).SwaggerDoc() {
		if field == "" {
			s.Description = text
			continue
		}
		s.Properties[field] = spec.Schema{SchemaProps: spec.SchemaProps{Description: text, Type: []string{"string"}, Format: ""}}
	}
	s.AddExtension("x-kubernetes-map-type", "atomic")
	return common.OpenAPIDefinition{Schema: s}
}

// mendSignatures takes the merge key off Image.signatures. The types say that
// entries are merged by "name", which is not a field of an entry (its metadata
// has it), so every client that computes a patch from the schema, such as
// kubectl apply, would fail on an Image with signatures.
func mendSignatures(image common.OpenAPIDefinition) {
	signatures := image.Schema.Properties["signatures"]
	delete(signatures.Extensions, "x-kubernetes-patch-merge-key")
	delete(signatures.Extensions, "x-kubernetes-patch-strategy")
	image.Schema.Properties["signatures"] = signatures
}
