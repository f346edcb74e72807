package meteor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"unsafe"

	"cyclecap/internal/regular"

	"github.com/edsrzf/mmap-go"
)

// The index is a single file: a header with checksums, then arrays of little-endian uint32, each
// padded to 8 bytes. Words and phrases are identified by their positions in the
// arrays; a phrase is a list of words. List i of a pair of arrays, starts and list,
// is list[starts[i]:starts[i+1]].
const (
	indexName    = "meteor-en-2.index" // with the version
	indexMagic   = "cyclecap METEOR\n"
	indexVersion = 2
)

// The arrays, in file order.
const (
	wordSlots   = iota // hash table of words: position+1, or 0 if empty
	wordAt             // starts of the letters of words
	letters            // four bytes each
	wordFlags          // flag...
	ownAt              // starts of the synonym sets of words,
	inflectAt          // and of their base forms if they are irregular
	sets               // both lists
	phraseSlots        // hash table of phrases: position+1, or 0 if empty
	phraseAt           // starts of the words of phrases
	phraseWords        // their list
	targetAt           // starts of the paraphrases of phrases
	targets            // their list, in the order of the table
	numArrays
)

const (
	flagFunction     = 1 << iota // a function word
	flagIrregular                // has a list in inflectAt, and no rule applies
	flagPrefix                   // keeps a period
	flagNumberPrefix             // keeps a period before a number
)

// headerSize covers the magic, the version, the length of the longest phrase, the
// lengths of the arrays, a checksum of the arrays, and a checksum of all of these.
const headerSize = 16 + 8 + 8*numArrays + 8 + 8

// castagnoli is the polynomial for which processors have an instruction: the 118 MB
// of the English index take 30 ms.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errForeign = errors.New("not an index of this version, or damaged")

type index struct {
	file      mmap.MMap
	arrays    [numArrays][]uint32
	letters   []byte
	maxPhrase int
}

// header returns the header for arrays of the given lengths and checksum.
func header(lengths [numArrays]int, maxPhrase int, body uint32) []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, indexMagic...)
	b = binary.LittleEndian.AppendUint32(b, indexVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(maxPhrase))
	for _, n := range lengths {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(body))
	return binary.LittleEndian.AppendUint64(b, uint64(crc32.Checksum(b, castagnoli)))
}

// padded returns the size of an array in bytes.
func padded(n int) int64 { return (int64(n)*4 + 7) &^ 7 }

// openIndex maps the index in dir and checks its header, its size, the sizes of its
// arrays and their checksum. Numbers in the arrays are also checked as they are
// used, because the file can change while it is open.
func openIndex(dir string) (*index, error) {
	path := filepath.Join(dir, indexName)
	f, err := regular.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("meteor: no METEOR data in %s: run `make meteor-data`: %w", dir, err)
	} else if err != nil {
		return nil, fmt.Errorf("meteor: %w", err)
	}
	defer f.Close()
	damaged := func(err error) error {
		return fmt.Errorf("meteor: %s: %w; delete it and run `make meteor-data`", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("meteor: %w", err)
	}
	if info.Size() < headerSize {
		return nil, damaged(fmt.Errorf("%d bytes: %w", info.Size(), errForeign))
	}
	m, err := mmap.Map(f, mmap.RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("meteor: map %s: %w", path, err)
	}
	x, err := newIndex(m)
	if err == nil {
		err = checkBody(f, m)
	}
	if err != nil {
		return nil, errors.Join(damaged(err), m.Unmap())
	}
	x.file = m
	return x, nil
}

// checkBody checks the checksum of the arrays. It reads the file instead of the
// mapped memory m, whose pages would count as memory of the process from then on.
func checkBody(f io.ReaderAt, m []byte) error {
	sum := crc32.New(castagnoli)
	body := io.NewSectionReader(f, headerSize, int64(len(m))-headerSize)
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{body}, make([]byte, 1<<20)); err != nil {
		return err
	}
	if got, want := sum.Sum32(), binary.LittleEndian.Uint64(m[headerSize-16:]); uint64(got) != want {
		return fmt.Errorf("damaged: the contents have checksum %08x, want %08x", got, want)
	}
	return nil
}

