package experiment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	"cyclecap/experiment/config"
	"cyclecap/train"

	"github.com/google/go-cmp/cmp"
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

// filesIn lists the files of a run whose damage must be noticed: all but config.toml, which no
// run reads and each run writes again before its first stage.
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
// be noticed. It leaves out config.toml (see filesIn), whose damage TestDamage has.
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
// VerifyOutputs, a second run must notice each, and end with the results of the first. It need
// not notice damage of config.toml, which it writes again.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, _, err := runSmall(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	before := products(t, dir)
	settings := filepath.Join(dir, "config.toml")
	resolved, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	// A run with every tenth file damaged, and so on: no file is left out.
	const rounds = 10
	for round := range rounds {
		damaged := map[string]string{}
		write(t, settings, string(resolved[:rng.IntN(len(resolved))])+"?")
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
		if b, err := os.ReadFile(settings); err != nil || string(b) != string(resolved) {
			t.Errorf("round %d: %s was not written again (%v)", round, settings, err)
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

// TestWorldWithoutRecord damages a photo of a world and removes the record by which that would
// be noticed: the world must be drawn again.
func TestWorldWithoutRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	world := func() {
		t.Helper()
		if _, _, err := runSmall(t, dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	world()
	photo := filepath.Join(dir, "world", "val2014", "COCO_val2014_000010000002.jpg")
	want, err := os.ReadFile(photo)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(want)
	bad[len(bad)/2] ^= 1
	write(t, photo, string(bad))
	if err := os.Remove(filepath.Join(dir, "world", stageFile)); err != nil {
		t.Fatal(err)
	}
	world()
	if got, err := os.ReadFile(photo); err != nil || !slices.Equal(got, want) {
		t.Errorf("the damaged photo was kept (%v)", err)
	}
}

// TestDamagedRecord damages the records of finished trainings, whose checkpoints are
// undamaged. The next run must say so and write the results again, without a step of training
// and without a copy of the folder.
func TestDamagedRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, _, err := runSmall(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	before := products(t, dir)
	stages := []string{"clip", "gpt2", "seed-0/cyclegan", "seed-0/decoder-images", "seed-0/decoder-texts"}
	logs := map[string]string{}
	for _, stage := range stages {
		record := filepath.Join(dir, stage, stageFile)
		b, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		write(t, record, string(b))
		if b, err = os.ReadFile(filepath.Join(dir, stage, train.MetricsFile)); err != nil || len(b) == 0 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		logs[stage] = string(b)
	}
	if err := os.Remove(filepath.Join(dir, "seed-0/decoder-texts/decoder.pt")); err != nil {
		t.Fatal(err)
	}
	ran, q, err := runSmall(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ran)
	if diff := cmp.Diff(stages, ran); diff != "" {
		t.Errorf("stages that ran: %s", diff)
	}
	if diff := cmp.Diff(before, products(t, dir)); diff != "" {
		t.Errorf("results: %s", diff)
	}
	for _, stage := range stages {
		q.has(t, filepath.Join(dir, stage, stageFile)+" is damaged; writing the results again from the checkpoint")
		if _, err := os.Stat(filepath.Join(dir, stage) + ".previous"); err == nil {
			t.Errorf("%s was moved aside", stage)
		}
		if b, err := os.ReadFile(filepath.Join(dir, stage, train.MetricsFile)); err != nil || string(b) != logs[stage] {
			t.Errorf("%s: the log of the training has changed (%v)", stage, err)
		}
	}

	// Without a checkpoint it is trained again, beside the old results.
	folder := filepath.Join(dir, "seed-0/cyclegan")
	write(t, filepath.Join(folder, stageFile), "{}")
	for _, name := range []string{train.LastCheckpoint, train.PreviousCheckpoint} {
		if err := os.Truncate(filepath.Join(folder, name), 100); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if _, q, err = runSmall(t, dir, nil); err != nil {
		t.Fatal(err)
	}
	q.has(t, "moved the old results to "+folder+".previous")
	if diff := cmp.Diff(before, products(t, dir)); diff != "" {
		t.Errorf("results: %s", diff)
	}
}

// TestOutcomes checks the lines that say how long each stage took and what it has come to.
func TestOutcomes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	_, q, err := runSmall(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(q.said, "\n")
	const number = `\d+\.\d{3}`
	for stage, outcome := range map[string]string{
		"world":                    "30 photos",
		"clip":                     "loss " + number + ", accuracy " + number,
		"gpt2":                     "loss " + number,
		"features/train-images":    "24 features, 0 skipped",
		"features/train-texts":     "120 features, 0 skipped",
		"seed-0/decoder-images":    "loss " + number + ", validation " + number,
		"seed-0/decoder-texts":     "loss " + number + ", validation " + number,
		"seed-0/cyclegan":          "generators " + number + ", disc_text " + number + ", disc_image " + number,
		"seed-0/captions-cyclegan": "6 captions",
		"evaluate":                 "CIDEr of direct " + number + ", cyclegan " + number + ", clipcap " + number,
		"report":                   "table.json, table.md, report.html",
	} {
		if line := regexp.MustCompile(`(?m)^` + stage + `: done in [0-9.]+m?s: ` + outcome + `$`); !line.MatchString(said) {
			t.Errorf("no line matches %s:\n%s", line, said)
		}
	}
	// They are those of the files.
	var scores scoreTable
	if err := readJSON(filepath.Join(dir, "evaluate", scoresFile), &scores); err != nil {
		t.Fatal(err)
	}
	q.has(t, fmt.Sprintf("CIDEr of direct %.3f", scores.Bridges["direct"]["CIDEr"].Value()))
	log, err := os.ReadFile(filepath.Join(dir, "seed-0/decoder-texts", train.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	var validation struct{ Validation float64 }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &validation); err != nil {
		t.Fatal(err)
	}
	q.has(t, fmt.Sprintf("validation %.3f", validation.Validation))
}
