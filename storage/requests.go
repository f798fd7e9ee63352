package storage

import "context"

// Read selects the parts of entries to read.
type Read struct {
	// Sections names the sections to read; nil means all.
	Sections []string
	// Fresh leaves out sections that are older than the body: one that is made of the body is
	// outdated if a program that does not know it has written the body since.
	Fresh bool
	// Terms asks for Entry.Terms.
	Terms bool
}

// Memory is memory for values that are read, used up and read no more, such as those of a page of a list.
// Its zero value, and nil, have none yet.
type Memory struct{ free []byte }

type memoryKey struct{}

// WithMemory returns a context for reads whose values may be in m: they are valid until its Reset.
func WithMemory(ctx context.Context, m *Memory) context.Context {
	return context.WithValue(ctx, memoryKey{}, m)
}

// MemoryOf returns the Memory of a context, nil if it has none.
func MemoryOf(ctx context.Context) *Memory {
	m, _ := ctx.Value(memoryKey{}).(*Memory)
	return m
}

// Take returns an empty slice with room for size bytes, from nil in memory of its own.
func (m *Memory) Take(size int) []byte {
	if m == nil {
		return make([]byte, 0, size)
	}
	used := len(m.free)
	if cap(m.free)-used < size { // values of before keep theirs
		m.free, used = make([]byte, 0, max(size, 2*cap(m.free))), 0
	}
	m.free = m.free[:used+size]
	return m.free[used : used : used+size]
}

// Reset has the memory be used again. Of nil, it does nothing.
func (m *Memory) Reset() {
	if m != nil {
		m.free = m.free[:0]
	}
}

// GetRequest asks for the entries under Keys.
type GetRequest struct {
	Keys []string
	Read
}

// GetResult answers a GetRequest.
type GetResult struct {
	// Entries has one element for each key, nil if there is no entry under it.
	Entries []*Entry
	// Revision is the store's current one.
	Revision int64
}

// ScanRequest asks for the entries with From <= key < To, in key order.
type ScanRequest struct {
	From, To string
	// Term, if not empty, selects the entries that carry it.
	Term string
	// Limit bounds the number of entries returned, besides MaxPageEntries and
	// MaxPageBytes; 0 means those alone.
	Limit int
	// Revision asks for the state right after that revision, and after the whole
	// commit that it belongs to; 0 means the current state.
	Revision int64
	// KeysOnly leaves Entry.Value and Entry.Terms nil.
	KeysOnly bool
	// Count asks for ScanResult.Count, which may cost a pass over the keys. It cannot
	// be combined with Term.
	Count bool
	Read
}

// ScanResult is one page of entries.
type ScanResult struct {
	Entries []Entry
	// More reports that entries after the last one returned were left off. Entries is
	// not empty then.
	More bool
	// Count is the number of entries with From <= key < To, independent of Limit; -1 if it was
	// not asked for.
	Count int64
	// Revision is the one the page shows: the requested one or the last of its commit,
	// or the current.
	Revision int64
}

// LogRequest asks for the changes after a revision.
type LogRequest struct {
	After int64
	// Including asks for the change of the revision After itself, too, if the history has it.
	Including bool
	// Limit bounds the number of changes, besides MaxPageEntries and MaxPageBytes; 0
	// means those alone. A commit is never split, so that up to MaxMutations more may
	// come.
	Limit int
	// NoWait returns an empty result if there is no change yet. By default Log waits.
	NoWait bool
	Read
}

// PageSize returns how many entries a page has at most.
func (r *ScanRequest) PageSize() int { return pageSize(r.Limit) }

// PageSize returns how many changes a page has at most, but for the rest of a commit.
func (r *LogRequest) PageSize() int { return pageSize(r.Limit) }

func pageSize(limit int) int {
	if limit <= 0 {
		return MaxPageEntries
	}
	return min(limit, MaxPageEntries)
}

type backgroundKey struct{}

// WithBackground returns a context for calls that no request waits for.
func WithBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// IsBackground reports whether a context comes from WithBackground.
func IsBackground(ctx context.Context) bool { return ctx.Value(backgroundKey{}) != nil }
