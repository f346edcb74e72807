package features

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func spec(n int) Spec {
	return Spec{Kind: "images", Model: "m", Process: "p", Batch: 1000, Width: 3, Inputs: "i", Count: n}
}

// row gives the feature of input i; every 1000th input has none.
func row(i int) []float32 { return []float32{float32(i), float32(i) + 0.25, float32(-i)} }

// add feeds inputs from to to in batches.
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

// An interrupted writer loses what came behind the last whole shard; the next
// one goes on there, and the whole reads as if nothing had been.
func TestWriteInterruptResumeRead(t *testing.T) {
	const n = 150_000
	dir := t.TempDir()
	w, err := Create(dir, spec(n))
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 100_000) // and no Close
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("half of the features open with %v", err)
	}
	if w, err = Create(dir, spec(n)); err != nil {
		t.Fatal(err)
	}
	if d := w.Done(); d == 0 || d%1000 != 0 || d > 100_000 {
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
		t.Error("a row behind the last is read")
	}
	if err := s.Check("m", 3); err != nil {
		t.Error(err)
	}
	if err := s.Check("other", 3); err == nil || !strings.Contains(err.Error(), "other") {
		t.Error(err)
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

func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	w, err := Create(dir, spec(200_000))
	if err != nil {
		b.Fatal(err)
	}
	add(b, w, 0, 200_000)
	if err := w.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	rows := make([]int32, 64)
	dst := make([]float32, 64*3)
	for b.Loop() {
		for k := range rows {
			rows[k] = rand.Int32N(int32(s.Len()))
		}
		s.Read(rows, dst)
	}
}
