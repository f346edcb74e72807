package embeddings

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// recorded is the fixture that testdata/reference/embeddings.py wrote with numpy and pandas.
const recorded = "testdata/clip-retrieval"

type contents struct {
	Rows  [][]float32 `json:"rows"`
	Names []string    `json:"names"`
}

func expected(t *testing.T) (c contents) {
	t.Helper()
	data, err := os.ReadFile(recorded + "/expected.json")
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// read returns all rows and names of a table: each row is the best hit of itself.
func read(t *testing.T, path string, rows [][]float32) (names []string) {
	t.Helper()
	table, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if table.Len() != len(rows) || table.Width != len(rows[0]) {
		t.Fatalf("%s: %d rows of %d", path, table.Len(), table.Width)
	}
	hits, err := table.Search(t.Context(), slices.Concat(rows...), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hits {
		if h[0].Row != i || h[0].Score < 1-1e-12 {
			t.Errorf("%s: the best of row %d is %+v", path, i, h[0])
		}
	}
	var order []int
	for i := range rows {
		order = append(order, len(rows)-1-i)
	}
	if names, err = table.Names(order); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(names)
	return names
}

// What numpy and pandas wrote is read.
func TestRecorded(t *testing.T) {
	want := expected(t)
	for _, path := range []string{recorded, recorded + "/img_emb", recorded + "/float32.npy"} {
		names := want.Names
		if strings.HasSuffix(path, ".npy") {
			names = make([]string, len(want.Names))
		}
		if d := cmp.Diff(names, read(t, path, want.Rows)); d != "" {
			t.Errorf("%s: names (-want +got):\n%s", path, d)
		}
	}
}

// save writes features and returns the error.
func save(t *testing.T, out string, kind Kind, rows [][]float32, inputs []Input) error {
	t.Helper()
	w, err := Create(out, kind, len(rows[0]))
	if err != nil {
		return err
	}
	defer w.Close()
	for i := 0; i < len(rows); i += 3 { // in parts
		end := min(i+3, len(rows))
		if err := w.Add(slices.Concat(rows[i:end]...), inputs[i:end]); err != nil {
			return err
		}
	}
	if IsFolder(out) {
		return w.SavePart(t.Context(), 0)
	}
	return w.Save(t.Context())
}

// What is written has the bytes of numpy, and is read here and by numpy and pandas.
func TestWritten(t *testing.T) {
	want := expected(t)
	var inputs []Input
	for i, name := range want.Names {
		inputs = append(inputs, Input{name, fmt.Sprint(i), strings.Repeat("7", i%2)})
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "folder") + "/"
	if err := save(t, out, Images, want.Rows, inputs); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "texts.npy")
	if err := save(t, file, Texts, want.Rows, inputs); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{out, file} {
		if d := cmp.Diff(want.Names, read(t, path, want.Rows)); d != "" {
			t.Errorf("%s: names (-want +got):\n%s", path, d)
		}
	}
	same := func(a, b string) {
		x, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(x) != string(y) {
			t.Errorf("%s does not have the bytes of numpy", a)
		}
	}
	same(file, recorded+"/float32.npy")
	first := filepath.Join(t.TempDir(), "first") + "/"
	if err := save(t, first, Images, want.Rows[:5], inputs[:5]); err != nil {
		t.Fatal(err)
	}
	same(first+"img_emb/img_emb_0.npy", recorded+"/img_emb/img_emb_0.npy")
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("%v was left", left)
	}

	const python = "../../.venv/bin/python"
	if err := exec.Command(python, "-c", "import pandas, pyarrow").Run(); err != nil {
		t.Skip("there is no Python with pandas and pyarrow to read the files with (make references)")
	}
	printed, err := exec.Command(python, "../../testdata/reference/embeddings.py", "check", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]struct {
		DType   string      `json:"dtype"`
		Rows    [][]float32 `json:"rows"`
		Path    []string    `json:"image_path"`
		Caption []string    `json:"caption"`
		ID      []string    `json:"id"`
		Image   []*string   `json:"image_id"`
	}
	if err := json.Unmarshal(printed, &got); err != nil {
		t.Fatal(err)
	}
	for name, dtype := range map[string]string{"texts.npy": "<f4", "img_emb_0.npy": "<f2"} {
		if d := cmp.Diff(want.Rows[:len(got[name].Rows)], got[name].Rows); d != "" || got[name].DType != dtype {
			t.Errorf("%s: numpy reads %s\n%s", name, got[name].DType, d)
		}
	}
	texts := got["texts.parquet"]
	if d := cmp.Diff(want.Names, texts.Caption); d != "" || texts.ID[3] != "3" || texts.Image[0] != nil || *texts.Image[1] != "7" {
		t.Errorf("pandas reads %+v\n%s", texts, d)
	}
	if d := cmp.Diff(want.Names, got["metadata_0.parquet"].Path); d != "" {
		t.Errorf("pandas reads the paths (-want +got):\n%s", d)
	}
}

