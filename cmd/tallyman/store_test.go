package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallyman/storage/redis/redistest"
)

// TestExportImport: a store that is in use is exported, and restored elsewhere.
func TestExportImport(t *testing.T) {
	s := serving(t)
	for i := range 3 {
		s.pushImage(t, "exported", fmt.Sprint("v", i))
	}
	embedded := s.configure(t, "", "")
	file := filepath.Join(t.TempDir(), "export")
	if out, code := tallyman(t, "store", "export", "-f", file, embedded); code != 0 {
		t.Fatal(out)
	}
	content, err := os.ReadFile(file)
	must(t, err)
	exported := bytes.Count(content, []byte("\n")) - 2 // the first and the last line are about the file
	if piped, code := tallyman(t, "store", "export", embedded); code != 0 || !strings.Contains(piped, fmt.Sprintf("exported %d objects", exported)) {
		t.Errorf("export to standard output: %s", piped)
	}
	redis := s.configure(t, redistest.Any(t, "valkey-server").Addr, "")
	for _, want := range []string{fmt.Sprintf("%d created, 0 merged, 0 the same", exported), fmt.Sprintf("0 created, 0 merged, %d the same", exported)} {
		if out, _ := tallyman(t, "store", "import", "-f", file, redis); !strings.Contains(out, want) || !strings.Contains(out, fmt.Sprintf("%d compared, 0 missing", exported)) {
			t.Errorf("import: %s, want %s", out, want)
		}
	}
	var stats struct{ Images, Bytes, StoredBytes int }
	out, _ := tallyman(t, "store", "stats", "-o", "json", redis)
	if err := json.Unmarshal([]byte(out), &stats); err != nil || stats.Images != bytes.Count(content, []byte(`{"key":"/images/`)) || stats.StoredBytes >= stats.Bytes {
		t.Errorf("%+v, %v", stats, err)
	}
	if out, code := tallyman(t, "store", "check", redis); code != 0 || !strings.Contains(out, "(index: complete)") {
		t.Errorf("check: %d, %s", code, out)
	}
	if out, code := tallyman(t, "store", "migrate", "--from", "bolt", "--to", "redis", redis); code != 0 || !strings.Contains(out, "0 created, 0 merged") {
		t.Errorf("migrate: %d, %s", code, out)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no file":       {[]string{"import"}, "--file is required"},
		"not an export": {[]string{"import", "-f", redis}, "the file is not an export"},
		"same stores":   {[]string{"migrate", "--from", "bolt", "--to", "bolt"}, "want bolt and redis, or redis and bolt"},
		"no stores":     {[]string{"migrate"}, "want bolt and redis"},
		"bolt in use":   {[]string{"migrate", "--from", "redis", "--to", "bolt"}, "in use by another process"},
		"bad output":    {[]string{"stats", "-o", "xml"}, "want text or json"},
	} {
		if out, code := tallyman(t, append(append([]string{"store"}, test.args...), redis)...); code == 0 || !strings.Contains(out, test.want) {
			t.Errorf("%s: %d\n%s\nwant %q", name, code, out, test.want)
		}
	}
}

// TestBrokenOff: a command that a signal has ended says how to go on, and keeps the cause.
func TestBrokenOff(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	cause := errors.New("the store is closed")
	for _, test := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{t.Context(), nil, ""},
		{ended, nil, ""},
		{t.Context(), cause, "the store is closed"},
		{ended, cause, "broken off: run it again (the store is closed)"},
	} {
		cmd := newStoreCommand()
		cmd.SetContext(test.ctx)
		got := brokenOff(cmd, test.err, "run it again")
		if !errors.Is(got, test.err) || got != nil && got.Error() != test.want {
			t.Errorf("%v: %v, want %q", test.err, got, test.want)
		}
	}
}

// TestQuiet: a command that shows how far it is can be told not to.
func TestQuiet(t *testing.T) {
	for name, has := range map[string]bool{"export": true, "import": true, "migrate": true, "check": true, "resync": true, "stats": false} {
		if out, _ := tallyman(t, "store", name, "--help"); strings.Contains(out, "--quiet") != has {
			t.Errorf("%s: %s", name, out)
		}
	}
}
