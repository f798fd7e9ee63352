package signatures

import (
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

var (
	signatureTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})\.sig$`)
	referrersTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})$`)
)

// SignatureTag returns the digest that a tag of cosign's classic form is about:
// sha256-<hex>.sig.
func SignatureTag(tag string) (subject digest.Digest, ok bool) {
	return taggedDigest(signatureTag, tag)
}

// ReferrersTag returns the digest that a tag of the referrers tag schema is about:
// sha256-<hex> (distribution-spec). It may as well be an image's own tag.
func ReferrersTag(tag string) (subject digest.Digest, ok bool) {
	return taggedDigest(referrersTag, tag)
}

func taggedDigest(pattern *regexp.Regexp, tag string) (digest.Digest, bool) {
	found := pattern.FindStringSubmatch(tag)
	if found == nil {
		return "", false
	}
	algorithm, hex, _ := strings.Cut(found[1], "-")
	return digest.Digest(algorithm + ":" + hex), true
}
