package access

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, content)
	return path
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustNew(t *testing.T, o Options) *Access {
	t.Helper()
	a, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// may asks about images, as "verb resource[/name]", or about a path, as "verb /path".
func may(t *testing.T, a *Access, u user.Info, what string) bool {
	t.Helper()
	verb, target, _ := strings.Cut(what, " ")
	attributes := authorizer.AttributesRecord{User: u, Verb: verb}
	if strings.HasPrefix(target, "/") {
		attributes.Path = target
	} else {
		attributes.ResourceRequest, attributes.APIGroup = true, "image.openshift.io"
		attributes.Resource, attributes.Name, _ = strings.Cut(target, "/")
	}
	decision, _, err := a.Authorizer.Authorize(context.Background(), attributes)
	if err != nil {
		t.Fatal(err)
	}
	return decision == authorizer.DecisionAllow
}

func someone(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
}

var (
	anonymousUser = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	everything    = []string{
		"get images/x", "list images", "watch images", "create images", "delete images/x", "deletecollection images", "create imagesignatures",
		"get /livez", "get /apis", "get /openapi/v3", "get /debug/pprof",
	}
	public  = []string{"get /livez"}
	reading = []string{"get images/x", "list images", "watch images"}
)

const rbacFile = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: one-image}
rules:
- {apiGroups: [image.openshift.io], resources: [images], resourceNames: [x], verbs: [get, delete]}
- {nonResourceURLs: [/debug/*], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all-of-ours, labels: {a: b}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {team: ours}}]}
---
# nothing here
---
apiVersion: v1
kind: List
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: part, labels: {team: ours}}
  rules: [{apiGroups: ["*"], resources: [images], verbs: [list]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: pruners}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:image-pruner"}
  subjects: [{kind: Group, name: pruners}, {kind: ServiceAccount, name: pruner, namespace: ops}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: alice}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: one-image}
subjects: [{kind: User, name: alice}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ours}
roleRef: {kind: ClusterRole, name: all-of-ours}
subjects: [{kind: User, name: bob}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: signers}
roleRef: {kind: ClusterRole, name: "system:image-signer"}
subjects: [{kind: User, name: signer}]
`

// TestAuthorize: permissions by default and by a file.
func TestAuthorize(t *testing.T) {
	byFile := Options{RBACFile: write(t, "rbac.yml", rbacFile), AnonymousRead: true, PasswordCheck: func(*http.Request) (string, bool) { return "", false }}
	for name, c := range map[string]struct {
		options Options
		user    user.Info
		want    []string
	}{
		"an administrator":                    {Options{}, someone("admin", user.SystemPrivilegedGroup), everything},
		"nobody, where everybody may pull":    {Options{AnonymousRead: true}, anonymousUser, append(slices.Clone(reading), "get /livez", "get /apis", "get /openapi/v3")},
		"somebody, where everybody may pull":  {Options{AnonymousRead: true}, someone("x"), append(slices.Clone(reading), "get /livez", "get /apis", "get /openapi/v3")},
		"nobody, where users pull":            {Options{}, anonymousUser, public},
		"somebody, where users pull":          {Options{}, someone("x"), []string{"get /livez", "get /apis", "get /openapi/v3"}},
		"a user of the registry":              {Options{}, someone("x", RegistryUsers), append(slices.Clone(reading), "get /livez", "get /apis", "get /openapi/v3")},
		"by file, nobody":                     {byFile, anonymousUser, []string{"get /livez", "get /apis", "get /openapi/v3"}},
		"by file, a user of the registry":     {byFile, someone("x", RegistryUsers), []string{"get /livez", "get /apis", "get /openapi/v3"}},
		"by file, an administrator":           {byFile, someone("admin", user.SystemPrivilegedGroup), everything},
		"by file, who may one image":          {byFile, someone("alice"), []string{"get images/x", "delete images/x", "get /livez", "get /apis", "get /openapi/v3", "get /debug/pprof"}},
		"by file, an aggregated role":         {byFile, someone("bob"), []string{"list images", "get /livez", "get /apis", "get /openapi/v3"}},
		"by file, a group":                    {byFile, someone("x", "pruners"), []string{"get images/x", "list images", "watch images", "delete images/x", "deletecollection images", "get /livez", "get /apis", "get /openapi/v3"}},
		"by file, a service account":          {byFile, someone("system:serviceaccount:ops:pruner"), []string{"get images/x", "list images", "watch images", "delete images/x", "deletecollection images", "get /livez", "get /apis", "get /openapi/v3"}},
		"by file, a service account of other": {byFile, someone("system:serviceaccount:other:pruner"), []string{"get /livez", "get /apis", "get /openapi/v3"}},
		"by file, a signer":                   {byFile, someone("signer"), []string{"get images/x", "create imagesignatures", "get /livez", "get /apis", "get /openapi/v3"}},
	} {
		a := mustNew(t, c.options)
		for _, what := range everything {
			if got, want := may(t, a, c.user, what), slices.Contains(c.want, what); got != want {
				t.Errorf("%s: %s: %t, want %t", name, what, got, want)
			}
		}
	}
	a := mustNew(t, byFile)
	if may(t, a, someone("alice"), "get images/y") || may(t, a, someone("alice"), "get images") || may(t, a, someone("alice"), "get /debug") {
		t.Error("a rule about one object is about others")
	}
	resources, others, _, err := a.Rules.RulesFor(t.Context(), someone("alice"), "default")
	if err != nil || !slices.ContainsFunc(resources, func(r authorizer.ResourceRuleInfo) bool { return slices.Equal(r.GetResourceNames(), []string{"x"}) }) || len(others) < 2 {
		t.Errorf("her rules are %v %v %v", resources, others, err)
	}
}

// TestNamespaces: a RoleBinding gives permissions in its namespace alone, by a role of the file or a ready-made
// one.
func TestNamespaces(t *testing.T) {
	const content = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lister, namespace: team}
rules: [{apiGroups: [image.openshift.io], resources: [imagestreams], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBindingList
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: alice, namespace: team}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lister}
  subjects: [{kind: User, name: alice}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: editors, namespace: team}
  roleRef: {kind: ClusterRole, name: registry-editor}
  subjects: [{kind: Group, name: editors}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: admin, namespace: other}
  roleRef: {kind: ClusterRole, name: registry-admin}
  subjects: [{kind: User, name: alice}]
`
	a := mustNew(t, Options{RBACFile: write(t, "rbac.yml", content)})
	for what, test := range map[string]struct {
		user user.Info
		want string // namespaces
	}{
		"list imagestreams":      {someone("alice"), "team other"},
		"get imagestreams/x":     {someone("alice"), "other"},
		"delete imagetags/x":     {someone("x", "editors"), "team"},
		"create imagestreamtags": {someone("x"), ""},
	} {
		var got []string
		for _, namespace := range []string{"team", "other", "third", ""} {
			verb, target, _ := strings.Cut(what, " ")
			resource, name, _ := strings.Cut(target, "/")
			decision, _, err := a.Authorizer.Authorize(t.Context(), authorizer.AttributesRecord{
				User: test.user, Verb: verb, APIGroup: "image.openshift.io", Resource: resource, Name: name, Namespace: namespace, ResourceRequest: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if decision == authorizer.DecisionAllow {
				got = append(got, namespace)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s %s in %q, want %q", test.user.GetName(), what, got, test.want)
		}
	}
	if may(t, a, someone("alice"), "get images/x") {
		t.Error("a role in a namespace is about Images, which are in none")
	}
	for namespace, want := range map[string]int{"team": 1, "third": 0} {
		resources, _, _, err := a.Rules.RulesFor(t.Context(), someone("alice"), namespace)
		resources = slices.DeleteFunc(resources, func(r authorizer.ResourceRuleInfo) bool { return !slices.Contains(r.GetResources(), "imagestreams") })
		if err != nil || len(resources) != want {
			t.Errorf("rules in %s: %v, %v", namespace, resources, err)
		}
	}
	if a.ServesAnonymous() {
		t.Error("anonymous may do something")
	}
}

// TestRBACFileFaults: an error names the fault, and a valid value.
func TestRBACFileFaults(t *testing.T) {
	const role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n"
	const binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n"
	const local = "apiVersion: rbac.authorization.k8s.io/v1\n"
	for want, content := range map[string]string{
		`kind "Rule" is not valid`:             "apiVersion: rbac.authorization.k8s.io/v1\nkind: Rule\nmetadata: {name: x}",
		`apiVersion "v1" is not valid`:         "apiVersion: v1\nkind: ConfigMap",
		"metadata.name is required":            role + "rules: []",
		`unknown field "rule"`:                 role + "metadata: {name: x}\nrule: []",
		"rules[0]: want verbs":                 role + "metadata: {name: x}\nrules: [{apiGroups: [''], resources: [images]}]",
		"apiGroups and resources or":           role + "metadata: {name: x}\nrules: [{resources: [images], verbs: [get]}]",
		`"x" is given twice`:                   role + "metadata: {name: x}\n---\n" + role + "metadata: {name: x}",
		`ClusterRole "cluster-admin" is ready`: role + "metadata: {name: cluster-admin}",
		`there is no ClusterRole "nope"`:       binding + "metadata: {name: x}\nroleRef: {kind: ClusterRole, name: nope}",
		"want kind ClusterRole":                binding + "metadata: {name: x}\nroleRef: {kind: Role, name: nope}",
		`subjects[0].kind "Person"`:            binding + "metadata: {name: x}\nroleRef: {kind: ClusterRole, name: registry-admin}\nsubjects: [{kind: Person, name: x}]",
		`Role "x": metadata.namespace is`:      local + "kind: Role\nmetadata: {name: x}",
		`RoleBinding "x": metadata.namespace`:  local + "kind: RoleBinding\nmetadata: {name: x}\nroleRef: {kind: Role, name: x}",
		"it is in none":                        role + "metadata: {name: x, namespace: team}",
		`Role "team/x": rules[0].nonResource`:  local + "kind: Role\nmetadata: {name: x, namespace: team}\nrules: [{nonResourceURLs: [/x], verbs: [get]}]",
		`there is no Role "z" in namespace "t`: local + "kind: Role\nmetadata: {name: z, namespace: other}\n---\n" + local + "kind: RoleBinding\nmetadata: {name: x, namespace: team}\nroleRef: {kind: Role, name: z}",
		"want kind ClusterRole or Role":        local + "kind: RoleBinding\nmetadata: {name: x, namespace: team}\nroleRef: {kind: Rule, name: y}",
		`unknown field "aggregationRule"`:      local + "kind: Role\nmetadata: {name: x, namespace: team}\naggregationRule: {}",
		"document 2: items[0]":                 role + "metadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems: [{kind: Role}]",
		"yaml":                                 "a: b: c",
	} {
		_, err := New(t.Context(), Options{RBACFile: write(t, "rbac.yml", content)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rbacfile: ") {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	for key, o := range map[string]Options{
		"rbacfile": {RBACFile: "/no/such"}, "clientcafile": {ClientCAFile: "/no/such"}, "tokenauthfile": {TokenAuthFile: "/no/such"},
		"authenticationconfigfile": {AuthenticationConfigFile: "/no/such"}, "authenticationwebhookfile": {AuthenticationWebhookFile: "/no/such"},
		"authorizationwebhookfile": {AuthorizationWebhookFile: "/no/such"}, "requestheader.clientcafile": {RequestHeader: RequestHeader{ClientCAFile: "/no/such"}},
	} {
		if _, err := New(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: the error is %v", key, err)
		}
	}
	for want, content := range map[string]string{
		"'Kind' is missing":   "apiVersion: apiserver.config.k8s.io/v1",
		"unknown field":       "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwts: []",
		"anonymous is not to": "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}",
		"jwt[0].issuer.url":   "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]",
	} {
		_, err := New(t.Context(), Options{AuthenticationConfigFile: write(t, "authn.yml", content)})
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// TestReload: rules follow their file, and a broken one changes nothing.
func TestReload(t *testing.T) {
	path := write(t, "rbac.yml", rbacFile)
	a := mustNew(t, Options{RBACFile: path})
	run := func() {
		for _, reload := range a.reloads {
			reload(t.Context())
		}
	}
	rewrite(t, path, "broken: [")
	run()
	if !may(t, a, someone("alice"), "get images/x") {
		t.Error("a broken file has taken a right away")
	}
	rewrite(t, path, "")
	run()
	if may(t, a, someone("alice"), "get images/x") {
		t.Error("an empty file leaves a right")
	}
}

// request authenticates a request with an Authorization header.
func authenticate(t *testing.T, a *Access, authorization string) (name string, groups []string, err error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/apis", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	response, ok, err := a.Authenticator.AuthenticateRequest(r)
	if err != nil || !ok {
		return "", nil, err
	}
	return response.User.GetName(), response.User.GetGroups(), nil
}

// TestTokens: the union of all authenticators of tokens, and of none.
func TestTokens(t *testing.T) {
	a := mustNew(t, Options{
		AdminTokens:   []string{"secret", ""},
		TokenAuthFile: write(t, "tokens.csv", "one,alice,1,\"dev,ops\"\ntwo,bob,2\n"),
		PasswordCheck: func(r *http.Request) (string, bool) {
			name, password, _ := r.BasicAuth()
			return name, password == "good"
		},
	})
	for authorization, want := range map[string]string{
		"":                       "system:anonymous system:unauthenticated",
		"Bearer secret":          "admin system:authenticated,system:masters",
		"Bearer one":             "alice dev,ops,system:authenticated",
		"Bearer two":             "bob system:authenticated",
		"Bearer wrong":           "401",
		"Bearer ":                "401",
		"Basic Y2xlcms6Z29vZA==": "clerk system:authenticated,tallyman:registry-users",
		"Basic Y2xlcms6YmFk":     "401",
		"Negotiate x":            "401",
	} {
		name, groups, err := authenticate(t, a, authorization)
		slices.Sort(groups)
		got := name + " " + strings.Join(groups, ",")
		if err != nil {
			got = "401"
		}
		if got != want {
			t.Errorf("%q: %s, %v; want %s", authorization, got, err, want)
		}
	}
	if want := []string{`Bearer realm="tallyman"`, `Basic realm="tallyman"`}; !slices.Equal(a.Challenges, want) {
		t.Errorf("challenges are %v", a.Challenges)
	}
	if nothing := mustNew(t, Options{}); len(nothing.Challenges) != 0 || nothing.ServesAnonymous() {
		t.Errorf("with nothing configured: %v, serves anonymous: %t", nothing.Challenges, nothing.ServesAnonymous())
	}
}

// TestMayDeleteImages: with the token of a user whose roles allow it in the whole cluster.
func TestMayDeleteImages(t *testing.T) {
	a := mustNew(t, Options{
		AdminTokens:   []string{"secret"},
		AnonymousRead: true,
		TokenAuthFile: write(t, "tokens.csv", "p,pruner,1\nr,reader,2\nn,namespaced,3\n"),
		RBACFile: write(t, "rbac.yaml", `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:image-pruner"}
subjects: [{kind: User, name: pruner}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: b}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:image-reader"}
subjects: [{kind: User, name: reader}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: c, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: registry-admin}
subjects: [{kind: User, name: namespaced}]
`),
	})
	for token, want := range map[string]string{"p": "pruner", "secret": "admin", "r": "", "n": "", "wrong": "", "": ""} {
		r := httptest.NewRequest(http.MethodDelete, "/v2/team/app/manifests/x", nil)
		r.SetBasicAuth("any", token)
		name, ok := a.MayDeleteImages(r, token)
		if ok != (want != "") || ok && name != want {
			t.Errorf("%q: %s, %t, want %q", token, name, ok, want)
		}
	}
}

// TestTokenFileReload: the users in the file are known, at any time; a broken file changes
// nothing.
func TestTokenFileReload(t *testing.T) {
	path := write(t, "tokens.csv", "one,alice,1\n")
	a := mustNew(t, Options{TokenAuthFile: path})
	for _, step := range []struct{ content, token, want string }{
		{"one,alice,1\n", "one", "alice"},
		{"one,alice,1\ntwo,bob,2\n", "two", "bob"},
		{"broken\n", "two", "bob"},
		{"two,bob,2\n", "one", ""},
	} {
		rewrite(t, path, step.content)
		for _, reload := range a.reloads {
			reload(t.Context())
		}
		if got, _, err := authenticate(t, a, "Bearer "+step.token); got != step.want || (err != nil) != (step.want == "") {
			t.Errorf("after %q the token %s is %q, %v", step.content, step.token, got, err)
		}
	}
}

// TestDelegationFaults: without a way to a cluster the error names the key and its purpose. A
// cluster that is away is no fault.
func TestDelegationFaults(t *testing.T) {
	for want, o := range map[string]Delegation{
		"delegation: unable to load in-cluster configuration": {Enabled: true},
		"want kubeconfigfile outside of a cluster":            {Enabled: true},
		"delegation: stat /nonexistent":                       {Enabled: true, KubeconfigFile: "/nonexistent"},
	} {
		if _, err := New(t.Context(), Options{Delegation: o}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	kubeconfig := write(t, "kubeconfig", `{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u, user: {token: t}}]}`)
	a := mustNew(t, Options{Delegation: Delegation{Enabled: true, KubeconfigFile: kubeconfig}, AdminTokens: []string{"secret"}, AnonymousRead: true})
	if got, _, err := authenticate(t, a, "Bearer secret"); got != "admin" {
		t.Errorf("the administrator is %q, %v", got, err)
	}
	if !may(t, a, anonymousUser, "get /version") {
		t.Error("the version is kept from everybody")
	}
	rbac, err := a.rbac(&Options{Delegation: Delegation{Enabled: true}, AnonymousRead: true})
	if err != nil {
		t.Fatal(err)
	}
	if may(t, &Access{Authorizer: authorizer.AuthorizerFunc(rbac.Authorize)}, anonymousUser, "get images/x") {
		t.Error("where a cluster is asked, everybody reads")
	}
}
