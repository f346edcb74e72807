package libtorch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Found is a shim and the libtorch to load it with.
type Found struct {
	Shim     string
	About    About
	Libtorch Libtorch
}

// Find returns the first shim with this ABI for which a libtorch of the right
// version is found. The error says what was found instead and what to do.
func Find(abi int) (Found, error) {
	s := search{
		shim: os.Getenv("CYCLECAP_SHIM"), checkout: checkout(),
		about: ReadAbout, python: FromPython,
	}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			s.beside = filepath.Dir(exe)
		}
	}
	s.cache, _ = Cache() // skipped if there is no cache folder
	var err error
	if s.libtorch, s.fixed, err = FromEnvironment(); err != nil {
		return Found{}, err
	}
	return s.find(abi)
}

// search lists where Find looks.
type search struct {
	shim     string   // CYCLECAP_SHIM
	libtorch Libtorch // LIBTORCH, if fixed
	fixed    bool     // whether LIBTORCH is set
	beside   string   // the folder of the program
	checkout string
	cache    string
	about    func(file string) (About, error)
	python   func() (Libtorch, bool)
}

func (s *search) find(abi int) (Found, error) {
	shims, err := s.shims()
	if err != nil {
		return Found{}, err
	}
	var first error // the error of the shim that takes precedence
	for _, file := range shims {
		about, err := s.about(file)
		if err == nil && about.ABI != abi {
			err = fmt.Errorf("%s has ABI %d, but this program needs ABI %d", file, about.ABI, abi)
		}
		if err != nil {
			err = fmt.Errorf("%w; run %s to build the required shim", err, BuildCommand())
		}
		var l Libtorch
		if err == nil {
			l, err = s.libtorchFor(file, about)
		}
		if err == nil {
			return Found{file, about, l}, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("the shim (%s) has not been built; run %s to build it, or set CYCLECAP_SHIM to an existing one", ShimName, BuildCommand())
	}
	return Found{}, first
}

// shims returns the shims that exist, in order of precedence.
func (s *search) shims() ([]string, error) {
	if s.shim != "" {
		if _, err := os.Stat(s.shim); err != nil {
			return nil, fmt.Errorf("CYCLECAP_SHIM is %s: %w", s.shim, errors.Unwrap(err))
		}
		file, err := filepath.Abs(s.shim)
		return []string{file}, err
	}
	var dirs []string
	if s.beside != "" {
		dirs = append(dirs, s.beside, filepath.Join(s.beside, "..", "lib"), filepath.Join(s.beside, "..", "build", "lib"))
	}
	if s.checkout != "" {
		dirs = append(dirs, filepath.Join(s.checkout, "build", "lib"))
	}
	var files []string
	for _, dir := range dirs {
		file := filepath.Join(dir, ShimName)
		if _, err := os.Stat(file); err == nil && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return append(files, s.cached()...), nil
}

// cached returns the shims in the cache that were built from these sources. The
// one that setup selected most recently comes first.
func (s *search) cached() []string {
	if s.cache == "" {
		return nil
	}
	folder, prefix := filepath.Join(s.cache, "shim"), key()+"-"
	entries, _ := os.ReadDir(folder) // there are no shims if the folder is missing
	var files []string
	for _, e := range entries {
		if file := filepath.Join(folder, e.Name(), ShimName); strings.HasPrefix(e.Name(), prefix) {
			files = append(files, file)
		}
	}
	chosen := func(file string) time.Time {
		info, err := os.Stat(filepath.Join(filepath.Dir(file), PathName))
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	slices.SortStableFunc(files, func(a, b string) int { return chosen(b).Compare(chosen(a)) })
	return files
}

// libtorchFor returns a libtorch of the version that a shim was built for. A
// libtorch of unknown version is accepted.
func (s *search) libtorchFor(shim string, about About) (Libtorch, error) {
	fits := func(l Libtorch) bool { return l.Version == "" || l.Release() == about.Release }
	if s.fixed {
		if !fits(s.libtorch) {
			return Libtorch{}, fmt.Errorf("%s was built for libtorch %s, but LIBTORCH is libtorch %s at %s; run %s to build a matching shim",
				shim, about.Release, s.libtorch.Version, s.libtorch.Dir, BuildCommand())
		}
		return s.libtorch, nil
	}
	var dirs []string
	built, err := os.ReadFile(filepath.Join(filepath.Dir(shim), PathName))
	if err == nil {
		dirs = append(dirs, strings.TrimSpace(string(built)))
	}
	if s.beside != "" {
		dirs = append(dirs, filepath.Join(s.beside, "libtorch"), filepath.Join(s.beside, "..", "libtorch"))
	}
	var other []string
	for _, dir := range dirs {
		l, err := At(dir)
		if err != nil {
			continue
		}
		if fits(l) {
			return l, nil
		}
		other = append(other, l.String())
	}
	if l, ok := s.python(); ok {
		if fits(l) {
			return l, nil
		}
		other = append(other, l.String())
	}
	where := "none was found"
	if len(other) > 0 {
		where = "found only " + strings.Join(other, " and ")
	}
	return Libtorch{}, fmt.Errorf("the shim %s requires libtorch %s, but %s; run `pip install torch==%s` to install it for the python3 on the PATH, or set LIBTORCH to its folder (…/site-packages/torch)",
		shim, about.Release, where, about.Release)
}
