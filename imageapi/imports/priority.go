package imports

import (
	"cmp"
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/util/version"
)

var (
	shortVersion = regexp.MustCompile(`^v?\d+\.\d+(-[\w.-]+)?$`)
	longVersion  = regexp.MustCompile(`^(\d+|v?\d+\.\d+\.\d+([-+][\w.+-]+)?)$`)
)

// SortTags sorts tags by how much they are wanted, as OpenShift does: latest, versions of two parts, other
// versions, each from the newest on, and the rest by name.
func SortTags(tags []string) {
	slices.SortFunc(tags, func(a, b string) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		if r := rank(a); r == ranked || r == ranked+1 {
			if c := compareVersions(b, a); c != 0 {
				return c
			}
		}
		return cmp.Compare(a, b)
	})
}

// ranked is the rank of versions of two parts; that of others follows.
const ranked = 1

func rank(tag string) int {
	switch {
	case tag == "latest":
		return ranked - 1
	case shortVersion.MatchString(tag):
		return ranked
	case longVersion.MatchString(tag):
		return ranked + 1
	}
	return ranked + 2
}

func compareVersions(a, b string) int {
	first, err := parse(a)
	if err != nil {
		return 0
	}
	second, err := parse(b)
	if err != nil {
		return 0
	}
	switch {
	case first.LessThan(second):
		return -1
	case second.LessThan(first):
		return 1
	}
	return 0
}

func parse(tag string) (*version.Version, error) {
	if v, err := version.ParseSemantic(tag); err == nil {
		return v, nil
	}
	return version.ParseGeneric(tag + ".0") // "3" is no version of its own
}
