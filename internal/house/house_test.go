package house

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules of the house that a machine can hold.

type goPackage struct {
	ImportPath string
	Dir        string
	Imports    []string

	GoFiles, TestGoFiles, XTestGoFiles []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles", "tallyman/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 8 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// allowed has the packages of ours that each may import.
var allowed = map[string][]string{
	"tallyman/cmd/tallyman": {
		"internal/crash", "internal/doctor", "internal/heap", "internal/progress", "config", "imageapi/access", "imageapi/catalog", "imageapi/importer", "imageapi/imports", "imageapi/records", "imageapi/referrers", "imageapi/rest", "imageapi/rules", "imageapi/server", "imageapi/streamrest", "imageapi/streams", "imageapi/verification",
		"registry", "registry/gc", "registry/logging", "registry/resync", "registry/tracker", "signatures", "signatures/policy",
		"storage", "storage/bolt", "storage/check", "storage/objects", "storage/redis", "storage/migrate",
	},
	"tallyman/config":                   {"signatures"},
	"tallyman/internal/cputime":         {},
	"tallyman/internal/crash":           {},
	"tallyman/internal/heap":            {},
	"tallyman/internal/doctor":          {"config", "imageapi/access", "imageapi/records", "registry", "registry/journal", "registry/paths", "storage/bolt"},
	"tallyman/internal/e2e":             {},
	"tallyman/internal/house":           {},
	"tallyman/internal/image-apiserver": {"imageapi", "imageapi/openapi"},
	"tallyman/internal/progress":        {},
	"tallyman/internal/tallyman-load":   {"imageapi/derive", "signatures/manifest"},

	"tallyman/registry":            {"imageapi", "imageapi/records", "imageapi/streamwriter", "registry/configs", "registry/extensions", "registry/listener", "registry/logging", "registry/prune", "registry/resync", "registry/tracker", "signatures/manifest", "ui"},
	"tallyman/ui":                  {},
	"tallyman/registry/configs":    {},
	"tallyman/registry/extensions": {"imageapi/catalog", "imageapi/referrers", "imageapi/rules", "imageapi/server", "registry/logging", "registry/prune", "registry/tracker", "signatures"},
	"tallyman/registry/gc":         {"registry/journal", "registry/logging", "registry/tracker", "signatures/manifest"},
	"tallyman/registry/journal":    {},
	"tallyman/registry/listener":   {},
	"tallyman/registry/logging":    {},
	"tallyman/registry/paths":      {},
	"tallyman/registry/prune":      {"internal/crash", "registry/journal", "registry/paths"},
	"tallyman/registry/tracker":    {"internal/crash", "imageapi/catalog", "imageapi/derive", "imageapi/records", "imageapi/referrers", "imageapi/rules", "registry/configs", "registry/journal", "registry/logging", "registry/paths", "signatures", "signatures/manifest", "storage"},
	"tallyman/registry/resync":     {"imageapi/records", "internal/crash", "registry/journal", "registry/logging", "registry/paths", "registry/tracker"},

	"tallyman/imageapi":              {"imageapi/rules"},
	"tallyman/imageapi/access":       {"internal/crash"},
	"tallyman/imageapi/catalog":      {"imageapi", "imageapi/derive", "imageapi/records", "imageapi/referrers", "imageapi/rest", "imageapi/rules", "signatures", "signatures/manifest", "storage"},
	"tallyman/imageapi/compression":  {},
	"tallyman/imageapi/derive":       {"signatures/manifest"},
	"tallyman/imageapi/imagetest":    {},
	"tallyman/imageapi/openapi":      {"imageapi"},
	"tallyman/imageapi/protobuf":     {},
	"tallyman/imageapi/referrers":    {"signatures", "storage"},
	"tallyman/imageapi/records":      {"imageapi", "imageapi/derive", "imageapi/streams", "storage"},
	"tallyman/imageapi/streams":      {"imageapi/rules", "signatures/manifest"},
	"tallyman/imageapi/rest":         {"imageapi", "imageapi/compression", "imageapi/derive", "imageapi/protobuf", "imageapi/records", "imageapi/rules", "storage", "storage/encoding", "storage/objects"},
	"tallyman/imageapi/imports":      {"imageapi/derive", "signatures/manifest"},
	"tallyman/imageapi/importer":     {"internal/crash"},
	"tallyman/imageapi/streamrest":   {"imageapi", "imageapi/importer", "imageapi/imports", "imageapi/records", "imageapi/rest", "imageapi/rules", "imageapi/streams", "imageapi/streamwriter", "imageapi/views", "storage", "storage/objects"},
	"tallyman/imageapi/streamwriter": {"imageapi", "imageapi/records", "imageapi/rules", "imageapi/streams", "storage", "storage/objects"},
	"tallyman/imageapi/views":        {"imageapi", "imageapi/records", "imageapi/referrers", "imageapi/rest", "imageapi/rules", "imageapi/streams", "storage"},
	"tallyman/imageapi/rules":        {"imageapi/derive", "signatures", "signatures/manifest"},
	"tallyman/imageapi/verification": {"internal/crash", "imageapi/derive", "imageapi/rest", "imageapi/rules", "signatures", "signatures/policy", "storage"},
	"tallyman/imageapi/server":       {"imageapi", "imageapi/access", "imageapi/openapi", "imageapi/rest", "imageapi/streamrest"},

	"tallyman/signatures":          {"signatures/manifest"},
	"tallyman/signatures/manifest": {},
	"tallyman/signatures/policy":   {"internal/cputime", "internal/crash", "signatures", "signatures/der", "signatures/manifest"},
	"tallyman/signatures/der":      {},
	"tallyman/signatures/signtest": {"signatures"},

	"tallyman/storage":                 {},
	"tallyman/storage/bolt":            {"internal/crash", "storage", "storage/section"},
	"tallyman/storage/check":           {"storage"},
	"tallyman/storage/encoding":        {},
	"tallyman/storage/memory":          {"storage"},
	"tallyman/storage/objects":         {"internal/crash", "storage", "storage/encoding"},
	"tallyman/storage/redis":           {"storage", "storage/redis/cache", "storage/section"},
	"tallyman/storage/redis/cache":     {"storage"},
	"tallyman/storage/redis/redistest": {},
	"tallyman/storage/section":         {},
	"tallyman/storage/storagetest":     {"storage"},
	"tallyman/storage/migrate":         {"storage"},
}

// confined has the packages of ours that may import a library.
var confined = map[string][]string{
	"github.com/distribution/distribution/": {"registry", "registry/configs", "registry/extensions", "registry/gc", "registry/journal", "registry/logging", "registry/prune", "registry/resync", "registry/tracker", "config", "internal/doctor", "cmd/tallyman"},
	"github.com/redis/go-redis/":            {"storage/redis", "storage/redis/redistest", "config", "internal/doctor", "cmd/tallyman"},
}

// TestImports: arrows point one way, and types of some libraries stay where they belong.
func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		may, known := allowed[p.ImportPath]
		if !known {
			t.Errorf("package %s is not in the table of imports", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, "tallyman/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
			for library, importers := range confined {
				if strings.HasPrefix(imported, library) && !slices.Contains(importers, strings.TrimPrefix(p.ImportPath, "tallyman/")) {
					t.Errorf("%s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
}

// TestPackageDocs: every package has one package comment, and the README's map has it.
func TestPackageDocs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue // tests alone
		}
		comments := 0
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc.Text() != "" {
				comments++
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments", p.ImportPath, comments)
		}
		if own := strings.TrimPrefix(p.ImportPath, "tallyman/"); !strings.Contains(string(readme), "`"+own+"`") {
			t.Errorf("the README's package map lacks %s", own)
		}
	}
}

// TestExportedDocs: every exported name has a comment.
func TestExportedDocs(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			if strings.HasPrefix(name, "zz_generated") {
				continue
			}
			path := filepath.Join(p.Dir, name)
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, declaration := range file.Decls {
				if undocumented := undocumented(declaration); undocumented != "" {
					t.Errorf("%s: %s has no comment", path, undocumented)
				}
			}
		}
	}
}