// A folder with other features is not taken for one with parts, and a failure leaves what was there.
func TestCreateRefuses(t *testing.T) {
	rows, inputs := [][]float32{{1, 0}}, []Input{{Name: "a"}}
	out := t.TempDir()
	for range 2 { // the second replaces the first
		if err := save(t, out, Images, rows, inputs); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := Parts(out, Images); err != nil || len(list) != 1 || !list[0].Complete {
		t.Errorf("parts %v, %v", list, err)
	}
	if _, err := Parts(out, Texts); err == nil || !strings.Contains(err.Error(), "other features, such as img_emb/img_emb_0.npy") {
		t.Errorf("texts in a folder of photos: %v", err)
	}
	for _, name := range []string{"img_emb/img_emb_1.npy", "img_emb/img_emb_00.npy", "metadata/m_0.parquet"} {
		path := filepath.Join(out, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Parts(out, Images); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		os.Remove(path)
	}
	for _, out := range []string{"/none/x.npy", "/none/x/", filepath.Join(out, "none", "x") + "/"} {
		if err := save(t, out, Images, rows, inputs); err == nil || !strings.Contains(err.Error(), out) {
			t.Errorf("%s: %v", out, err)
		}
	}
	file := filepath.Join(t.TempDir(), "x.npy")
	if err := os.WriteFile(file, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := Create(file, Images, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Add([]float32{1, 0}, inputs); err != nil {
		t.Fatal(err)
	}
	if err := w.Save(cancelled); err == nil {
		t.Error("saved although it was cancelled")
	}
	if data, _ := os.ReadFile(file); string(data) != "old" {
		t.Error("a failure changed the file")
	}
	if list, _ := os.ReadDir(filepath.Dir(file)); len(list) != 1 {
		t.Errorf("%v was left", list)
	}
}

// brute returns the k best rows in float64.
func brute(query []float32, rows [][]float32, k int) []Hit {
	norm := func(x []float32) (s float64) {
		for _, v := range x {
			s += float64(v) * float64(v)
		}
		return math.Sqrt(s)
	}
	var list []Hit
	for i, row := range rows {
		dot := 0.
		for j := range row {
			dot += float64(query[j]) * float64(row[j])
		}
		if n := norm(row); n > 0 {
			list = append(list, Hit{i, dot / n / norm(query)})
		}
	}
	slices.SortStableFunc(list, func(a, b Hit) int {
		if math.Abs(a.Score-b.Score) < 1e-13 { // the same row again
			return a.Row - b.Row
		}
		return order(a, b)
	})
	return list[:min(k, len(list))]
}

// Search finds the best rows in every kind of file, in blocks and parts, with any number of
// threads; equal rows come in their order.
func TestSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n, width = 3000, 200 // two blocks of float32
	var rows [][]float32
	for i := range n {
		row := make([]float32, width)
		for j := range row {
			row[j] = float32(int(rng.NormFloat64()*64)) / 64 // exact as float16
		}
		switch {
		case i%7 == 3:
			row = rows[i/7] // the same again
		case i == 11:
			clear(row) // no cosine
		}
		rows = append(rows, row)
	}
	dir := t.TempDir()
	inputs := make([]Input, n)
	for i := range inputs {
		inputs[i].Name = fmt.Sprintf("photo %d", i)
	}
	folder, npy, st := filepath.Join(dir, "folder")+"/", filepath.Join(dir, "x.npy"), filepath.Join(dir, "x.safetensors")
	for _, out := range []string{folder, npy} {
		if err := save(t, out, Images, rows, inputs); err != nil {
			t.Fatal(err)
		}
	}
	err := torch.Scope(func() error {
		sd := nn.NewStateDict()
		sd.Add("features", torch.FromSlice(slices.Concat(rows...), n, width))
		return weights.SaveSafetensors(t.Context(), st, sd, map[string]string{"model": "a CLIP"})
	})
	if err != nil {
		t.Fatal(err)
	}
	queries := [][]float32{rows[3], make([]float32, width), rows[20]}
	for j := range queries[1] {
		queries[1][j] = float32(rng.NormFloat64())
	}
	runtime.LockOSThread() // NumThreads is that of the OS thread
	defer runtime.UnlockOSThread()
	threads := torch.NumThreads()
	defer torch.SetNumThreads(threads)
	for _, path := range []string{folder, npy, st} {
		table, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		for _, threads := range []int{1, 2, 5} {
			torch.SetNumThreads(threads)
			for _, k := range []int{1, 10, 2 * n} {
				seen := 0
				got, err := table.Search(t.Context(), slices.Concat(queries...), k, func(rows int) { seen = max(seen, rows) })
				if err != nil {
					t.Fatal(err)
				}
				if seen != n || torch.NumThreads() != threads {
					t.Errorf("%d rows done, %d threads afterwards", seen, torch.NumThreads())
				}
				for q, query := range queries {
					want := brute(query, rows, k)
					if len(got[q]) != len(want) {
						t.Fatalf("%d hits, want %d", len(got[q]), len(want))
					}
					for i, h := range got[q] {
						if h.Row != want[i].Row || math.Abs(h.Score-want[i].Score) > 1e-12 {
							t.Fatalf("%s, %d threads, query %d, k %d: hit %d is %+v, want %+v", path, threads, q, k, i, h, want[i])
						}
					}
				}
			}
		}
	}
	table, err := Open(npy)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := table.Search(cancelled, queries[0], 1, nil); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := table.Search(t.Context(), make([]float32, width), 1, nil); err == nil || !strings.Contains(err.Error(), "query 0 has no cosine") {
		t.Errorf("a query of zeros: %v", err)
	}
	if err := os.Truncate(npy, 10000); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Search(t.Context(), queries[0], 1, nil); err == nil || !strings.Contains(err.Error(), "truncated while it was in use") {
		t.Errorf("a truncated file: %v", err)
	}
	rows[5] = slices.Clone(rows[5])
	rows[5][1] = float32(math.NaN())
	if err := save(t, npy, Images, rows, inputs); err != nil {
		t.Fatal(err)
	}
	bad, err := Open(npy)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := bad.Search(t.Context(), queries[0], 1, nil); err == nil || !strings.Contains(err.Error(), "row 5 is not finite") {
		t.Errorf("NaN: %v", err)
	}
}

// TestSearchLengths searches rows whose squares exceed or vanish in float32, next to others, with numbers of queries and widths
// that fill the kernel's tiles and that do not.
func TestSearchLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, width := range []int{1, 3, 16, 33, 200} {
		var rows [][]float32
		for i := range 400 {
			row := make([]float32, width)
			for j := range row {
				row[j] = float32(rng.NormFloat64())
			}
			// float32 has numbers from 1.4e-45 to 3.4e38, but squares of those from 4e-23 to 1.8e19 only.
			scale := []float32{1, 1e30, 1e-30, 1e20, 1e-22, 1e-12, 0}[i%7]
			for j := range row {
				row[j] *= scale
			}
			rows = append(rows, row)
		}
		path := filepath.Join(t.TempDir(), "x.npy")
		open := func() *Table {
			t.Helper()
			if err := save(t, path, Images, rows, make([]Input, len(rows))); err != nil {
				t.Fatal(err)
			}
			table, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { table.Close() })
			return table
		}
		table := open()
		for _, n := range []int{1, 8, 32, 33} {
			queries := make([]float32, n*width)
			for i := range queries {
				queries[i] = float32(rng.NormFloat64())
			}
			got, err := table.Search(t.Context(), queries, 10, nil)
			if err != nil {
				t.Fatal(err)
			}
			for q, hits := range got {
				want := brute(queries[q*width:(q+1)*width], rows, 10)
				for i, h := range hits {
					// Of width 1, all cosines are 1 or -1 but for their last bits.
					if math.Abs(h.Score-want[i].Score) > 1e-12 || width > 1 && h.Row != want[i].Row || rows[h.Row][0] == 0 {
						t.Fatalf("width %d, query %d of %d: hit %d is %+v, want %+v", width, q, n, i, h, want[i])
					}
				}
				if len(hits) != len(want) {
					t.Fatalf("width %d: %d hits, want %d", width, len(hits), len(want))
				}
			}
		}
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			rows[399][width-1] = float32(bad)
			table := open()
			query := slices.Repeat([]float32{1}, width)
			if _, err := table.Search(t.Context(), query, 1, nil); err == nil || !strings.Contains(err.Error(), "row 399 is not finite") {
				t.Errorf("%v in a row of %d: %v", bad, width, err)
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	good, err := os.ReadFile(recorded + "/float32.npy")
	if err != nil {
		t.Fatal(err)
	}
	text := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for name, c := range map[string]struct{ data, says string }{
		"empty":    {"", "not an array of numpy"},
		"text":     {"this is no array of numpy", "not an array of numpy"},
		"version":  {text("\x93NUMPY\x01", "\x93NUMPY\x09"), "version 9.0"},
		"header":   {string(good[:50]), "the file ends within its header"},
		"cut":      {string(good[:len(good)-1]), "truncated or damaged"},
		"longer":   {string(good) + "x", "truncated or damaged"},
		"float64":  {text("'<f4'", "'<f8'") + string(good[128:]), "its numbers are float64, want float16 or float32"},
		"columns":  {text("False", "True "), "numpy.ascontiguousarray"},
		"vector":   {text("(8, 8)", "(64,) "), "its shape is [64], want [rows, width]"},
		"no shape": {text("'shape'", "'shave'"), "damaged header"},
		"huge":     {text("(8, 8), }      ", "(999999999, 8)}"), "truncated or damaged"},
		"no rows":  {string(good[:128][:60]) + strings.Replace(string(good[60:128]), "(8, 8)", "(0, 8)", 1), "has no features"},
	} {
		path := filepath.Join(t.TempDir(), "x.npy")
		if err := os.WriteFile(path, []byte(c.data), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Beside an array, a damaged table, one without names and one with too few rows.
	for table, says := range map[string]string{
		"no table": "not a Parquet table",
		"":         "not a Parquet table",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.npy"), good, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "x.parquet"), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(filepath.Join(dir, "x.npy")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", table, err)
		}
	}
	dir := t.TempDir()
	other, err := os.ReadFile(recorded + "/metadata/metadata_1.parquet")
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "x.npy"), good, 0o644)
	os.WriteFile(filepath.Join(dir, "x.parquet"), other, 0o644)
	if _, err := Open(filepath.Join(dir, "x.npy")); err == nil || !strings.Contains(err.Error(), "8 rows") || !strings.Contains(err.Error(), "has 3") {
		t.Errorf("too few names: %v", err)
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none.npy"), filepath.Join(t.TempDir(), "none.safetensors"), "../../internal/parity/testdata/small/clip.pt"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzNPY(f *testing.F) {
	for _, path := range []string{"/float32.npy", "/img_emb/img_emb_0.npy"} {
		data, err := os.ReadFile(recorded + path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	path := filepath.Join(f.TempDir(), "x.npy")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		table, err := Open(path)
		if err != nil {
			if !strings.HasPrefix(err.Error(), path) {
				t.Errorf("an error without its path: %v", err)
			}
			return
		}
		defer table.Close()
		query := make([]float32, table.Width)
		query[0] = 1
		if _, err := table.Search(t.Context(), query, 3, nil); err != nil && !strings.Contains(err.Error(), "not finite") {
			t.Error(err)
		}
	})
}

func FuzzParquet(f *testing.F) {
	data, err := os.ReadFile(recorded + "/metadata/metadata_0.parquet")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	path := filepath.Join(f.TempDir(), "x.parquet")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := openColumn(path, nameColumns[Images])
		if err != nil {
			if !strings.HasPrefix(err.Error(), path) {
				t.Errorf("an error without its path: %v", err)
			}
			return
		}
		defer c.file.Close()
		c.get([]int64{min(c.rows, 10), 0, 0})
	})
}
