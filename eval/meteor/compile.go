package meteor

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"cyclecap/internal/regular"
)

// sources are the files from which an index is compiled, as found in pycocoevalcap.
type sources struct {
	functionWords, prefixes, synsets, exceptions io.Reader
	paraphrases                                  io.Reader
}

// Compile writes the index that Open reads to outDir. src is the folder of the
// Python package pycocoevalcap 1.2, or its wheel (a .whl file). progress may be nil;
// otherwise it is called with the number of bytes read from the paraphrase table.
// The index is written atomically; on failure an existing one is kept.
func Compile(ctx context.Context, src, outDir string, progress func(done, total int64)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("meteor: compile %s: %w", src, err)
		}
	}()
	var files fs.FS
	if info, err := os.Stat(src); err != nil {
		return err
	} else if info.IsDir() {
		files = os.DirFS(src)
	} else {
		f, err := regular.Open(src)
		if err != nil {
			return err
		}
		defer f.Close()
		if files, err = zip.NewReader(f, info.Size()); err != nil {
			return err
		}
	}
	if _, err := fs.Stat(files, "meteor"); err != nil {
		if files, err = fs.Sub(files, "pycocoevalcap"); err != nil {
			return err
		}
	}
	data, err := fs.ReadFile(files, "meteor/meteor-1.5.jar")
	if err != nil {
		return err
	}
	jar, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fmt.Errorf("meteor/meteor-1.5.jar: %w", err)
	}
	var s sources
	for _, entry := range []struct {
		name string
		to   *io.Reader
	}{
		{"function/english.words", &s.functionWords},
		{"nonbreaking/english.prefixes", &s.prefixes},
		{"synonym/english.synsets", &s.synsets},
		{"synonym/english.exceptions", &s.exceptions},
	} {
		data, err := fs.ReadFile(jar, entry.name)
		if err != nil {
			return fmt.Errorf("meteor/meteor-1.5.jar: %w", err)
		}
		*entry.to = bytes.NewReader(data)
	}
	table, err := files.Open("meteor/data/paraphrase-en.gz")
	if err != nil {
		return err
	}
	defer table.Close()
	info, err := table.Stat()
	if err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(&watched{table, ctx, progress, 0, info.Size()})
	if err != nil {
		return fmt.Errorf("meteor/data/paraphrase-en.gz: %w", err)
	}
	s.paraphrases = unzipped
	x, err := compile(s)
	if err != nil {
		return err
	}
	return writeIndex(x, outDir)
}

// watched reports the number of bytes read from a file, and stops when ctx is done.
type watched struct {
	io.Reader
	ctx         context.Context
	progress    func(done, total int64)
	done, total int64
}

func (w *watched) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.Reader.Read(b)
	w.done += int64(n)
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return n, err
}

// A builder collects words and phrases.
type builder struct {
	words     map[string]uint32
	names     []string
	flags     []uint32
	own       map[string][]uint32 // synonym sets
	bases     map[uint32][]string
	phrases   map[string]uint32 // keyed by the bytes of their words
	phraseOf  [][]uint32
	targetsOf [][]uint32
	maxPhrase int
}

func (b *builder) word(s string) uint32 {
	if id, ok := b.words[s]; ok {
		return id
	}
	id := uint32(len(b.names))
	s = strings.Clone(s)
	b.words[s] = id
	b.names = append(b.names, s)
	b.flags = append(b.flags, 0)
	return id
}

func (b *builder) phrase(s string) uint32 {
	fields := strings.Fields(s)
	ids := make([]uint32, len(fields))
	key := make([]byte, 0, 4*7)
	for i, f := range fields {
		ids[i] = b.word(f)
		key = binary.LittleEndian.AppendUint32(key, ids[i])
	}
	if id, ok := b.phrases[string(key)]; ok {
		return id
	}
	id := uint32(len(b.phraseOf))
	b.phrases[string(key)] = id
	b.phraseOf = append(b.phraseOf, ids)
	b.targetsOf = append(b.targetsOf, nil)
	b.maxPhrase = max(b.maxPhrase, len(ids))
	return id
}

// lines calls do for every n lines of r.
func lines(name string, r io.Reader, n int, do func(line int, texts []string) error) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 1<<16), 1<<20)
	texts := make([]string, 0, n)
	line := 0
	for scan.Scan() {
		line++
		texts = append(texts, scan.Text())
		if len(texts) == n {
			if err := do(line-n+1, texts); err != nil {
				return fmt.Errorf("%s:%d: %w", name, line-n+1, err)
			}
			texts = texts[:0]
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, line+1, err)
	}
	if len(texts) > 0 && strings.Join(texts, "") != "" {
		return fmt.Errorf("%s: the number of lines, %d, is not a multiple of %d: the file is truncated", name, line, n)
	}
	return nil
}

