package features

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func spec(n int) Spec {
	return Spec{Kind: "images", Model: "m", Process: "p", Batch: 1000, Width: 3, Inputs: "i", Count: n}
}

// row returns the feature of input i; every 1000th input has none.
func row(i int) []float32 { return []float32{float32(i), float32(i) + 0.25, float32(-i)} }

// add adds inputs [from, to) in batches.
func add(t testing.TB, w *Writer, from, to int) {
	t.Helper()
	for at := from; at < to; at += 1000 {
		var ids []int64
		var rows []float32
		var skips []Skip
		for i := at; i < min(to, at+1000); i++ {
			if i%1000 == 7 {
				skips = append(skips, Skip{ID: int64(10 * i), Name: "x", Error: "broken"})
				continue
			}
			ids = append(ids, int64(10*i))
			rows = append(rows, row(i)...)
		}
		if err := w.Add(context.Background(), ids, rows, skips); err != nil {
			t.Fatal(err)
		}
	}
}

// An interrupted writer loses what came after the last complete shard; the next
// writer resumes there, and the result is as if nothing had happened.
func TestWriteInterruptResumeRead(t *testing.T) {
	const n = 40_000
	dir := t.TempDir()
	w, err := Create(dir, spec(n))
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 25_000)
	w.unlock() // as when a process ends
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("half of the features open with %v", err)
	}
	if w, err = Create(dir, spec(n)); err != nil {
		t.Fatal(err)
	}
	if d := w.Done(); d != 18_000 { // shards end where a batch ends
		t.Fatalf("%d inputs are done", d)
	}
	add(t, w, w.Done(), n)
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Len() != n-n/1000 || len(s.Skipped) != n/1000 || s.Skipped[1].ID != 10070 {
		t.Fatalf("%d rows, %d skipped", s.Len(), len(s.Skipped))
	}
	rows := make([]int32, 64)
	dst := make([]float32, 64*3)
	for range 200 {
		for k := range rows {
			rows[k] = rand.Int32N(int32(s.Len()))
		}
		if err := s.Read(rows, dst); err != nil {
			t.Fatal(err)
		}
		for k, r := range rows {
			want := row(int(s.IDs()[r] / 10))
			for c := range 3 {
				if dst[3*k+c] != want[c] {
					t.Fatalf("row %d is %v instead of %v", r, dst[3*k:3*k+3], want)
				}
			}
		}
	}
	if err := s.Read([]int32{int32(s.Len())}, dst); err == nil {
		t.Error("a row after the last can be read")
	}
}

func TestChangesAndDamage(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, spec(10))
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 10)
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	other := spec(10)
	other.Model = "n"
	var changed *ChangedError
	if _, err := Create(dir, other); !errors.As(err, &changed) || !strings.Contains(err.Error(), "model: m there, n here") {
		t.Error(err)
	}
	shard := filepath.Join(dir, "features-00001.safetensors")
	if err := os.Truncate(shard, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "manifest.json") {
		t.Error(err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no features") {
		t.Error(err)
	}
}

// Keep saves what was added, as after Ctrl-C; resuming then gives the same
// features.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, spec(10_000))
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 3000)
	if err := w.Keep(); err != nil {
		t.Fatal(err)
	}
	if err := w.Keep(); err != nil {
		t.Errorf("a second Keep: %v", err)
	}
	if err := w.Add(context.Background(), nil, nil, []Skip{{}}); err == nil {
		t.Error("something can be added after Keep")
	}
	if w, err = Create(dir, spec(10_000)); err != nil {
		t.Fatal(err)
	}
	if w.Done() != 3000 || len(w.Skipped()) != 3 {
		t.Fatalf("%d inputs are done and %d skipped", w.Done(), len(w.Skipped()))
	}
	add(t, w, 3000, 10_000)
	if err := w.Add(context.Background(), []int64{1}, row(1), nil); err == nil || !strings.Contains(err.Error(), "10000 of 10000") {
		t.Errorf("one input too many: %v", err)
	}
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.Keep(); err != nil {
		t.Errorf("Keep after Close: %v", err)
	}
	checkAll(t, dir, 10_000)
}

// checkAll reads all rows of inputs 0 to n.
func checkAll(t *testing.T, dir string, n int) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := 0
	dst := make([]float32, 3)
	for i := range n {
		if i%1000 == 7 {
			continue
		}
		if err := s.Read([]int32{int32(at)}, dst); err != nil {
			t.Fatal(err)
		}
		if s.IDs()[at] != int64(10*i) || !slices.Equal(dst, row(i)) {
			t.Fatalf("row %d is %v of id %d, not %v of %d", at, dst, s.IDs()[at], row(i), 10*i)
		}
		at++
	}
	if s.Len() != at {
		t.Errorf("%d rows instead of %d", s.Len(), at)
	}
}

// watch reports, by name, each file in a folder that is created, closed after
// writing, or renamed from now on.
func watch(t *testing.T, dir string) (next func() string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	var events []byte
	return func() string {
		if len(events) == 0 {
			events = make([]byte, 4096)
			n, err := unix.Read(fd, events)
			if err != nil {
				t.Fatal(err)
			}
			events = events[:n]
		}
		size := binary.NativeEndian.Uint32(events[12:]) // of the name, which is padded with zeros
		name := string(bytes.TrimRight(events[16:16+size], "\x00"))
		events = events[16+size:]
		return name
	}
}

