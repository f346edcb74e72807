package deploy

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestFlags checks that the command has the options with which the unit and the image start it.
func TestFlags(t *testing.T) {
	help, err := exec.Command("go", "run", "../cli/cyclecap", "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cyclecap.service", "Containerfile", "README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(string(text)) {
			if !regexp.MustCompile(`cyclecap"?,? "?serve`).MatchString(line) {
				continue
			}
			for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(line, -1) {
				found++
				if flag != "--help" && !strings.Contains(string(help), flag+" ") {
					t.Errorf("%s: serve has no option %s", file, flag)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s starts no server", file)
		}
	}
}
