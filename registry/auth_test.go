package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/silly" // asks for credentials, and takes any
)

type refusal struct{}

func (refusal) Authorized(*http.Request, ...auth.Access) (*auth.Grant, error) {
	return nil, auth.ErrAuthenticationFailure
}

// TestAdministrators: a token is an administrator's password, under any name, and nothing else is.
func TestAdministrators(t *testing.T) {
	isToken := func(token string) bool { return token == "secret" || token == "" }
	mayDelete := func(_ *http.Request, token string) (string, bool) {
		return "pruner", token == "pruner's" || token == ""
	}
	c := &configuration.Configuration{Auth: configuration.Auth{"silly": {"realm": "r", "service": "s"}}}
	if err := addAdministrators(c, administrators{isToken: isToken, mayDelete: mayDelete}); err != nil {
		t.Fatal(err)
	}
	controller, err := auth.GetAccessController(c.Auth.Type(), c.Auth.Parameters())
	if err != nil {
		t.Fatal(err)
	}
	repository := auth.Access{Resource: auth.Resource{Type: "repository", Name: "a"}, Action: "push"}
	for name, test := range map[string]struct {
		authorize func(*http.Request)
		admin     bool
	}{
		"nothing":            {func(*http.Request) {}, false},
		"the token":          {func(r *http.Request) { r.SetBasicAuth("somebody", "secret") }, true},
		"a bearer":           {func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret") }, true},
		"another password":   {func(r *http.Request) { r.SetBasicAuth("admin", "secre") }, false},
		"no password":        {func(r *http.Request) { r.SetBasicAuth("admin", "") }, false},
		"the token as name":  {func(r *http.Request) { r.SetBasicAuth("secret", "") }, false},
		"no bearer's token":  {func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, false},
		"some other scheme":  {func(r *http.Request) { r.Header.Set("Authorization", "secret") }, false},
		"a bearer's mistake": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret ") }, false},
	} {
		r := httptest.NewRequest("GET", "/v2/", nil)
		test.authorize(r)
		grant, err := controller.Authorized(r, repository)
		admin := err == nil && grant.User.Name == "admin" && len(grant.Resources) == 1
		var challenge auth.Challenge
		if admin != test.admin || !admin && name == "nothing" && !errors.As(err, &challenge) {
			t.Errorf("%s: %+v, %v", name, grant, err)
		}
	}
	refusing := &administrators{refusal{}, isToken, mayDelete}
	bearer := func(token string) *http.Request {
		r := httptest.NewRequest("DELETE", "/v2/a/manifests/b", nil)
		r.SetBasicAuth("any", token)
		return r
	}
	deletion := auth.Access{Resource: repository.Resource, Action: "delete"}
	pull := auth.Access{Resource: repository.Resource, Action: "pull"}
	for name, test := range map[string]struct {
		token  string
		access []auth.Access
		want   string
	}{
		"a deletion":               {"pruner's", []auth.Access{deletion}, "pruner"},
		"a look at /v2/":           {"pruner's", nil, "pruner"},
		"a pull":                   {"pruner's", []auth.Access{pull}, ""},
		"a push":                   {"pruner's", []auth.Access{repository}, ""},
		"a deletion with a pull":   {"pruner's", []auth.Access{deletion, pull}, ""},
		"a deletion by another":    {"another's", []auth.Access{deletion}, ""},
		"a deletion without token": {"", []auth.Access{deletion}, ""},
		"an administrator's":       {"secret", []auth.Access{deletion, pull}, "admin"},
	} {
		grant, err := refusing.Authorized(bearer(test.token), test.access...)
		if (err == nil) != (test.want != "") || err == nil && (grant.User.Name != test.want || len(grant.Resources) != len(test.access)) {
			t.Errorf("%s: %+v, %v, want %q", name, grant, err, test.want)
		}
	}
	open := &configuration.Configuration{}
	if err := addAdministrators(open, administrators{isToken: isToken}); err != nil || open.Auth.Type() != "" {
		t.Errorf("a registry for everybody: %v, %v", open.Auth, err)
	}
	broken := &configuration.Configuration{Auth: configuration.Auth{"unknown": {}}}
	if err := addAdministrators(broken, administrators{mayDelete: mayDelete}); err == nil {
		t.Error("an unknown auth is taken")
	}
}
