package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// TestCorruptObject damages two Images in the file. Lists and exports skip them, and the
// log and `store check` name them. A GET returns an error with the cause. A push
// replaces one, and Kubernetes' option for unsafe deletion deletes the other.
func TestCorruptObject(t *testing.T) {
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", "127.0.0.1:1"))
	bad, good := s.pushImage("team/app:bad", "bad"), s.pushImage("team/app:good", "good")
	worse := s.pushImage("team/app:worse", "worse")
	s.stop()
	db, err := bbolt.Open(filepath.Join(s.dir, "registry", "tallyman.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte("data"))
		for _, name := range []string{bad, worse} {
			value := append([]byte{}, data.Get([]byte("/images/"+name))...)
			value[len(value)/2] ^= 0xff
			if err := data.Put([]byte("/images/"+name), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"REGISTRY_IMAGEAPI_BACKFILL=false"} // which would derive them again
	s.start()
	if got := s.call(http.MethodGet, api+"/images/"+bad, "", ""); got.code != 500 || !strings.Contains(got.body, "corrupt object") {
		t.Errorf("get: %d %s", got.code, got.body)
	}
	for _, path := range []string{api + "/images", api + "/images?limit=10"} {
		if got := s.call(http.MethodGet, path, "", ""); got.code != http.StatusOK || !strings.Contains(got.body, good) || strings.Contains(got.body, bad) {
			t.Errorf("a list without the objects that cannot be read: %d %s", got.code, got.body)
		}
	}
	// A table is made of a section beside the body.
	if out, err := tryCommand(t, s.kubectlEnv(), "kubectl", "get", "images"); err != nil || !strings.Contains(out, good) || !strings.Contains(out, bad) {
		t.Errorf("kubectl get images: %v\n%s", err, out)
	}
	if !strings.Contains(s.logText(), "corrupt object skipped") {
		t.Error("the log does not tell of it")
	}
	export := filepath.Join(t.TempDir(), "export")
	if out, err := s.tryMetadata("export", "-f", export); err != nil || !strings.Contains(out, "2 objects were left out") {
		t.Errorf("export: %v\n%s", err, out)
	}
	if out, err := s.tryMetadata("check"); err == nil || !strings.Contains(out, bad) || !strings.Contains(out, worse) {
		t.Errorf("check: %v\n%s", err, out)
	}
	manifest := s.manifest("team/app", worse) // a client that looks first would not push it
	var head struct{ MediaType string }
	if err := json.Unmarshal([]byte(manifest), &head); err != nil {
		t.Fatal(err)
	}
	if got := s.putManifest("team/app", "worse", head.MediaType, manifest); got.code != http.StatusCreated {
		t.Fatalf("push: %d %s", got.code, got.body)
	}
	if err := s.status(api+"/images/"+worse, http.StatusOK); err != nil {
		t.Errorf("a push does not overwrite it: %v", err)
	}
	if err := s.status(api+"/images/"+good, http.StatusOK); err != nil {
		t.Error(err)
	}
	if got := s.call(http.MethodDelete, api+"/images/"+bad, "", ""); got.code == http.StatusOK {
		t.Errorf("an ordinary delete: %d %s", got.code, got.body)
	}
	const unsafely = "?ignoreStoreReadErrorWithClusterBreakingPotential=true"
	if got := s.call(http.MethodDelete, api+"/images/"+good+unsafely, "", ""); got.code == http.StatusOK {
		t.Errorf("the unsafe delete of an object that can be read: %d %s", got.code, got.body)
	}
	if got := s.call(http.MethodDelete, api+"/images/"+bad+unsafely, "", ""); got.code != http.StatusOK {
		t.Errorf("the unsafe delete: %d %s", got.code, got.body)
	}
	s.stop()
	s.env = nil
	s.start()
	eventually(t, "the Image is derived again", func() error { return s.lives(bad, "team/app", "team/app:bad") })
}
