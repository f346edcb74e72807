package meteor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/blevesearch/snowballstem"
	"github.com/blevesearch/snowballstem/english"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func readJSON(t *testing.T, name string, to any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tinySources returns invented entries in the format of the real ones.
func tinySources() sources {
	return sources{
		functionWords: strings.NewReader("a\nthe\non\n"),
		prefixes:      strings.NewReader("# titles\nMr\nv\n\nNo #NUMERIC_ONLY#\n"),
		synsets:       strings.NewReader("sofa\n00000001\ncouch\n00000001 00000002\nmouse\n00000003\nrodent\n00000003\nsea_horse\n00000009\nseaman\n00000009\n"),
		exceptions:    strings.NewReader("mouse\nmice\nsea_horse\nhippos\n"),
		paraphrases:   strings.NewReader("0.5\nin front of\nbefore\n0.4\nbefore\nin front of\n0.1\nthe big\nlarge\n"),
	}
}

func tinyBuilder(t testing.TB) *builder {
	b, err := compile(tinySources())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tiny(t testing.TB) *Scorer {
	dir := t.TempDir()
	if err := writeIndex(tinyBuilder(t), dir); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// realIndex opens the compiled data of the reference.
func realIndex(t testing.TB) *Scorer {
	s, err := Open(DefaultDir())
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err) // the error says how to get it
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestNormalise(t *testing.T) {
	var items []struct{ Text, Norm string }
	readJSON(t, "norm.json", &items)
	n := normaliser{map[string]bool{
		"Mr": false, "Mrs": false, "Dr": false, "Prof": false, "St": false, "v": false, "vs": false,
		"A": false, "I": false, "J": false, "K": false, "No": true,
	}}
	for _, item := range items {
		if got := strings.Join(n.words(item.Text), " "); got != item.Norm {
			t.Errorf("%q: got %q, want %q", item.Text, got, item.Norm)
		}
	}
	if len(items) < 100 {
		t.Errorf("%d cases only", len(items))
	}
}

func TestStem(t *testing.T) {
	var stems [][2]string
	readJSON(t, "stems.json", &stems)
	for _, pair := range stems {
		env := snowballstem.NewEnv(pair[0])
		english.Stem(env)
		if env.Current() != pair[1] {
			t.Errorf("%q: got %q, want %q", pair[0], env.Current(), pair[1])
		}
	}
	if len(stems) < 1000 {
		t.Errorf("%d cases only", len(stems))
	}
}

func TestBases(t *testing.T) {
	for text, want := range map[string][]string{
		"dogs": {"dog"}, "glass": nil, "es": nil, "boxes": {"boxe", "box", "boxe", "box"},
		"running": {"runne", "runn"}, "women": {"woman"}, "ing": {"e"}, "taller": {"tall", "talle"},
	} {
		if diff := cmp.Diff(want, bases(text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestMatchers(t *testing.T) {
	s := tiny(t)
	for _, test := range []struct{ name, candidate, reference, stats string }{
		{"exact", "the dog", "the dog", "2 2 1 1  1 1 1 1  0 0 0 0  0 0 0 0  0 0 0 0  1 2 2"},
		{"stem beside exact", "the dogs", "the dog", "2 2 1 1  0 0 1 1  1 1 0 0  0 0 0 0  0 0 0 0  1 2 2"},
		{"two orders", "dog the", "the dog", "2 2 1 1  1 1 1 1  0 0 0 0  0 0 0 0  0 0 0 0  2 2 2"},
		{"synonym", "a couch", "a sofa", "2 2 1 1  0 0 1 1  0 0 0 0  1 1 0 0  0 0 0 0  1 2 2"},
		{"synonym of an irregular plural", "a rodent", "a mice", "2 2 1 1  0 0 1 1  0 0 0 0  1 1 0 0  0 0 0 0  1 2 2"},
		{"inflection of a compound", "a hippos", "a seaman", "2 2 1 1  0 0 1 1  0 0 0 0  1 1 0 0  0 0 0 0  1 2 2"},
		{"phrases both ways", "large dog", "the big dog", "2 3 0 1  1 1 0 0  0 0 0 0  0 0 0 0  1 1 0 1  1 2 3"},
		{"nothing", "cat", "sky", "1 1 0 0  0 0 0 0  0 0 0 0  0 0 0 0  0 0 0 0  0 0 0"},
		{"empty", "", "", "0 0 0 0  0 0 0 0  0 0 0 0  0 0 0 0  0 0 0 0  0 0 0"},
	} {
		var want []string
		for _, v := range strings.Fields(test.stats) {
			want = append(want, v+".0")
		}
		got := s.Score(test.candidate, []string{test.reference})
		if diff := cmp.Diff(strings.Join(want, " "), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestReferences(t *testing.T) {
	s := tiny(t)
	best := s.Score("the dog", []string{"the dog"})
	for _, references := range [][]string{{"sky", "the dog"}, {"sky ||| the dog"}, {"the dog", "sky", ""}} {
		if got := s.Score("the ||| dog", references); got != best {
			t.Errorf("%q: %v, want %v", references, got, best)
		}
	}
	if got := s.Score("the dog", nil); got.Score() != 0 || got.CandidateLength != 2 {
		t.Errorf("without references: %v", got)
	}
	if got := best.Score(); got != 1 {
		t.Errorf("the same caption scores %v", got)
	}
	var sum Stats
	sum.Add(best)
	if sum.Chunks != 0 || sum.CandidateMatches != 2 {
		t.Errorf("a whole match adds %v", sum)
	}
}

func TestDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make meteor-data") {
		t.Errorf("no index: %v", err)
	}
	good := tinyBuilder(t).bytes()
	path := filepath.Join(dir, indexName)
	for n := 0; n < len(good); n += 7 {
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir); err == nil {
			s.Close()
			t.Errorf("cut off at %d of %d bytes: opened", n, len(good))
		}
	}
	for i := range headerSize {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := newIndex(bad); err == nil {
			t.Errorf("byte %d of the header changed: opened", i)
		}
	}
	// Damage in the body is found when the index is opened. If it comes later, it may
	// change scores, but nothing fails.
	for i := headerSize; i < len(good); i++ {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0xff
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir); err == nil {
			s.Close()
			t.Errorf("byte %d changed: opened", i)
		} else if !strings.Contains(err.Error(), "checksum") || !strings.Contains(err.Error(), "make meteor-data") {
			t.Fatal(err)
		}
		x, err := newIndex(bad)
		if err != nil {
			t.Fatal(err)
		}
		newScorer(x).Score("the big mice in front of a couch before large", []string{"large sofa before", "in front of the big mouse"})
	}
}

func TestCompileErrors(t *testing.T) {
	dir := t.TempDir()
	err := Compile(context.Background(), filepath.Join(dir, "missing.whl"), dir, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := Compile(context.Background(), dir, dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder without the package: %v", err)
	}
	s := tinySources()
	s.paraphrases = strings.NewReader("0.5\nin front of\n")
	if _, err := compile(s); err == nil || !strings.Contains(err.Error(), "not a multiple of 3: the file is truncated") {
		t.Errorf("a table that is cut off: %v", err)
	}
	s = tinySources()
	s.synsets = strings.NewReader("dog\nx\n")
	if _, err := compile(s); err == nil || !strings.Contains(err.Error(), "english.synsets:1") {
		t.Errorf("a set that isn't a number: %v", err)
	}
}

// For any input, the score is between 0 and 1, and the counts are consistent.
func TestProperties(t *testing.T) {
	s := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
			"the", "big", "large", "in", "front", "of", "before", "mice", "rodent", "sofa", "|||", ".", "'s", "..", "-", "u.s.",
		})))
		line := rapid.Map(words, func(w []string) string { return strings.Join(w, " ") })
		stats := s.Score(line.Draw(t, "candidate"), rapid.SliceOfN(line, 0, 4).Draw(t, "references"))
		score := stats.Score()
		if !(score >= 0 && score <= 1) {
			t.Fatalf("score %v", score)
		}
		if stats.CandidateMatches > stats.CandidateLength || stats.ReferenceMatches > stats.ReferenceLength ||
			stats.Chunks > stats.CandidateMatches {
			t.Fatalf("%v", stats)
		}
	})
}

func FuzzScore(f *testing.F) {
	s := tiny(f)
	f.Add("the big mice", "large mouse ||| u.s. dog's")
	f.Fuzz(func(t *testing.T, candidate, reference string) {
		if score := s.Score(candidate, []string{reference}).Score(); !(score >= 0 && score <= 1) {
			t.Errorf("score %v", score)
		}
	})
}

func TestLongCaption(t *testing.T) {
	s := tiny(t)
	long := strings.Repeat("the big mice in front of dogs ", 100_000/7)
	got := s.Score(long, []string{"large mouse before the dog", "the the the"})
	if got.CandidateLength != 100_000/7*7 || got.CandidateMatches == 0 {
		t.Errorf("%v", got)
	}
	s.Score("large mouse before the dog", []string{long})
}

// Compare with the reference's scores and statistics, using its own data.
func TestReferenceScores(t *testing.T) {
	s := realIndex(t)
	var groups []struct {
		Name   string
		Corpus float64
		Pairs  []struct {
			Candidate  string
			References []string
			Score      float64
			Stats      string
		}
	}
	readJSON(t, "scores.json", &groups)
	for _, group := range groups {
		got := make([]Stats, len(group.Pairs))
		var wait sync.WaitGroup
		for worker := range 4 {
			wait.Go(func() {
				for i := worker; i < len(got); i += 4 {
					got[i] = s.Score(group.Pairs[i].Candidate, group.Pairs[i].References)
				}
			})
		}
		wait.Wait()
		var sum Stats
		var worst float64
		for i, pair := range group.Pairs {
			sum.Add(got[i])
			worst = max(worst, math.Abs(got[i].Score()-pair.Score))
			if pair.Stats != "" && got[i].String() != pair.Stats {
				t.Errorf("%s: %q:\ngot  %v\nwant %s", group.Name, pair.Candidate, got[i], pair.Stats)
			}
		}
		off := math.Abs(sum.Score() - group.Corpus)
		t.Logf("%s: %d captions, off by at most %.2g, corpus by %.2g", group.Name, len(got), worst, off)
		if worst > 1e-12 || off > 1e-12 {
			t.Errorf("%s: off by %g, corpus by %g (%v, want %v)", group.Name, worst, off, sum.Score(), group.Corpus)
		}
	}
}
