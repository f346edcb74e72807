package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cyclecap/data/coco"
	"cyclecap/data/embeddings"
	store "cyclecap/data/features"
	"cyclecap/data/photo"
	"cyclecap/data/sets"

	"github.com/urfave/cli/v2"
)

// partSize is the largest number of photos or texts in a part that is no tar, unless a batch has more. A process that is
// killed loses at most one part; and those of a set of 100,000 are still shared evenly.
const partSize = 4096

// A section is what a part has of the input: positions in its list of paths or of texts.
type section struct{ from, to int }

// cut divides an input into parts: a tar or table is one, and so is a run of at most so many photos or texts. A part
// has whole batches, also if a batch has more, so that the features do not depend on which parts one process computes.
func (in *inputs) cut(batch, most int) {
	in.batch = batch
	size := max(batch, most/batch*batch)
	n := len(in.texts) + len(in.paths)
	for at := 0; at < n; {
		end := at + 1
		if len(in.paths) > 0 && sets.IsArchive(in.paths[at]) {
			in.tars = true
		} else {
			for end < min(n, at+size) && !(len(in.paths) > 0 && sets.IsArchive(in.paths[end])) {
				end++
			}
		}
		in.sections = append(in.sections, section{at, end})
		at = end
	}
}

// hash identifies the names and ids of the whole input.
func (in *inputs) hash() string {
	list := slices.Concat(in.paths, in.texts)
	for _, ids := range [][]coco.ID{in.ids, in.imageIDs} {
		for _, id := range ids {
			list = append(list, id.String())
		}
	}
	return store.Hash(list...)
}

// photos returns the photos of parts, and their number, or -1 if it is not known. It tells at where each
// part begins before it returns the first photo of it.
func (in *inputs) photos(parts []int, at *starts) (sources func(yield func(photo.Source) bool), count int) {
	for _, k := range parts {
		count += in.sections[k].to - in.sections[k].from
	}
	if in.tars {
		count = -1
	}
	return func(yield func(photo.Source) bool) {
		n := 0
		for _, k := range parts {
			at.add(n)
			list, _ := sets.Sources(in.paths[in.sections[k].from:in.sections[k].to])
			first := true
			for s := range list {
				s.First, first = first, false
				n++
				if !yield(s) {
					return
				}
			}
		}
	}, count
}

// starts are the positions at which parts begin, among all photos or texts of a process.
type starts struct {
	mu   sync.Mutex // the photos are listed while others are computed
	list []int
}

func (s *starts) add(at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, at)
}

// get returns where the i-th part begins, and whether that is known.
func (s *starts) get(i int) (at int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.list) {
		return 0, false
	}
	return s.list[i], true
}

// A shard is one of several processes that compute the features of an input. The zero value is a process alone.
type shard struct{ i, of int }

var shards = regexp.MustCompile(`^([0-9]{1,9})/([0-9]{1,9})$`)

// shardOf parses --shard.
func shardOf(c *cli.Context) (s shard, err error) {
	text := c.String("shard")
	if !c.IsSet("shard") {
		return s, nil
	}
	m := shards.FindStringSubmatch(text)
	if m == nil {
		return s, usagef("--shard %s: must be I/N, such as 1/16", text)
	}
	s.i, _ = strconv.Atoi(m[1])
	s.of, _ = strconv.Atoi(m[2])
	if s.i < 1 || s.i > s.of {
		return s, usagef("--shard %s: I/N counts from 1/%d to %d/%d", text, max(1, s.of), max(1, s.of), max(1, s.of))
	}
	return s, nil
}

// alone reports whether the process has no others beside it.
func (s shard) alone() bool { return s.of == 0 }

func (s shard) String() string { return fmt.Sprintf("%d/%d", s.i, s.of) }

// parts returns the parts of the shard, of n. It depends on nothing else, so that all processes agree.
func (s shard) parts(n int) (list []int) {
	for k := range n {
		if s.alone() || k%s.of == s.i-1 {
			list = append(list, k)
		}
	}
	return list
}

