package config_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tallyman/config"
)

func parse(t *testing.T, content string) (*config.Config, error) {
	t.Helper()
	return config.Parse([]byte(content))
}

const minimal = "version: 0.1\nstorage: {inmemory: {}}\n"

func TestDefaults(t *testing.T) {
	c, err := parse(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.ImageAPI, config.Defaults()) {
		t.Errorf("without a section it is %+v", c.ImageAPI)
	}
	if got := c.StorePath("/data"); got != "/data/tallyman.db" {
		t.Errorf("the store of a registry without a directory is %s", got)
	}
	c, err = parse(t, "version: 0.1\nstorage: {filesystem: {rootdirectory: /srv/reg}}\n")
	if err != nil || c.StorePath("/data") != "/srv/reg/tallyman.db" {
		t.Errorf("the store of a registry in a directory is %s, %v", c.StorePath("/data"), err)
	}
}

// TestDistributionsExamples: the configurations that distribution ships are taken
// unchanged, without a complaint.
func TestDistributionsExamples(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/distribution/distribution/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "cmd/registry/*.yml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("distribution's examples: %v, %v", files, err)
	}
	for _, file := range files {
		c, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		for _, p := range c.Problems {
			t.Errorf("%s: %v", filepath.Base(file), p)
		}
	}
}

// TestOwnExample: the example is good, and names every key of our section.
func TestOwnExample(t *testing.T) {
	c, err := config.Load("example.yml")
	if err != nil {
		t.Fatal(err)
	}
	container, err := config.Load("container.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(c.Problems, container.Problems...) {
		t.Error(p)
	}
	content, err := os.ReadFile("example.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(t) {
		if key == "store.logentries" || key == "store.logage" { // former names
			continue
		}
		last := key[strings.LastIndex(key, ".")+1:]
		if !strings.Contains(string(content), last+":") {
			t.Errorf("example.yml does not show %s", key)
		}
		if !strings.Contains(config.Reference(), "| `"+key+"` |") {
			t.Errorf("the reference lacks %s", key)
		}
	}
}

var update = flag.Bool("update", false, "write docs/configuration.md")

// TestReference: docs/configuration.md is the reference of these fields.
func TestReference(t *testing.T) {
	const path = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, []byte(config.Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	schema, schemaErr := config.Schema()
	if schemaErr != nil || !strings.Contains(string(schema), "with /readyz failing, for load balancers to turn away.") {
		t.Errorf("the schema cuts descriptions at a comma: %v", schemaErr)
	}
	if err != nil || string(content) != config.Reference() {
		t.Errorf("%s is not the reference of these fields: run make generate (%v)", path, err)
	}
}

// keys returns the keys of our section, from its schema.
func keys(t *testing.T) []string {
	t.Helper()
	text, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	var all []string
	var walk func(prefix string, raw json.RawMessage)
	walk = func(prefix string, raw json.RawMessage) {
		var n node
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatal(err)
		}
		if len(n.Properties) == 0 {
			all = append(all, prefix)
		}
		for name, child := range n.Properties {
			walk(strings.TrimPrefix(prefix+"."+name, "."), child)
		}
	}
	var root node
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	walk("", root.Properties["imageapi"])
	if len(all) < 8 {
		t.Fatalf("the schema has only %v", all)
	}
	return all
}

