package weights

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"cyclecap/internal/regular"
)

// A sum is the checksum of a part of a file. PyTorch's files have a CRC-32 (IEEE) of each
// storage. Safetensors files that we write have a CRC-32C of the whole file.
type sum struct {
	what     string // for errors
	from, to int64
	crc      uint32
	table    *crc32.Table
	// hole is the position of the checksum in the file, which counts as zeros; 0 means
	// that it is elsewhere.
	hole int64
}

const (
	// checksumKey is the key of the metadata of a safetensors file with its checksum in
	// hexadecimal digits.
	checksumKey    = "cyclecap.crc32c"
	checksumDigits = 8
	// checkedKey says that the file has a checksum, so that damage of checksumKey is
	// noticed.
	checkedKey = "cyclecap.checksum"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	noChecksum = bytes.Repeat([]byte{'0'}, checksumDigits)
)

// checksumAt returns the position of the checksum in a safetensors header, or -1.
func checksumAt(header []byte) int {
	mark := []byte(`"` + checksumKey + `":"`)
	i := bytes.Index(header, mark)
	if i < 0 || i+len(mark)+checksumDigits > len(header) {
		return -1
	}
	return i + len(mark)
}

// Check reads the parts of the file that have a checksum, and returns an error if one
// differs. Load checks what it loads.
func (f *File) Check() error { return f.check(f.Entries) }

// check checks the parts of the file that hold these tensors.
func (f *File) check(of []Entry) error {
	type part struct {
		path string
		sum
	}
	var parts []part
	seen := map[string]bool{}
	for _, e := range of {
		for _, key := range []string{e.Storage, e.Path} {
			if s, ok := f.sums[key]; ok && !seen[key] {
				seen[key] = true
				parts = append(parts, part{e.Path, s})
			}
		}
	}
	errs := make([]error, len(parts))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= len(parts) {
					return
				}
				errs[i] = parts[i].check(f.data, parts[i].path)
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// check compares the checksum with that of a file, or of data if it is in memory.
func (s sum) check(data []byte, path string) error {
	var in io.ReaderAt = bytes.NewReader(data)
	if data == nil {
		f, err := regular.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	have, err := s.of(in)
	if err != nil {
		return err
	}
	if have != s.crc {
		return fmt.Errorf("%s is damaged: its checksum is %08x, but %08x was written", s.what, have, s.crc)
	}
	return nil
}

// of computes the checksum.
func (s sum) of(in io.ReaderAt) (crc uint32, err error) {
	type span struct{ from, to int64 }
	spans := []span{{s.from, s.to}}
	if s.hole > 0 {
		spans = []span{{s.from, s.hole}, {s.hole + checksumDigits, s.to}}
	}
	buf := make([]byte, 1<<20)
	for i, p := range spans {
		if i > 0 {
			crc = crc32.Update(crc, s.table, noChecksum)
		}
		for at := p.from; at < p.to; {
			n, err := in.ReadAt(buf[:min(int64(len(buf)), p.to-at)], at)
			if n == 0 && err != nil {
				return 0, err
			}
			crc = crc32.Update(crc, s.table, buf[:n])
			at += int64(n)
		}
	}
	return crc, nil
}
