package der

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// nested returns depth sequences, one in another.
func nested(depth int) []byte {
	var data []byte
	for range depth {
		next, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: data})
		if err != nil {
			panic(err)
		}
		data = next
	}
	return data
}

func TestCheck(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                       {nil, ""},
		"a certificate":                 {certificate, ""},
		"two certificates":              {append(bytes.Clone(certificate), certificate...), ""},
		"a cut certificate":             {certificate[:len(certificate)-1], "cut off"},
		"as deep as may be":             {nested(MaxDepth), ""},
		"deeper":                        {nested(MaxDepth + 1), "nested deeper than 64"},
		"far deeper":                    {nested(4000), "nested deeper than 64"},
		"indefinite":                    {[]byte{0x30, 0x80, 0x02, 0x01, 0x01, 0x00, 0x00, 0x05, 0x00}, ""},
		"indefinite, deep":              {bytes.Repeat([]byte{0x30, 0x80}, MaxDepth+1), "nested deeper"},
		"indefinite, one after another": {bytes.Repeat([]byte{0x30, 0x80, 0x00, 0x00}, 1000), ""},
		"large":                         {append([]byte{0x04, 0x82, 0x40, 0x00}, make([]byte, MaxBytes)...), "more than 16384"},
		"a long tag":                    {[]byte{0x1f, 0x81, 0x01, 0x01, 0xff}, ""},
		"an endless tag":                {[]byte{0x1f, 0x81, 0x81}, "cut off"},
		"a huge length":                 {[]byte{0x04, 0x84, 0xff, 0xff, 0xff, 0xff}, "cut off"},
		"a tag alone":                   {[]byte{0x30}, "cut off"},
		"a primitive without length":    {[]byte{0x04, 0x80}, "no length"},
	} {
		err := Check(c.data)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzCheck: it never panics, and never refuses small DER that a strict parser reads as a whole.
func FuzzCheck(f *testing.F) {
	f.Add(nested(3))
	f.Add(nested(70))
	f.Add([]byte{0x30, 0x80, 0x02, 0x01, 0x01, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Check(data); err != nil && len(data) <= MaxBytes && isDER(data, 0) {
			t.Errorf("%x: %v", data, err)
		}
	})
}

// isDER reports whether data is DER that is nested less than MaxDepth deep.
func isDER(data []byte, depth int) bool {
	for left := cryptobyte.String(data); !left.Empty(); {
		var value cryptobyte.String
		var tag cryptoasn1.Tag
		if !left.ReadAnyASN1(&value, &tag) || tag&0x20 != 0 && (depth == MaxDepth || !isDER(value, depth+1)) {
			return false
		}
	}
	return true
}
