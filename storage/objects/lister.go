package objects

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/encoding"
)

const (
	// A list that reads values begins with pages of firstPage entries, and goes on with
	// as many as make listPageBytes, or decodedPageBytes where each is decoded for the
	// answer: objects of any size take the same memory.
	firstPage        = 32
	listPageBytes    = 512 << 10
	decodedPageBytes = 128 << 10
)

// lister reads the entries of one list page by page, all at one revision. A
// limited list with a selector looks at ever larger pages until enough match.
type lister struct {
	store     *Store
	opts      k8sstorage.ListOptions
	prefix    string // the prepared key
	from, to  string // the rest of the range
	limit     int    // entries of the next page
	pageBytes int    // size of a page of values

	pinned   int64  // revision to read at; 0 for the current one until the first page
	revision int64  // revision of the list
	count    int64  // entries in the range, if the client can use that
	matched  int64  // entries that the list holds
	lastKey  string // last entry looked at
	more     bool   // entries after lastKey exist
	keysOnly bool
	brief    bool            // the answer needs briefs alone
	memory   *storage.Memory // of the values of a page, if they are used up before the next one
	hold     *storage.Hold   // on the history after pinned, while there are more pages
	twice    bool            // the range is read once more: the hold stays

	selector *selector
	terms    []string // those of which each entry of the list carries one, if it is read by term
	planned  bool     // terms are chosen
	indexed  bool     // entries have their terms
}

func (s *Store) newLister(key string, opts k8sstorage.ListOptions) (*lister, error) {
	prefix, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	revision, from, err := k8sstorage.ValidateListOptions(prefix, s.versioner, opts)
	if err != nil {
		return nil, err
	}
	l := &lister{store: s, opts: opts, prefix: prefix, pinned: revision, limit: firstPage, pageBytes: listPageBytes, selector: s.newSelector(opts.Predicate)}
	l.from, l.to = prefixRange(prefix)
	if !opts.Recursive {
		l.to = prefix + "\x00"
	}
	if from != "" {
		l.from = from
	}
	if l.paged() {
		l.limit = int(min(opts.Predicate.Limit, storage.MaxPageEntries))
	}
	return l, nil
}

// again returns a lister of the range up to to, at the revision that l has read.
func (l *lister) again(key string, opts k8sstorage.ListOptions, to string) (*lister, error) {
	again, err := l.store.newLister(key, opts)
	if err != nil {
		return nil, err
	}
	again.opts.Predicate.Limit = 0
	again.limit, again.pageBytes, again.pinned, again.revision = firstPage, l.pageBytes, l.revision, l.revision
	again.to, again.more, again.brief = to, to != "", l.brief
	return again, nil
}

// paged reports that the client asked for a limited list.
func (l *lister) paged() bool { return l.opts.Predicate.Limit > 0 }

// full reports that the list holds as much as it may.
func (l *lister) full() bool { return l.paged() && l.matched >= l.opts.Predicate.Limit }

// each calls fn with one entry after the other until the list is full or the
// range ends. fn says whether the entry belongs to the list.
func (l *lister) each(ctx context.Context, fn func(*storage.Entry) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		page, err := l.next(ctx)
		if err != nil {
			return err
		}
		for i := range page {
			if l.full() {
				l.more = true
				return nil
			}
			l.lastKey = page[i].Key
			matched, err := fn(&page[i])
			if err != nil {
				return err
			}
			if matched {
				l.matched++
			}
		}
		if !l.more || l.full() {
			return nil
		}
	}
}

// next reads one page and moves on to the one after it.
func (l *lister) next(ctx context.Context) ([]storage.Entry, error) {
	if l.pinned < 0 { // a resourceVersion above 2^63
		return nil, l.failure(ctx, storage.ErrFuture)
	}
	if !l.planned {
		if err := l.plan(ctx); err != nil {
			return nil, Unavailable(err)
		}
	}
	l.memory.Reset()
	result, err := l.readPage(storage.WithMemory(ctx, l.memory))
	if err != nil {
		return nil, l.failure(ctx, err)
	}
	if l.pinned == 0 {
		if err := l.store.atLeast(l.opts.ResourceVersion, result.Revision); err != nil {
			return nil, err
		}
		l.pinned = result.Revision
	}
	l.revision, l.count, l.more = result.Revision, result.Count, result.More
	l.keepHistory(ctx)
	if n := len(result.Entries); n > 0 {
		l.from = result.Entries[n-1].Key + "\x00"
	}
	l.limit = nextPage(result.Entries, l.limit, l.pageBytes)
	return result.Entries, nil
}