// origin says how features came to be. It is the same for all parts of a folder.
type origin struct {
	Kind    string `json:"kind"`
	Inputs  string `json:"inputs"` // a hash of their names and ids
	Parts   int    `json:"parts"`
	Batch   int    `json:"batch"`
	Model   string `json:"model"`
	Weights string `json:"weights"` // a hash
	DType   string `json:"dtype"`
	Fast    string `json:"fast"`
	// Width is that of the features, and Normalized says that a file is to have them with length 1. Those of
	// a folder always have.
	Width      int  `json:"width,omitempty"`
	Normalized bool `json:"normalized,omitempty"`
}

// differs returns an error that names what differs between the origins of the part at path and of other, or nil.
func (o origin) differs(from origin, path, other string) error {
	var list []string
	for _, f := range []struct {
		what string
		a, b any
	}{
		{"kind", from.Kind, o.Kind},
		{"model", from.Model, o.Model},
		{"weights", from.Weights, o.Weights},
		{"dtype", from.DType, o.DType},
		{"fast", from.Fast, o.Fast},
		{"normalize", from.Normalized, o.Normalized},
		{"batch", from.Batch, o.Batch},
		{"parts", from.Parts, o.Parts},
		{"hash of the inputs' names", from.Inputs, o.Inputs},
	} {
		if f.a != f.b {
			list = append(list, fmt.Sprintf("%s %v and %v", f.what, f.a, f.b))
		}
	}
	if list == nil {
		return nil
	}
	return fmt.Errorf("%s and %s have no common origin: %s", path, other, strings.Join(list, "; "))
}

// partInfo says what a part has.
type partInfo struct {
	Part   int `json:"part"`
	Inputs int `json:"inputs"` // with those that failed
	Rows   int `json:"rows"`
	Failed int `json:"failed"` // photos that could not be read
	Tars   int `json:"tars"`   // tars that could not be read to their end
}

// partNote is what a part carries in its metadata, as JSON.
type partNote struct {
	Origin origin `json:"origin"`
	partInfo
}

func (n partNote) String() string {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(text)
}

// countOf returns a number with its noun.
func countOf(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// folderFile is a folder as clip-retrieval writes it, with a pair of files for each part.
type folderFile struct {
	*tableFile
	path   string
	kind   embeddings.Kind
	origin origin
	shard  shard
}

// kept returns what the folder has already of some parts.
func (f *folderFile) kept(parts []int) (list []partInfo, err error) {
	all, err := f.check()
	if err != nil {
		return nil, err
	}
	var rest []int
	for _, k := range parts {
		if p, ok := all[k]; ok {
			list = append(list, p)
		} else {
			rest = append(rest, k)
		}
	}
	return list, embeddings.RemoveStale(f.path, f.kind, rest)
}

// check returns the complete parts of the folder. All must have the same origin.
func (f *folderFile) check() (map[int]partInfo, error) {
	list, err := embeddings.Parts(f.path, f.kind)
	if err != nil {
		return nil, err
	}
	all := map[int]partInfo{}
	for _, p := range list {
		var n partNote
		if err := json.Unmarshal([]byte(p.Note), &n); err != nil || n.Part != p.Number || n.Origin.Kind == "" {
			return nil, fmt.Errorf("%s has other features, of unknown origin, such as those of %s: choose another folder", f.path, p.Table)
		}
		if err := f.origin.differs(n.Origin, p.Table, "this command"); err != nil {
			return nil, fmt.Errorf("%w: use the same inputs and options, or another folder", err)
		}
		if p.Complete {
			all[p.Number] = n.partInfo
		}
	}
	return all, nil
}

func (f *folderFile) end(c *cli.Context, p partInfo) (err error) {
	if p.Rows == 0 {
		return nil // not complete: the next run tries it again
	}
	f.Note(partNote{f.origin, p}.String())
	err = write(func() error { return f.SavePart(c.Context, p.Part) })
	if err != nil {
		return err
	}
	f.Close()
	f.Writer, err = embeddings.Create(f.path, f.kind, f.width)
	return err
}

// save checks the folder again, since other processes may have begun at the same time.
func (f *folderFile) save(c *cli.Context) error {
	all, err := f.check()
	if err == nil && !f.shard.alone() {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: shard %v is done; %s has %d of %d parts\n", f.shard, filepath.Clean(f.path), len(all), f.origin.Parts)
	}
	return err
}
