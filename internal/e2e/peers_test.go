package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	peersTime   = flag.Duration("peers-time", 200*time.Millisecond, "time of each row of TestPeers on each target")
	peersImages = flag.Int("peers-images", 50, "Images of TestPeers")
	peersOutput = flag.String("peers-output", "", "file for the table of TestPeers")
)

// row is one kind of load.
type row struct {
	name string
	args []string
	// object says that the cost is that of an Image of a list.
	object bool
	// without is a target that cannot do it.
	without string
}

// pushRows are measured beside plain distribution.
var pushRows = []row{
	{name: "manifest PUT with a new tag, 8 clients", args: []string{"-images", "20", "-putters", "8"}},
	{name: "manifest PUT with a new tag, 1 client", args: []string{"-images", "20", "-putters", "1"}},
	{name: "push of layer, config, manifest, 8 clients", args: []string{"-pushers", "8"}},
	{name: "pull, 4 clients", args: []string{"-images", "20", "-pullers", "4"}},
}

// imageRows are measured beside servers of Images.
var imageRows = []row{
	{name: "LIST JSON, an object", object: true, args: []string{"-listers", "2", "-gzip=false"}},
	{name: "LIST in pages of 500, an object", object: true, args: []string{"-listers", "2", "-limit", "500"}},
	{name: "LIST JSON gzip, an object", object: true, args: []string{"-listers", "2"}},
	{name: "LIST protobuf, an object", object: true, args: []string{"-listers", "2", "-gzip=false", "-formats", "protobuf"}, without: crdPeer},
	{name: "LIST Table, an object", object: true, args: []string{"-listers", "2", "-gzip=false", "-formats", "table"}},
	{name: "LIST PartialObjectMetadata, an object", object: true, args: []string{"-listers", "2", "-gzip=false", "-formats", "metadata"}},
	{name: "GET, 8 clients", args: []string{"-getters", "8"}},
	{name: "WATCH × 10, a create", args: []string{"-watchers", "10", "-watch", "json", "-creators", "8"}},
	{name: "WATCH of Tables × 10, a create", args: []string{"-watchers", "10", "-watch", "table", "-creators", "8"}},
	{name: "WATCH of metadata × 10, a create", args: []string{"-watchers", "10", "-watch", "metadata", "-creators", "8"}},
	{name: "CREATE, 8 clients", args: []string{"-creators", "8"}},
	{name: "DELETE, 8 clients", args: []string{"-deleters", "8", "-created", "DELETED"}},
}

// Names of targets.
const (
	plainPeer     = "distribution"
	openShiftPeer = "apiserver"
	crdPeer       = "CRD"
	onBolt        = "tallyman"
	onRedis       = "on Redis"
)

// peer is a target of tallyman-load.
type peer struct {
	name, url, token, ca, separator string
	pids                            []int // of the server and its store
}

func (p *peer) argument() string {
	text := fmt.Sprintf("%s=%s,ca=%s,separator=%s", p.name, p.url, p.ca, cmp.Or(p.separator, ":"))
	if p.token != "" {
		text += ",token=" + p.token
	}
	for _, pid := range p.pids {
		text += fmt.Sprintf(",pid=%d", pid)
	}
	return text
}

// TestPeers puts the same load on tallyman and on its peers, in turns, and writes a table of their
// costs. In a test it is short: each target does all that it is asked for.
func TestPeers(t *testing.T) {
	b := &bench{t: t, load: buildProgram(t, "tallyman-load"), authority: newAuthority(t, "peers"), memory: map[string]int64{}}
	b.measure([]*peer{b.startPlain(), b.startTallyman(onBolt, ""), b.startTallyman(onRedis, b.startRedis())}, pushRows)
	servers := []*peer{b.startAPIServer(), b.startCRD(), b.startTallyman(onBolt, ""), b.startTallyman(onRedis, b.startRedis())}
	b.run(servers, time.Millisecond, "-created", fmt.Sprint(*peersImages))
	b.measure(servers, imageRows)
	b.write(&b.table)
}

