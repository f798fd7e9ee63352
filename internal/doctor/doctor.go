// Package doctor looks at a set-up of tallyman and says what is wrong with it, and which line of the
// configuration mends it. It changes nothing but one file of its own in the registry's storage, which it removes.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	goredis "github.com/redis/go-redis/v9"
	"k8s.io/client-go/rest"

	"tallyman/config"
)

// Status is the outcome of a check.
type Status string

// The outcomes, from the best to the worst.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failed  Status = "failed"
)

// Finding is the outcome of one check.
type Finding struct {
	// Area is the part of the set-up: configuration, storage, store, certificates, access, policies, cluster,
	// records, process, or exposure.
	Area   string `json:"area"`
	Status Status `json:"status"`
	// Message says how it is, with the reason.
	Message string `json:"message"`
	// Fix is the line of the configuration, or the action, that mends it; empty if nothing is wrong.
	Fix string `json:"fix,omitempty"`
	// Line is the line of the configuration with the key that Fix begins with, or with the section where it
	// belongs; 0 if there is none.
	Line int `json:"line,omitempty"`
}

// Locate sets the Line of each finding, by the content of the configuration's file.
func Locate(findings []Finding, content []byte) {
	for i := range findings {
		key := findings[i].Fix
		if end := strings.IndexAny(key, ": ,"); end >= 0 {
			key = key[:end]
		}
		findings[i].Line = config.Line(content, key)
	}
}

// Options say what is looked at.
type Options struct {
	// Config is the configuration. Required.
	Config *config.Config
	// StorePath is the file of the embedded store. Unused with Redis.
	StorePath string
	// Host is that of pull references; empty for the host that the pushing client uses.
	Host string
	// Address is the host:port at which the process answers.
	Address string
	// Policies reads the signature policies.
	Policies func() error
	// Redis returns the options of a client; used with Redis only.
	Redis func() (goredis.UniversalOptions, error)
	// Cluster returns the client configuration of the cluster; used with imageapi.auth.delegation only.
	Cluster func() (*rest.Config, error)
	// Timeout bounds each call to another process; 0 is 5 s.
	Timeout time.Duration
}

// report gathers findings.
type report struct {
	area     string
	findings []Finding
	storage  driver.StorageDriver // nil until checkStorage has opened it, and if it keeps nothing
}

func (r *report) ok(format string, args ...any) {
	r.findings = append(r.findings, Finding{Area: r.area, Status: OK, Message: fmt.Sprintf(format, args...)})
}

func (r *report) warn(fix, format string, args ...any) {
	r.findings = append(r.findings, Finding{Area: r.area, Status: Warning, Message: fmt.Sprintf(format, args...), Fix: fix})
}

func (r *report) fail(fix, format string, args ...any) {
	r.findings = append(r.findings, Finding{Area: r.area, Status: Failed, Message: fmt.Sprintf(format, args...), Fix: fix})
}

// Unreadable is the finding about a configuration that cannot be read.
func Unreadable(err error) Finding {
	return Finding{Area: "configuration", Status: Failed, Message: err.Error(), Fix: "the key that the message names"}
}

// Examine makes all checks.
func Examine(ctx context.Context, o Options) []Finding {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	r := &report{}
	for _, check := range []struct {
		area string
		run  func(context.Context, *report, *Options)
	}{
		{"configuration", checkConfiguration},
		{"storage", checkStorage},
		{"store", checkStore},
		{"certificates", checkCertificates},
		{"access", checkAccess},
		{"policies", checkPolicies},
		{"cluster", checkCluster},
		{"records", checkRecords},
		{"process", checkProcess},
		{"exposure", checkExposure},
	} {
		r.area = check.area
		check.run(ctx, r, &o)
	}
	return r.findings
}

// Worst returns the worst outcome, OK if there are no findings.
func Worst(findings []Finding) Status {
	worst := OK
	for _, f := range findings {
		if f.Status == Failed || f.Status == Warning && worst == OK {
			worst = f.Status
		}
	}
	return worst
}

func checkConfiguration(_ context.Context, r *report, o *Options) {
	for _, p := range o.Config.Problems {
		fix := "remove it"
		if p.Nearest != "" {
			fix = p.Nearest
		}
		r.warn(fix, "%s: distribution ignores it", p.Error())
	}
	for _, warning := range o.Config.ImageAPI.Deprecated() {
		r.warn("the key that the message names", "%s", warning)
	}
	if len(r.findings) == 0 {
		r.ok("every key is read")
	}
}
