package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/storage"
	"tallyman/storage/memory"
)

// shelf is a Store whose clock the test sets.
type shelf struct {
	*Store
	t       *testing.T
	backend storage.Backend
	now     time.Time
}

func newShelf(t *testing.T, o Options) *shelf {
	s := &shelf{t: t, backend: memory.New(memory.Options{}), now: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)}
	o.Backend, o.Now = s.backend, func() time.Time { return s.now }
	s.Store = New(o)
	return s
}

// commit commits the additions of fn to a batch.
func (s *shelf) commit(fn func(ctx context.Context, b *storage.Batch) error) {
	s.t.Helper()
	b := &storage.Batch{}
	err := fn(s.t.Context(), b)
	if err != nil {
		s.t.Fatal(err)
	}
	if committed, err := b.Commit(s.t.Context(), s.backend); err != nil || !committed {
		s.t.Fatalf("%v, %v", committed, err)
	}
}

// set makes a tag of team/app point to the manifest called to, "" for none.
func (s *shelf) set(tag, to string) (before digest.Digest) {
	s.t.Helper()
	s.commit(func(ctx context.Context, b *storage.Batch) (err error) {
		before, err = s.SetTag(WithPusher(ctx, Pusher{User: to + "'s"}), b, TagChange{Repository: "team/app", Tag: tag, To: digest.Digest(to), Reference: "host/" + to})
		return err
	})
	return before
}

// tag returns the ImageTag under a prefix, nil if there is none.
func (s *shelf) tag(prefix, tag string) *imagev1.ImageTag {
	s.t.Helper()
	entry, _, err := storage.GetEntry(s.t.Context(), s.backend, prefix+"team/app!"+tag, storage.Read{})
	if err != nil {
		s.t.Fatal(err)
	}
	stored, err := DecodeTag(entry)
	if err != nil {
		s.t.Fatal(err)
	}
	return stored
}

// history prints the items of a tag, newest first.
func history(tag *imagev1.ImageTag) string {
	if tag == nil {
		return "none"
	}
	var items []string
	for i, item := range tag.Status.Items {
		items = append(items, fmt.Sprintf("%s#%d %s by %s", item.Image, item.Generation, item.Created.UTC().Format("15:04:05"), pushersOf(tag)[i].User))
	}
	return strings.Join(items, ", ")
}

// TestTagHistory: each change is an item, newest first, bounded, and never before the one below it.
func TestTagHistory(t *testing.T) {
	s := newShelf(t, Options{Depth: 3})
	for _, step := range []struct {
		to     string
		clock  time.Duration // that has passed
		before digest.Digest
		want   string
	}{
		{"a", 0, "", "a#1 03:04:05 by a's"},
		{"b", time.Minute, "a", "b#2 03:05:05 by b's, a#1 03:04:05 by a's"},
		{"b", time.Minute, "b", "b#2 03:05:05 by b's, a#1 03:04:05 by a's"}, // nothing has changed
		{"a", -time.Hour, "b", "a#3 03:05:05 by a's, b#2 03:05:05 by b's, a#1 03:04:05 by a's"},
		{"c", 2 * time.Hour, "a", "c#4 04:06:05 by c's, a#3 03:05:05 by a's, b#2 03:05:05 by b's"},
	} {
		s.now = s.now.Add(step.clock)
		if before := s.set("v1", step.to); before != step.before {
			t.Errorf("before %s it pointed to %q, want %q", step.to, before, step.before)
		}
		if got := history(s.tag(TagPrefix, "v1")); got != step.want {
			t.Errorf("after %s: %s, want %s", step.to, got, step.want)
		}
	}
	tag := s.tag(TagPrefix, "v1")
	if tag.Name != "app:v1" || tag.Namespace != "team" || tag.Annotations[AnnotationRepository] != "team/app" || tag.Status.Items[0].DockerImageReference != "host/c" {
		t.Errorf("%+v", tag)
	}
	if to, known, err := s.Tag(t.Context(), "team/app", "v1"); to != "c" || !known || err != nil {
		t.Errorf("%q, %v, %v", to, known, err)
	}
	if _, known, err := s.Tag(t.Context(), "team/app", "none"); known || err != nil {
		t.Errorf("a tag that is not there: %v, %v", known, err)
	}
}

