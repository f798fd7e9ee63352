package policy

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
)

// maxPayload bounds the decompressed size of an OpenPGP message.
const maxPayload = 1 << 20

// clockSkew is how far in the future a signature may have been made.
const clockSkew = 5 * time.Minute

// parseGPG reads the payload of an OpenPGP message without knowing its key.
func parseGPG(content []byte) (*payload, error) {
	message, err := openpgp.ReadMessage(bytes.NewReader(content), openpgp.EntityList{}, nil, nil)
	if err != nil || !message.IsSigned || message.IsEncrypted {
		return nil, errors.New("the content is not a signed OpenPGP message")
	}
	payload, err := readPayload(message.UnverifiedBody)
	if err != nil {
		return nil, err
	}
	c, err := parsePayload(payload, payloadAtomic)
	if err != nil {
		return nil, err
	}
	c.gpg = content
	return c, nil
}

func readPayload(r io.Reader) ([]byte, error) {
	payload, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
	switch {
	case err != nil:
		return nil, errors.New("the content is not a whole OpenPGP message")
	case len(payload) > maxPayload:
		return nil, fmt.Errorf("the payload has more than %d bytes", maxPayload)
	}
	return payload, nil
}

// keyring is a root of OpenPGP keys.
type keyring struct {
	named
	keys openpgp.EntityList
}

func newGPG(name string, p *signatures.GPG, files *fileReader) ([]rootOfTrust, error) {
	paths := slices.Clone(p.KeyPaths)
	if p.KeyPath != "" {
		paths = append([]string{p.KeyPath}, paths...)
	}
	if (len(paths) == 0) == (p.KeyData == "") {
		return nil, errors.New("want one of keyPath, keyPaths and keyData")
	}
	r := &keyring{named: named("key " + cmp.Or(name, baseOf(p.KeyPath, "of the GPG keyring")))}
	contents := [][]byte{[]byte(p.KeyData)}
	if len(paths) > 0 {
		contents = nil
	}
	for _, path := range paths {
		content, err := files.file(path)
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	for i, content := range contents {
		keys, err := readKeyring(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", append(paths, "keyData")[i], err)
		}
		r.keys = append(r.keys, keys...)
	}
	return []rootOfTrust{r}, nil
}

// readKeyring reads keys, armored, binary, or binary in base64 as policy.json has
// them.
func readKeyring(content []byte) (openpgp.EntityList, error) {
	if decoded, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(content))); err == nil {
		content = decoded
	}
	if bytes.Contains(content, []byte("-----BEGIN PGP")) {
		return readArmored(content)
	}
	keys, err := openpgp.ReadKeyRing(bytes.NewReader(content))
	if err == nil && len(keys) == 0 {
		err = errors.New("no OpenPGP key")
	}
	return keys, err
}

// readArmored reads any number of armored blocks; the library's own function stops
// after the first.
func readArmored(content []byte) (openpgp.EntityList, error) {
	const begin = "-----BEGIN PGP"
	var all openpgp.EntityList
	for _, block := range strings.Split(string(content), begin)[1:] {
		keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(begin + block))
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return all, nil
}

// verify implements rootOfTrust.
func (r *keyring) verify(c *payload, _ digest.Digest, now time.Time) (*signer, *failure) {
	if c.gpg == nil {
		return nil, errNotApplicable
	}
	message, err := r.read(c.gpg, now)
	if errors.Is(err, pgperrors.ErrKeyExpired) && message.Signature != nil && message.Signature.CreationTime.Before(now) {
		// A key that has expired since vouches for earlier signatures.
		message, err = r.read(c.gpg, message.Signature.CreationTime)
	}
	switch {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return nil, &failure{signatures.ReasonKeyNotTrusted, "the key has been revoked"}
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrSignatureExpired):
		return nil, &failure{signatures.ReasonExpired, "the key was not valid when the signature was made, or the signature has expired"}
	case errors.Is(err, errUnknownKey):
		return nil, errNotApplicable
	case err != nil:
		return nil, &failure{signatures.ReasonSignatureInvalid, "the signature is not one of its content by its key"}
	case message.Signature.CreationTime.After(now.Add(clockSkew)):
		return nil, &failure{signatures.ReasonExpired, "the signature was made in the future"}
	}
	entity := message.SignedBy.Entity
	s := &signer{
		issuedBy: imagev1.SignatureIssuer{SignatureGenericEntity: imagev1.SignatureGenericEntity{CommonName: r.name()}},
		issuedTo: imagev1.SignatureSubject{PublicKeyID: hex.EncodeToString(entity.PrimaryKey.Fingerprint)},
		created:  message.Signature.CreationTime,
	}
	s.issuedTo.CommonName = userID(entity)
	return s, nil
}

// userID returns the key's primary user ID; of several that could be, the first by
// name, as the library's choice among them is by chance.
func userID(entity *openpgp.Entity) string {
	primary := entity.PrimaryIdentity()
	if primary == nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(entity.Identities)) {
		other := entity.Identities[name]
		if isPrimary(other) == isPrimary(primary) && other.SelfSignature != nil && primary.SelfSignature != nil &&
			other.SelfSignature.CreationTime.Equal(primary.SelfSignature.CreationTime) {
			return other.Name
		}
	}
	return primary.Name
}

func isPrimary(i *openpgp.Identity) bool {
	return i.SelfSignature != nil && i.SelfSignature.IsPrimaryId != nil && *i.SelfSignature.IsPrimaryId
}

var errUnknownKey = errors.New("no key of the keyring")

// read verifies the message as of a time. It fails unless a key of the ring has
// made the signature: go-crypto by itself is content with an unknown one.
func (r *keyring) read(content []byte, at time.Time) (*openpgp.MessageDetails, error) {
	config := &packet.Config{Time: func() time.Time { return at }}
	message, err := openpgp.ReadMessage(bytes.NewReader(content), r.keys, nil, config)
	if err != nil {
		return nil, err
	}
	// The signature is checked as the end of the body is read.
	if _, err := readPayload(message.UnverifiedBody); err != nil {
		return message, err
	}
	switch {
	case message.SignedBy == nil:
		return message, errUnknownKey
	case message.SignatureError != nil:
		return message, message.SignatureError
	case message.Signature == nil:
		return message, errors.New("no signature")
	}
	return message, nil
}
