package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// call sends a request as the administrator.
func (s *server) call(method, path, contentType, body string) answer {
	s.t.Helper()
	header := http.Header{"Authorization": {"Bearer " + s.restConfig().BearerToken}}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	return s.request(method, path, body, header)
}

// getAs reads path anonymously in the media type accept.
func (s *server) getAs(accept, path string) string {
	s.t.Helper()
	got := s.request(http.MethodGet, path, "", http.Header{"Accept": {accept}})
	if got.code != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), strings.Split(accept, ";")[0]) {
		s.t.Fatalf("GET %s as %s: %d %v\n%s", path, accept, got.code, got.header, got.body)
	}
	return got.body
}

const (
	asJSON     = "application/json"
	asApply    = "application/apply-patch+yaml"
	asMerge    = "application/merge-patch+json"
	asJSON6902 = "application/json-patch+json"
	api        = "/apis/image.openshift.io/v1"
)

func imageJSON(name, more string) string {
	return fmt.Sprintf(`{"kind":"Image","apiVersion":"image.openshift.io/v1","metadata":{"name":%q},"dockerImageReference":%q%s}`, name, reference, more)
}

// TestAPI is the table of the API's documented endpoints, verbs, parameters and response
// codes, and of Kubernetes clients' expectations beyond it.
func TestAPI(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "api")
	start := s.image(digest).ResourceVersion
	manifest := s.manifest("team/app", "v1")
	manifestJSON, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	escaped := url.PathEscape(strings.ReplaceAll(digest, ":", "%3A"))
	escaped = strings.ReplaceAll(escaped, "%253A", "%3A")
	big := imageJSON("big", `,"dockerImageConfig":"`+strings.Repeat("x", 4<<20)+`"`)
	steps := []struct {
		name, method, path, contentType, body string
		code                                  int
		want                                  string
	}{
		{"create", "POST", api + "/images", asJSON, imageJSON("a", ""), 201, `"uid":`},
		{"create, YAML", "POST", api + "/images", "application/yaml", "kind: Image\napiVersion: image.openshift.io/v1\nmetadata: {name: yaml}\ndockerImageReference: a/b\n", 201, `"name":"yaml"`},
		{"create again", "POST", api + "/images", asJSON, imageJSON("a", ""), 409, `"reason":"AlreadyExists"`},
		{"create, dry run", "POST", api + "/images?dryRun=All", asJSON, imageJSON("dry", ""), 201, `"name":"dry"`},
		{"the dry run left nothing", "GET", api + "/images/dry", "", "", 404, `images.image.openshift.io \"dry\" not found`},
		{"create, unknown dry run", "POST", api + "/images?dryRun=Some", asJSON, imageJSON("b", ""), 422, `supported values: \"All\"`},
		{"create, unknown field", "POST", api + "/images?fieldValidation=Strict", asJSON, imageJSON("b", `,"nope":1`), 400, `unknown field \"nope\"`},
		{"create, field twice", "POST", api + "/images?fieldValidation=Strict", asJSON, imageJSON("b", `,"dockerImageReference":"a/b"`), 400, `duplicate field`},
		{"create, unknown field ignored", "POST", api + "/images?fieldValidation=Ignore&dryRun=All", asJSON, imageJSON("b", `,"nope":1`), 201, ""},
		{"create, unknown validation", "POST", api + "/images?fieldValidation=Perhaps", asJSON, imageJSON("b", ""), 422, "fieldValidation"},
		{"create without a reference", "POST", api + "/images", asJSON, `{"kind":"Image","apiVersion":"image.openshift.io/v1","metadata":{"name":"b"}}`, 422, `"field":"dockerImageReference"`},
		{"create with a bad name", "POST", api + "/images", asJSON, imageJSON("a%b", ""), 422, `"field":"metadata.name"`},
		{"create without a name", "POST", api + "/images", asJSON, imageJSON("", ""), 422, `name or generateName is required`},
		{"create with a bad manifest", "POST", api + "/images", asJSON, imageJSON("b", `,"dockerImageManifest":"{"`), 422, `"field":"dockerImageManifest"`},
		{"create, name is not the manifest's digest", "POST", api + "/images", asJSON,
			imageJSON("sha256:"+strings.Repeat("ab", 32), `,"dockerImageManifest":`+string(manifestJSON)), 422, `digest does not match`},
		{"create, bad metadata version", "POST", api + "/images", asJSON, imageJSON("b", `,"dockerImageMetadataVersion":"2.0"`), 422, `"field":"dockerImageMetadataVersion"`},
		{"create, another group's kind", "POST", api + "/images", asJSON, `{"kind":"Pod","apiVersion":"v1"}`, 400, ""},
		{"create, no JSON", "POST", api + "/images", asJSON, `{"kind":`, 400, ""},
		{"create, of a type nobody knows", "POST", api + "/images", "text/csv", "a,b", 415, `UnsupportedMediaType`},
		{"create, too large", "POST", api + "/images", asJSON, big, 413, `RequestEntityTooLarge`},
		{"get", "GET", api + "/images/a", "", "", 200, `"ContainerConfig":{}`},
		{"get, escaped", "GET", api + "/images/" + escaped, "", "", 200, digest},
		{"get, not escaped", "GET", api + "/images/" + digest, "", "", 200, digest},
		{"list", "GET", api + "/images", "", "", 200, `"kind":"ImageList"`},
		{"list, paged", "GET", api + "/images?limit=1", "", "", 200, `"remainingItemCount":2`},
		{"list, selected", "GET", api + "/images?fieldSelector=repository%3Dteam/app", "", "", 200, digest},
		{"list, name selected", "GET", api + "/images?fieldSelector=metadata.name%3Da", "", "", 200, `"name":"a"`},
		{"list, unknown field", "GET", api + "/images?fieldSelector=x%3Dy", "", "", 400, "not a known field selector"},
		{"list, bad label selector", "GET", api + "/images?labelSelector=%3D%3D%3D", "", "", 400, ""},
		{"list, bad continue", "GET", api + "/images?limit=1&continue=xx", "", "", 400, "continue"},
		{"list, future", "GET", api + "/images?resourceVersion=9999999999999999", "", "", 504, "Too large resource version"},
		{"list, match without version", "GET", api + "/images?resourceVersionMatch=Exact", "", "", 422, "resourceVersionMatch"},
		{"watch", "GET", api + "/images?watch=true&timeoutSeconds=1&resourceVersion=" + start, "", "", 200, `{"type":"ADDED","object":{"kind":"Image"`},
		{"watch, deprecated", "GET", api + "/watch/images?timeoutSeconds=1&resourceVersion=" + start, "", "", 200, `"ADDED"`},
		{"watch one, deprecated", "GET", api + "/watch/images/a?timeoutSeconds=1", "", "", 200, `"name":"a"`},
		{"watch, too old", "GET", api + "/images?watch=true&timeoutSeconds=1&resourceVersion=1", "", "", 200, `"code":410`},
		{"watch from nonsense", "GET", api + "/images?watch=true&resourceVersion=x", "", "", 400, ""},
		{"replace without a version", "PUT", api + "/images/a", asJSON, imageJSON("a", ""), 422, "must be specified for an update"},
		{"replace by another name", "PUT", api + "/images/a", asJSON, imageJSON("b", ""), 400, "does not match"},
		{"replace what is missing", "PUT", api + "/images/zz", asJSON, imageJSON("zz", ""), 404, ""},
		{"merge patch", "PATCH", api + "/images/a", asMerge, `{"metadata":{"labels":{"x":"y"}}}`, 200, `"x":"y"`},
		{"JSON patch", "PATCH", api + "/images/a", asJSON6902, `[{"op":"test","path":"/metadata/labels/x","value":"y"}]`, 200, ""},
		{"JSON patch that fails", "PATCH", api + "/images/a", asJSON6902, `[{"op":"test","path":"/metadata/labels/x","value":"z"}]`, 422, ""},
		{"apply", "PATCH", api + "/images/a?fieldManager=me", asApply, `{"apiVersion":"image.openshift.io/v1","kind":"Image","metadata":{"name":"a","labels":{"s":"1"}}}`, 200, `"manager":"me"`},
		{"apply by another, in conflict", "PATCH", api + "/images/a?fieldManager=you", asApply, `{"apiVersion":"image.openshift.io/v1","kind":"Image","metadata":{"name":"a","labels":{"s":"2"}}}`, 409, `conflict with \"me\"`},
		{"apply by force", "PATCH", api + "/images/a?fieldManager=you&force=true", asApply, `{"apiVersion":"image.openshift.io/v1","kind":"Image","metadata":{"name":"a","labels":{"s":"2"}}}`, 200, `"s":"2"`},
		{"apply creates", "PATCH", api + "/images/new?fieldManager=me", asApply, `{"apiVersion":"image.openshift.io/v1","kind":"Image","metadata":{"name":"new"},"dockerImageReference":"a/b"}`, 201, ""},
		{"apply without a manager", "PATCH", api + "/images/a", asApply, `{}`, 422, "fieldManager"},
		{"patch of no kind", "PATCH", api + "/images/a", asJSON, `{}`, 415, ""},
		{"strategic merge patch", "PATCH", api + "/images/a", "application/strategic-merge-patch+json", `{"metadata":{"labels":{"sm":"p"}}}`, 200, `"sm":"p"`},
		{"strategic merge patch of signatures", "PATCH", api + "/images/a", "application/strategic-merge-patch+json",
			`{"signatures":[{"metadata":{"name":"a@s"},"type":"atomic","content":"eA=="}]}`, 200, `"name":"a@s"`},
		{"a second one adds", "PATCH", api + "/images/a", "application/strategic-merge-patch+json",
			`{"signatures":[{"metadata":{"name":"a@t"},"type":"atomic","content":"eQ=="}]}`, 200, `"name":"a@s"`},
		{"and is there", "GET", api + "/images/a", "", "", 200, `"name":"a@t"`},
		{"an empty one removes nothing", "PATCH", api + "/images/a", "application/strategic-merge-patch+json", `{"signatures":[]}`, 200, `"name":"a@t"`},
		{"a JSON merge patch replaces", "PATCH", api + "/images/a", asMerge, `{"signatures":[{"metadata":{"name":"a@s"},"type":"atomic","content":"eA=="}]}`, 200, `"name":"a@s"`},
		{"and the other is gone", "DELETE", api + "/imagesignatures/a@t", "", "", 404, "not found"},
		{"strategic merge patch with signatures there", "PATCH", api + "/images/a", "application/strategic-merge-patch+json", `{"metadata":{"labels":{"sm":"q"}}}`, 200, `"name":"a@s"`},
		{"patch of a bad signature", "PATCH", api + "/images/a", asMerge, `{"signatures":[{"metadata":{"name":"a@s"},"type":"atomic"}]}`, 422, `"field":"signatures[0].content"`},
		{"delete, wrong precondition", "DELETE", api + "/images/a", asJSON, `{"preconditions":{"uid":"x"}}`, 409, "the UID in the precondition"},
		{"delete, unknown policy", "DELETE", api + "/images/a?propagationPolicy=Maybe", "", "", 422, "propagationPolicy"},
		{"delete", "DELETE", api + "/images/a?propagationPolicy=Background", "", "", 200, `"status":"Success"`},
		{"delete again", "DELETE", api + "/images/a", "", "", 404, ""},
		{"delete collection, dry run", "DELETE", api + "/images?dryRun=All", "", "", 200, `"kind":"ImageList"`},
		{"delete collection", "DELETE", api + "/images?labelSelector=none", "", "", 200, `"items":[]`},
		{"signature, not a name", "DELETE", api + "/imagesignatures/x", "", "", 400, "ImageSignatures must be accessed with"},
		{"signature, escaped", "DELETE", api + "/imagesignatures/" + escaped + "%40x", "", "", 404, "imageSignatures.image.openshift.io"},
		{"signatures cannot be listed", "GET", api + "/imagesignatures", "", "", 405, ""},
		{"discovery of groups", "GET", "/apis", "", "", 200, `"name":"image.openshift.io"`},
		{"discovery of the group", "GET", "/apis/image.openshift.io", "", "", 200, `"preferredVersion"`},
		{"discovery of resources", "GET", api, "", "", 200, `"deletecollection"`},
		{"another group", "GET", "/apis/apps/v1/namespaces/x/deployments", "", "", 404, `"paths"`},
		{"OpenAPI v2", "GET", "/openapi/v2", "", "", 200, "com.github.openshift.api.image.v1.Image"},
		{"OpenAPI v3", "GET", "/openapi/v3/apis/image.openshift.io/v1", "", "", 200, "dockerImageMetadata"},
		{"version", "GET", "/version", "", "", 200, `"gitVersion": "v1.`},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			got := s.call(step.method, step.path, step.contentType, step.body)
			compact := strings.NewReplacer(`": `, `":`, "\n", "", `":[  ]`, `":[]`).Replace(got.body)
			if got.code != step.code || !strings.Contains(got.body, step.want) && !strings.Contains(compact, step.want) {
				t.Errorf("%s %s: %d, want %d with %q\n%.1500s", step.method, step.path, got.code, step.code, step.want, got.body)
			}
			if got.code >= 400 && !strings.Contains(got.body, `"Status"`) && step.want != `"paths"` {
				t.Errorf("the error is no Status: %s", got.body)
			}
		})
	}
	if warning := s.call("POST", api+"/images?dryRun=All", asJSON, imageJSON("w", `,"nope":1`)).header.Get("Warning"); warning != `299 - "unknown field \"nope\""` {
		t.Errorf("by default the warning for an unknown field is %q", warning)
	}
	// Posted with the raw manifest and config only, an Image is filled in as if pushed.
	pushed := s.image(digest)
	config, _ := json.Marshal(pushed.DockerImageConfig)
	s.deleteManifest("team/app", digest)
	posted := s.call("POST", api+"/images", asJSON, imageJSON(digest, `,"dockerImageManifest":`+string(manifestJSON)+`,"dockerImageConfig":`+string(config)))
	if posted.code != 201 {
		t.Fatalf("post of a raw manifest: %d %s", posted.code, posted.body)
	}
	image := s.image(digest)
	if string(image.DockerImageMetadata.Raw) != string(pushed.DockerImageMetadata.Raw) || len(image.DockerImageLayers) != 1 ||
		image.DockerImageManifestMediaType != pushed.DockerImageManifestMediaType {
		t.Errorf("posted, it is filled in as\n%+v\npushed, as\n%+v", image, pushed)
	}
}
