package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	notationregistry "github.com/notaryproject/notation-go/registry"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"oras.land/oras-go/v2/registry/remote"

	"tallyman/signatures"
	"tallyman/signatures/signtest"
	"tallyman/storage/redis/redistest"
)

// TestNotation signs with notation-go, in both of its formats.
func TestNotation(t *testing.T) {
	team, store := signtest.NewNotation(t, "team"), t.TempDir()
	team.WriteTrustStore(store)
	s := startWithConfig(t, plainConfig+`
imageapi:
  auth: {kubeconfigfile: DIR/kubeconfig}
  signatures:
    policies:
    - name: notation
      scopes: [ns]
      rootsOfTrust:
      - {name: team, policyType: Notary, notary: {trustStorePath: '`+store+`', trustedIdentities: ['x509.subject: CN=team, O=Notary, L=Seattle, ST=WA, C=US']}}
`)
	name := s.pushImage("ns/app:v1", "notation")
	for i, mediaType := range []string{jws.MediaTypeEnvelope, cose.MediaTypeEnvelope} {
		repository, err := remote.NewRepository(s.addr + "/ns/app")
		if err != nil {
			t.Fatal(err)
		}
		repository.PlainHTTP = true
		_, err = notation.Sign(context.Background(), team.Signer(), notationregistry.NewRepository(repository), notation.SignOptions{
			SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: mediaType, SigningAgent: "test"},
			ArtifactReference: s.addr + "/ns/app@" + name, UserMetadata: map[string]string{"team": "blue"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.kubectl("get", "images", "-o", "wide", "--field-selector", "trusted=true"); !strings.Contains(got, fmt.Sprintf("%d signed, %d trusted", i+1, i+1)) {
			t.Errorf("kubectl prints %s", got)
		}
	}
	for _, got := range s.image(name).Signatures {
		if got.IssuedTo == nil || got.IssuedTo.CommonName != "team" || got.SignedClaims["team"] != "blue" || got.Created == nil {
			t.Errorf("a signature says %+v", got)
		}
	}
}

// keyConfig believes the key in a file, everywhere.
func keyConfig(path string) string {
	return plainConfig + `
imageapi:
  registryhost: ADDR
  auth: {kubeconfigfile: DIR/kubeconfig}
  signatures:
    policies:
    - {name: all, scopes: ['*'], rootsOfTrust: [{name: release, policyType: PublicKey, publicKey: {keyPath: '` + path + `'}}]}
`
}

// TestSignatureFirst: a signature may come before its image, also of another repository; the
// Image is there with it at once.
func TestSignatureFirst(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p384")
	path := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, path, key.PEM())
	s := startWithConfig(t, keyConfig(path))
	name := digest.Digest(s.pushImage("ns/app:v1", "first"))
	manifest := s.manifest("ns/app", "v1")
	if got := s.request(http.MethodDelete, "/v2/ns/app/manifests/"+name.String(), "", nil); got.code != http.StatusAccepted {
		t.Fatalf("delete: %d %s", got.code, got.body)
	}
	bundle := signtest.Referrer(name, key.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, nil)))
	s.pushArtifact("signatures/of/all", bundle.Digest.String(), bundle)
	classic := signtest.Classic(key.Cosign(signtest.CosignPayload(name, s.addr+"/ns/app", nil)))
	s.pushArtifact("ns/app", signtest.ClassicTag(name), classic)
	events, err := s.images().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	if got := s.putManifest("ns/app", "v1", "application/vnd.docker.distribution.manifest.v2+json", manifest); got.code != http.StatusCreated {
		t.Fatalf("put: %d %s", got.code, got.body)
	}
	first := nextImage(t, events)
	if len(first.Signatures) != 2 || first.Annotations["tallyman.dev/trusted"] != "ns/app" {
		t.Errorf("the first event has %d signatures, trusted in %q", len(first.Signatures), first.Annotations["tallyman.dev/trusted"])
	}
	for _, got := range s.imageList() {
		if got.Name != name.String() {
			t.Errorf("%s has an Image", got.Name)
		}
	}
}

