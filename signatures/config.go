package signatures

// Policy says whose signatures are believed for some repositories, in the words of
// OpenShift's ImagePolicy (config.openshift.io/v1) and, for keyless signatures, of
// sigstore's ClusterImagePolicy. Of the policies that cover a repository the ones
// with the most specific scope count.
type Policy struct {
	// Name is the policy's name in conditions. Required.
	Name string `yaml:"name" json:"name" jsonschema:"required,description=What conditions call the policy."`
	// Scopes are the repositories it covers: host, host/namespace, host/repository,
	// host/repository:tag; *.example.com for hosts; or the same without the host,
	// for this registry; * for all. Required.
	Scopes []string `yaml:"scopes" json:"scopes" jsonschema:"required,description=What it covers: host/namespace or host/repository or *.example.com; without a host it is this registry; * is everything."`
	// RootsOfTrust are the roots of which any one suffices. Required.
	RootsOfTrust []RootOfTrust `yaml:"rootsOfTrust" json:"rootsOfTrust" jsonschema:"required,description=Whom it believes. Any one suffices."`
	// SignedIdentity is how the repository that a signature names has to match.
	SignedIdentity SignedIdentity `yaml:"signedIdentity" json:"signedIdentity" jsonschema:"description=How the repository that the signature names has to match. Only GPG and cosign's classic signatures name one."`
}

// RootOfTrust is one of the ways to trust a signature. PolicyType selects the other field that
// is read.
type RootOfTrust struct {
	Name       string             `yaml:"name" json:"name" jsonschema:"description=What conditions call it. Default: the name of its file or its type."`
	PolicyType string             `yaml:"policyType" json:"policyType" jsonschema:"required,enum=PublicKey,enum=Sigstore,enum=FulcioCAWithRekor,enum=PKI,enum=GPG,enum=Notary,description=Which of the sections below it has."`
	PublicKey  *PublicKey         `yaml:"publicKey,omitempty" json:"publicKey,omitempty" jsonschema:"description=Signatures by one of some public keys."`
	Sigstore   *Sigstore          `yaml:"sigstore,omitempty" json:"sigstore,omitempty" jsonschema:"description=Keyless signatures by identities that the authorities of a trusted_root.json vouch for."`
	Fulcio     *FulcioCAWithRekor `yaml:"fulcioCAWithRekor,omitempty" json:"fulcioCAWithRekor,omitempty" jsonschema:"description=Keyless signatures; as in OpenShift with the authority and the log given by themselves."`
	PKI        *PKI               `yaml:"pki,omitempty" json:"pki,omitempty" jsonschema:"description=Signatures with certificates of an authority of your own."`
	GPG        *GPG               `yaml:"gpg,omitempty" json:"gpg,omitempty" jsonschema:"description=GPG simple signing by skopeo and podman."`
	Notary     *Notary            `yaml:"notary,omitempty" json:"notary,omitempty" jsonschema:"description=Signatures by notation."`
}

// PublicKey trusts signatures by public keys in PEM: RSA, ECDSA, Ed25519.
type PublicKey struct {
	KeyPath   string   `yaml:"keyPath" json:"keyPath" jsonschema:"description=A file with the public key in PEM."`
	KeyPaths  []string `yaml:"keyPaths" json:"keyPaths" jsonschema:"description=Files with public keys."`
	KeyData   string   `yaml:"keyData" json:"keyData" jsonschema:"description=The public key itself."`
	RekorPath string   `yaml:"rekorKeyPath" json:"rekorKeyPath" jsonschema:"description=A file with the public key of the transparency log that has to have an entry."`
	RekorData string   `yaml:"rekorKeyData" json:"rekorKeyData" jsonschema:"description=The log's public key itself."`
}

// Sigstore trusts keyless signatures.
type Sigstore struct {
	TrustedRootPath string     `yaml:"trustedRootPath" json:"trustedRootPath" jsonschema:"description=A trusted_root.json as cosign trusted-root create writes it."`
	TrustedRootData string     `yaml:"trustedRootData" json:"trustedRootData" jsonschema:"description=The trusted root itself."`
	Identities      []Identity `yaml:"identities" json:"identities" jsonschema:"required,description=Who may have signed. Any one suffices."`
	// RequireTlog is true if it is not set.
	RequireTlog      *bool `yaml:"requireTlog,omitempty" json:"requireTlog,omitempty" jsonschema:"description=Want an entry in the transparency log. Default: true."`
	RequireTimestamp bool  `yaml:"requireTimestamp" json:"requireTimestamp" jsonschema:"description=Want a timestamp by an authority. Without it the log's time suffices."`
	RequireSCT       bool  `yaml:"requireSCT" json:"requireSCT" jsonschema:"description=Want the certificate to be in a certificate transparency log."`
}

// Identity is the identity of a signer. Regular expressions have to match as a whole.
type Identity struct {
	Issuer        string `yaml:"issuer" json:"issuer" jsonschema:"description=The OIDC issuer."`
	IssuerRegExp  string `yaml:"issuerRegExp" json:"issuerRegExp" jsonschema:"description=A regular expression that matches the whole issuer."`
	Subject       string `yaml:"subject" json:"subject" jsonschema:"description=The e-mail address or URI in the certificate."`
	SubjectRegExp string `yaml:"subjectRegExp" json:"subjectRegExp" jsonschema:"description=A regular expression that matches the whole subject."`
}

