package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{ // "" if they are right
		"-target a=http://localhost:5000": "",
		"-target a=http://localhost:5000,pid=1,token=t -target b=https://b -formats json,table": "",
		"": "there are 0 targets",
		"-target a=http://a -target b=http://b -target c=http://c": "there are 3 targets",
		"-target http://a":                "want name=url",
		"-target a=localhost":             "no URL with a host",
		"-target a=http://a,pid=x":        `pid="x" is no process`,
		"-target a=http://a,user=x":       "neither pid=N nor token=T",
		"-target a=http://a -formats xml": `"xml" is no format: want some of cbor,json`,
		"-target a=http://a -pullers -1":  "-pullers -1: want 0 or more",
		"-target a=http://a -duration 0s": "want more than 0",
		"-target a=http://a -output xml":  "want table or json",
		"-target a=http://a serve":        "arguments besides the flags",
	} {
		o, err := parse(strings.Fields(args), io.Discard)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
		if want == "" && err == nil && (o.targets[0].name != "a" || *o.workers["pushers"] != 2) {
			t.Errorf("%s: %+v", args, o)
		}
	}
}

func TestRecorder(t *testing.T) {
	var r recorder
	for n := 100; n > 0; n-- {
		r.add("get", time.Duration(n)*time.Millisecond, nil)
	}
	if got := r.add("get", time.Hour, errors.New("first")); got != 101 {
		t.Errorf("%d operations", got)
	}
	r.add("get", 0, errors.New("second"))
	o := r.operations["get"]
	times := o.sorted()
	if p50, p99, most := quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1); p50 != 51*time.Millisecond || p99 != 100*time.Millisecond || most != p99 {
		t.Errorf("p50 %s, p99 %s, max %s", p50, p99, most)
	}
	if o.errors != 2 || o.first.Error() != "first" || len(times) != 100 {
		t.Errorf("%d errors, the first %v, %d times", o.errors, o.first, len(times))
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("no times have a median")
	}
}

func TestWrite(t *testing.T) {
	var out strings.Builder
	reports := []report{
		{Target: "a", Seconds: 2, CPUSeconds: 1.5, RSSAnonBytes: 3 << 20, Operations: []operationReport{{Name: "get", Count: 7, P50: 2}}},
		{Target: "b", Operations: []operationReport{{Name: "get", Count: 8, Errors: 1, Error: "refused", P50: 3}, {Name: "push", P50: 1}}},
	}
	if err := write(&out, "table", reports); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"a 2.0 s CPU 1.50 s RssAnon 3 MiB", "get 7 0 0.0 2.00", "get 8 1 0.0 3.00 0.00 0.00 1.50", "first error: refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in %s", want, text)
		}
	}
}
