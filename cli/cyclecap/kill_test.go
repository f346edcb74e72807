package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A folder of features that was computed by processes that were killed at random moments has the
// bytes of one that was not disturbed.
func TestFeaturesKilled(t *testing.T) {
	work := t.TempDir()
	var lines strings.Builder
	for i := range 12 * 3000 {
		fmt.Fprintf(&lines, "caption %d\n", i)
	}
	captions := filepath.Join(work, "captions.txt")
	if err := os.WriteFile(captions, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	start := func(out string) *exec.Cmd {
		c := exec.Command(program, "features", "--clip", in("clip.pt"), "--threads", "1", "--batch", "3000", "--captions", captions, "-o", filepath.Join(work, out)+"/")
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := start("whole").Wait(); err != nil {
		t.Fatal(err)
	}
	parts := func() int {
		list, _ := filepath.Glob(filepath.Join(work, "killed/text_emb/*.npy"))
		return len(list)
	}
	for range 3 {
		before, c, ended := parts(), start("killed"), make(chan struct{})
		go func() {
			c.Wait()
			close(ended)
		}()
		for running := true; running && parts() == before; {
			select {
			case <-ended:
				running = false
			case <-time.After(time.Millisecond):
			}
		}
		time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond))))
		c.Process.Kill()
		<-ended
		if parts() == before {
			t.Fatal("the process ended without another part")
		}
	}
	t.Logf("%d parts after the kills", parts())
	if err := start("killed").Wait(); err != nil {
		t.Fatal(err)
	}
	want, got := filesOf(t, filepath.Join(work, "whole")), filesOf(t, filepath.Join(work, "killed"))
	if len(want) != 24 {
		t.Errorf("%d files", len(want))
	}
	for name, data := range want {
		if got[name] != data {
			t.Errorf("%s differs", name)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("there is also %s", name)
	}
}

// filesOf returns the contents of the files in a folder.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
