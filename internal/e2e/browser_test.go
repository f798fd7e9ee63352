package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var pictures = flag.String("pictures", "", "the directory for the pictures of the README")

// pictured are the views of the README.
var pictured = []string{"repositories", "repository", "image"}

// browser is a tab of Chromium. At the end of the test it must have had no exception, no message that the
// page's policy forbids something, no dialog of its own for credentials, and no request to another host.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	requests []string         // the URLs that were asked for
	faults   map[string]int64 // the status of answers to URLs with a text; 0 is none at all
	held     []fetch.RequestID
}

// disturb has requests whose URL contains a text answered with a status, or not at all if that is 0, until recover.
func (b *browser) disturb(text string, status int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = map[string]int64{text: status}
}

// recover ends disturb, and lets requests go on that were held.
func (b *browser) recover() {
	b.mu.Lock()
	held := b.held
	b.faults, b.held = nil, nil
	b.mu.Unlock()
	for _, id := range held {
		_, _ = chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: id}) // the page may have given up
	}
}

// proceed lets a request go on, or disturbs it.
func (b *browser) proceed(e *fetch.EventRequestPaused) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for text, status := range b.faults {
		switch {
		case !strings.Contains(e.Request.URL, text):
		case status == 0:
			b.held = append(b.held, e.RequestID)
			return
		default:
			go func() {
				_, _ = chromedp.Call(b.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{RequestID: e.RequestID, ResponseCode: status})
			}()
			return
		}
	}
	go func() {
		_, _ = chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID})
	}() // the browser may be gone
}

// openBrowser starts Chromium with an empty profile.
func openBrowser(t *testing.T, s *server) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(tool(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(patience))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, func(event any) { b.note(s, event) }); err != nil {
		t.Fatal(err)
	}
	handle := true
	call(b, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &handle})
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, problem := range b.problems {
			t.Errorf("the browser: %s", problem)
		}
	})
	return b
}

// call sends a command of the DevTools protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
}

// note writes down requests and problems, and lets requests go on.
func (b *browser) note(s *server, event any) {
	problem := ""
	switch e := event.(type) {
	case *fetch.EventRequestPaused:
		b.proceed(e)
	case *fetch.EventAuthRequired:
		cancelled := &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseCancelAuth}
		go func() {
			_, _ = chromedp.Call(b.ctx, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: cancelled})
		}()
		problem = "it asks for credentials itself for " + e.Request.URL
	case *runtime.EventExceptionThrown:
		problem = e.ExceptionDetails.Text
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork { // 401 and the like are the page's
			problem = e.Entry.Text
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && u.Host != s.addr {
			problem = "it asks another host: " + e.Request.URL
		}
		b.mu.Lock()
		b.requests = append(b.requests, e.Request.URL)
		b.mu.Unlock()
	}
	if problem != "" {
		b.mu.Lock()
		b.problems = append(b.problems, problem)
		b.mu.Unlock()
	}
}

// act runs an action and returns its value.
func act[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	return value
}

// open goes to an address of the server.
func (b *browser) open(address string) {
	b.t.Helper()
	act(b, "open "+address, chromedp.Steps(chromedp.Navigate("about:blank"), chromedp.Navigate(address)))
}

// text is that of the page, with the values of fields left out.
func (b *browser) text() string {
	b.t.Helper()
	return act(b, "read the page", chromedp.Evaluate[string]("document.body?.innerText ?? ''"))
}

// sees waits for texts to be on the page.
func (b *browser) sees(texts ...string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the page shows %q", texts), func() error {
		got := b.text()
		for _, text := range texts {
			if !strings.Contains(got, text) {
				return fmt.Errorf("no %q in %s", text, got)
			}
		}
		return nil
	})
}

// seesNone waits for texts to be gone.
func (b *browser) seesNone(texts ...string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the page does not show %q", texts), func() error {
		got := b.text()
		for _, text := range texts {
			if strings.Contains(got, text) {
				return fmt.Errorf("%q in %s", text, got)
			}
		}
		return nil
	})
}

// click clicks on the first visible element with a role of a button or link and a name that begins with name.
func (b *browser) click(name string) {
	b.t.Helper()
	quoted, err := json.Marshal(name)
	if err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, "there is "+name+" to click on", func() error {
		script := `(() => {
			const all = [...document.querySelectorAll("a, button, input[type=radio]")];
			const nameOf = (e) => (e.getAttribute("aria-label") || e.innerText || e.closest("label")?.innerText || "").trim();
			const found = all.find((e) => nameOf(e) === ` + string(quoted) + `) ?? all.find((e) => nameOf(e).startsWith(` + string(quoted) + `));
			found?.click();
			return found !== undefined;
		})()`
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script))
		if err == nil && !found {
			err = fmt.Errorf("the page has %s", b.text())
		}
		return err
	})
}

// fill types text into the field that a selector names, in place of its content.
func (b *browser) fill(selector, text string) {
	b.t.Helper()
	act(b, "fill "+selector, chromedp.Steps(chromedp.WaitVisible(chromedp.CSS(selector)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).select()", selector)), chromedp.SendKeys(chromedp.CSS(selector), text)))
}

// resize makes the window so many pixels wide, on a light or a dark desktop without animations.
func (b *browser) resize(width int64, scheme string) {
	b.t.Helper()
	act(b, "resize", chromedp.EmulateViewport(width, 900))
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// check wants the present view to be accessible in light and dark, and not to be wider than a small and a
// large screen, and keeps a picture of each (go test -artifacts).
func (b *browser) check(view string) {
	b.t.Helper()
	axe, err := os.ReadFile("../../ui/node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatalf("%v: run `make tools`", err)
	}
	for _, width := range []int64{360, 1440} {
		for _, scheme := range []string{"dark", "light"} {
			b.resize(width, scheme)
			if act(b, "measure", chromedp.Evaluate[bool]("document.documentElement.scrollWidth > innerWidth")) {
				b.t.Errorf("%s is wider than %d pixels", view, width)
			}
			act(b, "load axe", chromedp.Evaluate[chromedp.Void](string(axe)))
			for _, violation := range act(b, "run axe", chromedp.Evaluate[[]string](runAxe, chromedp.EvalAwaitPromise)) {
				b.t.Errorf("%s, %d pixels wide, %s: %s", view, width, scheme, violation)
			}
			name := fmt.Sprintf("%s-%d-%s.png", view, width, scheme)
			writeFile(b.t, filepath.Join(b.t.ArtifactDir(), name), string(act(b, "take a picture", chromedp.FullScreenshot(100))))
		}
	}
	if *pictures != "" && slices.Contains(pictured, view) {
		b.resize(1100, "light")
		path := filepath.Join(*pictures, view+".png")
		if err := os.WriteFile(path, act(b, "take a picture", chromedp.CaptureScreenshot()), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// runAxe has the rules of WCAG 2.1 AA and those of good practice, and says what breaks them.
const runAxe = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
	.then((r) => r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.map((n) => n.html).slice(0, 3)))`
