package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page are the commands of a page of the documentation, one text for each block.
func commandsOf(t *testing.T, page string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, block := range regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$").FindAllStringSubmatch(string(content), -1) {
		all = append(all, regexp.MustCompile("(?m)^"+block[1]).ReplaceAllString(block[2], ""))
	}
	if len(all) == 0 {
		t.Fatalf("docs/%s has no commands", page)
	}
	return all
}

// paste runs commands as somebody would who pastes them into a shell at directory, with the server's address and
// kubeconfig.
func (s *server) paste(directory string, env []string, blocks ...string) string {
	s.t.Helper()
	script := strings.NewReplacer("localhost:5000", s.addr, "registry.example.com", s.addr, "~/.local/share/tallyman/kubeconfig", s.kubeconfig).Replace(strings.Join(blocks, "\n"))
	programs, err := filepath.Abs("../../bin")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = directory
	cmd.Env = append(append(os.Environ(), env...), "PATH="+filepath.Dir(binary)+":"+programs+":"+os.Getenv("PATH"), "KUBECONFIG="+s.kubeconfig, "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v\n%s\nprint\n%s", err, script, out)
	}
	return string(out)
}

// TestDocumentation pastes the commands of the tutorial and of three how-tos, one page after the other.
func TestDocumentation(t *testing.T) {
	docker := startDocker(t)
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	if out := s.paste("../..", docker, commandsOf(t, "get-started.md")...); !strings.HasSuffix(strings.TrimSpace(out), "me") {
		t.Errorf("get-started.md ends with %s", tail(out, 5))
	}
	first := crane(t, "digest", s.addr+"/demo/app:v1")
	s.pushImage("demo/app:v1", "a mistake")
	if out := s.paste(s.dir, docker, commandsOf(t, "undo-a-tag.md")...); !strings.Contains(out, first) || crane(t, "digest", s.addr+"/demo/app:v1") != first {
		t.Errorf("undo-a-tag.md prints %s", out)
	}
	s.pushImage("team/app:v1", "a build")
	s.paste(s.dir, docker, commandsOf(t, "promote-an-image.md")...)
	for _, tag := range []string{"prod", "latest"} {
		if got, want := crane(t, "digest", s.addr+"/prod/app:"+tag), crane(t, "digest", s.addr+"/team/app:v1"); got != want {
			t.Errorf("promote-an-image.md: %s is %s, want %s", tag, got, want)
		}
	}
	backup := commandsOf(t, "back-up-and-restore.md") // export, import, compare
	s.paste(s.dir, nil, backup[0])
	s.kubectl("annotate", "image", first, "example.com/owner-")
	s.stop()
	if err := os.Remove(filepath.Join(s.dir, "registry", "tallyman.db")); err != nil {
		t.Fatal(err)
	}
	s.paste(s.dir, nil, backup[1])
	s.start()
	s.paste(s.dir, nil, backup[2:]...)
	if got := s.image(first).Annotations["example.com/owner"]; got != "me" {
		t.Errorf("back-up-and-restore.md: the annotation is %q", got)
	}
}