func compile(s sources) (*builder, error) {
	b := &builder{
		words: map[string]uint32{}, own: map[string][]uint32{}, bases: map[uint32][]string{}, phrases: map[string]uint32{},
	}
	err := errors.Join(
		lines("function/english.words", s.functionWords, 1, func(_ int, t []string) error {
			if word := strings.TrimSpace(t[0]); word != "" {
				b.flags[b.word(word)] |= flagFunction
			}
			return nil
		}),
		// One abbreviation per line; a line that starts with # is a comment, and a
		// mark after the word means that it counts only before numbers.
		lines("nonbreaking/english.prefixes", s.prefixes, 1, func(_ int, t []string) error {
			fields := strings.Fields(t[0])
			switch {
			case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
			case len(fields) > 1:
				b.flags[b.word(fields[0])] |= flagNumberPrefix
			default:
				b.flags[b.word(fields[0])] |= flagPrefix
			}
			return nil
		}),
		// A word, and the numbers of its sets. The words of a compound are joined
		// by _, which no token contains but the base form of a word may.
		lines("synonym/english.synsets", s.synsets, 2, func(_ int, t []string) error {
			name := strings.Clone(t[0])
			if !strings.Contains(name, "_") {
				b.word(name)
			}
			for _, field := range strings.Fields(t[1]) {
				set, err := strconv.ParseUint(field, 10, 32)
				if err != nil {
					return err
				}
				b.own[name] = append(b.own[name], uint32(set))
			}
			return nil
		}),
		// A word, and its irregular inflections.
		lines("synonym/english.exceptions", s.exceptions, 2, func(_ int, t []string) error {
			for _, form := range strings.Fields(t[1]) {
				id := b.word(form)
				b.flags[id] |= flagIrregular
				b.bases[id] = append(b.bases[id], t[0])
			}
			return nil
		}),
		// A probability, which nothing uses, a phrase and a paraphrase of it.
		lines("paraphrase-en.gz", s.paraphrases, 3, func(_ int, t []string) error {
			if _, err := strconv.ParseFloat(t[0], 64); err != nil {
				return err
			}
			from, to := b.phrase(t[1]), b.phrase(t[2])
			b.targetsOf[from] = append(b.targetsOf[from], to)
			return nil
		}),
	)
	return b, err
}

// arrays returns the arrays of the index.
func (b *builder) arrays() [numArrays][]uint32 {
	var a [numArrays][]uint32
	a[wordFlags] = b.flags
	a[wordSlots] = table(len(b.names), func(i int) uint32 { return hashString(b.names[i]) })
	var text []byte
	for _, name := range b.names {
		a[wordAt] = append(a[wordAt], uint32(len(text)))
		text = append(text, name...)
		a[ownAt] = append(a[ownAt], uint32(len(a[sets])))
		a[sets] = append(a[sets], unique(b.own[name])...)
	}
	a[wordAt] = append(a[wordAt], uint32(len(text)))
	a[ownAt] = append(a[ownAt], uint32(len(a[sets])))
	for i := range b.names {
		a[inflectAt] = append(a[inflectAt], uint32(len(a[sets])))
		var all []uint32
		for _, base := range b.bases[uint32(i)] {
			all = append(all, b.own[base]...)
		}
		a[sets] = append(a[sets], unique(all)...)
	}
	a[inflectAt] = append(a[inflectAt], uint32(len(a[sets])))
	for len(text)%4 != 0 {
		text = append(text, 0)
	}
	for i := 0; i < len(text); i += 4 {
		a[letters] = append(a[letters], binary.NativeEndian.Uint32(text[i:]))
	}
	a[phraseSlots] = table(len(b.phraseOf), func(i int) uint32 {
		h := uint32(0)
		for _, word := range b.phraseOf[i] {
			h = hashWord(h, word)
		}
		return h
	})
	for i := range b.phraseOf {
		a[phraseAt] = append(a[phraseAt], uint32(len(a[phraseWords])))
		a[phraseWords] = append(a[phraseWords], b.phraseOf[i]...)
		a[targetAt] = append(a[targetAt], uint32(len(a[targets])))
		a[targets] = append(a[targets], b.targetsOf[i]...)
	}
	a[phraseAt] = append(a[phraseAt], uint32(len(a[phraseWords])))
	a[targetAt] = append(a[targetAt], uint32(len(a[targets])))
	return a
}

// table returns a hash table with linear probing that is at most half full.
func table(n int, hash func(i int) uint32) []uint32 {
	size := 2
	for size < 2*n {
		size *= 2
	}
	slots := make([]uint32, size)
	for i := range n {
		at := hash(i) & uint32(size-1)
		for slots[at] != 0 {
			at = (at + 1) & uint32(size-1)
		}
		slots[at] = uint32(i) + 1
	}
	return slots
}

func unique(list []uint32) []uint32 {
	list = append([]uint32(nil), list...)
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	out := list[:0]
	for i, v := range list {
		if i == 0 || v != list[i-1] {
			out = append(out, v)
		}
	}
	return out
}

// bytes returns the contents of the whole file.
func (b *builder) bytes() []byte {
	arrays := b.arrays()
	var lengths [numArrays]int
	for i := range arrays {
		lengths[i] = len(arrays[i])
	}
	out := make([]byte, headerSize)
	for _, array := range arrays {
		for _, v := range array {
			out = binary.NativeEndian.AppendUint32(out, v)
		}
		if len(array)%2 == 1 {
			out = append(out, 0, 0, 0, 0)
		}
	}
	copy(out, header(lengths, b.maxPhrase, crc32.Checksum(out[headerSize:], castagnoli)))
	return out
}

func writeIndex(b *builder, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, indexName+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b.bytes())
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, indexName))
}
