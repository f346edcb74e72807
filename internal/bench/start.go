package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const startName = "start"

// compareStart times whole processes from their start to the caption of one photo, and
// measures their peak memory. The files must be in the page cache, so the first pair
// does not count.
func compareStart(s settings) ([]result, error) {
	if _, err := os.Stat(s.cyclecap); err != nil {
		return nil, fmt.Errorf("the binary to time is missing: run `make build` (%w)", err)
	}
	wall := result{Name: "start to first caption", Against: "script with transformers", Unit: "s", Target: 3}
	memory := result{Name: "its peak memory", Against: "script with transformers", Unit: "GiB", Target: 1 / 0.6}
	photo := s.photos[0]
	sides := [][]string{
		{s.cyclecap, "caption", "--json", "--decode", "greedy", "--max-tokens", fmt.Sprint(tokens),
			"--clip", filepath.Join(s.dir, "clip", "model.safetensors"), "--decoder", filepath.Join(s.dir, "decoder.pt"),
			"--gpt2", filepath.Join(s.dir, "gpt2", "model.safetensors"), photo},
		{s.python, s.script, "caption", "--threads", fmt.Sprint(s.threads), s.dir, photo},
	}
	for round := 0; round <= s.rounds; round++ {
		var seconds, peak [2]float64
		var ids [2][]int64
		for k := range 2 {
			side := (round + k) % 2
			var err error
			if seconds[side], peak[side], ids[side], err = once(sides[side]); err != nil {
				return nil, fmt.Errorf("%v: %w", sides[side], err)
			}
		}
		if round > 0 {
			wall.add(seconds[0], seconds[1])
			memory.add(peak[0], peak[1])
			progress("start, %d of %d: %.2f s and %.2f GiB, Python %.2f s and %.2f GiB", round, s.rounds, seconds[0], peak[0], seconds[1], peak[1])
		}
		wall.Output = "same tokens"
		if !slices.Equal(ids[0], ids[1]) {
			wall.Output, wall.Wrong = "differ", fmt.Sprintf("the caption differs: got\n%v, want\n%v", ids[0], ids[1])
		}
	}
	return []result{wall, memory}, nil
}

// once runs a process to its end and returns the time in seconds, the peak memory in
// GiB, and the tokens that it prints.
func once(args []string) (seconds, peak float64, ids []int64, err error) {
	var out bytes.Buffer
	c := command(args[0], args[1:]...)
	c.Stdout = &out
	begin := time.Now()
	err = c.Run()
	seconds = time.Since(begin).Seconds()
	if err != nil {
		return
	}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		peak = float64(usage.Maxrss) / (1 << 20) // ru_maxrss counts KiB on Linux
	}
	var line struct {
		Tokens []int64 `json:"tokens"`
	}
	err = json.Unmarshal(out.Bytes(), &line)
	return seconds, peak, line.Tokens, err
}