// bench measures rows.
type bench struct {
	t         *testing.T
	load      string // the program
	authority *authority
	redis     int // the process that was started last
	table     strings.Builder
	memory    map[string]int64 // the largest of each peer, of one table
}

// measure puts each row's load on the peers and adds a table.
func (b *bench) measure(peers []*peer, rows []row) {
	b.t.Helper()
	fmt.Fprint(&b.table, "| CPU of the server with its store: ms |")
	for _, p := range peers {
		fmt.Fprintf(&b.table, " %s |", p.name)
	}
	fmt.Fprint(&b.table, "\n|---|"+strings.Repeat("---|", len(peers))+"\n")
	clear(b.memory)
	for _, r := range rows {
		b.add(peers, r)
	}
	fmt.Fprint(&b.table, "| peak RssAnon, MiB |")
	for _, p := range peers {
		fmt.Fprintf(&b.table, " %d |", b.memory[p.name]>>20)
	}
	fmt.Fprint(&b.table, "\n\n")
}

// add measures one row.
func (b *bench) add(peers []*peer, r row) {
	b.t.Helper()
	able := slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return p.name == r.without })
	args := slices.Clone(r.args)
	for i := range args {
		if args[i] == "DELETED" {
			args[i] = fmt.Sprint(max(20, *peersImages/3))
		}
	}
	reports := b.run(able, *peersTime, args...)
	fmt.Fprintf(&b.table, "| %s |", r.name)
	for _, p := range peers {
		at := slices.IndexFunc(reports, func(report loadReport) bool { return report.Target == p.name })
		if at < 0 {
			fmt.Fprint(&b.table, " – |")
			continue
		}
		b.cell(&reports[at], r)
	}
	fmt.Fprintln(&b.table)
}

// cell adds a cell: the CPU, the rate and, of one client, the median.
func (b *bench) cell(report *loadReport, r row) {
	b.t.Helper()
	count, objects := 0, 1.0
	if r.object {
		objects = float64(*peersImages)
	}
	details := ""
	for _, o := range report.Operations {
		if o.Errors > 0 || o.Count == 0 {
			b.t.Errorf("%s on %s: %s: %d operations, %d errors, such as %s", r.name, report.Target, o.Name, o.Count, o.Errors, o.Error)
		}
		if o.Name == "watch" {
			details += fmt.Sprintf(", %.0f events/s", o.PerSecond)
			continue
		}
		count += o.Count
		details += fmt.Sprintf(" %.0f/s, p50 %.1f", o.PerSecond*objects, o.P50Milliseconds)
		if o.Bytes > 0 {
			details += fmt.Sprintf(", %.1f KB", o.Bytes/objects/1000)
		}
	}
	if count == 0 {
		b.t.Errorf("%s: %s did nothing", r.name, report.Target)
	}
	fmt.Fprintf(&b.table, " **%.3f**%s |", report.CPUMilliseconds/objects, details)
}

// run puts a load on peers, in two turns. Workers that args do not have are not there.
func (b *bench) run(peers []*peer, duration time.Duration, args ...string) []loadReport {
	b.t.Helper()
	var targets []string
	for _, p := range peers {
		targets = append(targets, p.argument())
	}
	reports := runLoad(b.t, b.load, targets, append([]string{"-turns", "2", "-duration", duration.String()}, args...)...)
	for _, report := range reports {
		b.memory[report.Target] = max(b.memory[report.Target], report.RSSAnonBytes)
	}
	return reports
}

// write logs the tables, and writes them to the file of the command line.
func (b *bench) write(table *strings.Builder) {
	b.t.Logf("%s for each row and target, %d Images\n\n%s", *peersTime, *peersImages, table)
	if *peersOutput == "" {
		return
	}
	if err := os.WriteFile(filepath.Clean(*peersOutput), []byte(table.String()), 0o600); err != nil {
		b.t.Error(err)
	}
}
