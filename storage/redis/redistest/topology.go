package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Replicate makes replica follow master, and waits until it does.
func Replicate(t testing.TB, master, replica *Server) {
	t.Helper()
	replica.Command(t, "REPLICAOF", "127.0.0.1", master.Port)
	eventually(t, "the replica is in step", func() bool {
		return strings.Contains(fmt.Sprint(replica.Command(t, "INFO", "replication")), "master_link_status:up")
	})
}

// Sentinels are three Sentinel processes that watch one master.
type Sentinels struct {
	// Addrs are the Sentinels' addresses; MasterName is their name of the master.
	Addrs      []string
	MasterName string
	servers    []*Server
}

// StartSentinels starts them, with a fail-over after half a second without the
// master. flavor is that of the servers.
func StartSentinels(t testing.TB, flavor string, master *Server) *Sentinels {
	t.Helper()
	s := &Sentinels{MasterName: "registry"}
	for range 3 {
		file := filepath.Join(t.TempDir(), "sentinel.conf")
		config := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]d 2\nsentinel down-after-milliseconds %[1]s 500\n"+
			"sentinel failover-timeout %[1]s 3000\nsentinel parallel-syncs %[1]s 1\n", s.MasterName, master.Port)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		server := New(t, flavor)
		server.args = []string{file, "--port", fmt.Sprint(server.Port), "--bind", "127.0.0.1", "--dir", server.dir, "--sentinel"}
		server.Run(t)
		s.servers, s.Addrs = append(s.servers, server), append(s.Addrs, server.Addr)
	}
	eventually(t, "the Sentinels know each other and the replicas", func() bool {
		for _, server := range s.servers {
			answer := fmt.Sprint(server.Command(t, "SENTINEL", "MASTER", s.MasterName))
			if !strings.Contains(answer, "num-other-sentinels:2") || strings.Contains(answer, "num-slaves:0") {
				return false
			}
		}
		return true
	})
	return s
}

// Master returns the port of the master that the Sentinels know.
func (s *Sentinels) Master(t testing.TB) string {
	t.Helper()
	answer, _ := s.servers[0].Command(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.MasterName).([]any)
	if len(answer) != 2 {
		t.Fatalf("the Sentinels know no master: %v", answer)
	}
	return fmt.Sprint(answer[1])
}

// Agree returns nil if all Sentinels say that node is the master, and node says so, too.
func (s *Sentinels) Agree(t testing.TB, node *Server) error {
	t.Helper()
	for _, sentinel := range s.servers {
		answer, _ := sentinel.Command(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.MasterName).([]any)
		if len(answer) != 2 || fmt.Sprint(answer[1]) != fmt.Sprint(node.Port) {
			return fmt.Errorf("a Sentinel says that the master is %v", answer)
		}
	}
	if role := fmt.Sprint(node.Command(t, "ROLE")); !strings.HasPrefix(role, "[master") {
		return fmt.Errorf("the role of %s is %s", node.Addr, role)
	}
	return nil
}

// Cluster is three masters with a replica each.
type Cluster struct {
	Nodes []*Server
	// Addrs are those of all nodes.
	Addrs []string
}

// StartCluster starts a Cluster with a node time-out of one second.
func StartCluster(t testing.TB, flavor string, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 6 {
		args := append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"}, args...)
		node := Start(t, flavor, append(args, "--cluster-port", fmt.Sprint(FreePort(t)))...)
		c.Nodes, c.Addrs = append(c.Nodes, node), append(c.Addrs, node.Addr)
	}
	const slots = 16384
	for i, node := range c.Nodes[:3] {
		node.Command(t, "CLUSTER", "ADDSLOTSRANGE", i*slots/3, (i+1)*slots/3-1)
	}
	for i, node := range c.Nodes {
		node.Command(t, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i > 0 {
			node.Command(t, "CLUSTER", "MEET", "127.0.0.1", c.Nodes[0].Port, clusterPort(c.Nodes[0]))
		}
	}
	c.await(t, func(info string) bool { return strings.Contains(info, "cluster_known_nodes:6") })
	for i, replica := range c.Nodes[3:] {
		id := fmt.Sprint(c.Nodes[i].Command(t, "CLUSTER", "MYID"))
		eventually(t, "a replica knows its master", func() bool {
			return strings.Contains(fmt.Sprint(replica.Command(t, "CLUSTER", "NODES")), id)
		})
		replica.Command(t, "CLUSTER", "REPLICATE", id)
	}
	c.await(t, func(info string) bool { return strings.Contains(info, "cluster_state:ok") })
	for _, replica := range c.Nodes[3:] {
		eventually(t, "the replica is in step", func() bool {
			return strings.Contains(fmt.Sprint(replica.Command(t, "INFO", "replication")), "master_link_status:up")
		})
	}
	return c
}

func clusterPort(s *Server) string { return s.args[len(s.args)-1] }

func (c *Cluster) await(t testing.TB, ok func(info string) bool) {
	t.Helper()
	for _, node := range c.Nodes {
		eventually(t, "the Cluster has formed", func() bool { return ok(fmt.Sprint(node.Command(t, "CLUSTER", "INFO"))) })
	}
}

// MasterOf returns the node that has the slot of key, among those that run.
func (c *Cluster) MasterOf(t testing.TB, key string) *Server {
	t.Helper()
	node := c.FindMaster(t, key)
	if node == nil {
		t.Fatalf("no running master has the slot of %s", key)
	}
	return node
}

// FindMaster is MasterOf where there may be none.
func (c *Cluster) FindMaster(t testing.TB, key string) *Server {
	t.Helper()
	for _, node := range c.Nodes {
		if node.cmd == nil {
			continue
		}
		slot, _ := node.Command(t, "CLUSTER", "KEYSLOT", key).(int64)
		for line := range strings.Lines(fmt.Sprint(node.Command(t, "CLUSTER", "NODES"))) {
			if strings.Contains(line, "myself,master") && ownsSlot(line, slot) {
				return node
			}
		}
	}
	return nil
}

func ownsSlot(line string, slot int64) bool {
	for _, field := range strings.Fields(line)[8:] {
		var first, last int64
		if n, _ := fmt.Sscanf(field, "%d-%d", &first, &last); n == 2 && first <= slot && slot <= last {
			return true
		}
	}
	return false
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for range 600 {
		if check() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: not in 30 s", what)
}