// undocumented returns the exported name that a declaration leaves without a
// comment, "" if there is none.
func undocumented(declaration ast.Decl) string {
	switch d := declaration.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && !isTrivialMethod(d) {
			return d.Name.Name
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					return s.Name.Name
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil {
					return s.Names[0].Name
				}
			}
		}
	}
	return ""
}

// isTrivialMethod: methods of types that are not exported implement interfaces, whose comments
// describe them.
func isTrivialMethod(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	kind := d.Recv.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	name, ok := kind.(*ast.Ident)
	return ok && !name.IsExported()
}

// TestSizes: files stay readable in one sitting, and packages have one job.
func TestSizes(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 14 {
			t.Errorf("%s has %d files, want at most 14", p.ImportPath, len(p.GoFiles))
		}
		for _, name := range p.GoFiles {
			content, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if lines := bytes.Count(content, []byte("\n")); lines > 300 && !strings.HasPrefix(name, "zz_") {
				t.Errorf("%s/%s has %d lines", p.ImportPath, name, lines)
			}
		}
	}
}

// requirements returns the modules that a go.mod requires, with their versions.
func requirements(t *testing.T, path string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(string(content), -1) {
		versions[m[1]] = m[2]
	}
	return versions
}

// TestToolVersions: the programs that the tests run are built with the product's versions
// of the modules that both use, so that each package is compiled once.
func TestToolVersions(t *testing.T) {
	product, tools := requirements(t, "../../go.mod"), requirements(t, "../../.ci/tools/go.mod")
	if len(product) < 100 || len(tools) < 100 {
		t.Fatalf("found %d and %d modules", len(product), len(tools))
	}
	for module, version := range product {
		// Of these the version that the tools need is retracted.
		if other, both := tools[module]; both && other != version && !strings.HasPrefix(module, "github.com/redis/go-redis/extra/") {
			t.Errorf("go.mod requires %s %s, .ci/tools/go.mod requires %s", module, version, other)
		}
	}
}

// TestModule: no replace directives.
func TestModule(t *testing.T) {
	content, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), "\nreplace") {
		t.Error("go.mod replaces a module")
	}
}
