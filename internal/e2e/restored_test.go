package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestoredCopy restores an older copy of the embedded store while no process runs. The
// next start notices it: clients are told to list again, and lost Images are derived again.
func TestRestoredCopy(t *testing.T) {
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", "127.0.0.1:1"))
	file := filepath.Join(s.dir, "registry", "tallyman.db")
	s.pushImage("team/app:kept", "kept")
	s.stop()
	backup, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	lost := s.pushImage("team/app:lost", "lost")
	seen := s.newest()
	eventually(t, "the watermark is stored", func() error {
		content, err := os.ReadFile(filepath.Join(s.dir, "registry", "tallyman", "watermark"))
		if err != nil {
			return err
		}
		var mark struct{ Revision int64 }
		if err := json.Unmarshal(content, &mark); err != nil {
			return err
		}
		if mark.Revision < seen {
			return fmt.Errorf("it is %d, want %d", mark.Revision, seen)
		}
		return nil
	})
	s.stop()
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"REGISTRY_IMAGEAPI_BACKFILL=false"} // only the loss starts one
	s.start()
	eventually(t, "the lost Image is derived again", func() error { return s.lives(lost, "team/app", "team/app:lost") })
	if now := s.newest(); now <= seen {
		t.Errorf("the newest resourceVersion is %d, and clients have seen %d", now, seen)
	}
	got := s.call(http.MethodGet, fmt.Sprintf("%s/images?watch=true&timeoutSeconds=30&resourceVersion=%d", api, seen), "", "")
	if !strings.Contains(got.body, `"code":410`) {
		t.Errorf("a watch from before the loss: %d %s", got.code, got.body)
	}
}
