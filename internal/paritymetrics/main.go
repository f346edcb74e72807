// Command paritymetrics compares `cyclecap eval` with pycocoevalcap: on fresh random
// mixtures of captions, every token and every score of every image must be the same.
// With -bench it instead times both on 5,000 images, from process start to the last
// score, and measures their peak memory.
//
//	go run ./internal/paritymetrics -pairs 20000 -seed 7
//	go run ./internal/paritymetrics -bench -rounds 3
//
// It needs Java and a Python with pycocoevalcap 1.2. METEOR is included if
// `cyclecap eval` computes it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyclecap/data/coco"
	"cyclecap/eval/meteor"

	"github.com/jedib0t/go-pretty/v6/table"
)

type settings struct {
	python, script, cyclecap, dir, meteorData string
	seed                                      uint64
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "paritymetrics:", err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	pairs := flag.Int("pairs", 20000, "number of pairs of candidate and reference to compare")
	bench := flag.Bool("bench", false, "time both instead")
	rounds := flag.Int("rounds", 3, "number of pairs of runs, with -bench")
	images := flag.Int("images", 5000, "number of images, with 5 references each, with -bench")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "seed of the mixtures; by default a new one each time")
	flag.StringVar(&s.python, "python", ".venv/bin/python", "Python interpreter with pycocoevalcap")
	flag.StringVar(&s.cyclecap, "cyclecap", "bin/cyclecap", "cyclecap binary to compare")
	flag.StringVar(&s.dir, "dir", "work/paritymetrics", "folder of the files of both")
	flag.StringVar(&s.meteorData, "meteor-data", meteor.DefaultDir(), "folder of METEOR's data, if available")
	flag.Parse()
	s.script = "testdata/reference/metrics.py"
	if *pairs < 1 || *rounds < 1 || *images < 1 || flag.NArg() > 0 {
		return errors.New("-pairs, -rounds and -images must be at least 1, and no arguments are accepted")
	}
	if _, err := exec.LookPath("java"); err != nil {
		return errors.New("no java in PATH: pycocoevalcap needs it for its tokenizer and METEOR")
	}
	if err := exec.Command(s.python, "-c", "import pycocoevalcap").Run(); err != nil {
		return fmt.Errorf("%s cannot import pycocoevalcap (run `make references` to install it, or set -python): %w", s.python, err)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	pool, err := readPool()
	if err != nil {
		return err
	}
	if *bench {
		return s.bench(pool, *images, *rounds)
	}
	return s.compare(pool, *pairs)
}

// pool holds captions to mix.
type pool struct {
	plain []string // real captions
	hard  []string // strings that are hard to tokenize
}

func readPool() (p pool, err error) {
	for _, dir := range []string{"fakecap", "people"} {
		set, err := coco.Read(filepath.Join("eval/testdata", dir, "captions_val2014.json"))
		if err != nil {
			return p, err
		}
		for _, a := range set.Annotations {
			p.plain = append(p.plain, a.Caption)
		}
	}
	var cases [][2]string
	data, err := os.ReadFile("eval/ptb/testdata/tokens.json")
	if err == nil {
		err = json.Unmarshal(data, &cases)
	}
	for _, c := range cases {
		// No line ends: they would put the reference out of step.
		if strings.TrimSpace(c[0]) != "" && !strings.ContainsAny(c[0], "\n\r\v\f\u0085\u2028\u2029") {
			p.hard = append(p.hard, c[0])
		}
	}
	return p, err
}

// mix makes a caption from pieces of others.
func (p *pool) mix(r *rand.Rand) string {
	pick := func() []string { return strings.Fields(p.plain[r.IntN(len(p.plain))]) }
	words := pick()
	switch r.IntN(6) {
	case 0: // unchanged
	case 1: // the beginning of one and the end of another
		other := pick()
		words = slices.Concat(words[:r.IntN(len(words)+1)], other[r.IntN(len(other)):])
	case 2: // part of it repeated
		words = append(words, words[r.IntN(len(words)):]...)
	case 3: // in another order
		r.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	case 4: // fewer words
		words = words[:1+r.IntN(len(words))]
	case 5:
		// The last word is a plain one: after some abbreviations, the reference reads
		// on into the next caption.
		at := r.IntN(len(words) + 1)
		words = append(slices.Insert(words, at, p.hard[r.IntN(len(p.hard))]), "dog")
	}
	return strings.Join(words, " ")
}