func TestProblems(t *testing.T) {
	for name, test := range map[string]struct {
		content  string
		err      string   // of Parse
		problems []string // that Parse tells of, without failing
	}{
		"empty":              {"", "empty", nil},
		"a list":             {"[]", "not a mapping", nil},
		"no YAML":            {"a: [", "line 1", nil},
		"no version":         {"storage: {inmemory: {}}", "unsupported version", nil},
		"ours, unknown":      {minimal + "imageapi:\n  store: {pth: x}\n", `line 4: unknown key "imageapi.store.pth" (did you mean "path"?)`, nil},
		"ours, twice":        {minimal + "imageapi: {inline: true, inline: false}\n", "inline", nil},
		"ours, wrong type":   {minimal + "imageapi: {inlinelimit: many}\n", "cannot unmarshal", nil},
		"no namespace":       {minimal + "imageapi: {streams: {namespace: No_Label}}\n", `imageapi.streams.namespace: "No_Label" is not valid: want the name of a namespace`, nil},
		"catalog":            {minimal + "imageapi: {catalog: redis}\n", `imageapi.catalog: "redis" is not valid: want driver or store`, nil},
		"resync":             {minimal + "imageapi: {resync: {period: 1s, grace: -1s, removals: 101, callspersecond: -1}}\n", "imageapi.resync.period: 1s is not valid: want 0, or at least 1m", nil},
		"imports of nothing": {minimal + "imageapi: {imports: {enabled: true}}\n", "imageapi.imports.registries: [] is not valid: want at least one registry that images may come from", nil},
		"too many colons":    {minimal + "imageapi: {imports: {enabled: true, registries: [{host: '0:1:2:3'}]}}\n", "imageapi.imports.registries[0].host: \"0:1:2:3\" is not valid: want a host[:port]", nil},
		"imports too often":  {minimal + "imageapi: {imports: {enabled: true, registries: [{host: docker.io}], interval: 10s}}\n", "imageapi.imports.interval: 10s is not valid: want 0, or at least 1m", nil},
		"no import host":     {minimal + "imageapi: {imports: {enabled: true, registries: [{host: 'https://docker.io'}]}}\n", "imageapi.imports.registries[0].host: \"https://docker.io\" is not valid: want a host[:port]", nil},
		"no history":         {minimal + "imageapi: {streams: {history: 0, deletedtags: 1s}}\n", "imageapi.streams.history: 0 is not valid: want 1 to 100", nil},
		"a rule of nothing":  {minimal + "imageapi: {tags: [{repositories: ['a[']}]}\n", `imageapi.tags[0].repositories: "a[" is not valid: want a pattern of path.Match`, nil},
		"ours, too short":    {minimal + "imageapi: {store: {historyage: 1s}}\n", "imageapi.store.historyage: 1s is not valid: want at least 1m", nil},
		"ours, a URL":        {minimal + "imageapi: {registryhost: 'https://x'}\n", "want host or host:port", nil},
		"section misspelt":   {minimal + "imageapis: {}\n", "", []string{`line 3: unknown key "imageapis" (did you mean "imageapi"?)`}},
		"a driver":           {"version: 0.1\nstorage: {filesytem: {}}\n", "", []string{`line 2: unknown key "storage.filesytem" (did you mean "filesystem"?)`}},
		"in a list":          {minimal + "notifications:\n  endpoints:\n    - name: a\n      ulr: x\n", "", []string{`line 6: unknown key "notifications.endpoints[0].ulr" (did you mean "url"?)`}},
		"redis, inline":      {minimal + "redis: {addrs: [a:1], sentinelpasswrd: x}\n", "", []string{`line 3: unknown key "redis.sentinelpasswrd" (did you mean "sentinelpassword"?)`}},
		"middleware options": {minimal + "middleware: {registry: [{name: x, disabled: true, options: {any: thing}}]}\n", "", nil},
		"like nothing":       {minimal + "zzzzzzzz: 1\n", "", []string{`line 3: unknown key "zzzzzzzz"`}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(t, test.content)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got error %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range c.Problems {
				got = append(got, p.Error())
			}
			if strings.Join(got, "\n") != strings.Join(test.problems, "\n") {
				t.Errorf("problems %q, want %q", got, test.problems)
			}
		})
	}
}

func TestDisabledMiddleware(t *testing.T) {
	c, err := parse(t, minimal+"middleware: {registry: [{name: a, disabled: true}, {name: b}]}\n")
	if err != nil || len(c.Registry.Middleware["registry"]) != 1 || c.Registry.Middleware["registry"][0].Name != "b" {
		t.Errorf("%v, %v", c.Registry.Middleware, err)
	}
}

func TestShowHidesSecrets(t *testing.T) {
	c, err := parse(t, `version: 0.1
storage: {s3: {accesskey: AKIA, secretkey: geheim, bucket: b}}
http: {secret: geheim}
redis: {addrs: [r:1], password: geheim}
proxy: {remoteurl: 'https://user:geheim@up.example/', password: geheim}
notifications: {endpoints: [{name: n, url: 'http://u:geheim@h/', headers: {Authorization: [Bearer geheim]}}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"geheim", "AKIA"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("it shows %s:\n%s", secret, text)
		}
	}
	for _, want := range []string{"bucket: b", "https://<redacted>@up.example/", "onstorefailure: defer"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it does not show %s:\n%s", want, text)
		}
	}
}

// TestFormerNames: settings under former names work, and a warning has the new ones.
func TestFormerNames(t *testing.T) {
	c, err := config.Parse([]byte("version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: 127.0.0.1:0}\nimageapi: {store: {logentries: 7, logage: 2h}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"imageapi.store.logentries will go in the next release: use imageapi.store.historyentries",
		"imageapi.store.logage will go in the next release: use imageapi.store.historyage",
	}
	if got := c.ImageAPI.Deprecated(); !slices.Equal(got, want) || c.ImageAPI.Store.LogEntries != 7 {
		t.Errorf("%q", got)
	}
	defaults := config.Defaults()
	if got := defaults.Deprecated(); len(got) != 0 {
		t.Errorf("the defaults: %q", got)
	}
}
