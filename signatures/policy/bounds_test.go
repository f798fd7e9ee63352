package policy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"tallyman/signatures"
	"tallyman/signatures/der"
	"tallyman/signatures/signtest"
)

// nested returns n sequences, one in another.
func nested(n int) []byte {
	var data []byte
	for range n {
		header := []byte{0x30, byte(len(data))}
		switch size := len(data); {
		case size > 0xff:
			header = []byte{0x30, 0x82, byte(size >> 8), byte(size)}
		case size > 0x7f:
			header = []byte{0x30, 0x81, byte(size)}
		}
		data = append(header, data...)
	}
	return data
}

// TestBoundedInput: a certificate, chain or timestamp that is larger or deeper than may be is
// refused before it is parsed, by each form of signature.
func TestBoundedInput(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	subject := digest.FromString("an image")
	classic := func(annotation, value string) []byte {
		var layer signatures.CosignContent
		if err := json.Unmarshal(k.Cosign(signtest.CosignPayload(subject, "registry.example.com/app", nil)).Content, &layer); err != nil {
			t.Fatal(err)
		}
		layer.Annotations[annotation] = value
		content, err := json.Marshal(layer)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	timestamp := func(data []byte) string {
		return fmt.Sprintf(`{"SignedRFC3161Timestamp":%q}`, base64.StdEncoding.EncodeToString(data))
	}
	certificate := func(data []byte) string {
		return "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(data) + "\n-----END CERTIFICATE-----\n"
	}
	bundle := func(material string) []byte {
		var b map[string]json.RawMessage
		if err := json.Unmarshal(k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil)).Content, &b); err != nil {
			t.Fatal(err)
		}
		b["verificationMaterial"] = json.RawMessage(material)
		content, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	inBundle := func(n int, data []byte) []byte {
		stamp := fmt.Sprintf(`{"signedTimestamp":%q}`, base64.StdEncoding.EncodeToString(data))
		return bundle(`{"publicKey":{"hint":"a"},"timestampVerificationData":{"rfc3161Timestamps":[` + strings.TrimSuffix(strings.Repeat(stamp+",", n), ",") + `]}}`)
	}
	deep, large := nested(100), append([]byte{0x04, 0x82, 0x40, 0x00}, make([]byte, 16<<10)...)
	for name, c := range map[string]struct {
		kind, want string
		content    []byte
	}{
		"deep timestamp":           {signatures.TypeCosign, "nested deeper", classic(signatures.AnnotationCosignTimestamp, timestamp(deep))},
		"large timestamp":          {signatures.TypeCosign, "more than 16384", classic(signatures.AnnotationCosignTimestamp, timestamp(large))},
		"deep certificate":         {signatures.TypeCosign, "nested deeper", classic(signatures.AnnotationCosignCertificate, certificate(deep))},
		"long chain":               {signatures.TypeCosign, "more than 32768", classic(signatures.AnnotationCosignChain, strings.Repeat("x", 2*der.MaxBytes+1))},
		"deep in a bundle":         {signatures.TypeBundle, "nested deeper", inBundle(1, deep)},
		"many in a bundle":         {signatures.TypeBundle, "more than 8", inBundle(9, nested(2))},
		"certificate of a bundle":  {signatures.TypeBundle, "nested deeper", bundle(fmt.Sprintf(`{"certificate":{"rawBytes":%q}}`, base64.StdEncoding.EncodeToString(deep)))},
		"ordinary, with timestamp": {signatures.TypeCosign, "", classic(signatures.AnnotationCosignTimestamp, timestamp(nested(10)))},
	} {
		_, err := parse(c.kind, c.content)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
