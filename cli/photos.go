package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"cyclecap/data/sets"
	"cyclecap/data/webdataset"

	"github.com/urfave/cli/v2"
)

// recursiveFlag makes photosIn read subfolders.
func recursiveFlag() cli.Flag {
	return &cli.BoolFlag{Name: "recursive", Usage: "also read the photos in subfolders of folders", DisableDefaultText: true}
}

// photosIn returns the photos and tars that paths name: photos, folders, tars, patterns of tars, and
// -, which stands for a list on standard input. The photos of a folder are sorted by name. It says
// what it passes over.
func photosIn(c *cli.Context, paths []string) (out []string, err error) {
	for _, p := range paths {
		list := []string{p}
		if p == "-" {
			if list, err = listed(c.App.Reader); err != nil {
				return nil, err
			}
		}
		for _, p := range list {
			files, err := filesIn(c, p)
			if err != nil {
				return nil, err
			}
			out = append(out, files...)
		}
	}
	return out, nil
}

// listed reads a list of paths, one a line.
func listed(r io.Reader) (paths []string, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if p := strings.TrimRight(line, "\r\n"); p != "" {
			paths = append(paths, p)
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		if err == io.EOF && len(paths) == 0 {
			return nil, fmt.Errorf("standard input lists no paths; - takes one path a line")
		} else if err == io.EOF {
			return paths, nil
		}
	}
}

// filesIn returns the photos in a folder, the tars of a pattern, or the path itself.
func filesIn(c *cli.Context, p string) ([]string, error) {
	info, err := os.Stat(p)
	if err != nil && sets.IsArchive(p) {
		return webdataset.Expand(p)
	}
	if err != nil || !info.IsDir() {
		return []string{p}, nil // a missing file is reported later, as a photo that can't be read
	}
	list, passed, err := sets.Folder(p, c.Bool("recursive"))
	hint := ""
	if passed.Folders > 0 {
		hint += "; use --recursive to read subfolders"
	}
	if passed.Tars > 0 {
		hint += "; name a tar to read the photos in it"
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, hint)
	}
	if s := passed.String(); s != "" {
		note(c, "%s: passed over %s%s", p, s, hint)
	}
	var out []string
	for _, m := range list {
		out = append(out, m.Path)
	}
	return out, nil
}
