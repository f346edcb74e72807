package serve

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cyclecap/pipeline"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestPageClientsLooks writes pictures of the page to the folder CYCLECAP_SCREENSHOTS, for people
// to look at, and checks that nothing is wider than the window.
func TestPageClientsLooks(t *testing.T) {
	clients(t)
	url, _, _ := start(t, nil)
	b := open(t, url)
	look := func(name string) {
		t.Helper()
		for _, width := range []int64{360, 1300, 2560} {
			for _, colours := range []string{"light", "dark"} {
				b.screen(width, 900, colours)
				if n := eval[int64](b, "document.documentElement.scrollWidth"); n > width {
					t.Errorf("%s: %d px wide in a window of %d", name, n, width)
				}
				if dir := os.Getenv("CYCLECAP_SCREENSHOTS"); dir != "" {
					picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, colours)), picture, 0o666); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	b.until(`document.querySelectorAll("#samples img").length === 6`)
	look("empty")
	b.run(chromedp.SetValue(chromedp.CSS("#texts"), "a red balloon\ntwo brown dogs in a city\ntwo boats on the sea"))
	b.run(chromedp.Click(chromedp.CSS("#samples .all")))
	b.status("6 done")
	look("photos")
}

// shown is what the page shows of a caption.
type shown struct {
	Pipeline, Text, Score string
	Words, Tips           []string
	Rows                  [][]string // the table of words
	Alternatives          [][]string // texts and scores
}

// shownCaptions reads the captions of each photo from the page.
const shownCaptions = `[...document.querySelectorAll("article")].map((a) => [...a.querySelectorAll(".said > div")].map((s) => ({
	Pipeline: s.className,
	Text: [...s.querySelector(".caption").childNodes].map((n) => n.firstChild?.textContent ?? n.textContent).join(""),
	Score: s.querySelector(":scope > .score").textContent,
	Words: [...s.querySelectorAll(".word")].map((w) => w.firstChild.textContent),
	Tips: [...s.querySelectorAll(".tip")].map((w) => w.textContent.trim()),
	Rows: [...s.querySelectorAll("tbody tr")].map((r) => [...r.children].map((c) => c.textContent)),
	Alternatives: [...s.querySelectorAll("li")].map((l) => [...l.children].map((c) => c.textContent)),
})))`

// percentage writes a probability as the page does.
func percentage(p float64) string {
	switch {
	case p == 1:
		return "100%"
	case p > .995:
		return ">99%"
	case p < .005:
		return "<1%"
	}
	return fmt.Sprintf("%.0f%%", math.Floor(100*p+.5))
}

// twoDecimals writes a number as the page does.
func twoDecimals(x float64) string {
	text := fmt.Sprintf("%.2f", x)
	if text == "-0.00" {
		return "0.00"
	}
	return strings.Replace(text, "-", "−", 1)
}

// checkCaption compares a caption on the page with that of the server.
func checkCaption(t *testing.T, got shown, want ownCaption) {
	t.Helper()
	if got.Pipeline != want.Pipeline || got.Text != want.Text || got.Score != "score "+twoDecimals(want.Score) {
		t.Errorf("got %s %q, %s; want %s %q, %v", got.Pipeline, got.Text, got.Score, want.Pipeline, want.Text, want.Score)
	}
	if len(got.Alternatives) != len(want.Alternatives) {
		t.Fatalf("%d alternatives, want %d", len(got.Alternatives), len(want.Alternatives))
	}
	for i, a := range want.Alternatives {
		if want := []string{a.Text, twoDecimals(a.Score)}; !slices.Equal(got.Alternatives[i], want) {
			t.Errorf("alternative %d: got %q, want %q", i, got.Alternatives[i], want)
		}
	}
	// The probability of a word is the product of those of its tokens.
	var words, tips []string
	sum := 0.0
	for i, tok := range want.Tokens {
		text := strings.TrimSpace(tok.Text)
		mark := strings.ContainsAny(text, ".,")
		if i == 0 || strings.HasPrefix(tok.Text, " ") || mark {
			words, tips, sum = append(words, ""), append(tips, ""), 0
		}
		sum += tok.LogProb
		words[len(words)-1] += text
		tips[len(tips)-1] = percentage(math.Exp(sum))
	}
	if !slices.Equal(got.Words, words) || !slices.Equal(got.Tips, tips) {
		t.Errorf("the words are %q %q, want %q %q", got.Words, got.Tips, words, tips)
	}
	for i, row := range got.Rows {
		if row[0] != words[i] || row[1] != tips[i] {
			t.Errorf("row %d is %q, want %q %q", i, row, words[i], tips[i])
		}
	}
	if len(got.Rows) != len(words) {
		t.Errorf("%d rows for %d words", len(got.Rows), len(words))
	}
}

// answersOf asks the server for what the page asks for.
func answersOf(t *testing.T, url string, list [][]byte, fields ...string) (out []photoAnswer) {
	t.Helper()
	for _, p := range list {
		body, kind := form(t, [][]byte{p}, append([]string{"gap", "true"}, fields...)...)
		answer, text := post(t, url+"/caption", kind, body)
		if answer.StatusCode != http.StatusOK {
			t.Fatal(text)
		}
		out = append(out, decode[struct{ Photos []photoAnswer }](t, text).Photos[0])
	}
	return out
}

type photoAnswer struct {
	Name     string
	Captions []ownCaption
	Gap      *ownGap
}

// TestPageClients adds photos in each way and compares all that the page shows and exports with
// the answers of the server.
func TestPageClients(t *testing.T) {
	clients(t)
	url, _, _ := start(t, nil)
	b := open(t, url)
	names := []string{"COCO_val2014_000000000042.jpg", "it's 100% \"odd\", or not.jpg", "a.jpg"}
	paths := files(t, names...)
	b.until(`!document.getElementById("start").hidden`)
	b.choose(paths...)
	b.status("3 done")
	list := photos(t)[:3]
	want := answersOf(t, url, list, "decode", "beam", "beam", "5")
	check := func(want []photoAnswer) {
		t.Helper()
		got := eval[[][]shown](b, shownCaptions)
		if len(got) != len(want) {
			t.Fatalf("%d photos, want %d", len(got), len(want))
		}
		for i, w := range want {
			if len(got[i]) != 2 {
				t.Fatalf("photo %d has %d captions", i, len(got[i]))
			}
			for k, c := range w.Captions {
				checkCaption(t, got[i][k], c)
			}
		}
	}
	check(want)
	if got := eval[[]string](b, `[...document.querySelectorAll("h3")].map((h) => h.textContent)`); !slices.Equal(got, names) {
		t.Errorf("names %q", got)
	}

	t.Run("gap", func(t *testing.T) {
		labels := eval[[]string](b, `[...document.querySelectorAll(".gap svg")].map((s) => s.getAttribute("aria-label"))`)
		for i, w := range want {
			says := fmt.Sprintf("feature is at %s, and textualised at %s.", twoDecimals(w.Gap.Image[0]), twoDecimals(w.Gap.Textualised[0]))
			if !strings.Contains(labels[i], says) {
				t.Errorf("photo %d: %q does not say %q", i, labels[i], says)
			}
		}
		// The photo's points lie as far apart in the picture as the numbers say, in its unit:
		// the same for all photos.
		var units []float64
		for i, own := range eval[[][4]float64](b, `[...document.querySelectorAll(".gap svg")].map((s) => [...s.querySelector(".way").getAttribute("d").matchAll(/[\d.]+/g)].map(Number))`) {
			g := want[i].Gap
			units = append(units, (own[2]-own[0])/(g.Textualised[0]-g.Image[0]))
			if y := (own[1] - own[3]) / (g.Textualised[1] - g.Image[1]); math.Abs(y-units[i]) > 1 || math.Abs(units[i]-units[0]) > 1e-6*units[0] || units[i] < 50 {
				t.Errorf("photo %d: units %v and %v", i, units, y)
			}
		}
	})

	t.Run("probability of a word", func(t *testing.T) {
		b.run(chromedp.ScrollIntoView(chromedp.CSS(".word:nth-of-type(2)")))
		at := eval[[]float64](b, `(() => { const r = document.querySelectorAll(".word")[1].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`)
		const visible = `[...document.querySelectorAll(".tip")].map((e, i) => [e, i]).filter(([e]) => getComputedStyle(e).visibility === "visible").map(([, i]) => i)`
		if got := eval[[]int](b, visible); len(got) != 0 {
			t.Errorf("words %v show a probability", got)
		}
		b.run(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
		if got := eval[[]int](b, visible); !slices.Equal(got, []int{1}) {
			t.Errorf("words %v show a probability, want the second", got)
		}
		b.key(kb.Escape)
		b.run(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1))
	})

	t.Run("similarity", func(t *testing.T) {
		texts := []string{"a red balloon", "two dogs", "a yellow car at night"}
		b.run(chromedp.SendKeys(chromedp.CSS("#texts"), strings.Join(texts, "\n")), chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(chromedp.ModifierCtrl)))
		b.until(`document.querySelectorAll(".sims tbody tr").length === 9`)
		b.status("3 done")
		got := eval[[][][]string](b, `[...document.querySelectorAll(".sims")].map((s) => [...s.querySelectorAll("tbody tr")].map((r) => [...r.children].map((c) => c.textContent).concat(r.style.getPropertyValue("--share"))))`)
		for i, p := range list {
			body, kind := form(t, [][]byte{p}, "text", texts[0], "text", texts[1], "text", texts[2])
			_, answer := post(t, url+"/similarity", kind, body)
			want := decode[struct{ Cosines, Probabilities [][]float64 }](t, answer)
			for k, text := range texts {
				row := got[i][k]
				share, err := strconv.ParseFloat(row[3], 64)
				if !slices.Equal(row[:3], []string{text, twoDecimals(want.Cosines[0][k]), percentage(want.Probabilities[0][k])}) || err != nil || math.Abs(share-want.Probabilities[0][k]) > 1e-9 {
					t.Errorf("photo %d: %q, want %q %v %v", i, row, text, want.Cosines[0][k], want.Probabilities[0][k])
				}
			}
		}
		check(want) // the captions stay
	})

	t.Run("curl", func(t *testing.T) {
		for i, line := range eval[[]string](b, `[...document.querySelectorAll("pre code")].map((c) => c.textContent)`) {
			cmd := exec.Command("bash", "-c", line)
			cmd.Dir = filepath.Dir(paths[0])
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			got := decode[captioned](t, string(out)).Photos
			name := strings.ReplaceAll(names[i], `"`, "%22") // as curl writes it in a form
			if len(got) != 1 || got[0].Captions[1].LogProb != want[i].Captions[1].LogProb || got[0].Name != name {
				t.Errorf("%s: %.200s", line, out)
			}
		}
	})

	t.Run("export", func(t *testing.T) {
		dir := t.TempDir()
		_, err := chromedp.Call(b.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir})
		if err != nil {
			t.Fatal(err)
		}
		export := func(form, name string) string {
			t.Helper()
			b.run(chromedp.Click(chromedp.CSS("[data-export=" + form + "]")))
			for range 300 {
				if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(data) > 0 {
					os.Remove(filepath.Join(dir, name))
					return string(data)
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Fatalf("%s was not saved", name)
			return ""
		}
		var text strings.Builder
		for i, w := range want {
			for _, c := range w.Captions {
				fmt.Fprintf(&text, "%s (%s): %s\n", names[i], c.Pipeline, c.Text)
			}
		}
		if got := export("text", "captions.txt"); got != text.String() {
			t.Errorf("got\n%s\nwant\n%s", got, text.String())
		}
		got := decode[struct {
			Model, Decode string
			Beam          int
			Photos        []struct {
				photoAnswer
				Similarity []struct {
					Text                string
					Cosine, Probability float64
				}
			}
		}](t, export("json", "captions.json"))
		if got.Model != "world" || got.Decode != "beam" || got.Beam != 5 || len(got.Photos) != 3 {
			t.Errorf("%+v", got)
		}
		for i, p := range got.Photos {
			w := want[i]
			w.Name = names[i]
			if !reflect.DeepEqual(p.photoAnswer, w) || len(p.Similarity) != 3 || p.Similarity[1].Text != "two dogs" || p.Similarity[1].Cosine == 0 {
				t.Errorf("photo %d: got %+v, want %+v", i, p, w)
			}
		}
		type result struct {
			ImageID int64 `json:"image_id"`
			Caption string
		}
		// One name is not COCO's: the photos have their numbers.
		results := decode[[]result](t, export("coco", "results.json"))
		for i, r := range results {
			if r.ImageID != int64(i+1) || r.Caption != want[i].Captions[1].Text {
				t.Errorf("result %d: %+v", i, r)
			}
		}
		// Without the two others it has the id of its name.
		for range 2 {
			b.run(chromedp.Click(chromedp.CSS("article:last-child .head button")))
		}
		b.status("1 done")
		if results := decode[[]result](t, export("coco", "results.json")); len(results) != 1 || results[0].ImageID != 42 {
			t.Errorf("%+v", results)
		}
	})

	t.Run("drop and paste", func(t *testing.T) {
		b.run(chromedp.Click(chromedp.CSS("#clear")))
		b.until(`document.getElementById("photos").hidden && document.activeElement.id === "choose"`)
		const transfer = `(async () => { const d = new DataTransfer(); const r = await fetch("page/samples/%d.jpg"); d.items.add(new File([await r.blob()], "%[1]d.jpg", {type: "image/jpeg"})); `
		if !eval[bool](b, fmt.Sprintf(transfer, 2)+`const over = new DragEvent("dragover", {dataTransfer: d, bubbles: true, cancelable: true});
			document.body.dispatchEvent(over);
			const marked = document.body.classList.contains("over");
			document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: d, bubbles: true, cancelable: true}));
			return over.defaultPrevented && marked && !document.body.classList.contains("over"); })()`) {
			t.Error("the page does not take what is dropped")
		}
		b.status("1 done")
		eval[any](b, fmt.Sprintf(transfer, 3)+`document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: d, bubbles: true, cancelable: true})); })()`)
		b.status("2 done")
		var samples [][]byte
		for i := 2; i < 4; i++ {
			_, file := get(t, fmt.Sprintf("%s/page/samples/%d.jpg", url, i))
			samples = append(samples, []byte(file))
		}
		beams := answersOf(t, url, samples, "decode", "beam", "beam", "5")
		check(beams)

		// Greedy captions have no alternatives.
		b.run(chromedp.SetValue(chromedp.CSS("#decode"), "greedy"))
		eval[any](b, `document.getElementById("decode").dispatchEvent(new Event("change"))`)
		b.until(`document.querySelectorAll(".said li").length === 0 && document.getElementById("beam-field").hidden`)
		b.status("2 done")
		check(answersOf(t, url, samples, "decode", "greedy"))
	})
}

// TestPageClientsErrors: what goes wrong is said at the photo, in words.
func TestPageClientsErrors(t *testing.T) {
	clients(t)
	url, s, _ := start(t, func(o *Options) { o.Queue, o.MaxBody = 1, 1<<20 })
	b := open(t, url)
	b.until(`!document.getElementById("start").hidden`)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	note := func(i int) string {
		return fmt.Sprintf(`document.querySelectorAll("article")[%d].querySelector(".state").textContent`, i)
	}
	photo := files(t, "photo.jpg")[0]

	b.expect("400") // the console says so too
	b.choose(file("notes.txt", []byte("these are notes")), file("large.jpg", make([]byte, 2<<20)), photo)
	b.status("1 done, 2 failed (large.jpg)")
	if got := eval[string](b, note(0)); !strings.Contains(got, "Not a JPEG") {
		t.Error(got)
	}
	if got := eval[string](b, note(1)); got != "The file has 2.1 MB; this server takes 1 MB (--max-body)." {
		t.Error(got)
	}
	if got := eval[string](b, note(2)); got != "" {
		t.Error(got)
	}
	b.run(chromedp.Click(chromedp.CSS("#clear")))

	// The queue is full: the page waits and tries again.
	b.expect("429")
	release, busy := make(chan struct{}), make(chan struct{})
	go s.worker.exec.Do(func() error {
		close(busy)
		<-release
		return nil
	})
	<-busy
	others := make(chan int, 2)
	for range 2 { // one is with the worker, one in the queue
		go func() {
			answer, _ := post(t, url+"/features", "application/json", strings.NewReader(`{"texts": ["a"]}`))
			others <- answer.StatusCode
		}()
		time.Sleep(100 * time.Millisecond)
	}
	b.choose(photo)
	b.until(`/^The server is busy. Trying again in \d+ s …$/.test(` + note(0) + `)`)
	close(release)
	b.status("1 done")
	for range 2 {
		if status := <-others; status != http.StatusOK {
			t.Error(status)
		}
	}

	// Offline, and online again.
	b.expect("ERR_INTERNET_DISCONNECTED")
	offline := func(off bool) {
		rules := []*network.Conditions{{Offline: off, DownloadThroughput: -1, UploadThroughput: -1}}
		if _, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{MatchedNetworkConditions: rules}); err != nil {
			t.Fatal(err)
		}
	}
	offline(true)
	b.choose(photo)
	b.status("1 done, 1 failed (photo.jpg)")
	if got := eval[string](b, note(1)); !strings.HasPrefix(got, "The server cannot be reached") {
		t.Error(got)
	}
	offline(false)
	b.run(chromedp.Click(chromedp.CSS("article:last-child .result > button")))
	b.status("2 done")
}

