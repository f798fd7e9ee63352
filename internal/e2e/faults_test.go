package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2/client"

	"tallyman/storage"
	storeredis "tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// faultRounds is the number of faults that TestFaults makes in the network and of one
// server; fail-overs are a third of that. `make faults` makes more.
var faultRounds = flag.Int("fault-rounds", 22, "faults that TestFaults makes in the network, and of one server; 22 make 60 in all")

// proxies is a toxiproxy process with a proxy in front of Redis for each replica.
type proxies struct {
	all   []*toxiproxy.Proxy
	addrs []string
}

func startProxies(t *testing.T, n int, upstream string) *proxies {
	t.Helper()
	port := redistest.FreePort(t)
	cmd := exec.Command(tool(t, "toxiproxy"), "-host", "127.0.0.1", "-port", fmt.Sprint(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := toxiproxy.NewClient(fmt.Sprintf("127.0.0.1:%d", port))
	eventually(t, "toxiproxy answers", func() error {
		_, err := client.Proxies()
		return err
	})
	p := &proxies{}
	for i := range n {
		proxy, err := client.CreateProxy(fmt.Sprint("redis", i), freeAddress(t), upstream)
		if err != nil {
			t.Fatal(err)
		}
		p.all, p.addrs = append(p.all, proxy), append(p.addrs, proxy.Listen)
	}
	return p
}

// fault is one thing that goes wrong and is over when it returns.
type fault struct {
	name string
	make func(t *testing.T, random *rand.Rand)
}

// networkFaults are the faults between replicas and Redis. Each is on one replica's way, or on
// all.
func (p *proxies) networkFaults() []fault {
	toxic := func(name, kind string, attributes toxiproxy.Attributes) fault {
		return fault{name, func(t *testing.T, random *rand.Rand) {
			hit := p.some(random)
			for _, proxy := range hit {
				if _, err := proxy.AddToxic(name, kind, []string{"upstream", "downstream"}[random.IntN(2)], 1, attributes); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			time.Sleep(time.Duration(300+random.IntN(1200)) * time.Millisecond)
			for _, proxy := range hit {
				if err := proxy.RemoveToxic(name); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}}
	}
	return []fault{
		toxic("latency", "latency", toxiproxy.Attributes{"latency": 150, "jitter": 100}),
		toxic("slow", "bandwidth", toxiproxy.Attributes{"rate": 5}),
		toxic("half-closed", "timeout", toxiproxy.Attributes{"timeout": 0}),
		toxic("cut after some bytes", "limit_data", toxiproxy.Attributes{"bytes": 700}),
		toxic("reset", "reset_peer", toxiproxy.Attributes{"timeout": 5}),
		{"cut", func(t *testing.T, random *rand.Rand) {
			hit := p.some(random)
			for _, proxy := range hit {
				if err := proxy.Disable(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
			for _, proxy := range hit {
				if err := proxy.Enable(); err != nil {
					t.Fatal(err)
				}
			}
		}},
	}
}

// some returns one proxy, or all.
func (p *proxies) some(random *rand.Rand) []*toxiproxy.Proxy {
	if i := random.IntN(len(p.all) + 1); i < len(p.all) {
		return p.all[i : i+1]
	}
	return p.all
}

// crash kills Redis and starts it again.
func crash(redis *redistest.Server) fault {
	return fault{"redis killed", func(t *testing.T, random *rand.Rand) {
		redis.Kill()
		time.Sleep(time.Duration(random.IntN(800)) * time.Millisecond)
		redis.Run(t)
	}}
}

// full makes Redis refuse writes that add, for want of memory.
func full(redis *redistest.Server) fault {
	return fault{"redis full", func(t *testing.T, random *rand.Rand) {
		redis.Command(t, "CONFIG", "SET", "maxmemory", "1")
		time.Sleep(time.Duration(300+random.IntN(1000)) * time.Millisecond)
		redis.Command(t, "CONFIG", "SET", "maxmemory", "0")
	}}
}

// smallDisk returns the directory of a small file system, which ends with the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a small file system (this needs CAP_SYS_ADMIN): %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fillDisk fills the disk of Redis, which ends at its next write if it syncs each, and
// starts it again when there is space.
func fillDisk(redis *redistest.Server, dir string) fault {
	return fault{"disk full", func(t *testing.T, random *rand.Rand) {
		filler := filepath.Join(dir, "filler")
		if out, err := exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=64k").CombinedOutput(); err == nil {
			t.Fatalf("the disk is not full: %s", out)
		}
		time.Sleep(time.Duration(300+random.IntN(1000)) * time.Millisecond)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		redis.Kill() // as after a crash: it may have ended by itself
		redis.Run(t)
	}}
}

// slow stops a replica for a time in which commits wait for it.
func slow(replica func() *redistest.Server) fault {
	return fault{"slow replica", func(_ *testing.T, random *rand.Rand) {
		hit := replica()
		hit.Pause()
		time.Sleep(time.Duration(300+random.IntN(1500)) * time.Millisecond)
		hit.Resume()
	}}
}

func freeze(redis *redistest.Server) fault {
	return fault{"redis frozen", func(_ *testing.T, random *rand.Rand) {
		redis.Pause()
		time.Sleep(time.Duration(300+random.IntN(1500)) * time.Millisecond)
		redis.Resume()
	}}
}

// TestFaults: while Redis and the way to it fail in every way there is, clients
// write, watch and inform themselves through three processes, and another process commits
// five keys at a time. After each fault all of them come to the one true state; no
// acknowledged write is missing, no commit is torn, and no change was missed by a client
// that was not told 410.
func TestFaults(t *testing.T) {
	const flavor = "redis-server"
	t.Run("network", func(t *testing.T) {
		redis := redistest.Start(t, flavor, redistest.Durable...)
		p := startProxies(t, 3, redis.Addr)
		// The log is so short that a replica that is cut off for long loses its place.
		replicas := startReplicas(t, 3, func(i int) string { return "redis: {addrs: [" + p.addrs[i] + "]}" }, "REGISTRY_IMAGEAPI_STORE_HISTORYENTRIES=30", "REGISTRY_IMAGEAPI_STORE_HISTORYMINAGE=1s")
		store := redisOptions(p.addrs[:1], func(o *storeredis.Options) { o.History = storage.HistoryBounds{MaxEntries: 30, MinAge: time.Second} })
		runFaults(t, replicas, store, *faultRounds, p.networkFaults())
	})
	t.Run("crash", func(t *testing.T) {
		dir := smallDisk(t)
		redis := redistest.Start(t, flavor, append(slices.Clone(redistest.Durable), "--dir", dir, "--auto-aof-rewrite-min-size", "4mb")...)
		replicas := startReplicas(t, 3, redisAt(redis.Addr))
		faults := []fault{crash(redis), freeze(redis), full(redis), fillDisk(redis, dir)}
		runFaults(t, replicas, redisOptions([]string{redis.Addr}, nil), *faultRounds, faults)
	})
	t.Run("sentinel", func(t *testing.T) {
		const flavor = "valkey-server" // Redis 7.0 has no WAITAOF
		nodes := []*redistest.Server{redistest.Start(t, flavor, redistest.Durable...), redistest.Start(t, flavor, redistest.Durable...)}
		redistest.Replicate(t, nodes[0], nodes[1])
		sentinels := redistest.StartSentinels(t, flavor, nodes[0])
		replicas := startReplicas(t, 3, func(int) string {
			return "redis: {addrs: [" + strings.Join(sentinels.Addrs, ", ") + "], mastername: " + sentinels.MasterName + "}"
		}, "REGISTRY_IMAGEAPI_STORE_REDIS_REPLICAS=1", "REGISTRY_IMAGEAPI_STORE_REDIS_AOF=true")
		store := redisOptions(sentinels.Addrs, func(o *storeredis.Options) {
			o.Client.MasterName, o.Replicas, o.AOF = sentinels.MasterName, 1, true
		})
		follower := func() *redistest.Server {
			if sentinels.Master(t) == fmt.Sprint(nodes[0].Port) {
				return nodes[1]
			}
			return nodes[0]
		}
		runFaults(t, replicas, store, (*faultRounds+2)/3, []fault{{"sentinel fail-over", func(t *testing.T, _ *rand.Rand) {
			sentinelFailover(t, sentinels, nodes)
		}}, slow(follower)})
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, "valkey-server", redistest.Durable...)
		replicas := startReplicas(t, 3, redisAt(cluster.Addrs...), "REGISTRY_IMAGEAPI_STORE_REDIS_REPLICAS=1", "REGISTRY_IMAGEAPI_STORE_REDIS_AOF=true")
		store := redisOptions(cluster.Addrs, func(o *storeredis.Options) { o.Replicas, o.AOF = 1, true })
		runFaults(t, replicas, store, (*faultRounds+2)/3, []fault{{"cluster fail-over", func(t *testing.T, _ *rand.Rand) {
			clusterFailover(t, cluster)
		}}})
	})
}

// sentinelFailover kills the master, waits for the other to take over, and starts
// the old one again, which then follows.
func sentinelFailover(t *testing.T, sentinels *redistest.Sentinels, nodes []*redistest.Server) {
	port := sentinels.Master(t)
	old, heir := nodes[0], nodes[1]
	if fmt.Sprint(old.Port) != port {
		old, heir = heir, old
	}
	eventually(t, "the Sentinels agree", func() error { return sentinels.Agree(t, old) })
	awaitReplica(t, old)
	old.Kill()
	// A master that is back before the fail-over stays the master: with an append-only file
	// from before its last synchronization it takes its replica back, too.
	eventually(t, "the fail-over", func() error { return sentinels.Agree(t, heir) })
	old.Run(t)
	redistest.Replicate(t, heir, old) // as the Sentinels would some seconds later
	awaitReplica(t, heir)
}

// clusterFailover does the same with the master of the slot that Images are in.
func clusterFailover(t *testing.T, cluster *redistest.Cluster) {
	const key = "{tallyman}:meta"
	old := cluster.MasterOf(t, key)
	old.Kill()
	var heir *redistest.Server
	eventually(t, "the fail-over", func() error {
		if heir = cluster.FindMaster(t, key); heir == nil {
			return fmt.Errorf("no master")
		}
		return nil
	})
	old.Run(t)
	awaitReplica(t, heir)
}

func awaitReplica(t *testing.T, master *redistest.Server) {
	t.Helper()
	eventually(t, "the old master follows", func() error {
		if info := fmt.Sprint(master.Command(t, "INFO", "replication")); !strings.Contains(info, "state=online") {
			return fmt.Errorf("%s", info)
		}
		return nil
	})
}
