package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows the progress of long work: a bar with the rate and the time left
// on a terminal, or a plain line now and then if standard error is not a terminal.
type progress struct {
	bar         *progressbar.ProgressBar
	out         io.Writer
	what        string
	note        string // shown after the count, such as the current loss
	done, total int    // total is -1 if it is not known
	first       int    // how many were done before, if the work is resumed
	begin, last time.Time
}

// lineEvery is the shortest time between two plain lines, so that a log stays
// short.
const lineEvery = 10 * time.Second

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// clock returns the time of day for the beginning of a line of a log, and "" on a terminal.
func clock(out io.Writer) string {
	if isTerminal(out) {
		return ""
	}
	return time.Now().Format("15:04:05 ")
}

func newProgress(out io.Writer, what string, total int) *progress {
	p := &progress{out: out, what: what, total: total, begin: time.Now(), last: time.Now()}
	if isTerminal(out) && (total > 1 || total < 0) {
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

// add reports that n more items are done.
func (p *progress) add(n int) { p.Set(p.done+n, p.note) }

// Set reports how many items are done in total, with a note.
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
		if note != "" {
			note = ", " + note
		}
		if p.total < 0 {
			fmt.Fprintf(p.out, clock(p.out)+"%s: %d, %.1f per second%s\n", p.what, p.done, rate, note)
			return
		}
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
		fmt.Fprintf(p.out, clock(p.out)+"%s: %d of %d, %.1f per second, %v left%s\n", p.what, p.done, p.total, rate, left.Round(time.Second), note)
	}
}

// hide removes the bar until the next add, so that other lines can be printed.
func (p *progress) hide() {
	if p.bar != nil {
		p.bar.Clear()
	}
}

// line removes the bar until the next add, and prints a line.
func (p *progress) line(format string, args ...any) {
	p.hide()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// Finish is finish, for the packages whose progress is shown here.
func (p *progress) Finish() { p.finish() }

// finish removes the bar.
func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
