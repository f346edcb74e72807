package experiment

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cyclecap/experiment/config"
)

// products returns hashes of the files in a folder that do not depend on when or where they
// were written, by their paths.
func products(t *testing.T, dir string) map[string]string {
	t.Helper()
	timed := regexp.MustCompile(`stage\.json$|(last|best)\.safetensors$|fit\.json$|hashes\.json$|config\.toml$|metrics\.jsonl$|events\.out|report\.html$|table\.(json|md)$|\.lock$`)
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasSuffix(path, ".previous") {
			return fs.SkipDir
		}
		if err != nil || !e.Type().IsRegular() || timed.MatchString(path) {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		sum := sha256.Sum256(b)
		list[name] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// run runs the small experiment in a folder, with changed settings, and returns the stages
// that ran and what was said.
func runSmall(t *testing.T, dir string, change func(*Experiment), sets ...string) (ran []string, q *quiet, err error) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "small.toml"), small)
	c, err := config.Load(path, append([]string{"output=" + dir, "threads=1", "bridges.use=[direct,cyclegan,clipcap]"}, sets...))
	if err != nil {
		t.Fatal(err)
	}
	q = &quiet{}
	x := &Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: q}
	if change != nil {
		change(x)
	}
	done, err := x.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = x.Execute(t.Context(), "")
	for _, name := range x.log.order {
		if !x.log.skipped[name] {
			ran = append(ran, name)
		}
	}
	return ran, q, err
}

// TestWhatRunsAgain changes one setting or input of a finished run at a time. What runs again
// must be what depends on it, and the results must be those of a fresh folder.
func TestWhatRunsAgain(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if _, _, err := runSmall(t, base, nil); err != nil {
		t.Fatal(err)
	}
	captions := []string{"seed-0/captions-direct", "seed-0/captions-cyclegan", "seed-0/captions-clipcap"}
	all := append([]string{"world", "clip", "gpt2", "features/val-images", "features/val-texts", "features/train-images", "features/train-texts",
		"seed-0/decoder-texts", "seed-0/decoder-images", "seed-0/cyclegan"}, append(captions, "evaluate", "report")...)
	without := func(names ...string) (list []string) {
		for _, n := range all {
			if !slices.Contains(names, n) {
				list = append(list, n)
			}
		}
		return list
	}
	for _, c := range []struct {
		set    string
		change func(t *testing.T, dir string)
		ran    []string // evaluate need not run if the captions are the same
	}{
		{set: "threads=0"},
		{set: "train.decoder.checkpoint_every=1000"},
		{set: "train.cyclegan.checkpoint_every=7"},
		{set: "train.clip.checkpoint_every=7"},
		{set: "data.max_bad=0.5"},
		{set: "name=other", ran: []string{"report"}},
		{set: "world.seed=2", ran: all},
		{set: "train.clip.epochs=2", ran: without("world", "gpt2")},
		{set: "train.gpt2.epochs=2", ran: without("world", "clip", "features/val-images", "features/val-texts", "features/train-images", "features/train-texts", "seed-0/cyclegan")},
		{set: "train.decoder.lr=1e-3", ran: append([]string{"seed-0/decoder-texts", "seed-0/decoder-images"}, append(captions, "evaluate", "report")...)},
		{set: "train.decoder.normalize_prefix=true", ran: append([]string{"seed-0/decoder-texts", "seed-0/decoder-images", "seed-0/cyclegan"}, append(captions, "evaluate", "report")...)},
		{set: "train.cyclegan.pool=0", ran: []string{"seed-0/cyclegan", "seed-0/captions-cyclegan", "evaluate", "report"}},
		{set: "data.pairing=disjoint", ran: []string{"seed-0/decoder-texts", "seed-0/cyclegan", "seed-0/captions-direct", "seed-0/captions-cyclegan", "evaluate", "report"}},
		{set: "data.photo_limit=20", ran: []string{"seed-0/cyclegan", "seed-0/captions-cyclegan", "evaluate", "report"}},
		{set: "data.caption_limit=40", ran: []string{"seed-0/decoder-texts", "seed-0/cyclegan", "seed-0/captions-direct", "seed-0/captions-cyclegan", "evaluate", "report"}},
		{set: "caption.max_tokens=5", ran: append(slices.Clone(captions), "evaluate", "report")},
		{set: "eval.metrics=[bleu]", ran: []string{"evaluate", "report"}},
		{set: "eval.examples=1", ran: []string{"report"}},
		{set: "seed=1", ran: append([]string{"clip", "gpt2", "features/val-images", "features/val-texts", "features/train-images", "features/train-texts",
			"seed-1/decoder-texts", "seed-1/decoder-images", "seed-1/cyclegan", "seed-1/captions-direct", "seed-1/captions-cyclegan", "seed-1/captions-clipcap"}, "evaluate", "report")},
		{change: func(t *testing.T, dir string) { // a touched photo
			photos := filepath.Join(dir, "world", "train2014")
			list, err := os.ReadDir(photos)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(photos, list[0].Name()), time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		name := c.set
		if name == "" {
			name = "input"
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a copy [1]")
			if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
				t.Fatal(err)
			}
			var sets []string
			if c.set != "" {
				sets = []string{c.set}
			}
			if c.change != nil {
				c.change(t, dir)
			}
			ran, q, err := runSmall(t, dir, nil, sets...)
			if err != nil {
				t.Fatal(err)
			}
			want := c.ran
			if !slices.Contains(ran, "evaluate") {
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "evaluate" })
			}
			slices.Sort(ran)
			want = slices.Sorted(slices.Values(want))
			if !slices.Equal(ran, want) {
				t.Errorf("%s ran, want %s\n%s", ran, want, strings.Join(q.said, "\n"))
			}
			if len(c.ran) == 0 {
				return
			}
			fresh := filepath.Join(t.TempDir(), "fresh")
			if _, _, err := runSmall(t, fresh, nil, sets...); err != nil {
				t.Fatal(err)
			}
			have, should := products(t, dir), products(t, fresh)
			for path, hash := range should {
				if have[path] != hash {
					t.Errorf("%s is not that of a fresh folder", path)
				}
			}
		})
	}
}

