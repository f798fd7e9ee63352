package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are the Markdown files of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", "../..", "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	if len(all) < 30 {
		t.Fatalf("git lists %d pages", len(all))
	}
	return all
}

// anchors are the addresses of the headings of a page.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all[strings.ReplaceAll(text, " ", "-")] = true
	}
	return all
}

// TestLinks: links between pages lead to files and headings that are there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		text := read(t, filepath.Join("../..", page))
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := filepath.Join("../..", filepath.Dir(page), target)
			if target == "" {
				file = filepath.Join("../..", page)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s leads to %s, which is not there", page, match[1])
			} else if anchor != "" && !anchors(read(t, file))[anchor] {
				t.Errorf("%s leads to %s, which has no such heading", page, match[1])
			}
		}
	}
}

// TestArchitecture: the paths in docs/architecture.md exist.
func TestArchitecture(t *testing.T) {
	paths := regexp.MustCompile(`\b(?:registry|imageapi|storage|signatures|config|cmd|internal|ui)(?:/[\w.-]+)+`).FindAllString(read(t, "../../docs/architecture.md"), -1)
	if len(paths) < 40 {
		t.Errorf("docs/architecture.md names %d paths", len(paths))
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Join("../..", strings.TrimRight(path, "."))); err != nil {
			t.Errorf("docs/architecture.md names %s, which is not there", path)
		}
	}
}

// TestNamedTests: the tests, benchmarks and make targets that pages name are there.
func TestNamedTests(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "grep", "-hoE", `^func (Test|Fuzz|Benchmark)[A-Za-z0-9]+\(`, "--", "*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	makefile, named := read(t, "../../Makefile"), regexp.MustCompile("`(?:[^`]* )?((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*)(?: [^`]*)?`|`make ([a-z0-9]+)`")
	tests, targets := 0, 0
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" { // it tells of the past
			continue
		}
		for _, match := range named.FindAllStringSubmatch(read(t, filepath.Join("../..", page)), -1) {
			switch name, target := match[1], match[2]; {
			case name != "":
				if tests++; !strings.Contains(string(out), "func "+name) { // or the beginning of several
					t.Errorf("%s names %s, which is not there", page, name)
				}
			default:
				if targets++; !strings.Contains(makefile, "\n"+target+":") {
					t.Errorf("%s names make %s, which is not there", page, target)
				}
			}
		}
	}
	if tests < 20 || targets < 20 {
		t.Errorf("the pages name %d tests and %d targets", tests, targets)
	}
}