// readPage reads a page in brief if that is enough. From the first object on of which there is no brief,
// the list reads bodies.
func (l *lister) readPage(ctx context.Context) (*storage.ScanResult, error) {
	request := storage.ScanRequest{
		From: l.from, To: l.to, Limit: l.limit, Revision: l.pinned, KeysOnly: l.keysOnly,
		Count: l.paged() && l.opts.Predicate.Empty(),
		Read:  storage.Read{Sections: bodyOnly.Sections, Terms: l.selector.usesTerms()},
	}
	if l.brief && !l.keysOnly && l.matchesBriefs() {
		inBrief := request
		inBrief.Sections, inBrief.Fresh = briefOnly, true
		result, err := l.scan(ctx, inBrief)
		if err != nil || l.matchesBriefs() && l.haveBriefs(result.Entries) {
			return result, err
		}
		l.brief = false
	}
	return l.scan(ctx, request)
}

// matchesBriefs reports whether the list's objects are told without their bodies.
func (l *lister) matchesBriefs() bool {
	return l.selector.rest.Empty() && (l.indexed || !l.selector.usesTerms())
}

// briefOnly are the sections of a list that is read in brief.
var briefOnly = []string{storage.SectionBrief}

// haveBriefs reports whether none of the entries is to be read in full.
func (l *lister) haveBriefs(entries []storage.Entry) bool {
	for i := range entries {
		if _, ok := encoding.ParseBrief(entries[i].Value.Section(storage.SectionBrief), l.store.opts.Brief.Version); !ok || entries[i].Err != nil {
			return false
		}
	}
	return true
}

// keepHistory holds the history that the remaining pages need. The hold ends with ctx or
// with the last page.
func (l *lister) keepHistory(ctx context.Context) {
	switch {
	case !l.more && l.hold != nil && !l.twice:
		l.hold.Release()
	case l.more && l.hold == nil:
		l.hold = l.store.backend.Hold(l.pinned)
		context.AfterFunc(ctx, l.hold.Release)
	case l.more:
		l.progress()
	}
}

// progress extends the hold while a page is written.
func (l *lister) progress() {
	if l.hold != nil {
		l.hold.Progress()
	}
}

// nextPage returns the size of the page after one of these entries.
func nextPage(entries []storage.Entry, limit, pageBytes int) int {
	size := 1
	for i := range entries {
		size += entries[i].Value.Size()
	}
	fitting := len(entries) * pageBytes / size
	return max(1, min(fitting, limit*4, storage.MaxPageEntries))
}

// continuation returns the token for the rest of a paged list, and how much
// that is.
func (l *lister) continuation() (token string, remaining *int64, err error) {
	return k8sstorage.PrepareContinueToken(l.lastKey, l.prefix, l.revision, l.count, l.more && l.paged(), l.opts)
}

// failure says why a page cannot be read, in Kubernetes' words.
func (l *lister) failure(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, storage.ErrFuture):
		current, currentErr := l.store.GetCurrentResourceVersion(ctx)
		if currentErr != nil {
			return currentErr
		}
		return k8sstorage.NewTooLargeResourceVersionError(uint64(l.pinned), current, 0)
	case errors.Is(err, storage.ErrCompacted) && l.opts.Predicate.Continue != "":
		return l.expiredContinue()
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired(fmt.Sprintf("The resourceVersion for the provided list is too old: %d.", l.pinned))
	}
	return Unavailable(err)
}

// expiredContinue is 410 Gone for a continue token that is too old. As upstream
// it carries a token for the rest of the list at the current revision.
func (l *lister) expiredContinue() error {
	expired := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the " +
		"remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were " +
		"created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	if token, err := k8sstorage.EncodeContinue(l.from, l.prefix, -1); err == nil {
		expired.ErrStatus.Continue = token
	}
	return expired
}