// FulcioCAWithRekor trusts keyless signatures, in the words of OpenShift's ImagePolicy.
type FulcioCAWithRekor struct {
	FulcioCAPath  string        `yaml:"fulcioCAPath" json:"fulcioCAPath" jsonschema:"description=A file with the authority's certificates in PEM."`
	FulcioCAData  string        `yaml:"fulcioCAData" json:"fulcioCAData" jsonschema:"description=The certificates themselves."`
	RekorKeyPath  string        `yaml:"rekorKeyPath" json:"rekorKeyPath" jsonschema:"description=A file with the log's public key in PEM."`
	RekorKeyData  string        `yaml:"rekorKeyData" json:"rekorKeyData" jsonschema:"description=The key itself."`
	FulcioSubject FulcioSubject `yaml:"fulcioSubject" json:"fulcioSubject" jsonschema:"required,description=Who has to have signed."`
}

// FulcioSubject is an identity of FulcioCAWithRekor.
type FulcioSubject struct {
	OIDCIssuer  string `yaml:"oidcIssuer" json:"oidcIssuer" jsonschema:"required,description=The OIDC issuer."`
	SignedEmail string `yaml:"signedEmail" json:"signedEmail" jsonschema:"required,description=The e-mail address."`
}

// PKI trusts signatures with certificates of an authority of one's own.
type PKI struct {
	CARootsPath         string     `yaml:"caRootsPath" json:"caRootsPath" jsonschema:"description=A file with root certificates in PEM."`
	CARootsData         string     `yaml:"caRootsData" json:"caRootsData" jsonschema:"description=The certificates themselves."`
	CAIntermediatesPath string     `yaml:"caIntermediatesPath" json:"caIntermediatesPath" jsonschema:"description=A file with intermediate certificates in PEM."`
	CAIntermediatesData string     `yaml:"caIntermediatesData" json:"caIntermediatesData" jsonschema:"description=The certificates themselves."`
	Subject             PKISubject `yaml:"pkiCertificateSubject" json:"pkiCertificateSubject" jsonschema:"required,description=Whose certificate it has to be."`
}

// PKISubject is the subject of a certificate; fields that are set have to match.
type PKISubject struct {
	Email    string `yaml:"email" json:"email" jsonschema:"description=The e-mail address in the certificate."`
	Hostname string `yaml:"hostname" json:"hostname" jsonschema:"description=The host name in the certificate."`
}

// GPG trusts OpenPGP keys.
type GPG struct {
	KeyPath  string   `yaml:"keyPath" json:"keyPath" jsonschema:"description=A keyring file; armored or binary."`
	KeyPaths []string `yaml:"keyPaths" json:"keyPaths" jsonschema:"description=Keyring files."`
	KeyData  string   `yaml:"keyData" json:"keyData" jsonschema:"description=The keyring itself; armored or in base64."`
}

// Notary trusts signatures by a notation trust policy. Revocation is not checked over the
// network.
type Notary struct {
	TrustPolicyPath string `yaml:"trustPolicyPath" json:"trustPolicyPath" jsonschema:"description=notation's trustpolicy.json. Default: all authorities of the trust store and identities."`
	TrustStorePath  string `yaml:"trustStorePath" json:"trustStorePath" jsonschema:"required,description=notation's truststore directory: x509/ca/NAME/CERTIFICATE."`
	// Identities narrows the default trust policy: x509.subject:….
	Identities []string `yaml:"trustedIdentities" json:"trustedIdentities" jsonschema:"description=Whom the default trust policy trusts: x509.subject: C=… and so on. Default: everybody with a certificate of the trust store."`
}

// SignedIdentity is how the reference that a signature names has to match that of
// the image.
type SignedIdentity struct {
	// MatchPolicy is MatchRepoDigestOrExact if empty. Images are known by their
	// digests here, for which it wants the repositories to be equal, as
	// MatchRepository does.
	MatchPolicy string `yaml:"matchPolicy" json:"matchPolicy" jsonschema:"enum=,enum=MatchRepoDigestOrExact,enum=MatchRepository,enum=MatchExact,enum=ExactRepository,enum=ExactReference,enum=RemapIdentity,description=Default: MatchRepoDigestOrExact."`
	// ExactRepository is the repository of ExactRepository, or the whole reference
	// of ExactReference.
	ExactRepository *ExactRepository `yaml:"exactRepository,omitempty" json:"exactRepository,omitempty" jsonschema:"description=The repository of ExactRepository or the reference of ExactReference."`
	// RemapIdentity belongs to the match policy of that name.
	RemapIdentity *RemapIdentity `yaml:"remapIdentity,omitempty" json:"remapIdentity,omitempty" jsonschema:"description=The prefixes of RemapIdentity."`
}

// ExactRepository is the repository that a signature has to name, independent of the image's
// name here.
type ExactRepository struct {
	Repository string `yaml:"repository" json:"repository" jsonschema:"required,description=A host/repository or a reference."`
}

// RemapIdentity is for images that are mirrored here from where they were signed for.
type RemapIdentity struct {
	// Prefix of the image's reference is SignedPrefix in the signature's.
	Prefix       string `yaml:"prefix" json:"prefix" jsonschema:"required,description=This prefix of the image's reference …"`
	SignedPrefix string `yaml:"signedPrefix" json:"signedPrefix" jsonschema:"required,description=… is this one in the signature's."`
}
