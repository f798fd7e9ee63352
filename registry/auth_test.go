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

// TestAdministrators: a token is an administrator's password, under any name, and nothing else is.
func TestAdministrators(t *testing.T) {
	isToken := func(token string) bool { return token == "secret" || token == "" }
	c := &configuration.Configuration{Auth: configuration.Auth{"silly": {"realm": "r", "service": "s"}}}
	if err := addAdministrators(c, isToken); err != nil {
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
	open := &configuration.Configuration{}
	if err := addAdministrators(open, isToken); err != nil || open.Auth.Type() != "" {
		t.Errorf("a registry for everybody: %v, %v", open.Auth, err)
	}
	broken := &configuration.Configuration{Auth: configuration.Auth{"unknown": {}}}
	if err := addAdministrators(broken, isToken); err == nil {
		t.Error("an unknown auth is taken")
	}
}
