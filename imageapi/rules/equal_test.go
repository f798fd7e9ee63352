package rules

import (
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
)

func TestEqualSignatures(t *testing.T) {
	base := func() *imagev1.ImageSignature {
		s := &imagev1.ImageSignature{Type: "atomic", Content: []byte("content")}
		s.Name = "a@b"
		return s
	}
	if a, b := base(), base(); !EqualSignatures(a, b) || string(a.Content) != "content" {
		t.Error("equal signatures differ, or were changed")
	}
	empty, none := base(), base()
	empty.Content, none.Content, none.Labels = []byte{}, nil, map[string]string{}
	if !EqualSignatures(empty, none) {
		t.Error("nothing differs from nothing")
	}
	for name, change := range map[string]func(*imagev1.ImageSignature){
		"content":    func(s *imagev1.ImageSignature) { s.Content = []byte("contenT") },
		"type":       func(s *imagev1.ImageSignature) { s.Type = "cosign" },
		"conditions": func(s *imagev1.ImageSignature) { s.Conditions = []imagev1.SignatureCondition{{Type: "Trusted"}} },
	} {
		other := base()
		if change(other); EqualSignatures(base(), other) {
			t.Errorf("the same with another %s", name)
		}
	}
}
