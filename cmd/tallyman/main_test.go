package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tallyman runs a command in this process, and returns its output and exit code.
func tallyman(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	code := run(t.Context(), cmd)
	return out.String(), code
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	t.Setenv("HOME", dir)
	good := file("good.yml", "version: 0.1\nstorage: {inmemory: {}}\nredis: {addrs: ['r:1'], password: hunter2}\nimageapi: {onstorefailure: reject}\n")
	typos := file("typos.yml", "version: 0.1\nstorage:\n  filesystem: {rootdirectory: /x}\nhttp:\n  adr: :5000\n  tls:\n    certficate: x\n")
	ours := file("ours.yml", "version: 0.1\nstorage: {inmemory: {}}\nimageapi:\n  onstorefailur: reject\n")
	value := file("value.yml", "version: 0.1\nstorage: {inmemory: {}}\nimageapi: {onstorefailure: maybe, inlinelimit: -1}\n")
	twoDrivers := file("two.yml", "version: 0.1\nstorage: {inmemory: {}, filesystem: {}}\n")
	tests := []struct {
		name string
		env  []string
		args []string
		code int
		want []string
	}{
		{"version flag", nil, []string{"--version"}, 0, []string{"tallyman v", "distribution v3.1.2"}},
		{"version", nil, []string{"version", "-o", "json"}, 0, []string{`"distribution": "v3.1.2"`, `"api": "image.openshift.io/v1"`}},
		{"help", nil, []string{"--help"}, 0, []string{"serve", "garbage-collect", "config", "completion"}},
		{"an unknown flag", nil, []string{"serve", "--prot"}, 2, []string{"unknown flag: --prot"}},
		{"too many arguments", nil, []string{"serve", "a", "b"}, 2, []string{"accepts at most 1 arg"}},
		{"no such file", nil, []string{"serve", dir + "/none.yml"}, 1, []string{"configuration error", "no such file"}},
		{"check, good", nil, []string{"config", "check", good}, 0, []string{"good.yml: ok"}},
		{"check, typos", nil, []string{"config", "check", typos}, 3, []string{
			`line 5: unknown key "http.adr" (did you mean "addr"?)`, `line 7: unknown key "http.tls.certficate" (did you mean "certificate"?)`,
		}},
		{"check, a typo of ours", nil, []string{"config", "check", ours}, 3, []string{`line 4: unknown key "imageapi.onstorefailur" (did you mean "onstorefailure"?)`}},
		{"serve with a typo of ours", nil, []string{"serve", ours}, 1, []string{`unknown key "imageapi.onstorefailur"`}},
		{"check, bad values", nil, []string{"config", "check", value}, 3, []string{"imageapi.onstorefailure", "want defer or reject", "imageapi.inlinelimit"}},
		{"check, two drivers", nil, []string{"config", "check", twoDrivers}, 3, []string{"exactly one storage type"}},
		{"serve with two drivers", nil, []string{"serve", twoDrivers}, 1, []string{"exactly one storage type"}},
		{"show", nil, []string{"config", "show", good}, 0, []string{"password: <redacted>", "onstorefailure: reject", "historyage: 1h0m0s"}},
		{"show with the environment", []string{"REGISTRY_IMAGEAPI_STORE_LOGENTRIES=7", "REGISTRY_HTTP_SECRET=s3cr3t"}, []string{"config", "show", good}, 0,
			[]string{"logentries: 7", "secret: <redacted>"}},
		{"an unknown variable", []string{"REGISTRY_IMAGEAPI_STORE_LOGENTRY=7"}, []string{"config", "show", good}, 1,
			[]string{"REGISTRY_IMAGEAPI_STORE_LOGENTRY is not known", "did you mean REGISTRY_IMAGEAPI_STORE_LOGENTRIES"}},
		{"garbage-collect without a configuration", nil, []string{"garbage-collect"}, 2, []string{"configuration path unspecified"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, variable := range test.env {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, value)
			}
			out, code := tallyman(t, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d\n%s", code, test.code, out)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for _, secret := range []string{"hunter2", "s3cr3t"} {
				if strings.Contains(out, secret) {
					t.Errorf("a secret is in\n%s", out)
				}
			}
		})
	}
	out, _ := tallyman(t, "config", "schema")
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(out), &schema); err != nil || schema.Properties["imageapi"].Properties["onstorefailure"] == nil ||
		schema.Properties["http"].Properties["addr"] == nil {
		t.Errorf("the schema lacks keys: %v\n%.500s", err, out)
	}
}

// TestFormerCommand: metadata is the former name of store. It works, and says so.
func TestFormerCommand(t *testing.T) {
	dir := t.TempDir()
	former, code := tallyman(t, "metadata", "check", "--help", "--data-dir", dir)
	if code != 0 || !strings.Contains(former, "tallyman metadata check") {
		t.Errorf("help of the former name: %s, %d", former, code)
	}
	out, code := tallyman(t, "metadata", "stats", "--data-dir", dir)
	if code != 1 || !strings.Contains(out, `Warning: "tallyman metadata" will go in the next release: use "tallyman store"`) || !strings.Contains(out, "no embedded store") {
		t.Errorf("the former name: %s, %d", out, code)
	}
	if out, _ := tallyman(t, "store", "stats", "--data-dir", dir); strings.Contains(out, "Warning") || !strings.Contains(out, "no embedded store") {
		t.Errorf("the new name: %s", out)
	}
	if out, _ := tallyman(t, "--help"); strings.Contains(out, "metadata") || !strings.Contains(out, "store ") {
		t.Errorf("help: %s", out)
	}
}

// TestHealthcheck: a server is asked by the protocol that it speaks.
func TestHealthcheck(t *testing.T) {
	ready := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	failing := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "[-]registry failed", http.StatusInternalServerError)
	})
	for name, test := range map[string]struct {
		server *httptest.Server
		want   string
	}{
		"HTTP":           {httptest.NewServer(ready), ""},
		"HTTPS":          {httptest.NewTLSServer(ready), ""},
		"HTTP, failing":  {httptest.NewServer(failing), "500 Internal Server Error: [-]registry failed"},
		"HTTPS, failing": {httptest.NewTLSServer(failing), "500 Internal Server Error: [-]registry failed"},
	} {
		test.server.Config.ErrorLog = log.New(io.Discard, "", 0)
		err := healthcheckHere(t.Context(), test.server.Listener.Addr().String())
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		test.server.Close()
	}
}
