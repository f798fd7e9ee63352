package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/signatures"
	"tallyman/signatures/policy"
)

// A policy trusts signatures by a public key for the repositories of a namespace.
func ExampleVerifier_Verify() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	verifier, err := policy.New(policy.Options{
		Hosts: []string{"registry.example.com"},
		Policies: []signatures.Policy{{
			Name: "team", Scopes: []string{"registry.example.com/team"},
			RootsOfTrust: []signatures.RootOfTrust{{
				Name: "release-key", PolicyType: "PublicKey",
				PublicKey: &signatures.PublicKey{KeyData: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
			}},
		}},
	})
	if err != nil {
		panic(err)
	}

	// The signature that cosign makes of an image.
	const subject = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	payload := []byte(`{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},` +
		`"image":{"docker-manifest-digest":"` + subject + `"},"type":"cosign container image signature"},"optional":null}`)
	sum := sha256.Sum256(payload)
	signed, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	content, err := json.Marshal(signatures.CosignContent{
		MIMEType: "application/vnd.dev.cosign.simplesigning.v1+json", Payload: payload,
		Annotations: map[string]string{signatures.AnnotationCosignSignature: base64.StdEncoding.EncodeToString(signed)},
	})
	if err != nil {
		panic(err)
	}

	image := &imagev1.Image{
		ObjectMeta: metav1.ObjectMeta{Name: subject},
		Signatures: []imagev1.ImageSignature{{Type: signatures.TypeCosign, Content: content}},
	}
	fmt.Println(verifier.Verify(image, []string{"team/app"}, nil, 0).Trusted)
	for _, condition := range image.Signatures[0].Conditions {
		fmt.Println(condition.Type, condition.Status, condition.Reason)
	}
	// Output:
	// [team/app]
	// Trusted True Verified
	// ForImage True DigestMatches
}
