// Command verdicts has containers/image, notation-go and cosign's library judge a corpus of
// policies, images and signatures. It reads the corpus from standard input and writes the verdicts
// to standard output, both in JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// corpus is the input. Cases name a policy, a reference and signatures by their places.
type corpus struct {
	Manifest   []byte
	Signatures []struct {
		Type    string
		Content []byte
	}
	References []string
	Policies   []string // containers-policy.json(5)
	Cases      []struct {
		Policy, Reference int
		Signatures        []int
	}
	Notation struct {
		TrustStore    map[string]string // certificates by their paths
		TrustPolicies []string
		Cases         []struct{ Policy, Reference, Signature int }
	}
	Cosign cosignCorpus
}

// verdicts is the output: of each policy whether it is valid, and of each case whether the image
// is accepted, as 1 or 0.
type verdicts struct {
	Policies, Cases, TrustPolicies, NotationCases, CosignCases string
}

func main() {
	var c corpus
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		fail(err)
	}
	work, err := os.MkdirTemp("", "verdicts-")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(work)
	var out verdicts
	c.judgeContainers(work, &out)
	c.judgeNotation(work, &out)
	c.judgeCosign(&out)
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(out); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "Error:", err)
	os.Exit(1)
}

func bit(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// judgeContainers asks containers/image.
func (c *corpus) judgeContainers(work string, out *verdicts) {
	policies := make([]*signature.PolicyContext, len(c.Policies))
	for i, text := range c.Policies {
		if p, err := signature.NewPolicyFromBytes([]byte(text)); err == nil {
			if policies[i], err = signature.NewPolicyContext(p); err != nil {
				fail(err)
			}
		}
		out.Policies += bit(policies[i] != nil)
	}
	for i, k := range c.Cases {
		if policies[k.Policy] == nil {
			out.Cases += "0"
			continue
		}
		at := filepath.Join(work, fmt.Sprint(i))
		if err := c.writeImage(at, k.Signatures); err != nil {
			fail(err)
		}
		allowed, err := c.allowed(at, c.References[k.Reference], policies[k.Policy])
		if err != nil {
			fail(err)
		}
		out.Cases += bit(allowed)
		if err := os.RemoveAll(at); err != nil {
			fail(err)
		}
	}
}

// writeImage writes an image for the transport dir.
func (c *corpus) writeImage(at string, all []int) error {
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	files := map[string][]byte{"version": []byte("Directory Transport Version: 1.1\n"), "manifest.json": c.Manifest}
	for n, i := range all {
		s := c.Signatures[i]
		content := s.Content
		if s.Type == "CosignSimpleSigningV1" {
			content = append([]byte("\x00sigstore-json\n"), content...)
		}
		files[fmt.Sprintf("signature-%d", n+1)] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(at, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// allowed asks about the image as if it had been pulled by the reference.
func (c *corpus) allowed(at, name string, policy *signature.PolicyContext) (bool, error) {
	named, err := reference.ParseNamed(name)
	if err != nil {
		return false, err
	}
	pulled, err := docker.NewReference(named)
	if err != nil {
		return false, err
	}
	stored, err := directory.NewReference(at)
	if err != nil {
		return false, err
	}
	ctx := context.Background()
	source, err := stored.NewImageSource(ctx, &types.SystemContext{})
	if err != nil {
		return false, err
	}
	defer source.Close()
	allowed, _ := policy.IsRunningImageAllowed(ctx, image.UnparsedInstanceWithReference(image.UnparsedInstance(source, nil), pulled))
	return allowed, nil
}

// judgeNotation asks notation-go.
func (c *corpus) judgeNotation(work string, out *verdicts) {
	for path, certificate := range c.Notation.TrustStore {
		path = filepath.Join(work, "truststore", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			fail(err)
		}
		if err := os.WriteFile(path, []byte(certificate), 0o600); err != nil {
			fail(err)
		}
	}
	store := truststore.NewX509TrustStore(dir.NewSysFS(work))
	verifiers := make([]notation.Verifier, len(c.Notation.TrustPolicies))
	for i, text := range c.Notation.TrustPolicies {
		var document trustpolicy.Document
		if err := json.Unmarshal([]byte(text), &document); err == nil {
			if v, err := verifier.New(&document, store, nil); err == nil {
				verifiers[i] = v
			}
		}
		out.TrustPolicies += bit(verifiers[i] != nil)
	}
	subject := imagespec.Descriptor{MediaType: imagespec.MediaTypeImageManifest, Digest: digest.FromBytes(c.Manifest), Size: int64(len(c.Manifest))}
	for _, k := range c.Notation.Cases {
		if verifiers[k.Policy] == nil {
			out.NotationCases += "0"
			continue
		}
		result, err := verifiers[k.Policy].Verify(context.Background(), subject, c.Signatures[k.Signature].Content, notation.VerifierVerifyOptions{
			ArtifactReference: c.References[k.Reference], SignatureMediaType: "application/jose+json",
		})
		out.NotationCases += bit(err == nil && result != nil && result.VerificationLevel != trustpolicy.LevelSkip)
	}
}
