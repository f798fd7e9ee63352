package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyman/storage/redis/redistest"
)

var (
	manyImages = flag.String("many-images", "400", "numbers of Images of TestManyImages")
	manyStores = flag.String("many-stores", onBolt+","+onRedis, "stores of TestManyImages")
	manyTime   = flag.Duration("many-time", 200*time.Millisecond, "time of each load of TestManyImages")
)

// unitImages is how many Images a repository of TestManyImages has.
const unitImages = 20

// TestManyImages imports Images, with the records of their tags, and logs the costs of reads and writes of a
// process: those of one Image should not depend on their number.
func TestManyImages(t *testing.T) {
	unit := exportUnit(t)
	var table strings.Builder
	fmt.Fprintln(&table, "| Images | store | bytes an Image | import | ready after SIGTERM | after SIGKILL | RssAnon | GET | push | LIST of 20 | LIST of metadata |")
	fmt.Fprintln(&table, "|---|---|---|---|---|---|---|---|---|---|---|")
	load := buildProgram(t, "tallyman-load")
	for _, text := range strings.Split(*manyImages, ",") {
		number, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "export")
		unit.write(t, file, number/unitImages)
		for store := range strings.SplitSeq(*manyStores, ",") {
			m := &populated{t: t, load: load, images: number}
			m.start(store, file)
			row := m.measure()
			t.Log(row)
			fmt.Fprintln(&table, row)
			m.s.kill()
			if m.redis != nil {
				m.redis.Kill()
			}
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s for each load\n\n%s", *manyTime, &table)
}

// unit is an export of one repository.
type unit struct {
	header []byte
	lines  [][]part
}

// part is a part of a line: some text, and the digest or the repository's name that comes behind it, nil at the end.
type part struct{ text, name []byte }

const unitRepository = "many/r000000"

// exportUnit pushes Images into one repository, and exports them with their records.
func exportUnit(t *testing.T) *unit {
	t.Helper()
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	for n := range unitImages {
		pushRichImageAs(s, unitRepository, fmt.Sprint("v", n))
	}
	s.stop()
	out, err := exec.Command(binary, "store", "export", "--data-dir", s.dir, filepath.Join(s.dir, "config.yml")).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	u := &unit{header: lines[0]}
	for _, line := range lines[1 : len(lines)-1] { // the last is about the file
		var parts []part
		end := 0
		for _, at := range names.FindAllIndex(line, -1) {
			parts = append(parts, part{line[end:at[0]], line[at[0]:at[1]]})
			end = at[1]
		}
		u.lines = append(u.lines, append(parts, part{text: line[end:]}))
	}
	return u
}

// names are those of an export that differ from one repository to another.
var names = regexp.MustCompile(`[0-9a-f]{64}|` + unitRepository)

// write writes an export of repositories, each with Images of its own.
func (u *unit) write(t *testing.T, path string, repositories int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(file, sum), 1<<20)
	entries := 0
	fmt.Fprintf(out, "%s\n", u.header)
	for n := range repositories {
		repository := fmt.Appendf(nil, "many/r%06d", n)
		for _, line := range u.lines {
			for _, p := range line {
				_, _ = out.Write(p.text) // Flush reports an error
				switch {
				case len(p.name) == len(repository):
					_, _ = out.Write(repository)
				case p.name != nil:
					fmt.Fprintf(out, "%x", sha256.Sum256(fmt.Appendf(p.name[:len(p.name):len(p.name)], "%d", n)))
				}
			}
			_ = out.WriteByte('\n')
			entries++
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(file, `{"entries":%d,"sha256":"%x"}`+"\n", entries, sum.Sum(nil))
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// populated is a process with many Images.
type populated struct {
	t        *testing.T
	load     string
	s        *server
	redis    *redistest.Server // nil on the embedded store
	images   int
	imported time.Duration
}

// start imports a file into a new store, and starts a process on it.
func (m *populated) start(store, file string) {
	m.t.Helper()
	config := plainConfig
	if store == onRedis {
		// A rewrite of the file of a million Images would need the disk for another one.
		m.redis = redistest.Start(m.t, "redis-server", "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
		config += redisAt(m.redis.Addr)(0)
	}
	config += "\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n"
	dir, addr := m.t.TempDir(), freeAddress(m.t)
	path := filepath.Join(dir, "config.yml")
	writeFile(m.t, path, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(config))
	begin := time.Now()
	if out, err := exec.Command(binary, "store", "import", "-f", file, "--data-dir", dir, path).CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %s", err, tail(string(out), 5))
	}
	m.imported = time.Since(begin)
	m.s = &server{t: m.t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), args: []string{"serve", "--data-dir", dir, path}}
	m.s.start()
}

// restart returns the time until a process is ready after the last one has ended.
func (m *populated) restart(end func()) time.Duration {
	m.t.Helper()
	end()
	begin := time.Now()
	m.s.start()
	return time.Since(begin)
}

// measure returns a row of the table.
func (m *populated) measure() string {
	m.t.Helper()
	clean, crashed := m.restart(m.s.stop), m.restart(m.s.kill)
	m.s.mustGet(m.t, api+"/images?limit=1")
	idle := anonymousMemory(m.t, m.s.cmd.Process.Pid)
	begin := time.Now()
	m.s.mustGetAs(m.t, api+"/images", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
	listed := time.Since(begin)
	name, size := m.size()
	return fmt.Sprintf("| %d | %s | %d | %.1f s | %.2f s | %.2f s | %d MiB | %s | %s | %s | %.2f s |", m.images, name, size/int64(m.images),
		m.imported.Seconds(), clean.Seconds(), crashed.Seconds(), idle>>20,
		m.run("-getters", "8"), m.run("-pushers", "8"), m.run("-listers", "1", "-field-selector", "repository="+unitRepository), listed.Seconds())
}

// size returns the bytes of the store: of its file, or in the memory of Redis.
func (m *populated) size() (store string, size int64) {
	m.t.Helper()
	if m.redis != nil {
		return onRedis, redisMemory(m.t, m.redis)
	}
	info, err := os.Stat(filepath.Join(m.s.dir, "registry", "tallyman.db"))
	if err != nil {
		m.t.Fatal(err)
	}
	return onBolt, info.Size()
}

// run puts a load on the process, and returns the CPU of an operation and its p50 and p99.
func (m *populated) run(args ...string) string {
	m.t.Helper()
	token := m.s.restConfig().BearerToken
	target := fmt.Sprintf("tallyman=%s,token=%s,pid=%d", m.s.url(""), token, m.s.cmd.Process.Pid)
	reports := runLoad(m.t, m.load, []string{target}, append([]string{"-turns", "1", "-duration", manyTime.String()}, args...)...)
	if len(reports[0].Operations) != 1 {
		m.t.Fatalf("%v: %+v", args, reports[0])
	}
	o := reports[0].Operations[0]
	if o.Errors > 0 || o.Count == 0 {
		m.t.Errorf("%v: %d operations, %d errors, such as %s", args, o.Count, o.Errors, o.Error)
	}
	return fmt.Sprintf("%.2f ms of CPU, p50 %.1f, p99 %.1f", reports[0].CPUMilliseconds, o.P50Milliseconds, o.P99Milliseconds)
}
