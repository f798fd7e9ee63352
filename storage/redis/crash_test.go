package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
	"tallyman/storage/storagetest"
)

// crashWriter makes the test binary a writer that is going to be killed.
const crashWriter = "TALLYMAN_CRASH_WRITER"

const commitKeys = 5

// writeUntilKilled commits five keys at a time and prints their prefix once the commit
// is acknowledged.
func writeUntilKilled(addr string) error {
	s, err := redis.Open(context.Background(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{addr}}})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		prefix := fmt.Sprintf("/%d/%d", os.Getpid(), i)
		var mutations []storage.Mutation
		for n := range commitKeys {
			mutations = append(mutations, storage.Mutation{
				Key: fmt.Sprint(prefix, "/", n), Value: storage.Body([]byte(strings.Repeat(prefix, 100))),
				Terms: []storage.TermChange{{Group: "g", Terms: []string{prefix}}},
			})
		}
		if r, err := s.Commit(context.Background(), mutations...); err != nil || !r.Succeeded {
			return fmt.Errorf("%+v, %w", r, err)
		}
		fmt.Println(prefix)
	}
}

// TestCrash kills a writer with SIGKILL 200 times. No commit that it acknowledged is
// missing, and none is there in part.
func TestCrash(t *testing.T) {
	const rounds = 200
	server := redistest.Start(t, flavor)
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxEntries: 1000}}, server.Addr)
	var acknowledged []string
	for round := range rounds {
		acknowledged = append(acknowledged, killedWriter(t, server.Addr, time.Duration(1+round%20)*time.Millisecond)...)
	}
	commits := map[string]int{}
	for _, e := range storagetest.All(t, s, storage.ScanRequest{From: "/", To: "0", Read: storage.Read{Terms: true}}) {
		commits[path.Dir(e.Key)]++
		if string(e.Value.Body()) != strings.Repeat(path.Dir(e.Key), 100) || len(e.Terms) != 1 {
			t.Fatalf("%s holds something else than was written", e.Key)
		}
	}
	for prefix, n := range commits {
		if n != commitKeys {
			t.Errorf("of the commit %s %d keys are stored", prefix, n)
		}
	}
	for _, prefix := range acknowledged {
		if commits[prefix] == 0 {
			t.Errorf("the commit %s was acknowledged and is not stored", prefix)
		}
	}
	if len(acknowledged) < rounds {
		t.Errorf("only %d commits in %d rounds: the test shows nothing", len(acknowledged), rounds)
	}
	t.Logf("%d rounds, %d acknowledged commits, %d stored", rounds, len(acknowledged), len(commits))
}

// killedWriter runs a writer for a while after its first commit, and returns the acknowledged
// commits.
func killedWriter(t *testing.T, addr string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashWriter+"="+addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
		if acknowledged == nil {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		acknowledged = append(acknowledged, lines.Text())
	}
	_ = cmd.Wait() // it was killed
	return acknowledged
}
