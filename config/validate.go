package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Validate reports every setting that makes no sense.
func (c *ImageAPI) Validate() error {
	var errs []error
	fault := func(key string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s.%s: %v is not valid: want %s", section, key, value, want))
	}
	if c.OnStoreFailure != "defer" && c.OnStoreFailure != "reject" {
		fault("onstorefailure", fmt.Sprintf("%q", c.OnStoreFailure), "defer or reject")
	}
	if c.AmbiguousManifests != "accept" && c.AmbiguousManifests != "refuse" {
		fault("ambiguousmanifests", fmt.Sprintf("%q", c.AmbiguousManifests), "accept or refuse")
	}
	if strings.ContainsAny(c.RegistryHost, "/@ ") {
		fault("registryhost", fmt.Sprintf("%q", c.RegistryHost), "host or host:port")
	}
	if c.InlineLimit < 1 {
		fault("inlinelimit", c.InlineLimit, "a positive number of bytes")
	}
	if c.ShutdownDelay < 0 || c.ShutdownDelay > 10*time.Minute {
		fault("shutdowndelay", c.ShutdownDelay, "between 0s and 10m")
	}
	if c.Store.HistoryBytes < 1<<20 {
		fault("store.historybytes", c.Store.HistoryBytes, "at least 1048576")
	}
	if c.Store.HistoryMinAge < time.Second {
		fault("store.historyminage", c.Store.HistoryMinAge, "at least 1s")
	}
	if c.Store.HistoryEntries < 1 {
		fault("store.historyentries", c.Store.HistoryEntries, "a positive number")
	}
	if c.Store.HistoryAge < time.Minute {
		fault("store.historyage", c.Store.HistoryAge, "at least 1m")
	}
	if c.Store.LogEntries < 0 {
		fault("store.logentries", c.Store.LogEntries, "a positive number")
	}
	if c.Store.LogAge != 0 && c.Store.LogAge < time.Minute {
		fault("store.logage", c.Store.LogAge, "at least 1m")
	}
	for i := range c.Tags {
		c.Tags[i].validate(fmt.Sprintf("tags[%d]", i), fault)
	}
	c.Resync.validate(fault)
	if problems := validation.IsDNS1123Label(c.Streams.Namespace); len(problems) > 0 {
		fault("streams.namespace", fmt.Sprintf("%q", c.Streams.Namespace), "the name of a namespace: "+strings.Join(problems, ", "))
	}
	if c.Streams.History < 1 || c.Streams.History > 100 {
		fault("streams.history", c.Streams.History, "1 to 100")
	}
	if c.Streams.DeletedTags < time.Minute {
		fault("streams.deletedtags", c.Streams.DeletedTags, "at least 1m")
	}
	c.Imports.validate(fault)
	if !slices.Contains([]string{"driver", "store"}, c.Catalog) {
		fault("catalog", fmt.Sprintf("%q", c.Catalog), "driver or store")
	}
	if !slices.Contains([]string{"auto", "bolt", "redis"}, c.Store.Type) {
		fault("store.type", fmt.Sprintf("%q", c.Store.Type), "auto, bolt or redis")
	}
	if (c.Audit.PolicyFile == "") != (c.Audit.LogPath == "") {
		fault("audit", fmt.Sprintf("policyfile %q with logpath %q", c.Audit.PolicyFile, c.Audit.LogPath), "both or neither")
	}
	if c.Audit.LogMaxAge < 0 || c.Audit.LogMaxBackups < 0 || c.Audit.LogMaxSize < 0 {
		fault("audit", "a negative number", "0 or more in logmaxage, logmaxbackups, logmaxsize")
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		fault("tls", fmt.Sprintf("certificate %q with key %q", c.TLS.Certificate, c.TLS.Key), "both or neither")
	}
	if d := c.Auth.Delegation; d.KubeconfigFile != "" && !d.Enabled {
		fault("auth.delegation", fmt.Sprintf("kubeconfigfile %q without enabled", d.KubeconfigFile), "enabled: true with it")
	}
	c.Limits.validate(fault)
	c.Store.Redis.validate(fault)
	c.Signatures.validate(fault)
	return errors.Join(errs...)
}

// Deprecated returns a warning for each setting under a former name, which will go in the next
// release.
func (c *ImageAPI) Deprecated() []string {
	var warnings []string
	for _, former := range []struct {
		isSet     bool
		key, name string
	}{
		{c.Store.LogEntries != 0, "store.logentries", "store.historyentries"},
		{c.Store.LogAge != 0, "store.logage", "store.historyage"},
	} {
		if former.isSet {
			warnings = append(warnings, fmt.Sprintf("%s.%s will go in the next release: use %s.%s", section, former.key, section, former.name))
		}
	}
	return warnings
}

func (r *Resync) validate(fault func(key string, value any, want string)) {
	if r.Period < 0 || r.Period > 0 && r.Period < time.Minute {
		fault("resync.period", r.Period, "0, or at least 1m")
	}
	if r.Grace < 0 {
		fault("resync.grace", r.Grace, "at least 0s")
	}
	if r.Removals < 0 || r.Removals > 100 {
		fault("resync.removals", r.Removals, "a percentage from 0 to 100")
	}
	if r.CallsPerSecond < 0 {
		fault("resync.callspersecond", r.CallsPerSecond, "at least 0")
	}
}

func (i *Imports) validate(fault func(key string, value any, want string)) {
	if i.Enabled && len(i.Registries) == 0 {
		fault("imports.registries", "[]", "at least one registry that images may come from")
	}
	if i.Interval != 0 && i.Interval < time.Minute {
		fault("imports.interval", i.Interval, "0, or at least 1m")
	}
	for n, registry := range i.Registries {
		_, err := path.Match(registry.Host, "")
		tooMany := strings.Count(registry.Host, ":") > 1 && !strings.HasPrefix(registry.Host, "[")
		if registry.Host == "" || err != nil || tooMany || strings.ContainsAny(registry.Host, "/@") {
			fault(fmt.Sprintf("imports.registries[%d].host", n), fmt.Sprintf("%q", registry.Host), "a host[:port], such as registry.example.com or *.example.com:5000")
		}
	}
}
