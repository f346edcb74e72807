package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A tab is the page of a server in headless Chromium.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	faults   []string // errors on the console, and requests to other hosts
	expected []string // what faults may contain
}

// open opens the page of a server in a browser of its own. At its end, the test fails if the
// page had an error on the console, besides those that contain a text of expected, or sent a
// request to another host.
func open(t *testing.T, url string, expected ...string) *tab {
	t.Helper()
	clients(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.WindowSize(1300, 900))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, url: url, expected: expected}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			u := e.Request.URL
			if !strings.HasPrefix(u, url+"/") && !strings.HasPrefix(u, "blob:"+url+"/") && !strings.HasPrefix(u, "data:") {
				b.fault("a request to " + u)
			}
		case *runtime.EventExceptionThrown:
			b.fault(fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				b.fault(fmt.Sprintf("console: %s", e.Args[0].Value))
			}
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError {
				b.fault(e.Entry.Text + " " + e.Entry.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.run(chromedp.Navigate(url + "/"))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.faults {
			t.Error(f)
		}
		if t.Failed() && ctx.Err() == nil {
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
			t.Log(text)
		}
	})
	return b
}

func (b *tab) fault(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.expected {
		if strings.Contains(text, e) {
			return
		}
	}
	b.faults = append(b.faults, text)
}

// expect lets the console have errors with a text.
func (b *tab) expect(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, text)
}

func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval evaluates JavaScript, and waits if it is a promise.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%v in %.300s", err, script)
	}
	return v
}

// until waits until a condition in JavaScript is true.
func (b *tab) until(condition string) {
	b.t.Helper()
	for begin := time.Now(); !eval[bool](b, "Boolean("+condition+")"); time.Sleep(30 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			b.t.Fatalf("not within 30 s: %s; the page says\n%s", condition, eval[string](b, "document.body.innerText"))
		}
	}
}

// status waits for the text of the status line.
func (b *tab) status(text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.until(fmt.Sprintf(`document.getElementById("status").textContent === %s`, quoted))
}

func (b *tab) key(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.run(chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until an element has the focus.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	quoted, _ := json.Marshal(selector)
	for range 60 {
		b.key(kb.Tab)
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%s)", quoted)) {
			return
		}
	}
	b.t.Fatalf("Tab does not reach %s", selector)
}

// choose gives files to the file button.
func (b *tab) choose(paths ...string) {
	b.t.Helper()
	b.run(chromedp.SetUploadFiles(chromedp.CSS("#choose"), paths))
}

// files writes photos of the world to files with names.
func files(t *testing.T, names ...string) (paths []string) {
	t.Helper()
	dir, list := t.TempDir(), photos(t)
	for i, name := range names {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, list[i], 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// screen sets the size of the window, and the colours.
func (b *tab) screen(width, height int64, colours string) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: colours}}})
	if err != nil {
		b.t.Fatal(err)
	}
}
