package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct{ path, version, want string }{
		{"example.com/vision/cyclecap", "v0.1.0", ""},
		{"example.com/cyclecap/v2", "v2.0.0-rc.1", ""},
		{"example.com/cyclecap", "0.1.0", "form v1.2.3"},
		{"example.com/cyclecap", "v0.1", "form v1.2.3"},
		{"example.com/cyclecap", "v0.1.0+build", "form v1.2.3"},
		{"example.com/cyclecap", "v0.0.0-20260101000000-0123456789ab", "commits without a version"},
		{"cyclecap", "v0.1.0", "dot"},
		{"example.com/a b", "v0.1.0", "not valid"},
		{"example.com/cyclecap", "v2.0.0", "ends in /v2"},
		{"example.com/cyclecap/v2", "v0.1.0", "does not fit"},
	} {
		err := check(module.Version{Path: c.path, Version: c.version})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: error %v, want %q", c.path, c.version, err, c.want)
		}
	}
}

// Paths of packages change, and words that look like them do not.
func TestCopyModule(t *testing.T) {
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	files := map[string][2]string{
		"go.mod": {"module house\n\ngo 1.26.0\n", "module example.com/x/house\n\ngo 1.26.0\n"},
		"door/door.go": {"// Package door, see house/door and `house/window`.\npackage door\n\nimport (\n\t\"os\"\n\n\t\"house/window\"\n\n\t\"golang.org/x/sys/unix\"\n)\n\nvar _ = \"in the folder house/windowless, .cache/house/door\"\n",
			"// Package door, see example.com/x/house/door and `example.com/x/house/window`.\npackage door\n\nimport (\n\t\"os\"\n\n\t\"example.com/x/house/window\"\n\n\t\"golang.org/x/sys/unix\"\n)\n\nvar _ = \"in the folder house/windowless, .cache/house/door\"\n"},
		"window/w.go": {"package window\n\nimport \"house/door\"\n", "package window\n\nimport \"example.com/x/house/door\"\n"},
		"README.md":   {"[`house/door`](door), go run house/door\ngo get house@latest\n", "[`example.com/x/house/door`](door), go run example.com/x/house/door\ngo get example.com/x/house@latest\n"},
		"notes.txt":   {"house/door\n", "house/door\n"},
	}
	t.Chdir(in)
	var names []string
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text[0]), 0o666); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := copyModule(names, "example.com/x/house", out); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != text[1] {
			t.Errorf("%s is\n%s, want\n%s", name, got, text[1])
		}
	}
}
