// Command release writes this module, under another path, for others to get
// with `go get`: a folder in the layout of a Go module proxy, and the sources
// as they are in it, to build from. scripts/release.sh calls it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"cyclecap/internal/atomicfile"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

func main() {
	proxy := flag.String("proxy", "", "`folder` of the module proxy to add the version to")
	sources := flag.String("sources", "", "new `folder` for the sources")
	flag.Parse()
	err := errors.New("usage: release -proxy FOLDER -sources FOLDER VERSION MODULE_PATH")
	if flag.NArg() == 2 && *proxy != "" && *sources != "" {
		err = release(module.Version{Path: flag.Arg(1), Version: flag.Arg(0)}, *proxy, *sources)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func release(m module.Version, proxy, sources string) error {
	if err := check(m); err != nil {
		return err
	}
	files, err := tracked()
	if err != nil {
		return err
	}
	if err := copyModule(files, m.Path, sources); err != nil {
		return err
	}
	return publish(m, sources, proxy)
}

// check says what is wrong with a version or a path.
func check(m module.Version) error {
	if !semver.IsValid(m.Version) || semver.Canonical(m.Version) != m.Version {
		return fmt.Errorf("the version %q must be of the form v1.2.3 or v1.2.3-rc.1", m.Version)
	}
	if module.IsPseudoVersion(m.Version) {
		return fmt.Errorf("the version %q has the form that Go gives to commits without a version", m.Version)
	}
	if err := module.CheckPath(m.Path); err != nil {
		return fmt.Errorf("the module path %q is not valid: %w", m.Path, errors.Unwrap(err))
	}
	if err := module.Check(m.Path, m.Version); err != nil {
		return fmt.Errorf("the module path %s does not fit version %s: from v2 on it ends in /v2, and so on (%w)", m.Path, m.Version, err)
	}
	return nil
}

// tracked lists the files that belong to the module. The photos and networks
// that only tests of this repository read would be nine tenths of it.
func tracked() ([]string, error) {
	out, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if strings.HasPrefix(name, "testdata/") || strings.HasPrefix(name, "internal/parity/testdata/") {
			continue
		}
		if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	if !slices.Contains(files, "go.mod") {
		return nil, errors.New("there is no go.mod here: run this at the top of the repository")
	}
	return files, nil
}

// copyModule writes the files into a new folder, with the other module path in
// go.mod, in the import paths, and in what documentation says of packages.
func copyModule(files []string, to, dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	text, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	from := modfile.ModulePath(text)
	paths := importPaths(from, files)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		switch path.Ext(name) {
		case ".go":
			text = paths.ReplaceAll(text, []byte("${1}"+to+"${2}"))
			// Imports are sorted by path. What is not Go (test data) stays.
			if sorted, err := format.Source(text); err == nil {
				text = sorted
			}
		case ".md":
			text = paths.ReplaceAll(text, []byte("${1}"+to+"${2}"))
		case ".mod":
			f, err := modfile.Parse(name, text, nil)
			if err != nil {
				return err
			}
			if err := f.AddModuleStmt(to); err != nil {
				return err
			}
			if text, err = f.Format(); err != nil {
				return err
			}
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// importPaths matches the path of a package of the module, in quotes or as a
// word of a text, and the module in `go get cyclecap@latest`. Folders are known
// by the files: "cyclecap/meteor in the user's cache folder" is no package.
func importPaths(module string, files []string) *regexp.Regexp {
	tops := map[string]bool{}
	for _, name := range files {
		if dir, _, ok := strings.Cut(name, "/"); ok && strings.HasSuffix(name, ".go") {
			tops[regexp.QuoteMeta(dir)] = true
		}
	}
	return regexp.MustCompile("(?m)(^|[\\s\"`\\[(])" + regexp.QuoteMeta(module) +
		"(@latest\\b|/(?:" + strings.Join(slices.Sorted(maps.Keys(tops)), "|") + ")\\b)")
}

// publish adds a version to a module proxy's folder.
func publish(m module.Version, sources, proxy string) error {
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	name, err := module.EscapeVersion(m.Version)
	if err != nil {
		return err
	}
	dir := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	write := func(file string, f func(w io.Writer) error) error {
		var b bytes.Buffer
		if err := f(&b); err != nil {
			return err
		}
		// Whoever has got a version would find it changed, and refuse it.
		to := filepath.Join(dir, file)
		if old, err := os.ReadFile(to); err == nil && file != "list" && !bytes.Equal(old, b.Bytes()) {
			return fmt.Errorf("%s is there already, with other contents; choose another version, or remove %s if nobody has got it", to, dir)
		}
		return atomicfile.WriteBytes(to, b.Bytes())
	}
	if err := write(name+".zip", func(w io.Writer) error { return zip.CreateFromDir(w, m, sources) }); err != nil {
		return err
	}
	if err := write(name+".mod", func(w io.Writer) error {
		text, err := os.ReadFile(filepath.Join(sources, "go.mod"))
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}); err != nil {
		return err
	}
	if err := write(name+".info", func(w io.Writer) error {
		when, err := committed()
		if err == nil {
			err = json.NewEncoder(w).Encode(map[string]any{"Version": m.Version, "Time": when})
		}
		return err
	}); err != nil {
		return err
	}
	return write("list", func(w io.Writer) error {
		old, err := os.ReadFile(filepath.Join(dir, "list"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		versions := append(strings.Fields(string(old)), m.Version)
		semver.Sort(versions)
		_, err = fmt.Fprintln(w, strings.Join(slices.Compact(versions), "\n"))
		return err
	})
}

// committed is the time of the commit, so that the same commit gives the same
// release.
func committed() (time.Time, error) {
	out, err := exec.Command("git", "log", "-1", "--format=%cI").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("git log: %w", err)
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(string(out)))
	return t.UTC(), err
}
