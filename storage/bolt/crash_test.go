package bolt_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/bolt"
)

var rounds = flag.Int("crash-rounds", 200, "how often TestCrash kills a writer")

// crashWriter makes the test binary a writer that is going to be killed.
const crashWriter = "TALLYMAN_CRASH_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashWriter); path != "" {
		writeUntilKilled(path)
		return
	}
	os.Exit(m.Run())
}

// payload is long, so that a half-written value would show, and says what key it
// is for.
func payload(key string) []byte { return []byte(strings.Repeat(key+";", 2000)) }

// writeUntilKilled commits from several goroutines and prints each key once its
// commit is acknowledged.
func writeUntilKilled(path string) {
	s, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/%d/%d/%d", os.Getpid(), worker, i)
				r, err := s.Commit(context.Background(), storage.Mutation{Key: key, Value: payload(key)})
				mu.Lock()
				if err != nil || !r.Succeeded {
					fmt.Println("error", key, err)
				} else {
					fmt.Println(key, r.Revision)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestCrash kills a writer with SIGKILL at a different moment each round. No
// commit that it acknowledged is missing, none is there in part, and entries and
// log agree.
func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	acknowledged := map[string]int64{}
	for round := range *rounds {
		for key, revision := range killedWriter(t, path, time.Duration(5+round%40)*time.Millisecond) {
			acknowledged[key] = revision
		}
		if round%20 == 19 || round == *rounds-1 {
			checkStore(t, path, acknowledged)
		}
	}
	if len(acknowledged) < *rounds {
		t.Errorf("only %d commits in %d rounds: the test shows nothing", len(acknowledged), *rounds)
	}
	t.Logf("%d rounds, %d acknowledged commits", *rounds, len(acknowledged))
}

// killedWriter runs a writer for a while after its first commit, and returns
// what it acknowledged.
func killedWriter(t *testing.T, path string, after time.Duration) map[string]int64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashWriter+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]int64{}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		var key string
		var revision int64
		if n, _ := fmt.Sscan(lines.Text(), &key, &revision); n == 2 {
			acknowledged[key] = revision
		} else if strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
	}
	_ = cmd.Wait() // it was killed
	return acknowledged
}

func checkStore(t *testing.T, path string, acknowledged map[string]int64) {
	t.Helper()
	s := open(t, bolt.Options{Path: path})
	defer closeStore(t, s)
	r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]int64{}
	for _, e := range r.Entries {
		stored[e.Key] = e.Revision
		if string(e.Value) != string(payload(e.Key)) {
			t.Fatalf("%s holds something else than was written", e.Key)
		}
	}
	for key, revision := range acknowledged {
		if stored[key] != revision {
			t.Fatalf("%s was acknowledged at revision %d, and is stored at %d", key, revision, stored[key])
		}
	}
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changes, err := s.Log(t.Context(), w.Compacted, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if stored[c.Key] != c.Revision || string(c.Value) != string(payload(c.Key)) {
			t.Fatalf("the log has %s at %d, the entries at %d", c.Key, c.Revision, stored[c.Key])
		}
	}
}
