package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	store "cyclecap/data/features"
	"cyclecap/torch"
	"cyclecap/train"

	"github.com/jedib0t/go-pretty/v6/table"
)

const (
	scaleName  = "scale"
	scaleSteps = 300
)

// scales are numbers of image and text features; the last are those of COCO train2014.
var scales = [][2]int{{2_000, 10_000}, {20_000, 100_000}, {82_783, 414_113}}

// scaled holds the measurements for sets of one size.
type scaled struct {
	Median float64 `json:"median"` // seconds per step
	Max    float64 `json:"max"`
	peak   float64 // GiB
}

// compareScales trains the CycleGAN on growing numbers of random features, each time in
// a separate process: the time per step should stay the same, and memory should not
// grow with the set.
func compareScales(s settings) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	t := table.NewWriter()
	t.AppendHeader(table.Row{"image features", "text features", "median step", "slowest", "peak memory"})
	for _, n := range scales {
		dir := filepath.Join(s.dir, fmt.Sprintf("scale-%d", n[1]))
		for kind, count := range map[string]int{"images": n[0], "texts": n[1]} {
			if err := randomFeatures(filepath.Join(dir, kind), kind, count); err != nil {
				return err
			}
		}
		c := command(self, "-scale", dir, "-threads", fmt.Sprint(s.threads))
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Run(); err != nil {
			return fmt.Errorf("scale %v: %w", n, err)
		}
		var r scaled
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			return err
		}
		if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			r.peak = float64(usage.Maxrss) / (1 << 20)
		}
		t.AppendRow(table.Row{n[0], n[1], fmt.Sprintf("%.1f ms", 1000*r.Median), fmt.Sprintf("%.1f ms", 1000*r.Max), fmt.Sprintf("%.2f GiB", r.peak)})
	}
	fmt.Println(t.Render())
	return nil
}

// randomFeatures writes a store of random features, unless it exists.
func randomFeatures(dir, kind string, n int) error {
	const width, batch = 512, 1024
	w, err := store.Create(dir, store.Spec{Kind: kind, Model: "random", Process: "none", Batch: batch, Width: width, Count: n})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	rows := make([]float32, 0, batch*width)
	for at := w.Done(); at < n; at += batch {
		var ids []int64
		rows = rows[:0]
		for i := at; i < min(n, at+batch); i++ {
			ids = append(ids, int64(i))
			for range width {
				rows = append(rows, float32(rng.NormFloat64()))
			}
		}
		if err := w.Add(context.Background(), ids, rows, nil); err != nil {
			return err
		}
	}
	return w.Close(context.Background())
}

// scale runs the training process.
func scale(dir string, threads int) error {
	torch.SetNumThreads(threads)
	images, err := store.Open(filepath.Join(dir, "images"))
	if err != nil {
		return err
	}
	texts, err := store.Open(filepath.Join(dir, "texts"))
	if err != nil {
		return err
	}
	var t *train.CycleGANTask
	err = torch.Scope(func() (err error) {
		t, err = train.NewCycleGANTask(train.DefaultCycleGAN(), images, texts)
		return err
	})
	if err != nil {
		return err
	}
	var seconds []float64
	for i := range scaleSteps {
		begin := time.Now()
		err := torch.Scope(func() error {
			_, err := t.Step(i)
			return err
		})
		if err != nil {
			return err
		}
		seconds = append(seconds, time.Since(begin).Seconds())
	}
	r := scaled{Median: median(seconds[10:])}
	for _, v := range seconds[10:] {
		r.Max = max(r.Max, v)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