func nextImage(t *testing.T, events watch.Interface) *imagev1.Image {
	t.Helper()
	select {
	case event := <-events.ResultChan():
		image, ok := event.Object.(*imagev1.Image)
		if !ok {
			t.Fatalf("the event is %+v", event)
		}
		return image
	case <-time.After(20 * time.Second):
		t.Fatal("no event in 20 s")
		return nil
	}
}

// TestKeyRotation: when a key file changes, Images are verified again, and watchers
// hear of it.
func TestKeyRotation(t *testing.T) {
	old, next := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "rsa-2048")
	path := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, path, old.PEM())
	s := startWithConfig(t, keyConfig(path))
	name := digest.Digest(s.pushImage("ns/app:v1", "rotation"))
	for _, key := range []*signtest.Key{old, next} {
		a := signtest.Referrer(name, key.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, nil)))
		s.pushArtifact("ns/app", a.Digest.String(), a)
	}
	signer := func(image *imagev1.Image) string {
		for _, s := range image.Signatures {
			if s.IssuedTo != nil {
				return s.IssuedTo.PublicKeyID
			}
		}
		return ""
	}
	before := s.image(name.String())
	events, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	writeFile(t, path, next.PEM())
	after := nextImage(t, events)
	if len(after.Signatures) != 2 || signer(after) == "" || signer(after) == signer(before) {
		t.Errorf("after the change %q has signed, before %q", signer(after), signer(before))
	}
	// No key: all of the file is wrong, and the old one stays.
	writeFile(t, path, "nothing")
	eventually(t, "the log says that the file is broken", func() error {
		if !strings.Contains(s.logText(), "signature policies reload failed") {
			return errors.New("it does not")
		}
		return nil
	})
	if got := s.image(name.String()); got.ResourceVersion != after.ResourceVersion {
		t.Errorf("with a broken file the Image has changed: %+v", got.Signatures)
	}
	out, err := tryCommand(t, nil, binary, "config", "check", filepath.Join(s.dir, "config.yml"))
	if err == nil || !strings.Contains(out, "no public key: want PEM") {
		t.Errorf("config check: %v, %s", err, out)
	}
	// A configuration error at start keeps it from starting, with the key's name.
	out, err = tryCommand(t, nil, binary, "serve", filepath.Join(s.dir, "config.yml"))
	if err == nil || !strings.Contains(out, "imageapi.signatures: policies[0] (all): rootsOfTrust[0]: PublicKey: "+path) {
		t.Errorf("a start with a broken file: %v, %s", err, out)
	}
}

// TestNotSignatures: attestations and SBOMs are no signatures, even if their annotations say
// so; attestations have no Image, other artifacts do.
func TestNotSignatures(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	path := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, path, key.PEM())
	s := startWithConfig(t, keyConfig(path))
	name := digest.Digest(s.pushImage("ns/app:v1", "not signatures"))
	// An attestation whose manifest says that it is a signature.
	lying := signtest.Referrer(name, key.Bundle(signtest.Statement(name, "https://slsa.dev/provenance/v1", nil)))
	s.pushArtifact("ns/app", lying.Digest.String(), lying)
	sbom := s.attach("ns/app", name.String(), "application/spdx+json", "SBOM")
	config := s.pushBlob("ns/app", []byte("{}"))
	image := func(configType, layerType string) string {
		manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":2}]}`,
			imagespec.MediaTypeImageManifest, configType, config, layerType, config)
		name := digest.FromString(manifest).String()
		if got := s.putManifest("ns/app", name, imagespec.MediaTypeImageManifest, manifest); got.code != http.StatusCreated {
			t.Fatalf("put: %d %s", got.code, got.body)
		}
		return name
	}
	for name, want := range map[string]bool{
		lying.Digest.String(): false,
		image(imagespec.MediaTypeImageConfig, "application/vnd.in-toto+json"):          false, // BuildKit
		image(imagespec.MediaTypeImageConfig, "application/vnd.dsse.envelope.v1+json"): false, // cosign attest
		sbom: true,
		image("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"): true,
		image("application/vnd.wasm.config.v0+json", "application/wasm"):                                         true,
	} {
		_, err := s.images().Get(t.Context(), name, metav1.GetOptions{})
		if (err == nil) != want {
			t.Errorf("%s: %v, want an Image: %t", name, err, want)
		}
	}
	if got := s.image(name.String()).Signatures; len(got) != 0 {
		t.Errorf("signatures are %+v", got)
	}
	if got := s.kubectl("get", "images", "--field-selector", "signed=true", "-o", "name"); strings.Contains(got, "sha256") {
		t.Errorf("signed are %s", got)
	}
}

