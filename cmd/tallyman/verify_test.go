package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"tallyman/signatures"
	"tallyman/signatures/signtest"
)

// TestVerifyCommand: its output and its exit codes.
func TestVerifyCommand(t *testing.T) {
	key, stranger := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	path := filepath.Join(t.TempDir(), "key.pub")
	must(t, os.WriteFile(path, []byte(key.PEM()), 0o600))
	s := serving(t)
	config := s.configure(t, "", path)
	trusted, untrusted := s.pushImage(t, "ns/app", "v1"), s.pushImage(t, "ns/app", "v2")
	s.pushImage(t, "ns/app", "v3")
	for name, keys := range map[digest.Digest][]*signtest.Key{trusted: {key, stranger}, untrusted: {stranger}} {
		for _, k := range keys {
			a := signtest.Referrer(name, k.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, nil)))
			s.push(t, "ns/app", a.Digest.String(), a)
		}
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ns/app:v1"}, 0, "Verified: policy all, key release"},
		{[]string{s.addr + "/ns/app:v1"}, 0, "KeyNotTrusted: policy all: "},
		{[]string{"ns/app@" + trusted.String()}, 0, "ns/app@" + trusted.String()},
		{[]string{"ns/app:v2"}, 3, "no signature is trusted"},
		{[]string{"ns/app:v3"}, 3, "it has no signature"},
		{[]string{"ns/app"}, 1, "ns/app has no tag latest"},
		{[]string{"ns/other@" + trusted.String()}, 1, "ns/other holds no image"},
		{[]string{"NS/App"}, 2, "is not an image"},
		{[]string{"ns/app:v1", "-o", "yaml"}, 2, "want table or json"},
		{[]string{}, 2, "accepts 1 arg"},
	} {
		out, code := tallyman(t, append([]string{"verify", "--config", config}, test.args...)...)
		if code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("verify %v: exit code %d, want %d, %s: want %s", test.args, code, test.code, out, test.want)
		}
	}
	out, _ := tallyman(t, "verify", "--config", config, "-o", "json", "ns/app:v1")
	var report struct {
		Image              string
		Trusted, Satisfied bool
		Signatures         []struct{ Trusted, Reason, Signer, PublicKeyID string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if report.Image != trusted.String() || !report.Trusted || !report.Satisfied || len(report.Signatures) != 2 {
		t.Errorf("the report is %s", out)
	}
}
