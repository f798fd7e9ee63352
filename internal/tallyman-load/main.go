// Command tallyman-load puts a load on registries and servers of Images and reports how they bore
// it: at the registry's door whole pushes, manifests alone, moves of one tag, and pulls; at that of
// the Image API, where a target has one, reads, writes and watches.
//
// A run is bounded in time and in the number of operations. Several targets take turns, so that
// the noise of the machine is for all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// options are those of the command line.
type options struct {
	targets  targets
	duration time.Duration
	turns    int
	// most bounds the operations of each kind on a target.
	most    int
	workers map[string]*int
	formats formats
	// watched is the format of watches.
	watched formats
	gzip    bool
	// limit is that of the pages of a list, 0 for lists in one piece.
	limit int
	// fieldSelector is that of lists.
	fieldSelector string
	// images is how many images are pushed before the load, created how many Images are created.
	images, created int
	layerBytes      int
	output          string
}

// kinds are the kinds of workers, with their number if the command line does not say.
var kinds = []struct {
	name   string
	number int
	help   string
}{
	{"pushers", 2, "push new images"},
	{"putters", 0, "put new manifests whose blobs are there, each with a tag of its own"},
	{"repushers", 1, "move one tag between two images"},
	{"pullers", 2, "pull images"},
	{"getters", 2, "get Images"},
	{"listers", 1, "list all Images, in each of the formats in turn"},
	{"watchers", 1, "watch Images; their operations are events, and take the time from the end of the push or create"},
	{"creators", 0, "create Images"},
	{"deleters", 0, "delete the Images that were created before the load, each once"},
}

func parse(args []string, messages io.Writer) (*options, error) {
	o := &options{workers: map[string]*int{}, formats: formats{"json"}, watched: formats{"metadata"}}
	flags := flag.NewFlagSet("tallyman-load", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Var(&o.targets, "target", "a registry or server of Images: `name=url[,pid=N…][,token=T][,ca=FILE][,separator=-]`; pid is a process whose CPU and memory count, "+
		"ca has the certificates to trust, separator stands in names for the colon of a digest. Repeated for each")
	flags.DurationVar(&o.duration, "duration", 10*time.Second, "time of the load on each target")
	flags.IntVar(&o.turns, "turns", 4, "number of turns in which targets share the time")
	flags.IntVar(&o.most, "most", 100_000, "operations of each kind on a target, at most")
	for _, kind := range kinds {
		o.workers[kind.name] = flags.Int(kind.name, kind.number, "workers that "+kind.help)
	}
	flags.Var(&o.formats, "formats", "formats of lists, comma-separated, of "+knownFormats())
	flags.Var(&o.watched, "watch", "format of watches, of json, table and metadata")
	flags.BoolVar(&o.gzip, "gzip", true, "accept lists in gzip, as client-go does")
	flags.IntVar(&o.limit, "limit", 0, "Images in a page of a list; 0 is for all in one")
	flags.StringVar(&o.fieldSelector, "field-selector", "", "field selector of lists")
	flags.IntVar(&o.images, "images", 20, "images that are pushed before the load")
	flags.IntVar(&o.created, "created", 0, "Images that are created through the API before the load")
	flags.IntVar(&o.layerBytes, "layer-bytes", 16<<10, "size of the layer of an image")
	flags.StringVar(&o.output, "output", "table", "table or json")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return o, o.validate(flags.NArg())
}

func (o *options) validate(arguments int) error {
	switch {
	case arguments > 0:
		return errors.New("there are arguments besides the flags")
	case len(o.targets) == 0:
		return errors.New("there is no target: want one or more -target")
	case o.duration <= 0 || o.turns < 1 || o.most < 1 || o.layerBytes < 1:
		return errors.New("-duration, -turns, -most and -layer-bytes want more than 0")
	case o.images < 0 || o.created < 0 || o.limit < 0:
		return errors.New("-images, -created and -limit want 0 or more")
	case o.images == 0 && *o.workers["pullers"]+*o.workers["repushers"]+*o.workers["putters"] > 0:
		return errors.New("-pullers, -repushers and -putters want -images")
	case len(o.watched) != 1 || !streamed[o.watched[0]]:
		return fmt.Errorf("-watch %s: want json, table or metadata", &o.watched)
	case o.output != "table" && o.output != "json":
		return fmt.Errorf("-output %q: want table or json", o.output)
	}
	for name, number := range o.workers {
		if *number < 0 {
			return fmt.Errorf("-%s %d: want 0 or more", name, *number)
		}
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tallyman-load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, messages io.Writer) error {
	o, err := parse(args, messages)
	if err != nil {
		return err
	}
	var loads []*load
	for i := range o.targets {
		l := newLoad(o, &o.targets[i])
		if err := l.prepare(ctx); err != nil {
			return fmt.Errorf("%s: %w", o.targets[i].name, err)
		}
		loads = append(loads, l)
	}
	for range o.turns {
		for _, l := range loads {
			if err := l.turn(ctx, o.duration/time.Duration(o.turns)); err != nil {
				return fmt.Errorf("%s: %w", l.target.name, err)
			}
		}
	}
	var reports []report
	for _, l := range loads {
		reports = append(reports, l.report())
	}
	return write(out, o.output, reports)
}