// TestTombstone: a deleted tag is kept for a while, and comes back with its history as another
// object.
func TestTombstone(t *testing.T) {
	s := newShelf(t, Options{Tombstone: time.Hour})
	s.set("v1", "a")
	s.set("v2", "a")
	first := s.tag(TagPrefix, "v1")
	for _, tag := range []string{"v1", "v2", "never"} {
		s.set(tag, "")
	}
	gone := s.tag(DeletedPrefix, "v1")
	if s.tag(TagPrefix, "v1") != nil || history(gone) != history(first) || gone.Annotations[AnnotationDeleted] != "2026-01-02T03:04:05Z" || s.tag(DeletedPrefix, "never") != nil {
		t.Errorf("deleted: %+v", gone)
	}
	s.now = s.now.Add(time.Minute)
	s.set("v1", "b")
	back := s.tag(TagPrefix, "v1")
	if got, want := history(back), "b#2 03:05:05 by b's, a#1 03:04:05 by a's"; got != want {
		t.Errorf("it came back with %s, want %s", got, want)
	}
	if back.UID == first.UID || !back.CreationTimestamp.After(first.CreationTimestamp.Time) || back.Annotations[AnnotationDeleted] != "" || s.tag(DeletedPrefix, "v1") != nil {
		t.Errorf("it came back as %+v", back.ObjectMeta)
	}
	for _, step := range []struct {
		passed time.Duration
		number int
		left   bool
	}{{58 * time.Minute, 0, true}, {2 * time.Minute, 1, false}} {
		s.now = s.now.Add(step.passed)
		if number, err := s.Expire(t.Context()); number != step.number || err != nil {
			t.Errorf("%d tags were forgotten, %v", number, err)
		}
		if left := s.tag(DeletedPrefix, "v2") != nil; left != step.left {
			t.Errorf("after %s: there %v", step.passed, left)
		}
	}
}

// TestTagConflict: of two changes from one state, one is made.
func TestTagConflict(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("there", "a")
	for _, test := range []struct{ tag, one, two string }{{"there", "b", "c"}, {"there", "", "c"}, {"new", "b", "c"}, {"there", "a", "b"}} {
		batches := [2]*storage.Batch{{}, {}}
		for i, to := range []string{test.one, test.two} {
			if _, err := s.SetTag(t.Context(), batches[i], TagChange{Repository: "team/app", Tag: test.tag, To: digest.Digest(to)}); err != nil {
				t.Fatal(err)
			}
		}
		var committed [2]bool
		for i := range batches {
			var err error
			if committed[1-i], err = batches[1-i].Commit(t.Context(), s.backend); err != nil {
				t.Fatal(err)
			}
		}
		if committed != [2]bool{false, true} {
			t.Errorf("%+v: committed %v", test, committed)
		}
		s.set("there", "a")
	}
}

// TestOnly: a change of a tag that is to point to one manifest is made of no other.
func TestOnly(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("moved", "b")
	s.set("stays", "a")
	for tag, want := range map[string]string{"moved": "b", "stays": "", "none": ""} {
		s.commit(func(ctx context.Context, b *storage.Batch) error {
			_, err := s.SetTag(ctx, b, TagChange{Repository: "team/app", Tag: tag, Only: "a"})
			return err
		})
		if to, _, err := s.Tag(t.Context(), "team/app", tag); err != nil || to.String() != want {
			t.Errorf("%s points to %q, %v, want %q", tag, to, err, want)
		}
	}
}

