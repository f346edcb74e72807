// Package rooms has no code: its test holds the packages to the table of rooms in
// docs/design.md.
package rooms

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "cyclecap/"

// shared are packages that every room may import.
var shared = []string{"internal/atomicfile", "internal/jsonerror", "internal/nearest", "internal/pickle", "internal/processor", "internal/regular"}

// room is a row of the table.
type room struct {
	folder  string
	imports []string // folders; "all": anything
}

var quoted = regexp.MustCompile("`([^`]+)`")

// table reads the rooms of docs/design.md.
func table(t *testing.T) []room {
	t.Helper()
	text, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "\n## Rooms\n")
	if !ok {
		t.Fatal("docs/design.md has no section Rooms")
	}
	var rooms []room
	for line := range strings.Lines(text2) {
		if strings.HasPrefix(line, "## ") {
			break
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		imports := []string{}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			imports = append(imports, m[1])
		}
		if strings.TrimSpace(cells[3]) == "all" {
			imports = []string{"all"}
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			rooms = append(rooms, room{strings.TrimSuffix(m[1], "/"), imports})
		}
	}
	return rooms
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// roomOf gives the row with the longest folder that holds a package.
func roomOf(rooms []room, path string) *room {
	var best *room
	for i, r := range rooms {
		if within(path, r.folder) && (best == nil || len(r.folder) > len(best.folder)) {
			best = &rooms[i]
		}
	}
	return best
}

// TestImports: a package imports what its room's row names, its own room and the
// shared packages, and no other of this module. Only the command line knows its
// library, and what is said to need no libtorch reaches none.
func TestImports(t *testing.T) {
	rooms := table(t)
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath    string
			Imports, Deps []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		path := strings.TrimPrefix(p.ImportPath, module)
		own := roomOf(rooms, path)
		if own == nil {
			t.Errorf("%s is in no room of docs/design.md", path)
			continue
		}
		used[own.folder] = true
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "github.com/urfave/cli") && !within(path, "cli") {
				t.Errorf("%s imports %s, which belongs to cli", path, i)
			}
			i, ours := strings.CutPrefix(i, module)
			if !ours || slices.Contains(shared, i) || slices.Contains(own.imports, "all") || roomOf(rooms, i) == own {
				continue
			}
			if !slices.ContainsFunc(own.imports, func(f string) bool { return within(i, f) }) {
				t.Errorf("%s imports %s, which the row of %s does not name", path, i, own.folder)
			}
		}
		for _, free := range []string{"data/photo", "data/tokenizer", "data/coco", "data/table", "data/webdataset", "data/world", "eval", "experiment/report", "serve/fetch"} {
			if within(path, free) && path != "eval/clipscore" && slices.Contains(p.Deps, module+"torch") {
				t.Errorf("%s needs libtorch", path)
			}
		}
	}
	if packages < 30 {
		t.Errorf("only %d packages were looked at", packages)
	}
	for _, r := range rooms {
		if !used[r.folder] {
			t.Errorf("docs/design.md has a room %s without a package", r.folder)
		}
	}
}
