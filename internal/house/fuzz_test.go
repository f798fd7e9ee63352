package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestFuzzTargets: make fuzz runs each fuzz test, and names no other.
func TestFuzzTargets(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var run, there []string
	for _, m := range regexp.MustCompile(`-fuzz (\w+) .*\./(\S+)`).FindAllStringSubmatch(string(makefile), -1) {
		run = append(run, m[1]+" "+m[2])
	}
	function := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)
	for _, depth := range []string{"*", "*/*", "*/*/*"} {
		files, err := filepath.Glob("../../" + depth + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := filepath.Rel("../..", filepath.Dir(file))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range function.FindAllStringSubmatch(string(content), -1) {
				there = append(there, fmt.Sprint(m[1], " ", dir))
			}
		}
	}
	slices.Sort(run)
	slices.Sort(there)
	if !slices.Equal(run, there) || len(there) < 10 {
		t.Errorf("make fuzz runs %q, and there are %q", run, there)
	}
}
