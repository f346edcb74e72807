package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far long work is: a bar with rate and time left on a
// terminal, a plain line now and then where standard error is piped.
type progress struct {
	bar         *progressbar.ProgressBar
	out         io.Writer
	what        string
	note        string // how it goes
	done, total int
	first       int // done before, by work that this goes on with
	begin, last time.Time
}

// Plain lines come this often at most, so that a log stays short.
const lineEvery = 10 * time.Second

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newProgress(out io.Writer, what string, total int) *progress {
	p := &progress{out: out, what: what, total: total, begin: time.Now(), last: time.Now()}
	if isTerminal(out) && total > 1 {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(out),
			progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(),
			progressbar.OptionShowIts(),
			progressbar.OptionSetItsString(what),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
		p.bar.RenderBlank()
	}
	return p
}

// add says that n more are done.
func (p *progress) add(n int) { p.Set(p.done+n, p.note) }

// Set says how much is done in all and how it goes.
func (p *progress) Set(done int, note string) {
	p.done, p.note = done, note
	if p.bar != nil {
		if note != "" {
			p.bar.Describe(p.what + " (" + note + ")")
		}
		p.bar.Set(done)
		return
	}
	if now := time.Now(); now.Sub(p.last) > lineEvery && done > p.first {
		p.last = now
		rate := float64(p.done-p.first) / now.Sub(p.begin).Seconds()
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
		if note != "" {
			note = ", " + note
		}
		fmt.Fprintf(p.out, "%s: %d of %d, %.1f a second, %v left%s\n", p.what, p.done, p.total, rate, left.Round(time.Second), note)
	}
}

// hide takes the bar away until the next add, for lines of another kind.
func (p *progress) hide() {
	if p.bar != nil {
		p.bar.Clear()
	}
}

// line prints a line beside the bar.
func (p *progress) line(format string, args ...any) {
	p.hide()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// Finish is finish for packages that show their progress here.
func (p *progress) Finish() { p.finish() }

// finish takes the bar away for good.
func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