// TestCorruptTag: a record that cannot be read is written anew.
func TestCorruptTag(t *testing.T) {
	s := newShelf(t, Options{})
	for _, to := range []string{"a", ""} {
		broken := storage.Mutation{Key: TagPrefix + "team/app!v1", Expect: storage.AnyRevision, Value: storage.Body([]byte("{broken"))}
		if _, err := s.backend.Commit(t.Context(), broken); err != nil {
			t.Fatal(err)
		}
		s.set("v1", to)
		if got, want := history(s.tag(TagPrefix, "v1")), map[string]string{"a": "a#1 03:04:05 by a's", "": "none"}[to]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestTagsOf(t *testing.T) {
	s := newShelf(t, Options{})
	for i := range 5 {
		s.set(fmt.Sprint("v", i), []string{"even", "odd"}[i%2])
	}
	for limit, want := range map[int]string{10: "v0 v2 v4", 2: "v0 v2"} {
		tags, err := s.TagsOf(t.Context(), "team/app", "even", limit)
		if got := strings.Join(tags, " "); got != want || err != nil {
			t.Errorf("at most %d: %s, %v, want %s", limit, got, err, want)
		}
	}
}

func TestHoldings(t *testing.T) {
	s := newShelf(t, Options{})
	hold := func(repository string) (added bool) {
		s.commit(func(ctx context.Context, b *storage.Batch) (err error) {
			added, err = s.Hold(WithPusher(ctx, Pusher{User: "alice"}), b, repository, "d", Holding{MediaType: "m", Size: 7, Children: []digest.Digest{"c"}})
			return err
		})
		return added
	}
	release := func(repository string) (held bool) {
		s.commit(func(ctx context.Context, b *storage.Batch) (err error) {
			held, err = s.Release(ctx, b, repository, "d")
			return err
		})
		return held
	}
	if !hold("team/app") || hold("team/app") || !hold("other") {
		t.Error("a repository holds it before it does, or not after")
	}
	h, err := s.Holding(t.Context(), "team/app", "d")
	if err != nil || h.MediaType != "m" || h.Size != 7 || !slices.Equal(h.Children, []digest.Digest{"c"}) || h.By.User != "alice" || !h.Since.Equal(s.now.Truncate(time.Second)) {
		t.Errorf("%+v, %v", h, err)
	}
	if holders, err := s.Holders(t.Context(), "d", 10); err != nil || !slices.Equal(holders, []string{"other", "team/app"}) {
		t.Errorf("holders are %v, %v", holders, err)
	}
	if !release("other") || release("other") {
		t.Error("it was not held, or is still")
	}
	if holders, err := s.Holders(t.Context(), "d", 10); err != nil || !slices.Equal(holders, []string{"team/app"}) {
		t.Errorf("holders are %v, %v", holders, err)
	}
	if h, err := s.Holding(t.Context(), "other", "d"); h != nil || err != nil {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestComplete(t *testing.T) {
	s := newShelf(t, Options{})
	for _, want := range []bool{false, true} {
		if complete, err := s.Complete(t.Context()); complete != want || err != nil {
			t.Errorf("%v, %v", complete, err)
		}
		if err := s.SetComplete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPusher: the texts of a client are bounded.
func TestPusher(t *testing.T) {
	p := pusherOf(WithPusher(t.Context(), Pusher{User: "alice", Client: strings.Repeat("x", maxText-1) + "€"}))
	if p.User != "alice" || p.Client != strings.Repeat("x", maxText-1) {
		t.Errorf("%+v", p)
	}
}

// TestStoredTerms: a record that comes from another store gets the terms that it was written with.
func TestStoredTerms(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("v1", "a")
	s.set("v2", "a")
	s.set("v2", "")
	s.commit(func(ctx context.Context, b *storage.Batch) error {
		_, err := s.Hold(ctx, b, "team/app", "d", Holding{})
		return err
	})
	page, err := s.backend.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Read: storage.Read{Terms: true}})
	if err != nil || len(page.Entries) != 6 {
		t.Fatalf("%d entries, %v", len(page.Entries), err)
	}
	for _, e := range page.Entries {
		changes, err := StoredTerms(e.Key, e.Value.Body())
		if err != nil {
			t.Fatal(err)
		}
		var want []storage.Term
		for i := range changes {
			want = storage.MergeTerms(want, changes[i].Apply(nil))
		}
		if !slices.Equal(want, e.Terms) {
			t.Errorf("%s has %d terms, stored with %d", e.Key, len(want), len(e.Terms))
		}
	}
	if _, err := StoredTerms(TagPrefix+"team/app!v1", []byte("{broken")); err == nil {
		t.Error("a broken tag was taken")
	}
}

// TestCompleteTerms: records of a store in an older format, which keeps no terms, are found all the
// same, and get their terms later.
func TestCompleteTerms(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("v1", "a")
	s.commit(func(ctx context.Context, b *storage.Batch) error {
		_, err := s.Hold(ctx, b, "team/app", "a", Holding{})
		return err
	})
	page, err := s.backend.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		for _, group := range []string{tagGroup, holdingGroup} {
			m := storage.Mutation{Key: e.Key, Expect: storage.AnyRevision, Value: e.Value, Terms: []storage.TermChange{{Group: group}}}
			if _, err := s.backend.Commit(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	found := func() string {
		tags, err := s.TagsOf(t.Context(), "team/app", "a", 10)
		if err == nil {
			err = s.EachHolding(t.Context(), "team/app", func(d digest.Digest, _ int64) error {
				tags = append(tags, d.String())
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(tags, " ")
	}
	if got := found(); got != "v1 a" {
		t.Errorf("without terms: %s", got)
	}
	if err := s.CompleteTerms(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.SetComplete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := found(); got != "v1 a" {
		t.Errorf("with terms: %s", got)
	}
	if n, err := s.backend.CountTerms(t.Context(), []string{ImageTerm("a"), "repository=team/app"}); err != nil && !errors.Is(err, storage.ErrNoIndex) || err == nil && (n[0] != 1 || n[1] != 1) {
		t.Errorf("%v terms, %v", n, err)
	}
}

// TestResyncRequest: a request is made one with a request that waits, and not with one that is done.
func TestResyncRequest(t *testing.T) {
	s := newShelf(t, Options{})
	r, hour, day := s.Resyncs(), time.Hour, 24*time.Hour
	for _, step := range []struct {
		add  ResyncRequest
		done bool // before
		want string
	}{
		{ResyncRequest{Grace: &day}, false, "false 24h0m0s"},
		{ResyncRequest{Grace: &hour}, false, "false 1h0m0s"},
		{ResyncRequest{Confirm: true, Grace: &day}, false, "true 1h0m0s"},
		{ResyncRequest{}, false, "true 1h0m0s"},
		{ResyncRequest{Grace: &day}, true, "false 24h0m0s"},
	} {
		before, state, err := r.State(t.Context())
		if step.done && err == nil {
			state.Handled, state.Started, state.Finished = before.Revision, s.now, s.now
			err = r.SetState(t.Context(), &state)
		}
		if err != nil || state.Due(&before, s.now, 0) == (step.done || before.Revision == 0) {
			t.Errorf("%+v, %v: due %v", state, err, state.Due(&before, s.now, 0))
		}
		made, err := r.Request(t.Context(), step.add)
		stored, _, stateErr := r.State(t.Context())
		if err != nil || stateErr != nil || made.Revision != stored.Revision || made.Revision <= before.Revision {
			t.Errorf("%+v, %+v, %v, %v", made, stored, err, stateErr)
		}
		if got := fmt.Sprint(stored.Confirm, " ", *stored.Grace); got != step.want {
			t.Errorf("the request is %s, want %s", got, step.want)
		}
	}
	over := ResyncState{Started: s.now, Finished: s.now, Handled: 1 << 62}
	if over.Due(&ResyncRequest{}, s.now.Add(59*time.Minute), hour) || !over.Due(&ResyncRequest{}, s.now.Add(hour), hour) || over.Due(&ResyncRequest{}, s.now.Add(day), 0) {
		t.Error("the period")
	}
}
