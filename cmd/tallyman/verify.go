package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/spf13/cobra"

	"tallyman/config"
	"tallyman/imageapi/catalog"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/registry/logging"
	"tallyman/signatures"
	"tallyman/signatures/policy"
)

func newVerifyCommand() *cobra.Command {
	var o storeOptions
	var path, output string
	cmd := &cobra.Command{
		Use:   "verify REPO[:TAG|@DIGEST]",
		Short: "Show the signatures of an image and whether they are trusted; exit with 3 if the policy is not satisfied",
		Long: "Show each signature of an image: signer, time, and why it is or is not trusted by the\n" +
			"policies of the configuration, as they are now. REPO:TAG is judged by the policy for that tag,\n" +
			"REPO@DIGEST by that of the repository and of each tag that the image has in it. The exit code is\n" +
			"0 if the policy is satisfied, and 3 if it is not.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if output != "table" && output != "json" {
				return exitError{fmt.Errorf("--output %q: want table or json", output), exitUsage}
			}
			what, err := parseImage(args[0])
			if err != nil {
				return exitError{err, exitUsage}
			}
			if o.config, err = loadForServe([]string{path}[:min(len(path), 1)], o.dataDirectory); err != nil {
				return err
			}
			logging.Use(&o.config.Registry.Log)
			return verifyImage(cmd, &o, what, output)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "the registry's configuration; default: REGISTRY_CONFIGURATION_PATH, or none")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	addDataDirectoryFlag(cmd, &o.dataDirectory)
	return cmd
}

// imageName is an image of the registry; tag is empty if there is a digest.
type imageName struct {
	repository, tag string
	digest          digest.Digest
}

// parseImage reads a reference, with the registry's host or without.
func parseImage(text string) (imageName, error) {
	bare := text
	if first, rest, ok := strings.Cut(text, "/"); ok && policy.IsHost(first) {
		bare = rest
	}
	parsed, err := reference.Parse(bare)
	named, ok := parsed.(reference.Named)
	if err != nil || !ok {
		return imageName{}, fmt.Errorf("%q is not an image: want REPO, REPO:TAG or REPO@DIGEST", text)
	}
	what := imageName{repository: named.Name(), tag: "latest"}
	if tagged, ok := parsed.(reference.Tagged); ok {
		what.tag = tagged.Tag()
	}
	if digested, ok := parsed.(reference.Digested); ok {
		what.digest, what.tag = digested.Digest(), ""
	}
	return what, nil
}

func verifyImage(cmd *cobra.Command, o *storeOptions, what imageName, output string) (err error) {
	_, verifier, err := signatureOptions(o.config)
	if err != nil {
		return err
	}
	s, err := o.openSource(cmd.Context(), o.configured())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	image, err := rest.FindStored(cmd.Context(), s, what.repository, what.tag, what.digest)
	if err != nil {
		return err
	}
	if image == nil && what.digest != "" {
		return fmt.Errorf("%s holds no image %s", what.repository, what.digest)
	}
	if image == nil {
		return fmt.Errorf("%s has no tag %s", what.repository, what.tag)
	}
	var satisfied bool
	if what.tag != "" {
		satisfied = verifier.VerifyTag(image, what.repository, what.tag)
	} else {
		satisfied = slices.Contains(verifier.Verify(image, []string{what.repository}, rules.Tags(image), 0).Trusted, what.repository)
	}
	report := reportOf(image, what.repository, satisfied)
	if output == "json" {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = report.print(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return err
	case len(image.Signatures) == 0 && !report.Satisfied:
		return exitError{errors.New("it has no signature"), exitProblems}
	case !report.Trusted:
		return exitError{errors.New("no signature is trusted"), exitProblems}
	case !report.Satisfied:
		return exitError{errors.New("signatures are trusted, but do not satisfy all that the policy wants"), exitProblems}
	}
	return nil
}

// verifyReport is the output of verify.
type verifyReport struct {
	Image      string `json:"image"`
	Repository string `json:"repository"`
	// Trusted is set if a signature is, Satisfied if the repository's policy has all
	// that it wants.
	Trusted    bool              `json:"trusted"`
	Satisfied  bool              `json:"satisfied"`
	Signatures []signatureReport `json:"signatures"`
}

type signatureReport struct {
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Trusted  string            `json:"trusted"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	ForImage string            `json:"forImage"`
	Signer   string            `json:"signer,omitempty"`
	Issuer   string            `json:"issuer,omitempty"`
	KeyID    string            `json:"publicKeyID,omitempty"`
	Created  *time.Time        `json:"created,omitempty"`
	Identity string            `json:"imageIdentity,omitempty"`
	Claims   map[string]string `json:"signedClaims,omitempty"`
}

func reportOf(image *imagev1.Image, repository string, satisfied bool) *verifyReport {
	r := &verifyReport{Image: image.Name, Repository: repository, Satisfied: satisfied, Signatures: []signatureReport{}}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		line := signatureReport{Name: s.Name, Type: s.Type, Trusted: "Unknown", ForImage: "Unknown", Identity: s.ImageIdentity, Claims: s.SignedClaims}
		if c := signatures.Condition(s, signatures.ConditionTrusted); c != nil {
			line.Trusted, line.Reason, line.Message = string(c.Status), c.Reason, c.Message
		}
		if c := signatures.Condition(s, signatures.ConditionForImage); c != nil {
			line.ForImage = string(c.Status)
		}
		if s.IssuedTo != nil {
			line.Signer, line.KeyID = s.IssuedTo.CommonName, s.IssuedTo.PublicKeyID
		}
		if s.IssuedBy != nil {
			line.Issuer = s.IssuedBy.CommonName
		}
		if s.Created != nil {
			line.Created = &s.Created.Time
		}
		r.Trusted = r.Trusted || signatures.IsTrusted(s)
		r.Signatures = append(r.Signatures, line)
	}
	return r
}

func (r *verifyReport) print(w io.Writer) error {
	text := []string{r.Repository + "@" + r.Image}
	if len(r.Signatures) > 0 {
		text = append(text, "SIGNATURE\tTYPE\tTRUSTED\tSIGNED BY\tWHEN\tWHY")
	}
	for _, s := range r.Signatures {
		_, id, _ := strings.Cut(s.Name, "@")
		when := "<unknown>"
		if s.Created != nil {
			when = s.Created.UTC().Format(time.RFC3339)
		}
		text = append(text, strings.Join([]string{id, s.Type, s.Trusted, cmp.Or(s.Signer, "<unknown>"), when, s.Reason + ": " + s.Message}, "\t"))
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, err := io.WriteString(table, strings.Join(text, "\n")+"\n")
	return errors.Join(err, table.Flush())
}

// signatureOptions reads the signature policies that the configuration names.
func signatureOptions(c *config.Config) (catalog.SignatureOptions, *policy.Verifier, error) {
	s := &c.ImageAPI.Signatures
	o := policy.Options{Policies: s.Policies, PolicyFile: s.PolicyFile}
	if host := registryHost(c); host != "" {
		o.Hosts = []string{host}
	}
	signing := catalog.SignatureOptions{
		Limits:              signatures.Limits{Content: s.ContentLimit, PerImage: s.PerImage},
		OwnRepositoriesOnly: !s.CrossRepository,
	}
	o.Context = fmt.Sprintf("%+v", signing)
	policies, err := policy.New(o)
	if err != nil {
		return catalog.SignatureOptions{}, nil, fmt.Errorf("imageapi.signatures: %w", err)
	}
	return signing, policies, nil
}
