package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// record runs cosign 2, which takes long to build, and records its output anew. Otherwise
// its tests replay the recording in testdata: see `make cosign2`.
var record = flag.Bool("record", false, "run cosign 2 and record its output anew")

// recording is the content of a registry after each of some steps, and the roots of
// trust for it.
type recording struct {
	t   *testing.T
	dir string // in testdata
	c   *cosigner

	// Host is the registry's address, which signatures have in them.
	Host  string   `json:"host"`
	Image string   `json:"image"`
	Steps []string `json:"steps"`
}

func recordingOf(t *testing.T, name string) *recording {
	t.Helper()
	return &recording{t: t, dir: filepath.Join("testdata", "recordings", name)}
}

// trust are the files with roots of trust in a recording.
var trust = []string{"release.pub", "trusted_root.json", "log.pub"}

// begin starts a new recording of the changes that c makes to an image.
func (r *recording) begin(c *cosigner, image string) {
	r.t.Helper()
	r.c, r.Host, r.Image, r.Steps = c, c.server.addr, image, nil
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Fatal(err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for i, from := range []string{filepath.Join(c.dir, trust[0]), c.fake.trustedRoot, c.fake.logKey} {
		content, err := os.ReadFile(from)
		if err != nil {
			r.t.Fatal(err)
		}
		writeFile(r.t, filepath.Join(r.dir, trust[i]), string(content))
	}
}

func (r *recording) archive(step int) string {
	return filepath.Join(r.dir, fmt.Sprintf("%d.tar.gz", step))
}

// step records the registry after a step.
func (r *recording) step(name string) {
	r.t.Helper()
	tar := exec.Command("tar", "czf", r.archive(len(r.Steps)), "--exclude=tallyman*", "--exclude=_uploads", "--sort=name", "--mtime=@0", "--owner=0", "--group=0",
		"-C", filepath.Join(r.c.server.dir, "registry"), ".")
	if out, err := tar.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	r.Steps = append(r.Steps, name)
}

// end writes the names of the steps.
func (r *recording) end() {
	r.t.Helper()
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		r.t.Fatal(err)
	}
	writeFile(r.t, filepath.Join(r.dir, "steps.json"), string(content)+"\n")
}

// replay serves the registry of each step and returns the summary of the image in it.
func (r *recording) replay() []string {
	r.t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, "steps.json"))
	if err != nil {
		r.t.Fatalf("%v: run `make cosign2`", err)
	}
	if err := json.Unmarshal(content, r); err != nil {
		r.t.Fatal(err)
	}
	path := func(i int) string {
		absolute, err := filepath.Abs(filepath.Join(r.dir, trust[i]))
		if err != nil {
			r.t.Fatal(err)
		}
		return absolute
	}
	config := strings.NewReplacer("KEY", path(0), "ROOT", path(1), "LOG", path(2)).Replace(signingConfig)
	config = strings.Replace(config, "registryhost: ADDR", "registryhost: "+r.Host, 1)
	summaries := make([]string, 0, len(r.Steps))
	for i := range r.Steps {
		registry := r.t.TempDir()
		if out, err := exec.Command("tar", "xzf", r.archive(i), "-C", registry).CombinedOutput(); err != nil {
			r.t.Fatalf("%v: %s", err, out)
		}
		s := startWithConfig(r.t, strings.ReplaceAll(config, "DIR/registry", registry))
		eventually(r.t, "existing content is recorded", func() error {
			if !strings.Contains(s.logText(), "resync complete") {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		summaries = append(summaries, summary(s.image(r.Image)))
		s.kill()
	}
	return summaries
}
