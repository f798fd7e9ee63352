package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is how a target bore the load.
type report struct {
	Target string `json:"target"`
	URL    string `json:"url"`
	// Seconds is the time of the load, CPUSeconds the CPU of the target's processes in it.
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"`
	// CPUMilliseconds is the CPU for each operation that had no error, events of watches apart.
	CPUMilliseconds float64 `json:"cpuMilliseconds"`
	// RSSAnonBytes is their anonymous memory, the largest that was seen.
	RSSAnonBytes uint64            `json:"rssAnonBytes"`
	Operations   []operationReport `json:"operations"`
}

// operationReport is about one kind of operation. Times are of those without an error.
type operationReport struct {
	Name      string  `json:"name"`
	Count     int     `json:"count"`
	Errors    int     `json:"errors"`
	Error     string  `json:"error,omitempty"` // the first
	PerSecond float64 `json:"perSecond"`
	Bytes     float64 `json:"bytes"` // of an answer
	P50       float64 `json:"p50Milliseconds"`
	P99       float64 `json:"p99Milliseconds"`
	Max       float64 `json:"maxMilliseconds"`
}

func (l *load) report() report {
	r := report{
		Target: l.target.name, URL: l.target.url, Seconds: l.recorder.time.Seconds(),
		CPUSeconds: l.processes.cpu.Seconds(), RSSAnonBytes: l.processes.memory,
	}
	operations := 0
	for _, name := range slices.Sorted(maps.Keys(l.recorder.operations)) {
		o := l.recorder.operations[name]
		times := o.sorted()
		added := operationReport{
			Name: name, Count: len(times), Errors: o.errors, PerSecond: float64(len(times)) / r.Seconds,
			Bytes: float64(o.bytes) / float64(max(1, len(times))), P50: milliseconds(quantile(times, 0.5)), P99: milliseconds(quantile(times, 0.99)), Max: milliseconds(quantile(times, 1)),
		}
		if o.first != nil {
			added.Error = o.first.Error()
		}
		r.Operations = append(r.Operations, added)
		if name != "watch" {
			operations += len(times)
		}
	}
	r.CPUMilliseconds = 1000 * r.CPUSeconds / float64(max(1, operations))
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// write writes reports as a table, or as JSON. In a table, each target has its medians as
// multiples of the first one's.
func write(out io.Writer, format string, reports []report) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(reports)
	}
	var text strings.Builder
	medians := map[string]float64{}
	for i, r := range reports {
		fmt.Fprintf(&text, "%s\t%.1f s\tCPU %.2f s\t%.3f ms an operation\tRssAnon %d MiB\n", r.Target, r.Seconds, r.CPUSeconds, r.CPUMilliseconds, r.RSSAnonBytes>>20)
		fmt.Fprintln(&text, "\toperation\tcount\terrors\tper second\tbytes\tp50 ms\tp99 ms\tmax ms\tp50 ratio")
		for _, o := range r.Operations {
			ratio := ""
			if first, ok := medians[o.Name]; ok && first > 0 {
				ratio = fmt.Sprintf("%.2f", o.P50/first)
			}
			if i == 0 {
				medians[o.Name] = o.P50
			}
			fmt.Fprintf(&text, "\t%s\t%d\t%d\t%.1f\t%.0f\t%.2f\t%.2f\t%.2f\t%s\n", o.Name, o.Count, o.Errors, o.PerSecond, o.Bytes, o.P50, o.P99, o.Max, ratio)
			if o.Error != "" {
				fmt.Fprintf(&text, "\t\tfirst error: %.200s\n", o.Error)
			}
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, err := io.WriteString(table, text.String())
	return errors.Join(err, table.Flush())
}
