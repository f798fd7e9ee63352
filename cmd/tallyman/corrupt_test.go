package main_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// TestCorruptObject: an Image that cannot be read is named in the error of a
// list, can be deleted by the option that Kubernetes has for that, and is then
// derived again.
func TestCorruptObject(t *testing.T) {
	s := startServer(t)
	bad, good := s.pushImage("team/app:bad", "bad"), s.pushImage("team/app:good", "good")
	s.stop()
	db, err := bbolt.Open(filepath.Join(s.dir, "images.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte("data"))
		value := data.Get([]byte("/images/" + bad))
		return data.Put([]byte("/images/"+bad), append(append([]byte{}, value[:8]...), "no JSON"...))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s.start()
	if got := s.call(http.MethodGet, api+"/images/"+bad, "", ""); got.code != 500 || !strings.Contains(got.body, "corrupt object") {
		t.Errorf("get: %d %s", got.code, got.body)
	}
	for _, path := range []string{api + "/images", api + "/images?limit=10"} {
		if got := s.call(http.MethodGet, path, "", ""); got.code == http.StatusOK && strings.HasSuffix(strings.TrimSpace(got.body), "]}") {
			t.Errorf("a whole list with an object that cannot be read: %s", got.body)
		}
	}
	if out, err := tryCommand(t, s.kubectlEnv(), "kubectl", "get", "images"); err == nil || !strings.Contains(out, bad) {
		t.Errorf("kubectl get images: %v\n%s", err, out)
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
	eventually(t, "the Image is derived again", func() error { return s.lives(bad, "team/app", "team/app:bad") })
}
