package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/section"
)

// Commit implements storage.Backend.
func (s *Store) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	if err := storage.ValidateMutations(mutations); err != nil {
		return nil, err
	}
	result, err := s.commitIn(ctx, s.Format(), mutations)
	if errors.Is(err, errOtherFormat) { // another process has upgraded the store
		if err := s.learnFormat(ctx); err != nil {
			return nil, err
		}
		result, err = s.commitIn(ctx, s.Format(), mutations)
	}
	if err != nil {
		return nil, err
	}
	s.observe(result.Revision)
	if result.Succeeded {
		s.remember(mutations, result)
	}
	return result, nil
}

func (s *Store) commitIn(ctx context.Context, format int, mutations []storage.Mutation) (*storage.CommitResult, error) {
	if format == format1 {
		return s.commitFormat1(ctx, mutations)
	}
	cutter := s.cutterOf(format)
	keys, args := []string{s.meta, s.index, s.log, s.terms, s.outcomeKey(rand.Text()), s.holds}, []any{}
	for i := range mutations {
		m := &mutations[i]
		if m.Operation != storage.CheckEmpty {
			keys = append(keys, s.valueKey(m.Key), s.historyKey(m.Key), s.objectKey(m.Key))
		}
		args = appendMutation(args, m, m.Expect, cutter, section.Append)
	}
	return s.runCommit(ctx, commit2Script, format, keys, args, mutations)
}

// cutterOf returns the Cutter of a store in a format, nil if that has no chunks.
func (s *Store) cutterOf(format int) *section.Cutter {
	if format == format2 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cutter
}

// operations are the names that scripts have for them.
var operations = map[storage.Operation]string{storage.Put: "put", storage.Delete: "delete", storage.Check: "check"}

var termOperations = map[storage.TermOperation]string{storage.ReplaceTerms: "replace", storage.AddTerms: "add", storage.RemoveTerms: "remove"}

// appendMutation appends the arguments for m, whose sections cutter cuts and encode appends.
func appendMutation(args []any, m *storage.Mutation, expect int64, cutter *section.Cutter, encode func(dst, data []byte) []byte) []any {
	if m.Operation == storage.CheckEmpty {
		term := ""
		if m.Term != "" {
			term = hashed(m.Term)
		}
		return append(args, "empty", "["+bound(m.From), "("+bound(m.To), term, "["+term+m.From, "("+term+m.To)
	}
	args = append(args, operations[m.Operation], m.Key, digits(expect))
	number := len(args)
	args = append(args, 0)
	for _, s := range m.Value {
		if s.Data == nil {
			args = append(args, s.Name, "0", "")
			continue
		}
		for _, part := range cutter.Parts(s.Name, s.Data, encode) {
			args = append(args, part.Name, "1", part.Data)
		}
	}
	args[number] = (len(args) - number - 1) / 3
	args = append(args, len(m.Terms))
	for i := range m.Terms {
		c := &m.Terms[i]
		args = append(args, c.Group, termOperations[c.Operation], storage.EncodeTerms(storage.HashTerms(c.Terms)))
	}
	return args
}

// runCommit runs the script. A retry, ours or the client's, carries the same token,
// by which the script knows a commit that it has made already. A full server makes room
// first, as much as it can for a commit that removes something.
func (s *Store) runCommit(ctx context.Context, script committer, format int, keys []string, mutations []any, all []storage.Mutation) (*storage.CommitResult, error) {
	expired, token := s.takeExpired(), ""
	released, _ := storage.Released(ctx).(*lock)
	if released != nil && released.store != s {
		released = nil
	}
	if released != nil {
		token = released.token
	}
	args := append([]any{
		format, len(all), s.clock(), s.bounds(), (s.opts.Timeout + outcomeSpare).Milliseconds(), len(expired), token,
	}, mutations...)
	keys, args = s.appendTrims(keys, args, expired)
	if released != nil {
		keys = append(keys, released.keys...)
	}
	run := s.runLimited
	if s.waits() {
		run = s.runDurably
	}
	r, err := run(ctx, script.plain, keys, args...)
	if isFull(err) {
		removes := storage.Removes(ctx, all)
		if err := s.makeRoom(ctx, removes); err != nil {
			return nil, err
		}
		if removes {
			script.plain = script.anyway
		}
		r, err = run(ctx, script.plain, keys, args...)
	}
	if isFull(err) {
		return nil, fmt.Errorf("%w: Redis has reached its maxmemory", storage.ErrFull)
	}
	if err != nil {
		return nil, err
	}
	if r.integer(0) == 0 {
		return s.conflict(r, all), nil
	}
	if released != nil && len(r) > 3 { // the first time: a retry does not know
		released.give(r.integer(3) == 1)
	}
	if err := s.setExpired(r.list(2)); err != nil {
		return nil, err
	}
	return parseOutcome(r.text(1))
}

// runLimited is run for commits. It leaves some connections to reads.
func (s *Store) runLimited(ctx context.Context, script *goredis.Script, keys []string, args ...any) (reply, error) {
	select {
	case s.commits <- struct{}{}:
		defer func() { <-s.commits }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
		return nil, storage.ErrClosed
	}
	return s.run(ctx, script, keys, args...)
}

// parseOutcome reads "<revision> <revision>,…" as commits leave it.
func parseOutcome(outcome string) (*storage.CommitResult, error) {
	last, list, ok := strings.Cut(outcome, " ")
	if !ok {
		return nil, fmt.Errorf("redis: the outcome of a commit is malformed: %q", outcome)
	}
	result := &storage.CommitResult{Succeeded: true, Revision: parseDigits(last)}
	for revision := range strings.SplitSeq(list, ",") {
		result.Revisions = append(result.Revisions, parseDigits(revision))
	}
	return result, nil
}

// conflict makes the result of a commit that did not succeed.
func (s *Store) conflict(r reply, mutations []storage.Mutation) *storage.CommitResult {
	result := &storage.CommitResult{Revision: r.integer(1), Conflict: int(r.integer(2))}
	m := &mutations[result.Conflict]
	if m.Operation == storage.CheckEmpty {
		key, revision, _ := splitMember(r.text(3))
		result.Current = &storage.Entry{Key: key, Revision: revision}
	} else if value := r.list(3); len(value) > 0 {
		result.Current = decodeValue(m.Key, value, &storage.Read{})
	}
	return result
}

// remember keeps the values that a commit has written. Of an update, only the written sections
// are known, and of a value in format 1 the body, which has no terms.
func (s *Store) remember(mutations []storage.Mutation, result *storage.CommitResult) {
	for i := range mutations {
		m := &mutations[i]
		if m.Operation != storage.Put || result.Revisions[i] == 0 {
			continue
		}
		e, read := &storage.Entry{Key: m.Key, Revision: result.Revisions[i]}, &storage.Read{Sections: []string{}}
		for _, part := range m.Value {
			read.Sections = append(read.Sections, part.Name)
			if part.Data != nil {
				e.Value = append(e.Value, storage.Section{Name: part.Name, Data: append([]byte{}, part.Data...)})
			}
		}
		if m.Expect == 0 && s.Format() != format1 {
			read = &storage.Read{Terms: true}
			var groups [][]storage.Term
			for n := range m.Terms {
				groups = append(groups, m.Terms[n].Apply(nil))
			}
			e.Terms = storage.MergeTerms(groups...)
		}
		e.Value.Sort()
		s.cache.Add(m.Key, e, read)
	}
}
