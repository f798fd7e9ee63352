package bolt_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	slashpath "path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/storagetest"
)

var rounds = flag.Int("crash-rounds", 200, "how often TestCrash kills a writer")

// crashWriter makes the test binary a writer that is going to be killed.
const crashWriter = "TALLYMAN_CRASH_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashWriter); path != "" {
		writeUntilKilled(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// payload is long, so that a half-written value would show, and names its key.
func payload(key string) []byte { return []byte(strings.Repeat(key+";", 500)) }

// commitKeys is how many keys each commit of the writer has.
const commitKeys = 5

// together puts several keys that start with prefix.
func together(prefix string) []storage.Mutation {
	var mutations []storage.Mutation
	for i := range commitKeys {
		key := fmt.Sprintf("%s/%d", prefix, i)
		mutations = append(mutations, storage.Mutation{
			Key: key, Value: storage.Body(payload(key)), Terms: []storage.TermChange{{Group: "g", Terms: []string{key, "all"}}},
		})
	}
	return mutations
}

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
				r, err := s.Commit(context.Background(), together(key)...)
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
// commit that it acknowledged is missing, none is there in part, and entries, index
// and history agree.
func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	acknowledged := map[string]int64{}
	rounds := *rounds
	if testing.Short() {
		rounds = min(rounds, 20)
	}
	for round := range rounds {
		for key, revision := range killedWriter(t, path, time.Duration(5+round%40)*time.Millisecond) {
			acknowledged[key] = revision
		}
		if round%20 == 19 || round == rounds-1 {
			checkStore(t, path, acknowledged)
		}
	}
	if len(acknowledged) < rounds {
		t.Errorf("only %d commits in %d rounds: the test shows nothing", len(acknowledged), rounds)
	}
	t.Logf("%d rounds, %d acknowledged commits", rounds, len(acknowledged))
}

// killedWriter runs a writer for a while after its first commit, and returns the acknowledged
// commits.
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
	stored, commits := map[string]int64{}, map[string][]int64{}
	for _, e := range storagetest.All(t, s, storage.ScanRequest{From: "/", To: "0"}) {
		stored[e.Key] = e.Revision
		prefix := slashpath.Dir(e.Key)
		commits[prefix] = append(commits[prefix], e.Revision)
		if string(e.Value.Body()) != string(payload(e.Key)) {
			t.Fatalf("%s holds something else than was written", e.Key)
		}
	}
	for prefix, revisions := range commits {
		if len(revisions) != commitKeys || revisions[commitKeys-1] != revisions[0]+commitKeys-1 {
			t.Fatalf("a part of the commit %s is stored: revisions %v", prefix, revisions)
		}
	}
	for prefix, revision := range acknowledged {
		if revisions := commits[prefix]; len(revisions) == 0 || revisions[commitKeys-1] != revision {
			t.Fatalf("%s was acknowledged at revision %d, and is stored at %v", prefix, revision, revisions)
		}
	}
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range storagetest.AllChanges(t, s, storage.LogRequest{After: w.Compacted, Read: storage.Read{Terms: true}}) {
		if stored[c.Key] != c.Revision || string(c.Current.Value.Body()) != string(payload(c.Key)) || len(c.Current.Terms) != 2 {
			t.Fatalf("the history has %s at %d, the entries at %d", c.Key, c.Revision, stored[c.Key])
		}
	}
	counts, err := s.Stats(t.Context())
	if err != nil || counts.Terms != int64(2*len(stored)) {
		t.Fatalf("%d entries have %d terms, %v", len(stored), counts.Terms, err)
	}
}
