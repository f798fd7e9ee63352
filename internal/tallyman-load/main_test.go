package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{ // "" if they are right
		"-target a=http://localhost:5000": "",
		"-target a=http://localhost:5000,pid=1,token=t -target b=https://b -formats json,table": "",
		"-target a=http://a -target b=http://b -target c=http://c,separator=-":                  "",
		"":                                   "there is no target",
		"-target a=http://a -images 0":       "want -images",
		"-target a=http://a -watch yaml":     "want json, table or metadata",
		"-target a=http://a -limit -1":       "want 0 or more",
		"-target a=http://a,ca=main_test.go": "no certificates in PEM",
		"-target http://a":                   "want name=url",
		"-target a=localhost":                "no URL with a host",
		"-target a=http://a,pid=x":           `pid="x" is no process`,
		"-target a=http://a,user=x":          "none of pid=N, token=T, ca=FILE, separator=S",
		"-target a=http://a -formats xml":    `"xml" is no format: want some of cbor,json`,
		"-target a=http://a -pullers -1":     "-pullers -1: want 0 or more",
		"-target a=http://a -duration 0s":    "want more than 0",
		"-target a=http://a -output xml":     "want table or json",
		"-target a=http://a serve":           "arguments besides the flags",
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
		r.add("get", time.Duration(n)*time.Millisecond, 3, nil)
	}
	if got := r.add("get", time.Hour, 7, errors.New("first")); got != 101 {
		t.Errorf("%d operations", got)
	}
	r.add("get", 0, 0, errors.New("second"))
	o := r.operations["get"]
	times := o.sorted()
	if p50, p99, most := quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1); p50 != 51*time.Millisecond || p99 != 100*time.Millisecond || most != p99 {
		t.Errorf("p50 %s, p99 %s, max %s", p50, p99, most)
	}
	if o.errors != 2 || o.first.Error() != "first" || len(times) != 100 || o.bytes != 300 {
		t.Errorf("%d errors, the first %v, %d times, %d bytes", o.errors, o.first, len(times), o.bytes)
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("no times have a median")
	}
}

// TestReadEvents: an event counts from the birth of its Image, however long its line is.
func TestReadEvents(t *testing.T) {
	l := &load{}
	l.born.Store("sha256:old", time.Now().Add(-time.Hour))
	long := `,"rest":"` + strings.Repeat("x", 3*watchBuffer) + `"}}`
	err := l.readEvents(strings.NewReader(
		`{"type":"ADDED","object":{"metadata":{"name":"sha256:new"}}}` + "\n" +
			`{"type":"MODIFIED","object":{"metadata":{"name":"sha256:old"}}}` + "\n" +
			`{"type":"ADDED","object":{"metadata":{"name":"sha256:old"}` + long + "\n" + `{"type":"ADDED"`))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a watch that ends: %v", err)
	}
	if err := l.readEvents(strings.NewReader(`{"type":"ERROR","object":{"code":410}}` + "\n")); err == nil || !strings.Contains(err.Error(), `"code":410`) {
		t.Errorf("a watch that fails: %v", err)
	}
	times := l.recorder.operations["watch"].sorted()
	if len(times) != 2 || times[0] != 0 || times[1] < time.Hour || l.recorder.operations["watch"].bytes < int64(len(long)) {
		t.Errorf("%v, %d bytes", times, l.recorder.operations["watch"].bytes)
	}
}

// TestTail: the end of an answer is kept, and not all of it.
func TestTail(t *testing.T) {
	var end tail
	for range 100 {
		if n, err := end.Write(make([]byte, tailSize/3)); n != tailSize/3 || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = end.Write([]byte(`"continue":"next"}}`))
	if match := continuation.FindSubmatch(end); match == nil || string(match[1]) != "next" || len(end) < tailSize || len(end) > 3*tailSize {
		t.Errorf("%q of %d bytes", match, len(end))
	}
}

// TestRichImage: an image is an Image with all about it, under a name of the target.
func TestRichImage(t *testing.T) {
	var image imagev1.Image
	i := newRichImage()
	if err := json.Unmarshal(i.object((&target{separator: "-"}).imageName(i.digest())), &image); err != nil {
		t.Fatal(err)
	}
	if image.Name != strings.Replace(i.digest(), ":", "-", 1) || len(image.DockerImageLayers) != richLayers || image.DockerImageManifest != string(i.manifest) || image.DockerImageConfig != string(i.config) {
		t.Errorf("%+v", image)
	}
	if again := i.again(); again.digest() == i.digest() || string(again.config) != string(i.config) {
		t.Error("it is the same manifest again, or another config")
	}
}

func TestWrite(t *testing.T) {
	var out strings.Builder
	reports := []report{
		{Target: "a", Seconds: 2, CPUSeconds: 1.5, CPUMilliseconds: 0.25, RSSAnonBytes: 3 << 20, Operations: []operationReport{{Name: "get", Count: 7, Bytes: 512, P50: 2}}},
		{Target: "b", Operations: []operationReport{{Name: "get", Count: 8, Errors: 1, Error: "refused", P50: 3}, {Name: "push", P50: 1}}},
	}
	if err := write(&out, "table", reports); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"a 2.0 s CPU 1.50 s 0.250 ms an operation RssAnon 3 MiB", "get 7 0 0.0 512 2.00", "get 8 1 0.0 0 3.00 0.00 0.00 1.50", "first error: refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in %s", want, text)
		}
	}
}
