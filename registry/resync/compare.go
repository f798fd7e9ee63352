package resync

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/records"
	"tallyman/internal/crash"
	"tallyman/registry/journal"
	"tallyman/registry/tracker"
)

// errStoreAway ends a comparison, which goes on when the store is back.
var errStoreAway = errors.New("the image store is not available")

// comparison is that of one repository with its records.
type comparison struct {
	resyncer   *Resyncer
	round      *tracker.Round
	repository string
	// known are the records from before the registry is read, nil if they are not complete: then only
	// additions are looked for.
	known *known

	held                                        map[digest.Digest]bool
	manifests, tags, recorded, failed, setAside int
	missing                                     []records.Missing
}

// known are the records of a repository, with their revisions.
type known struct {
	manifests map[digest.Digest]int64
	tags      map[string]int64
}

// number is that of the records, 0 of nil.
func (k *known) number() int {
	if k == nil {
		return 0
	}
	return len(k.manifests) + len(k.tags)
}

// compare compares a repository with its records, and, if they are complete, the records with it. It
// records what is missing there. It fails if the store is away or ctx ends; a panic, and any other
// failure, are counted.
func (r *Resyncer) compare(ctx context.Context, round *tracker.Round, repository string, complete bool) (*comparison, error) {
	c := &comparison{resyncer: r, round: round, repository: repository}
	err := crash.Guard("resync", func() error {
		if complete {
			if err := c.readRecords(ctx); err != nil {
				return err
			}
		}
		if err := c.compareManifests(ctx); err != nil {
			return err
		}
		return c.compareTags(ctx)
	})
	if err != nil && !errors.Is(err, errStoreAway) && ctx.Err() == nil {
		err = c.fail(ctx, journal.Entry{Repository: repository}, err)
	}
	changes.WithLabelValues("recorded").Add(float64(c.recorded))
	changes.WithLabelValues("failed").Add(float64(c.failed))
	return c, errors.Join(err, ctx.Err())
}

func (c *comparison) readRecords(ctx context.Context) error {
	c.known = &known{map[digest.Digest]int64{}, map[string]int64{}}
	err := c.resyncer.records.EachHolding(ctx, c.repository, func(name digest.Digest, revision int64) error {
		c.known.manifests[name] = revision
		return nil
	})
	if err != nil {
		return err
	}
	return c.resyncer.records.EachTag(ctx, c.repository, func(tag string, _ digest.Digest, revision int64) error {
		c.known.tags[tag] = revision
		return nil
	})
}

func (c *comparison) compareManifests(ctx context.Context) error {
	listed, err := c.resyncer.layout.manifests(ctx, c.repository)
	if err != nil {
		return err
	}
	c.manifests = len(listed)
	c.held = map[digest.Digest]bool{}
	for _, name := range listed {
		c.held[name] = true
		m := journal.Entry{Repository: c.repository, Digest: name}
		recorded, err := c.resyncer.tracker.HasManifest(ctx, m)
		switch {
		case err != nil:
			err = c.fail(ctx, m, err)
		case recorded:
		case c.resyncer.tracker.IsSetAside(ctx, m):
			c.setAside++
		default:
			err = c.sync(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	if c.known == nil {
		return nil
	}
	for name, revision := range c.known.manifests {
		if c.held[name] {
			continue
		}
		held, err := c.resyncer.layout.holds(ctx, c.repository, name)
		if err != nil {
			return err
		}
		if !held {
			c.missing = append(c.missing, records.Missing{Repository: c.repository, Digest: name, Revision: revision})
		}
	}
	return nil
}

func (c *comparison) compareTags(ctx context.Context) error {
	listed, err := c.resyncer.layout.tags(ctx, c.repository)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, tag := range listed {
		m := journal.Entry{Repository: c.repository, Tag: tag}
		to, err := c.resyncer.layout.tag(ctx, c.repository, tag)
		if err == nil && to != "" && !c.held[to] { // pushed since, or not there any more
			to, err = c.resyncer.layout.pointsTo(ctx, c.repository, tag)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // broken, so it points to nothing
			there[tag] = true
		case to == "": // deleted since, the remains of a tag, or one that points to nothing
		case c.resyncer.tracker.HasTag(ctx, c.repository, tag, to):
			there[tag] = true
		default:
			there[tag] = true
			if err := c.sync(ctx, m); err != nil {
				return err
			}
		}
	}
	c.tags = len(there)
	if c.known == nil {
		return nil
	}
	for tag, revision := range c.known.tags {
		if there[tag] {
			continue
		}
		to, err := c.resyncer.layout.pointsTo(ctx, c.repository, tag)
		if err != nil {
			return err
		}
		if to == "" {
			c.missing = append(c.missing, records.Missing{Repository: c.repository, Tag: tag, Revision: revision})
		}
	}
	return nil
}

func (c *comparison) sync(ctx context.Context, m journal.Entry) error {
	if err := c.round.Sync(ctx, m); err != nil {
		return c.fail(ctx, m, err)
	}
	c.recorded++
	return nil
}

// fail counts a failure, which is tried again later. It returns errStoreAway if that is the reason.
func (c *comparison) fail(ctx context.Context, m journal.Entry, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.resyncer.tracker.Failed(ctx, m, err):
		return errStoreAway
	}
	c.failed++
	return nil
}