// An item is an image, in the form that the script reads.
type item struct {
	ImageID    coco.ID  `json:"image_id"`
	Candidate  string   `json:"candidate"`
	References []string `json:"references"`
}

func (p *pool) items(r *rand.Rand, n int, references func() int) []item {
	items := make([]item, n)
	for i := range items {
		items[i].ImageID = coco.Int(int64(100 + 3*i))
		items[i].Candidate = p.mix(r)
		for range references() {
			ref := p.mix(r)
			if r.IntN(3) == 0 { // something in common with the candidate
				c, f := strings.Fields(items[i].Candidate), strings.Fields(ref)
				ref = strings.Join(slices.Concat(c[:r.IntN(len(c)+1)], f[r.IntN(len(f)):]), " ")
			}
			items[i].References = append(items[i].References, ref)
		}
	}
	return items
}

// scores is the answer of one side.
type scores struct {
	Corpus map[string]float64
	Images []imageScores
	Peak   int64
}

type imageScores struct {
	ImageID coco.ID `json:"image_id"`
	Scores  map[string]float64
	Tokens  struct {
		Candidate  string
		References []string
	}
}

func (s *settings) path(name string) string { return filepath.Join(s.dir, name) }

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// write writes the items for both sides.
func (s *settings) write(items []item) error {
	set := coco.Dataset{}
	results := []coco.Result{}
	for _, it := range items {
		set.Images = append(set.Images, coco.Image{ID: it.ImageID})
		for _, ref := range it.References {
			set.Annotations = append(set.Annotations, coco.Annotation{ID: coco.Int(int64(len(set.Annotations))), ImageID: it.ImageID, Caption: ref})
		}
		results = append(results, coco.Result{ImageID: it.ImageID, Caption: it.Candidate})
	}
	return errors.Join(writeJSON(s.path("set.json"), set), writeJSON(s.path("results.json"), results), writeJSON(s.path("in.json"), items))
}

// everything lists all metrics, under the names that both sides accept.
var everything = []string{"BLEU", "ROUGE_L", "CIDEr", "METEOR"}

// ours runs cyclecap eval and returns its answer, time and peak memory.
func (s *settings) ours(perImage bool, metrics []string) (*scores, time.Duration, error) {
	args := []string{"eval", "--annotations", s.path("set.json"), "--results", s.path("results.json"), "--json", "--meteor-data", s.meteorData, "--metrics", strings.Join(metrics, ",")}
	if perImage {
		args = append(args, "--per-image", s.path("ours.json"))
	}
	cmd := exec.Command(s.cyclecap, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %s", s.cyclecap, err, stderr.String())
	}
	var corpus struct{ Corpus map[string]float64 } // its "images" is their number
	if err := json.Unmarshal(out, &corpus); err != nil {
		return nil, 0, err
	}
	a := scores{Corpus: corpus.Corpus}
	if perImage {
		if err := readJSON(s.path("ours.json"), &a.Images); err != nil {
			return nil, 0, err
		}
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		a.Peak = usage.Maxrss * 1024
	}
	return &a, took, nil
}

// theirs runs pycocoevalcap.
func (s *settings) theirs(metrics []string) (*scores, time.Duration, error) {
	args := []string{s.script, "score", s.path("in.json"), s.path("theirs.json"), strings.Join(metrics, ",")}
	cmd := exec.Command(s.python, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %s", s.script, err, stderr.String())
	}
	var a scores
	return &a, took, readJSON(s.path("theirs.json"), &a)
}

// tolerance returns how much a score may differ.
func tolerance(name string) float64 {
	if name == "METEOR" {
		return 1e-6
	}
	return 1e-9
}