// filesIn lists the files of a run but config.toml, which each run writes.
func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasSuffix(path, ".previous") {
			return fs.SkipDir
		}
		if err == nil && e.Type().IsRegular() && e.Name() != ".lock" && e.Name() != "config.toml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestEveryBit flips 1,000 single bits in the files of a finished run, one at a time. Each must
// be noticed.
func TestEveryBit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, _, err := runSmall(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	files := filesIn(t, dir)
	covered := map[string]func() bool{} // by path: whether damage is noticed
	for _, path := range files {
		folder := filepath.Dir(path)
		switch filepath.Base(path) {
		case hashesFile:
			covered[path] = func() bool { return readChecked(path, &map[string]known{}) != nil }
		case stageFile:
			covered[path] = func() bool { _, err := readRecord(folder); return err != nil }
			r, err := readRecord(folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range r.Outputs {
				covered[filepath.Join(folder, o.Path)] = func() bool { return o.damaged(folder, true) != "" }
			}
		}
	}
	rng := rand.New(rand.NewPCG(6, 6))
	for i := range 1000 {
		path := files[i%len(files)]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		noticed := covered[path]
		if noticed == nil {
			t.Errorf("no stage lists %s", path)
			continue
		}
		at, bit := rng.IntN(len(b)), byte(1)<<rng.IntN(8)
		for _, want := range []bool{true, false} {
			b[at] ^= bit
			if err := os.WriteFile(path, b, 0o666); err != nil {
				t.Fatal(err)
			}
			if noticed() != want {
				t.Errorf("%s, bit %#x of byte %d: noticed %v, want %v", path, bit, at, !want, want)
			}
		}
	}
}

// TestDamage flips single bits, cuts and removes the files of a finished run. With
// VerifyOutputs, a second run must notice each, and end with the results of the first.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, _, err := runSmall(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	before := products(t, dir)
	rng := rand.New(rand.NewPCG(5, 5))
	// A run with every tenth file damaged, and so on: no file is left out.
	const rounds = 10
	for round := range rounds {
		damaged := map[string]string{}
		var err error
		for i, path := range filesIn(t, dir) {
			if i%rounds != round {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			what := "bit"
			switch k := rng.IntN(6); {
			case k == 0:
				what, err = "removed", os.Remove(path)
			case k == 1 && len(b) > 1:
				what, err = "cut", os.WriteFile(path, b[:len(b)/2], 0o666)
			default:
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				err = os.WriteFile(path, b, 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
			damaged[path] = what
		}
		var said string
		var ran []string
		for range 3 {
			var q *quiet
			var now []string
			now, q, err = runSmall(t, dir, func(x *Experiment) { x.VerifyOutputs, x.Resume = true, true })
			ran, said = append(ran, now...), said+strings.Join(q.said, "\n")
			if err == nil {
				break
			}
			// A training has lost its record and its only checkpoint.
			said += err.Error()
			folder := regexp.MustCompile(`remove (\S+) to start over`).FindStringSubmatch(err.Error())
			if folder == nil {
				break
			}
			os.RemoveAll(folder[1])
		}
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, said)
		}
		for path, what := range damaged {
			// A stage whose record is lost runs again, whatever else is damaged in its folder.
			name, _ := filepath.Rel(dir, path)
			again := slices.ContainsFunc(ran, func(stage string) bool {
				return strings.HasPrefix(name, stage+"/") || stage == "report" && !strings.Contains(name, "/")
			})
			if !strings.Contains(said, path) && !again && name != hashesFile {
				t.Errorf("round %d: %s (%s) was not noticed: %s", round, path, what, said)
			}
		}
		after := products(t, dir)
		for path, hash := range before {
			if after[path] != hash {
				t.Errorf("round %d: %s is not what it was", round, path)
			}
		}
		if t.Failed() {
			t.Logf("damaged: %v", fmt.Sprint(damaged))
			return
		}
	}
}