// TestPageClientsLoading opens the page before the models are loaded.
func TestPageClientsLoading(t *testing.T) {
	clients(t)
	url, s, _ := start(t, nil)
	s.models.replace(nil)
	b := open(t, url, "503")
	b.until(`document.getElementById("trouble").textContent === "The server is loading its models …"`)
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	b.until(`document.getElementById("trouble").hidden && !document.getElementById("start").hidden`)
}

// TestPageClientsKey gives a wrong API key and then the right one, which stays in the tab.
func TestPageClientsKey(t *testing.T) {
	clients(t)
	url, _, _ := start(t, func(o *Options) { o.Keys = []string{"right one"} })
	b := open(t, url, "401")
	b.until(`document.activeElement.id === "key"`)
	b.run(chromedp.KeyEvent("wrong one" + kb.Enter))
	b.until(`document.querySelector("#key-form label").textContent.startsWith("This API key is not one of the server's") && document.activeElement.id === "key"`)
	b.run(chromedp.KeyEvent("right one" + kb.Enter))
	b.until(`document.getElementById("key-form").hidden && !document.getElementById("start").hidden`)
	b.choose(files(t, "a.jpg")...)
	b.status("1 done")
	if n := eval[int](b, `localStorage.length + document.cookie.length`); n != 0 {
		t.Error("the key is stored outside of the tab")
	}
	line := eval[string](b, `document.querySelector("pre code").textContent`)
	if !strings.Contains(line, "Authorization: Bearer $KEY") || strings.Contains(line, "right") {
		t.Error(line)
	}
	b.run(chromedp.Reload())
	b.until(`!document.getElementById("start").hidden`)
	if !eval[bool](b, `document.getElementById("key-form").hidden`) {
		t.Error("the page asks again after it was loaded again")
	}
}

