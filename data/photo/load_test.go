package photo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixture(name string) string { return filepath.Join("testdata/images", name) }

// The batches hold the same values as loading the photos one by one, in the order of the
// paths, for any number of workers and batch size; bad photos are left out and listed.
func TestLoad(t *testing.T) {
	pre := CLIP(16)
	good := []string{fixture("jpeg_420.jpg"), fixture("png_colour6_8bit.png"), fixture("webp_lossy.webp"), fixture("gif_plain.gif"), fixture("bmp_24bit.bmp")}
	bad := fixture("png_bad_filter.png")
	missing := fixture("none.jpg")
	for name, paths := range map[string][]string{
		"none":       nil,
		"one":        good[:1],
		"all good":   good,
		"all bad":    {bad, missing, bad},
		"one bad":    {good[0], bad, good[1], good[2], good[3], missing, good[4]},
		"bad at end": append(slices.Clone(good), bad),
		"many":       slices.Repeat(append(slices.Clone(good), missing), 12),
	} {
		for _, workers := range []int{1, 2, 7} {
			for _, batch := range []int{1, 2, 3, 100} {
				t.Run(fmt.Sprintf("%s/%d workers/batches of %d", name, workers, batch), func(t *testing.T) {
					var gotFailed []int
					next := 0
					for b, err := range Load(context.Background(), paths, pre, workers, batch) {
						if err != nil {
							t.Fatal(err)
						}
						if len(b.Pixels) != len(b.Index)*pre.Len() {
							t.Fatalf("%d values for %d photos of %d", len(b.Pixels), len(b.Index), pre.Len())
						}
						seen := len(b.Index) + len(b.Failed)
						if want := min(batch, len(paths)-next); seen != want {
							t.Fatalf("a batch of %d photos, want %d", seen, want)
						}
						for i, at := range b.Index {
							if at < next || at >= next+seen || i > 0 && at <= b.Index[i-1] {
								t.Fatalf("photo %d in the batch of %d to %d, after %v", at, next, next+seen-1, b.Index[:i])
							}
							m, err := Decode(paths[at])
							if err != nil {
								t.Fatal(err)
							}
							want, err := values(pre, m)
							if err != nil {
								t.Fatal(err)
							}
							if !slices.Equal(want, b.Pixels[i*pre.Len():(i+1)*pre.Len()]) {
								t.Errorf("photo %d differs from the same photo loaded alone", at)
							}
						}
						for _, f := range b.Failed {
							gotFailed = append(gotFailed, f.Index)
							if f.Path != paths[f.Index] || !errors.Is(f, ErrBroken) && !errors.Is(f, fs.ErrNotExist) {
								t.Errorf("failure %+v of %s", f, paths[f.Index])
							}
						}
						next += seen
					}
					if next != len(paths) {
						t.Errorf("%d photos came, want %d", next, len(paths))
					}
					var wantFailed []int
					for i, p := range paths {
						if p == bad || p == missing {
							wantFailed = append(wantFailed, i)
						}
					}
					if d := cmp.Diff(wantFailed, gotFailed); d != "" {
						t.Error("failed photos (-want +got):\n", d)
					}
				})
			}
		}
	}
}

func TestLoadStopsEarly(t *testing.T) {
	defer goleak.VerifyNone(t)
	paths := slices.Repeat([]string{fixture("jpeg_420.jpg")}, 500)
	n := 0
	for _, err := range Load(context.Background(), paths, CLIP(16), 3, 4) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	goleak.VerifyNone(t) // the loop itself waits for the workers
}

func TestLoadCancelled(t *testing.T) {
	for name, after := range map[string]int{"before": 0, "in between": 3} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			paths := slices.Repeat([]string{fixture("jpeg_420.jpg")}, 500)
			if after == 0 {
				cancel()
			}
			n := 0
			var last error
			for _, err := range Load(ctx, paths, CLIP(16), 2, 4) {
				if err != nil {
					last = err
					continue // an error ends the sequence
				}
				if last != nil {
					t.Error("a batch came after the error")
				}
				if n++; n == after {
					cancel()
				}
			}
			if !errors.Is(last, context.Canceled) || n != after {
				t.Errorf("%d batches and error %v, want %d and %v", n, last, after, context.Canceled)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, seq := range map[string]func(func(*Batch, error) bool){
		"no workers": Load(context.Background(), nil, CLIP(16), 0, 1),
		"batch of 0": Load(context.Background(), nil, CLIP(16), 1, 0),
		"size 0":     Load(context.Background(), nil, CLIP(0), 1, 1),
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			for b, err := range seq {
				if n++; b != nil || err == nil {
					t.Errorf("got %v, %v, want an error alone", b, err)
				}
			}
			if n != 1 {
				t.Errorf("%d results, want one error", n)
			}
		})
	}
}

// While the caller is busy, loading runs ahead by exactly two batches. In a synctest bubble,
// Wait returns once every goroutine of the loader is blocked: nothing more will be loaded
// then.
func TestLoadRunsAhead(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(fixture("jpeg_420.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for i := range 40 {
		paths = append(paths, filepath.Join(dir, fmt.Sprint(i)))
		if err := os.WriteFile(paths[i], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		const batch = 2
		var loaded []int
		for b, err := range Load(t.Context(), paths, CLIP(16), 2, batch) {
			if err != nil {
				t.Fatal(err)
			}
			if loaded == nil {
				synctest.Wait()
				for _, p := range paths {
					if err := os.Remove(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			loaded = append(loaded, b.Index...)
		}
		want := []int{0, 1, 2, 3, 4, 5} // the current batch and two more
		if d := cmp.Diff(want, loaded); d != "" {
			t.Error("photos loaded while the first batch was in use (-want +got):\n", d)
		}
	})
}