// A process is killed with SIGKILL while it writes a shard and the manifest: the
// first after one change of the folder, the second after two, and so on. What the
// next process finds must be intact, and in the end everything must be there.
func TestKill(t *testing.T) {
	const n, shard = 100_000, 9000 // the fewest batches of 1000 that fill a shard
	if dir := os.Getenv("CYCLECAP_TEST_FEATURES"); dir != "" {
		w, err := Create(dir, spec(n))
		if err != nil {
			t.Fatal(err)
		}
		add(t, w, w.Done(), w.Done()+shard)
		io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	dir := t.TempDir()
	kills, done := 0, 0
	for last := false; !last; {
		next := watch(t, dir)
		c := exec.Command(os.Args[0], "-test.run=^TestKill$")
		c.Env = append(os.Environ(), "CYCLECAP_TEST_FEATURES="+dir)
		c.Stderr = os.Stderr
		if _, err := c.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kills++
		for change := 0; change < kills && !last; {
			if name := next(); name != lockFile {
				change++
				last = name == manifestFile // it gets its name when everything is written
			}
		}
		c.Process.Kill()
		c.Wait()
		m, err := readManifest(dir)
		if errors.Is(err, fs.ErrNotExist) && !last {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Done < done {
			t.Fatalf("%d inputs were done, and now %d are", done, m.Done)
		}
		done = m.Done
		for _, sh := range m.Shards {
			if info, err := os.Stat(filepath.Join(dir, sh.File)); err != nil || info.Size() != sh.Bytes {
				t.Fatalf("%s is not whole: %v", sh.File, err)
			}
		}
	}
	if kills < 6 { // a shard and the manifest, each created, closed and renamed
		t.Errorf("a shard was written in %d changes of the folder", kills)
	}
	if done == 0 {
		t.Error("a manifest was written, and nothing is done")
	}
	w, err := Create(dir, spec(n))
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, w.Done(), n)
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkAll(t, dir, n)
	if left, _ := filepath.Glob(filepath.Join(dir, ".*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestTwoWriters(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, spec(10))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, spec(10)); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("two writers in one folder: %v", err)
	}
	if err := w.Keep(); err != nil {
		t.Fatal(err)
	}
	if w, err = Create(dir, spec(10)); err != nil {
		t.Fatal(err)
	}
	w.Keep()
}

// A manifest that contradicts itself is refused.
func TestManifest(t *testing.T) {
	for _, test := range []struct{ from, to, want string }{
		{`"width": 3`, `"width": -3`, "width -3"},
		{`"width": 3`, `"width": 4`, "[9, 4]"},
		{`features-00001`, `../features-00001`, "shard 1"},
		{`"count": 9`, `"count": 8`, "8 rows"},
		{`"done": 10`, `"done": 11`, "11 of 10"},
		{`"version": 1`, `"version": 2`, "version 2"},
		{`"done": 10`, `"done": "x"`, "damaged"},
	} {
		dir := t.TempDir()
		w, err := Create(dir, spec(10))
		if err != nil {
			t.Fatal(err)
		}
		add(t, w, 0, 10)
		if err := w.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, manifestFile)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), test.from, test.to, 1)
		if changed == string(text) {
			t.Fatalf("no %s in %s", test.from, text)
		}
		// With the checksum any change is damage; manifests of earlier versions have none.
		without := regexp.MustCompile(`,\s*"sha256": "[0-9a-f]+"`).ReplaceAllString(changed, "")
		for _, c := range []struct{ text, want string }{{changed, "manifest.json: "}, {without, test.want}} {
			if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", test.to, err)
			}
		}
	}
}

// BenchmarkRead reads batches of 64 random rows; the time must not depend on the
// number of rows.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 414_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := Spec{Kind: "texts", Model: "m", Width: 512, Count: n}
			dir := b.TempDir()
			w, err := Create(dir, s)
			if err != nil {
				b.Fatal(err)
			}
			rows, ids := make([]float32, 1000*512), make([]int64, 1000)
			for range n / 1000 {
				if err := w.Add(context.Background(), ids, rows, nil); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
			set, err := Open(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer set.Close()
			batch, dst := make([]int32, 64), make([]float32, 64*512)
			for b.Loop() {
				for k := range batch {
					batch[k] = rand.Int32N(int32(n))
				}
				if err := set.Read(batch, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, test := range []struct {
		row    []float32
		scaled bool
		want   string
	}{
		{[]float32{1, -2, 1e38}, true, ""},
		{[]float32{0, 0}, false, ""},
		{[]float32{0, 1e-45}, true, ""},
		{[]float32{0, 0}, true, "all 2 values are 0"},
		{[]float32{1, nan}, false, "value 2 of 2 is NaN"},
		{[]float32{inf, 1}, false, "value 1 of 2 is infinite"},
		{[]float32{1, 2, -inf}, true, "value 3 of 3 is minus infinite"},
	} {
		switch err := Check(test.row, test.scaled); {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%v: %v, want %q", test.row, err, test.want)
		}
	}
	// Features that an earlier version wrote.
	dir := t.TempDir()
	w, err := Create(dir, spec(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(t.Context(), []int64{7, 8}, []float32{1, 2, 3, 4, nan, 6}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dst := make([]float32, 6)
	if err := s.Read([]int32{0}, dst); err != nil {
		t.Error(err)
	}
	if err := s.Read([]int32{0, 1}, dst); err == nil || !strings.Contains(err.Error(), "the feature of id 8: value 2 of 3 is NaN") {
		t.Errorf("NaN is read: %v", err)
	}
}
