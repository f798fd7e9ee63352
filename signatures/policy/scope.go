package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// target is one name of an image: by a tag in a repository, or, without a tag, by its digest.
type target struct {
	hosts           []string // this registry's names; none if they are not configured
	repository, tag string
	digest          digest.Digest
}

// identifier returns the tag or digest, as it follows the repository in a reference.
func (t *target) identifier() string {
	if t.tag != "" {
		return ":" + t.tag
	}
	return "@" + t.digest.String()
}

// scope is the set of names that a rule covers.
type scope struct {
	text string
	// hosted is set if the text starts with a host; otherwise it is about this registry.
	hosted bool
}

// newScope reads a scope of a policy. "team:1" is a repository with a tag, unless it is one of
// hosts.
func newScope(text string, hosts []string) scope {
	first, rest, _ := strings.Cut(text, "/")
	hosted := IsHost(first)
	if name, _, tagged := strings.Cut(first, ":"); rest == "" && tagged && !strings.Contains(name, ".") && name != "localhost" {
		hosted = slices.Contains(hosts, first)
	}
	if name, _, digested := strings.Cut(first, "@"); digested && rest == "" {
		hosted = IsHost(name)
	}
	return scope{text, hosted && text != "*"}
}

// levels of how specific a scope is; of paths, more so by the number of their parts.
const (
	levelAll       = 0
	levelWildcard  = 1
	levelPath      = 1000
	levelReference = 1_000_000
)

// specificity returns how specifically the scope covers a target, -1 if not at all. The order
// is that of containers-policy.json(5).
func (s scope) specificity(t *target) int {
	if s.text == "*" {
		return levelAll
	}
	if !s.hosted {
		return s.level(t.repository, t.identifier())
	}
	best := -1
	for _, host := range t.hosts {
		if strings.HasPrefix(s.text, "*.") && strings.HasSuffix(withoutPort(host), s.text[1:]) {
			best = max(best, levelWildcard+strings.Count(s.text, "."))
		}
		best = max(best, s.level(host+"/"+t.repository, t.identifier()))
	}
	return best
}

// level is specificity for one name of the target.
func (s scope) level(name, identifier string) int {
	parts := strings.Count(s.text, "/")
	if !s.hosted {
		parts++
	}
	switch {
	case s.text == name+identifier:
		return levelReference
	case s.text == name, strings.HasPrefix(name, s.text+"/"):
		return levelPath + parts
	}
	return -1
}

// IsHost reports whether the first part of a reference is a host, by the grammar of
// references: one with a dot or a colon, or localhost.
func IsHost(part string) bool { return part == "localhost" || strings.ContainsAny(part, ".:") }

func withoutPort(host string) string {
	name, _, _ := strings.Cut(host, ":")
	return name
}

// digestSuffix is a digest at the end of a scope.
var digestSuffix = regexp.MustCompile(`@[a-z0-9]+:[0-9a-f]{32,}$`)

// validate returns an error for an invalid scope.
func (s scope) validate() error {
	text := digestSuffix.ReplaceAllString(s.text, "")
	switch {
	case text == "*":
		return nil
	case text == "", strings.ContainsAny(text, " \t@"), strings.Contains(text, "//"), strings.HasPrefix(text, "/"), strings.HasSuffix(text, "/"),
		strings.Contains(strings.TrimPrefix(text, "*."), "*"):
		return fmt.Errorf("scope %q is not valid: want host/namespace, host/repository, host/repository:tag, host/repository@digest, *.example.com, the same without the host, or *", s.text)
	}
	return nil
}

// reachable returns an error for a scope that names a host which is not one of this registry.
func (s scope) reachable(hosts []string) error {
	if !s.hosted {
		return nil
	}
	host, _, _ := strings.Cut(s.text, "/")
	if len(hosts) == 0 {
		return needsHost(fmt.Sprintf("scope %q", s.text), host)
	}
	for _, known := range hosts {
		if host == known || strings.HasPrefix(host, "*.") && strings.HasSuffix(withoutPort(known), host[1:]) {
			return nil
		}
	}
	return fmt.Errorf("scope %q can never match: this registry is %s (imageapi.registryhost or http.host)", s.text, hosts[0])
}

// needsHost is the error of a policy that names a host, where this registry's is not configured:
// nothing that a client sends can stand in for it.
func needsHost(what, host string) error {
	if host == "" || strings.HasPrefix(host, "*") {
		host = "registry.example.com"
	}
	return errors.New(what + " names a host, and the configuration does not say this registry's; set it, for example:\nimageapi:\n  registryhost: " + host)
}

// loopbackNames returns the names of a registry on this host, of which clients use
// any; another host has its own.
func loopbackNames(host string) []string {
	name, port := host, ""
	if at := strings.LastIndexByte(host, ':'); at >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:at], host[at:]
	}
	names := []string{"localhost", "127.0.0.1", "[::1]"}
	if !slices.Contains(names, name) {
		return []string{host}
	}
	slices.SortStableFunc(names, func(a, b string) int { // the configured one first
		switch name {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	for i := range names {
		names[i] += port
	}
	return names
}
