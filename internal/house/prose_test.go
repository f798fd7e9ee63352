package house

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxFreeRelatives is the share of comment sentences, in percent, that may have a free
// relative clause. Of ten comparable projects the largest share is 2 percent.
const maxFreeRelatives = 3

var (
	// freeRelative matches the beginning of a clause that stands for a noun, as in "what is
	// over the limit" and "who may pull".
	freeRelative = regexp.MustCompile(`(?i)(^|[\s,(;:])(what|whatever|whoever|who|whom|that which|those who|which of)\b`)
	sentenceEnd  = regexp.MustCompile(`[.:;!?](\s+|$)|\n\s*\n`)
)

// sentences splits a comment. Fragments of one or two words are no sentences.
func sentences(comment string) []string {
	var all []string
	for _, s := range sentenceEnd.Split(comment, -1) {
		if words := strings.Fields(s); len(words) > 2 {
			all = append(all, strings.Join(words, " "))
		}
	}
	return all
}

// freeRelatives returns the number of sentences, and those with a free relative clause.
func freeRelatives(text string) (all int, free []string) {
	for _, s := range sentences(text) {
		all++
		if freeRelative.MatchString(s) {
			free = append(free, s)
		}
	}
	return all, free
}

// TestFreeRelatives tests the measure.
func TestFreeRelatives(t *testing.T) {
	for comment, want := range map[string]int{
		"Limits bounds concurrent requests. Excess requests are answered 429.":      0,
		"Limits bounds what is under way at a time.":                                1,
		"Access says who may pull; what is over the limit waits. It is fair.":       2,
		"Whoever pushes is told.":                                                   1,
		"The clients of whom the cluster knows, and those who come later, wait.":    1,
		"It returns which of them failed":                                           1,
		"The somewhat longer whole list is whatnot here.":                           0,
		"A client that has left is told, and the one which came before it, as well": 0,
		"What now?": 0,
	} {
		if _, got := freeRelatives(comment); len(got) != want {
			t.Errorf("%q has %d sentences with a free relative clause, want %d", comment, len(got), want)
		}
	}
}

// TestDocs: the documents are plain English, too.
func TestDocs(t *testing.T) {
	code := regexp.MustCompile("(?s)```.*?```|`[^`]*`|<!--.*?-->")
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all, free := freeRelatives(code.ReplaceAllString(string(content), "x"))
			if 100*len(free) > maxFreeRelatives*all {
				t.Errorf("%s: %d of %d sentences have a free relative clause:\n%s", path, len(free), all, strings.Join(free, "\n"))
			}
		}
	}
}

// TestProse: comments are plain English, with nouns instead of free relative clauses.
func TestProse(t *testing.T) {
	all, free := 0, []string(nil)
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			if strings.HasPrefix(name, "zz_") {
				continue // generated
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range file.Comments {
				n, found := freeRelatives(group.Text())
				all += n
				for _, s := range found {
					free = append(free, p.ImportPath+"/"+name+": "+s)
				}
			}
		}
	}
	if all < 1000 {
		t.Fatalf("found only %d sentences", all)
	}
	if 100*len(free) > maxFreeRelatives*all {
		t.Errorf("%d of %d sentences have a free relative clause, want at most %d percent:\n%s", len(free), all, maxFreeRelatives, strings.Join(free, "\n"))
	}
}
