package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	imagev1 "github.com/openshift/api/image/v1"
	imageclient "github.com/openshift/client-go/image/clientset/versioned/typed/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage/redis/redistest"
)

// An Image under test is a register: absent, or a value at a resourceVersion.
type registerState struct {
	revision int64 // 0 if absent
	value    string
}

type registerOp struct {
	key, kind string // create, get, update, delete
	value     string // to write
	expect    int64  // of update and delete
}

type registerResult struct {
	refused  bool // conflict, not found, already exists
	revision int64
	value    string
}

// register is the sequential behaviour that a history is compared with. Every
// write gets a revision above the one it replaces.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(registerOp).key
			keys[key] = append(keys[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range keys {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return registerState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(registerState), input.(registerOp), output.(registerResult)
		switch in.kind {
		case "get":
			return out.revision == s.revision && out.value == s.value, s
		case "create":
			if out.refused {
				return s.revision != 0, s
			}
			return s.revision == 0, registerState{out.revision, in.value}
		case "update":
			if out.refused {
				return s.revision != in.expect, s
			}
			return s.revision == in.expect && out.revision > s.revision, registerState{out.revision, in.value}
		}
		if out.refused {
			return s.revision != in.expect, s
		}
		return s.revision == in.expect, registerState{}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// TestLinearizable: many clients read and write the same few Images through three processes.
// Their observations have an order in which one register for each Image would have answered
// the same, and revisions are unique and in order.
func TestLinearizable(t *testing.T) {
	replicas := startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
	const clients, operations, keys = 9, 150, 3
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	var wg sync.WaitGroup
	for id := range clients {
		client := replicas[id%len(replicas)].images()
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(id), 7))
			known := map[string]int64{}
			for n := range operations {
				op := registerOp{
					key: fmt.Sprintf("sha256:%064x", random.IntN(keys)), value: fmt.Sprintf("%d.%d", id, n),
					kind: []string{"get", "create", "update", "update", "delete"}[random.IntN(5)],
				}
				if op.expect = known[op.key]; op.expect == 0 && (op.kind == "update" || op.kind == "delete") {
					op.kind = "get"
				}
				called := time.Since(start).Nanoseconds()
				result, err := apply(t, client, op)
				if err != nil {
					t.Errorf("%+v: %v", op, err)
					return
				}
				returned := time.Since(start).Nanoseconds()
				if known[op.key] = result.revision; op.kind == "delete" {
					known[op.key] = 0
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: id, Input: op, Output: result, Call: called, Return: returned})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if result := porcupine.CheckOperationsTimeout(register, history, 2*time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d operations is %s", len(history), result)
	}
	checkRevisions(t, history)
}

// checkRevisions: no two writes have one revision, and a write that began after
// another had ended has a higher one, whichever Images they are of.
func checkRevisions(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	var writes []porcupine.Operation
	seen := map[int64]bool{}
	for _, o := range history {
		in, out := o.Input.(registerOp), o.Output.(registerResult)
		if out.refused || (in.kind != "create" && in.kind != "update") {
			continue
		}
		if seen[out.revision] {
			t.Errorf("two writes have revision %d", out.revision)
		}
		seen[out.revision] = true
		writes = append(writes, o)
	}
	if len(writes) < 100 {
		t.Errorf("only %d writes of %d operations took effect", len(writes), len(history))
	}
	slices.SortFunc(writes, func(a, b porcupine.Operation) int { return int(a.Return - b.Return) })
	for i, earlier := range writes {
		for _, later := range writes[i+1:] {
			if later.Call > earlier.Return && later.Output.(registerResult).revision < earlier.Output.(registerResult).revision {
				t.Errorf("%+v came after %+v", later, earlier)
			}
		}
	}
}

// apply makes one operation. A refusal because of the Image's state is a result; anything else
// is an error.
func apply(t *testing.T, client imageclient.ImageInterface, op registerOp) (registerResult, error) {
	image := newImage(op.key)
	image.Labels = map[string]string{"value": op.value}
	var err error
	var got *imagev1.Image
	switch op.kind {
	case "get":
		got, err = client.Get(t.Context(), op.key, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return registerResult{}, nil
		}
	case "create":
		got, err = client.Create(t.Context(), image, metav1.CreateOptions{})
	case "update":
		image.ResourceVersion = strconv.FormatInt(op.expect, 10)
		got, err = client.Update(t.Context(), image, metav1.UpdateOptions{})
	case "delete":
		version := strconv.FormatInt(op.expect, 10)
		err = client.Delete(t.Context(), op.key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return registerResult{refused: true}, nil
	}
	if err != nil || got == nil {
		return registerResult{}, err
	}
	revision, err := strconv.ParseInt(got.ResourceVersion, 10, 64)
	return registerResult{revision: revision, value: got.Labels["value"]}, err
}
