package config

import (
	"time"

	"tallyman/signatures"
)

// Signatures says how signatures are read, and which are believed.
type Signatures struct {
	Endpoint        bool                `yaml:"endpoint" json:"endpoint" jsonschema:"description=Serve /extensions/v2/NAME/signatures/DIGEST where skopeo and podman leave and find GPG signatures."`
	Advertise       bool                `yaml:"advertise" json:"advertise" jsonschema:"description=Have skopeo and podman use the endpoint by the header X-Registry-Supports-Signatures. They do not look for signatures elsewhere then: not in lookaside storage either."`
	CrossRepository bool                `yaml:"crossrepository" json:"crossrepository" jsonschema:"description=Take in signatures from repositories that do not hold the image as COSIGN_REPOSITORY makes them."`
	ContentLimit    int64               `yaml:"contentlimit" json:"contentlimit" jsonschema:"minimum=1024,description=How many bytes one signature may have to be kept in the Image."`
	PerImage        int                 `yaml:"perimage" json:"perimage" jsonschema:"minimum=1,description=How many signatures from the registry's content an Image may have."`
	VerifyInterval  time.Duration       `yaml:"verifyinterval" json:"verifyinterval" jsonschema:"description=How often all signatures are verified again as keys and certificates expire. They are also when a key or policy file has changed."`
	VerifyLimit     time.Duration       `yaml:"verifylimit" json:"verifylimit" jsonschema:"description=How much CPU time the signatures of an Image may take while its push waits. The rest is verified in the background; the annotation tallyman.dev/verification says pending until then."`
	VerifyPerMinute time.Duration       `yaml:"verifyperminute" json:"verifyperminute" jsonschema:"description=How much of it all pushes to one repository may take in a minute\\, and all writes of one user of the API."`
	PolicyFile      string              `yaml:"policyfile" json:"policyfile" jsonschema:"description=A containers-policy.json(5) to be honoured as well."`
	Policies        []signatures.Policy `yaml:"policies" json:"policies" jsonschema:"description=Whose signatures are believed for which repositories."`
}

func (s *Signatures) validate(fault func(key string, value any, want string)) {
	if s.ContentLimit < 1024 || s.ContentLimit > signatures.MaxBlob {
		fault("signatures.contentlimit", s.ContentLimit, "between 1024 and 4194304 bytes")
	}
	if s.PerImage < 1 {
		fault("signatures.perimage", s.PerImage, "a positive number")
	}
	if s.VerifyInterval < time.Minute {
		fault("signatures.verifyinterval", s.VerifyInterval, "at least 1m")
	}
	if s.VerifyLimit < time.Millisecond {
		fault("signatures.verifylimit", s.VerifyLimit, "at least 1ms")
	}
	if s.VerifyPerMinute < s.VerifyLimit {
		fault("signatures.verifyperminute", s.VerifyPerMinute, "at least signatures.verifylimit")
	}
}