func (s *settings) compare(p pool, pairs int) error {
	r := rand.New(rand.NewPCG(s.seed, 0))
	fmt.Printf("seed %d\n", s.seed)
	worst := map[string]float64{}
	different := map[string]int{}
	metrics := s.possible()
	done, images, sets, texts := 0, 0, 0, 0
	for n := 1; done < pairs; n = min(2*n+r.IntN(n+1), 2000) { // small sets have different document frequencies
		items := p.items(r, n, func() int { return 1 + r.IntN(7) })
		if err := s.write(items); err != nil {
			return err
		}
		ours, _, err := s.ours(true, metrics)
		if err != nil {
			return err
		}
		theirs, _, err := s.theirs(metrics)
		if err != nil {
			return err
		}
		if len(ours.Images) != len(theirs.Images) {
			return fmt.Errorf("cyclecap scored %d images, pycocoevalcap %d", len(ours.Images), len(theirs.Images))
		}
		score := func(where string, ours, theirs map[string]float64) {
			for name, want := range theirs {
				off := math.Abs(ours[name] - want)
				worst[name] = max(worst[name], off)
				if off > tolerance(name) || math.IsNaN(off) {
					different[name]++
					fmt.Printf("%s: %s is %.17g, want %.17g\n", where, name, ours[name], want)
				}
			}
		}
		score(fmt.Sprintf("set of %d images", n), ours.Corpus, theirs.Corpus)
		for i, a := range ours.Images {
			b := theirs.Images[i]
			score(fmt.Sprintf("image %s (%q)", a.ImageID, items[i].Candidate), a.Scores, b.Scores)
			for j, text := range append([]string{items[i].Candidate}, items[i].References...) {
				have, want := a.Tokens.Candidate, b.Tokens.Candidate
				if j > 0 {
					have, want = a.Tokens.References[j-1], b.Tokens.References[j-1]
				}
				texts++
				if have != want {
					different["tokens"]++
					fmt.Printf("tokens of %q:\n got  %q\n want %q\n", text, have, want)
				}
			}
			done += len(items[i].References)
		}
		images += n
		sets++
	}
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	t.SetTitle(fmt.Sprintf("pycocoevalcap and cyclecap eval: %d pairs, %d images in %d sets", done, images, sets))
	t.AppendHeader(table.Row{"what", "compared", "different", "max |difference|"})
	t.AppendRow(table.Row{"tokens", texts, different["tokens"], ""})
	names := []string{}
	for name := range worst {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.AppendRow(table.Row{name, images + sets, different[name], fmt.Sprintf("%.1e", worst[name])})
	}
	t.Render()
	if len(different) > 0 {
		return fmt.Errorf("results differ; use -seed %d to reproduce", s.seed)
	}
	return nil
}

func (s *settings) bench(p pool, images, rounds int) error {
	r := rand.New(rand.NewPCG(1, 0))
	p.hard = p.plain // only ordinary captions
	if err := s.write(p.items(r, images, func() int { return 5 })); err != nil {
		return err
	}
	metrics := s.possible()
	// Not timed: afterwards the files are in the page cache.
	if _, _, err := s.ours(false, metrics); err != nil {
		return err
	}
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	t.SetTitle(fmt.Sprintf("%d images x 5 references, start to last score; min/median/max of %d rounds", images, rounds))
	t.AppendHeader(table.Row{"", "ours", "pycocoevalcap", "ratio"})
	works := [][]string{metrics}
	if slices.Contains(metrics, "METEOR") {
		works = append(works, []string{"METEOR"})
	}
	for _, work := range works {
		var a, b, ratio []float64
		var peakA, peakB int64
		for range rounds {
			ours, tookA, err := s.ours(false, work)
			if err != nil {
				return err
			}
			theirs, tookB, err := s.theirs(work)
			if err != nil {
				return err
			}
			for name, want := range theirs.Corpus {
				if off := math.Abs(ours.Corpus[name] - want); off > tolerance(name) || math.IsNaN(off) {
					return fmt.Errorf("%s is %.17g, want pycocoevalcap's %.17g: the times are meaningless", name, ours.Corpus[name], want)
				}
			}
			a, b, ratio = append(a, tookA.Seconds()), append(b, tookB.Seconds()), append(ratio, tookB.Seconds()/tookA.Seconds())
			peakA, peakB = max(peakA, ours.Peak), max(peakB, theirs.Peak)
		}
		name := strings.Join(work, ", ")
		t.AppendRow(table.Row{name + ": s", spread(a, "%.3f"), spread(b, "%.2f"), spread(ratio, "%.1f")})
		t.AppendRow(table.Row{"peak memory, MiB", peakA >> 20, peakB >> 20, fmt.Sprintf("%.1f", float64(peakB)/float64(peakA))})
	}
	t.Render()
	return nil
}

// possible returns everything, without METEOR if its data is not available.
func (s *settings) possible() []string {
	if _, err := meteor.Open(s.meteorData); err != nil {
		fmt.Fprintf(os.Stderr, "without METEOR: %v\n", err)
		return everything[:3]
	}
	return everything
}

// spread formats the minimum, the median and the maximum.
func spread(v []float64, format string) string {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return fmt.Sprintf(strings.Join([]string{format, format, format}, " / "), v[0], (v[(n-1)/2]+v[n/2])/2, v[n-1])
}
