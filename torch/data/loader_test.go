package data_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"cyclecap/torch/data"
)

// numbers is a data set whose items are their numbers.
type numbers struct {
	n         int
	bad       int // cannot be read, if above 0
	now, most *atomic.Int64
}

func (s numbers) Len() int { return s.n }

func (s numbers) Item(i int) (int, error) {
	if s.most != nil {
		s.most.Store(max(s.most.Load(), s.now.Add(1)))
		defer s.now.Add(-1)
		time.Sleep(time.Duration(i%3) * time.Millisecond)
	}
	if s.bad > 0 && i == s.bad {
		return 0, errors.New("damaged")
	}
	return i, nil
}

func loader(t *testing.T, s numbers, o data.Options) *data.Loader[int] {
	t.Helper()
	l, err := data.NewLoader(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// epoch returns the batches of an epoch.
func epoch(t *testing.T, l *data.Loader[int]) (list [][]int) {
	t.Helper()
	for b, err := range l.Epoch(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

// The batches are those of PyTorch's DataLoader, with any number of workers.
func TestOrders(t *testing.T) {
	text, err := os.ReadFile("testdata/loader.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Cases []struct {
			N         int
			BatchSize int  `json:"batch_size"`
			DropLast  bool `json:"drop_last"`
			Seed      uint64
			Batches   int
			Epochs    [][][]int
		}
	}
	if err := json.Unmarshal(text, &recorded); err != nil || len(recorded.Cases) == 0 {
		t.Fatal(err)
	}
	for _, c := range recorded.Cases {
		for _, workers := range []int{0, 1, 4} {
			var now, most atomic.Int64
			l := loader(t, numbers{n: c.N, now: &now, most: &most}, data.Options{BatchSize: c.BatchSize, Shuffle: true, Seed: c.Seed, DropLast: c.DropLast, Workers: workers})
			if l.Len() != c.Batches {
				t.Errorf("%d batches, want %d", l.Len(), c.Batches)
			}
			for e, want := range c.Epochs {
				if diff := cmp.Diff(want, epoch(t, l)); diff != "" {
					t.Errorf("%d items, %d workers, epoch %d: %s", c.N, workers, e, diff)
				}
				if l.State() != (data.State{Epoch: e + 1}) {
					t.Errorf("%+v after epoch %d", l.State(), e)
				}
			}
			if workers == 4 && c.N > 20 && most.Load() < 2 || most.Load() > int64(max(workers, 1)) {
				t.Errorf("%d workers: %d at a time", workers, most.Load())
			}
		}
	}
}

// A Loader continues from a state with the batches that are left.
func TestState(t *testing.T) {
	for _, workers := range []int{0, 3} {
		o := data.Options{BatchSize: 3, Shuffle: true, Seed: 2, Workers: workers}
		l := loader(t, numbers{n: 20}, o)
		first, second := epoch(t, l), epoch(t, l)
		l = loader(t, numbers{n: 20}, o)
		got := epoch(t, l)
		for b, err := range l.Epoch(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, b); l.State().Batch == 2 {
				break
			}
		}
		again := loader(t, numbers{n: 20}, o)
		if err := again.SetState(l.State()); err != nil {
			t.Fatal(err)
		}
		got = append(got, epoch(t, again)...)
		if diff := cmp.Diff(append(first, second...), got); diff != "" {
			t.Error(diff)
		}
		if err := again.SetState(data.State{Batch: 8}); err == nil || !strings.Contains(err.Error(), "an epoch has 7 batches") {
			t.Error(err)
		}
	}
}

// An error names the item, and leaves no goroutines; nor does a loop that ends early. (A bubble of
// synctest fails when goroutines are left in it; t.Context, which ends with the test, would end them.)
func TestErrors(t *testing.T) {
	for _, workers := range []int{0, 4} {
		synctest.Test(t, func(t *testing.T) {
			l := loader(t, numbers{n: 100, bad: 57}, data.Options{BatchSize: 10, Workers: workers})
			n := 0
			var last error
			for b, err := range l.Epoch(context.Background()) {
				n, last = n+len(b), err
			}
			if n != 50 || last == nil || last.Error() != "item 57: damaged" || l.State() != (data.State{Batch: 5}) {
				t.Errorf("%d workers: %d items, %v, %+v", workers, n, last, l.State())
			}
			ctx, cancel := context.WithCancel(context.Background())
			l = loader(t, numbers{n: 100}, data.Options{Workers: workers})
			last = nil
			for _, err := range l.Epoch(ctx) {
				cancel()
				last = err
			}
			if !errors.Is(last, context.Canceled) {
				t.Errorf("%d workers: %v", workers, last)
			}
			for range l.Epoch(context.Background()) {
				break
			}
			cancel()
		})
	}
	if _, err := data.NewLoader(numbers{n: 1}, data.Options{BatchSize: -1}); err == nil {
		t.Error("a batch size of -1")
	}
}
