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

// Features that were computed by processes that were killed at random moments have the bytes of those
// of one that was not disturbed.
func TestFeaturesKilled(t *testing.T) {
	var lines strings.Builder
	for i := range 12 * 3000 {
		fmt.Fprintf(&lines, "caption %d\n", i)
	}
	captions := filepath.Join(t.TempDir(), "captions.txt")
	if err := os.WriteFile(captions, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		out, parts string
		files      int
	}{
		{"features/", "features/text_emb/*.npy", 24},
		{"features.npy", "features.npy.parts/part-*.safetensors", 2},
	} {
		t.Run(test.out, func(t *testing.T) {
			whole, killed := t.TempDir(), t.TempDir()
			start := func(dir string) *exec.Cmd {
				c := exec.Command(program, "features", "--clip", in("clip.pt"), "--threads", "1", "--batch", "3000", "--captions", captions, "-o", dir+"/"+test.out)
				c.Stderr = os.Stderr
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				return c
			}
			if err := start(whole).Wait(); err != nil {
				t.Fatal(err)
			}
			parts := func() int {
				list, _ := filepath.Glob(filepath.Join(killed, test.parts))
				return len(list)
			}
			for range 3 {
				before, c, ended := parts(), start(killed), make(chan struct{})
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
			if err := start(killed).Wait(); err != nil {
				t.Fatal(err)
			}
			want, got := filesOf(t, whole), filesOf(t, killed)
			if len(want) != test.files {
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
		})
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
