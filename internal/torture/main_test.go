package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupted interrupts the command in the middle of a round. It must end at once with the
// counts so far and exit code 130, and leave neither a process nor a folder behind. A script
// stands for cyclecap: it finishes undisturbed runs and hangs in others.
func TestInterrupted(t *testing.T) {
	dir, temp := t.TempDir(), t.TempDir()
	command := filepath.Join(dir, "torture")
	if out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const script = "#!/bin/sh\ncase \"$PWD\" in *undisturbed*) mkdir -p run; exit;; esac\necho $$ >>\"$TMPDIR\"/started\nexec sleep 100\n"
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/cyclecap"), []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := exec.Command(command, "-seed", "1")
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), "TMPDIR="+temp)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { c.Process.Kill() }).Stop()
	defer c.Process.Kill()
	started := filepath.Join(temp, "started")
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		} else if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 || stderr.String() != "torture: interrupted\n" {
		t.Errorf("exit code %d, and it said\n%s", code, stderr.String())
	}
	if !strings.HasPrefix(stdout.String(), "torture: ") || strings.Contains(stdout.String(), "rounds") {
		t.Errorf("the counts are %q", stdout.String())
	}
	pids, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s is left", pid)
		}
	}
	if list, err := filepath.Glob(filepath.Join(temp, "torture*")); err != nil || len(list) > 0 {
		t.Errorf("left: %q (%v)", list, err)
	}
}