// newIndex reads an index in memory that starts at a multiple of 8.
func newIndex(m []byte) (*index, error) {
	x := &index{}
	if len(m) < headerSize || string(m[:16]) != indexMagic || binary.LittleEndian.Uint32(m[16:]) != indexVersion ||
		binary.LittleEndian.Uint64(m[headerSize-8:]) != uint64(crc32.Checksum(m[:headerSize-8], castagnoli)) {
		return nil, errForeign
	}
	x.maxPhrase = int(binary.LittleEndian.Uint32(m[20:]))
	at := int64(headerSize)
	for i := range x.arrays {
		n := binary.LittleEndian.Uint64(m[24+8*i:])
		if n > 1<<32 || at+padded(int(n)) > int64(len(m)) {
			return nil, fmt.Errorf("truncated at %d bytes", len(m))
		}
		if n > 0 {
			x.arrays[i] = unsafe.Slice((*uint32)(unsafe.Pointer(&m[at])), n)
		}
		at += padded(int(n))
	}
	if at != int64(len(m)) {
		return nil, fmt.Errorf("got %d bytes, want %d", len(m), at)
	}
	a := &x.arrays
	words, phrases := len(a[wordFlags]), len(a[phraseAt])-1
	power := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	if len(a[wordAt]) != words+1 || len(a[ownAt]) != words+1 || len(a[inflectAt]) != words+1 || phrases < 0 ||
		len(a[targetAt]) != phrases+1 || !power(len(a[wordSlots])) || !power(len(a[phraseSlots])) ||
		len(a[wordSlots]) <= words || len(a[phraseSlots]) <= phrases {
		return nil, errForeign
	}
	if n := len(a[letters]); n > 0 {
		x.letters = unsafe.Slice((*byte)(unsafe.Pointer(&a[letters][0])), 4*n)
	}
	return x, nil
}

func (x *index) close() error {
	if x.file == nil {
		return nil
	}
	return x.file.Unmap()
}

// part returns list i of a pair of arrays, or an empty list if the file is damaged.
func part[T any](starts []uint32, list []T, i uint32) []T {
	if int64(i)+1 >= int64(len(starts)) {
		return nil
	}
	from, to := starts[i], starts[i+1]
	if from > to || int64(to) > int64(len(list)) {
		return nil
	}
	return list[from:to]
}

// none is the position of a word or phrase that is not in the index.
const none = ^uint32(0)

// word finds a word.
func (x *index) word(s string) uint32 {
	slots := x.arrays[wordSlots]
	mask := uint32(len(slots) - 1)
	at := hashString(s) & mask
	for range slots {
		place := slots[at]
		if place == 0 {
			return none
		}
		if string(part(x.arrays[wordAt], x.letters, place-1)) == s {
			return place - 1
		}
		at = (at + 1) & mask
	}
	return none
}

// phrase finds a phrase of known words by its words and their hash.
func (x *index) phrase(words []uint32, hash uint32) uint32 {
	slots := x.arrays[phraseSlots]
	mask := uint32(len(slots) - 1)
	at := hash & mask
	for range slots {
		place := slots[at]
		if place == 0 {
			return none
		}
		if slices.Equal(part(x.arrays[phraseAt], x.arrays[phraseWords], place-1), words) {
			return place - 1
		}
		at = (at + 1) & mask
	}
	return none
}

func (x *index) flags(word uint32) uint32 {
	if int64(word) >= int64(len(x.arrays[wordFlags])) {
		return 0
	}
	return x.arrays[wordFlags][word]
}

// hashString returns the folded FNV-1a hash of s.
func hashString(s string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return uint32(h ^ h>>32)
}

// hashWord extends the hash of a phrase by one word; that of the empty phrase is 0.
func hashWord(h, word uint32) uint32 {
	x := (uint64(h)<<32 | uint64(word)) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return uint32(x >> 32)
}