// TestSigningReplicas: signatures that are pushed to any replica are on the Image for all, and
// concurrent pushes are not lost.
func TestSigningReplicas(t *testing.T) {
	all := startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server").Addr))
	name := digest.Digest(all[0].pushImage("ns/app:v1", "replicas"))
	key := signtest.NewKey(t, "ecdsa-p256")
	const each = 4
	done := make(chan int, len(all))
	for i, s := range all {
		go func() {
			defer func() { done <- i }()
			for n := range each {
				a := signtest.Referrer(name, key.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, map[string]any{"n": fmt.Sprint(i, n)})))
				s.pushArtifact("ns/app", a.Digest.String(), a)
			}
		}()
	}
	for range all {
		<-done
	}
	for _, s := range all {
		if got := s.image(name.String()); len(got.Signatures) != len(all)*each || got.ResourceVersion != all[0].image(name.String()).ResourceVersion {
			t.Errorf("%s has %d signatures", s.addr, len(got.Signatures))
		}
		if _, listed := s.referrers("ns/app", name.String(), ""); len(listed) != len(all)*each {
			t.Errorf("%s lists %d referrers", s.addr, len(listed))
		}
	}
}

// TestPolicyRollout: two replicas with different policies, as in a rolling update. The newer ones are
// in force: the other replica trusts nothing, though its key would, and takes no verdict away. When
// the newer replica is gone, the update was taken back.
func TestPolicyRollout(t *testing.T) {
	revoked, next := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	redis, shared := redisAt(redistest.Start(t, "redis-server").Addr)(0), t.TempDir()
	start := func(key *signtest.Key) *server {
		path := filepath.Join(t.TempDir(), "key.pub")
		writeFile(t, path, key.PEM())
		return startWithConfig(t, strings.NewReplacer("SHARED", shared, "REDIS", redis).Replace(replicaConfig)+
			"  signatures: {policies: [{name: all, scopes: ['*'], rootsOfTrust: [{policyType: PublicKey, publicKey: {keyPath: '"+path+"'}}]}]}\n")
	}
	old := start(revoked)
	name := digest.Digest(old.pushImage("ns/app:v1", "rollout"))
	sign := func(s *server, key *signtest.Key) {
		t.Helper()
		a := signtest.Referrer(name, key.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, nil)))
		s.pushArtifact("ns/app", a.Digest.String(), a)
	}
	await := func(s *server, signed, trusted string) {
		t.Helper()
		s.kubectl("wait", "--timeout=120s", `--for=jsonpath={.metadata.annotations.tallyman\.dev/verification}=complete`, "image/"+name.String())
		eventually(t, trusted+" signatures are trusted", func() error {
			if got := s.kubectl("get", "image", name.String(), "-o", "wide"); !strings.Contains(got, signed+" signed, "+trusted+" trusted") {
				return errors.New(got)
			}
			return nil
		})
	}
	sign(old, revoked)
	await(old, "1", "1")
	newer := start(next)
	await(newer, "1", "0")
	sign(old, revoked)
	if got := old.image(name.String()); got.Annotations["tallyman.dev/trusted"] != "" {
		t.Errorf("the old replica trusts %+v", got.Signatures)
	}
	await(newer, "2", "0")
	sign(old, next)
	await(old, "3", "1")
	if got := old.request(http.MethodGet, "/metrics", "", nil); got.code == http.StatusOK && !strings.Contains(got.body, "imageapi_signature_policies_in_force 0") {
		t.Error("the metrics of the old replica do not say that its policies are not in force")
	}
	newer.stop()
	await(old, "3", "2")
	out, err := tryCommand(t, nil, binary, "verify", "--config", filepath.Join(old.dir, "config.yml"), "ns/app:v1")
	if err != nil || !strings.Contains(out, "(policies ") {
		t.Errorf("verify: %v, %s", err, out)
	}
}
