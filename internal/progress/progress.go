// Package progress shows how far a long command is: a bar on a terminal, a line from time to time elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// period is the time between two lines where there is no terminal.
const period = 10 * time.Second

// Options say how progress is shown.
type Options struct {
	// Writer gets it, most often standard error. It gets a bar if it is a terminal, or if Terminal is set.
	Writer io.Writer
	// Verb and Unit are those of lines such as "exported 5 of 10 objects".
	Verb, Unit string
	// Quiet shows nothing.
	Quiet bool
	// Terminal has a bar drawn on any Writer.
	Terminal bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Meter shows the progress of one command. Create it with New, and call End when the command ends. It can be used
// by several goroutines.
type Meter struct {
	o       Options
	mu      sync.Mutex
	started time.Time
	printed time.Time
	bar     *progressbar.ProgressBar // nil until the first Set, and without a terminal
}

// New starts the clock.
func New(o Options) *Meter {
	if o.Now == nil {
		o.Now = time.Now
	}
	if f, ok := o.Writer.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.Terminal = true
	}
	now := o.Now()
	return &Meter{o: o, started: now, printed: now}
}

// Set says that so many units of a total are done. A total of 0 is unknown; it may change, and be too small.
func (m *Meter) Set(done, total int64) {
	if m.o.Quiet {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if total > 0 {
		total = max(total, done)
	}
	if m.o.Terminal {
		m.draw(done, total)
		return
	}
	if now := m.o.Now(); now.Sub(m.printed) >= period {
		m.printed = now
		_, _ = fmt.Fprintln(m.o.Writer, m.line(done, total, now.Sub(m.started))) // the command goes on without
	}
}

func (m *Meter) draw(done, total int64) {
	if total == 0 {
		total = -1 // a spinner
	}
	if m.bar == nil {
		m.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(m.o.Writer), progressbar.OptionSetDescription(m.o.Verb),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(m.o.Unit), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	if m.bar.GetMax64() != total {
		m.bar.ChangeMax64(total)
	}
	_ = m.bar.Set64(done) // the command goes on without
}

// line is such as "exported 500 of 2000 objects, 250/s, 6s left".
func (m *Meter) line(done, total int64, passed time.Duration) string {
	rate := float64(done) / max(passed.Seconds(), 0.001)
	if total == 0 {
		return fmt.Sprintf("%s %d %s, %.0f/s", m.o.Verb, done, m.o.Unit, rate)
	}
	text := fmt.Sprintf("%s %d of %d %s, %.0f/s", m.o.Verb, done, total, m.o.Unit, rate)
	if rate > 0 && done < total {
		text += fmt.Sprintf(", %s left", time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// Print writes a line that stays, above the bar.
func (m *Meter) Print(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil {
		_ = m.bar.Clear()
	}
	_, _ = fmt.Fprintln(m.o.Writer, line) // the command goes on without
}

// End takes the bar away.
func (m *Meter) End() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil {
		_ = m.bar.Clear() // the command has ended
	}
}