// TestPageClientsModels chooses among models, one of which writes only direct captions and one
// none.
func TestPageClientsModels(t *testing.T) {
	clients(t)
	url, _, _ := start(t, func(o *Options) {
		straight, plain := worldModel(), worldModel()
		straight.Name, straight.Gap, straight.Files.Generator = "straight", "", ""
		plain.Name, plain.Gap, plain.Files = "plain", "", pipeline.Files{CLIP: "../models/world/clip.safetensors"}
		o.Models = append(o.Models, straight, plain)
	})
	b := open(t, url)
	b.until(`!document.getElementById("start").hidden`)
	b.choose(files(t, "a.jpg")...)
	b.status("1 done")
	choose := func(name string) {
		b.run(chromedp.SetValue(chromedp.CSS("#model"), name))
		eval[any](b, `document.getElementById("model").dispatchEvent(new Event("change"))`)
		b.status("1 done")
	}
	both := eval[[][]shown](b, shownCaptions)[0]
	choose("straight")
	one := eval[[][]shown](b, shownCaptions)[0]
	if len(both) != 2 || len(one) != 1 || !reflect.DeepEqual(one[0], both[0]) || eval[int](b, `document.querySelectorAll(".gap").length`) != 0 {
		t.Errorf("got %+v and %+v", both, one)
	}
	if line := eval[string](b, `document.querySelector("pre code").textContent`); !strings.Contains(line, "-F model=straight") {
		t.Error(line)
	}
	choose("plain")
	if text := eval[string](b, `document.querySelector(".state").textContent`); text != "Type texts to compare it with." {
		t.Error(text)
	}
	b.run(chromedp.SendKeys(chromedp.CSS("#texts"), "a dog"), chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	b.until(`document.querySelectorAll(".sims tbody tr").length === 1`)
	b.status("1 done")
}

// TestPageClientsKeyboard does everything with the keyboard alone.
func TestPageClientsKeyboard(t *testing.T) {
	clients(t)
	url, _, _ := start(t, nil)
	b := open(t, url)
	b.until(`document.querySelectorAll("#samples img").length === 6`)
	b.tabTo("#choose")
	b.tabTo("#samples button")
	b.key(kb.Enter)
	b.status("1 done")
	b.tabTo("#decode")
	b.key(kb.ArrowUp) // greedy
	b.until(`document.getElementById("decode").value === "greedy" && document.querySelectorAll(".said li").length === 0`)
	b.status("1 done")
	b.tabTo("#texts")
	b.key("a", " ", "d", "o", "g")
	b.tabTo("[data-export=text]") // leaving the field compares
	b.until(`document.querySelectorAll(".sims tbody tr").length === 1`)
	b.status("1 done")
	b.tabTo("article .head button")
	b.tabTo(".direct .word")
	const visible = `[...document.querySelectorAll(".tip")].filter((e) => getComputedStyle(e).visibility === "visible").map((e) => e.parentElement.textContent)`
	words := eval[[]string](b, `[...document.querySelectorAll(".direct .word")].map((w) => w.textContent)`)
	for i := range 3 {
		if got := eval[[]string](b, visible); len(got) != 1 || got[0] != words[i] {
			t.Errorf("word %d: %q is shown, want %q", i, got, words[i])
		}
		b.key(kb.ArrowRight)
	}
	b.key(kb.End)
	if got := eval[[]string](b, visible); len(got) != 1 || got[0] != words[len(words)-1] {
		t.Errorf("the last word: %q", got)
	}
	b.key(kb.Escape)
	if got := eval[[]string](b, visible); len(got) != 0 {
		t.Errorf("%q is shown after Escape", got)
	}
	b.tabTo(".direct summary")
	b.key(kb.Enter)
	b.until(`document.querySelector(".direct details").open`)
	b.tabTo(".textualised .word")
	b.tabTo(".curl summary")
	b.key(kb.Enter)
	b.tabTo(".curl button")
	b.key(kb.Enter)
	b.until(`document.querySelector(".curl [role=status]").textContent !== ""`)
	eval[any](b, `document.activeElement.blur()`)
	b.tabTo("article .head button")
	b.key(kb.Enter)
	b.until(`document.getElementById("photos").hidden && document.activeElement.id === "choose"`)
}

// TestPageClientsAxe has axe-core look for what keeps people with disabilities from using the
// page, empty, with photos, and with an error, in both colours and at two widths.
func TestPageClientsAxe(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(clients(t), "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := start(t, func(o *Options) { o.Keys = []string{"secret"} })
	b := open(t, url, "401", "400")
	eval[any](b, string(script)+"\n0")
	look := func(name string) {
		t.Helper()
		for _, width := range []int64{360, 1300} {
			for _, colours := range []string{"light", "dark"} {
				b.screen(width, 900, colours)
				found := eval[[]string](b, `axe.run().then((r) => r.violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.html + " " + n.failureSummary)))`)
				for _, f := range found {
					t.Errorf("%s, %d px, %s: %s", name, width, colours, f)
				}
				if n := eval[int](b, `axe.run().then((r) => r.passes.length)`); n < 15 {
					t.Errorf("%s: only %d rules apply", name, n)
				}
			}
		}
	}
	b.until(`document.activeElement.id === "key"`)
	look("key")
	b.run(chromedp.KeyEvent("secret" + kb.Enter))
	b.until(`document.querySelectorAll("#samples img").length === 6`)
	look("empty")
	b.run(chromedp.SendKeys(chromedp.CSS("#texts"), "a dog\na red balloon"))
	b.choose(files(t, "a.jpg", "b.jpg")...)
	b.status("2 done")
	bad := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(bad, []byte("notes"), 0o666); err != nil {
		t.Fatal(err)
	}
	b.choose(bad)
	b.status("2 done, 1 failed (notes.txt)")
	eval[any](b, `document.querySelectorAll("details").forEach((d) => (d.open = true))`)
	b.run(chromedp.Focus(chromedp.CSS(".word")))
	look("photos")
}
