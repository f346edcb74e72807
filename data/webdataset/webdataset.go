// Package webdataset reads tars of photos with captions, as img2dataset and webdataset
// write them: the files of a sample follow each other and have the same name up to the
// first dot, its key.
//
//	000000001.jpg  000000001.txt  000000001.json  000000002.jpg  …
//
// A tar is read once from its beginning to its end, and nothing of it is kept, so memory
// does not grow with it.
package webdataset

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
)

// IsTar reports whether a path has the extension of a tar: .tar, .tar.gz or .tgz.
func IsTar(path string) bool {
	path = strings.ToLower(path)
	return strings.HasSuffix(path, ".tar") || strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".tgz")
}

// Key returns the key of the sample to which a member belongs: its name up to the first dot
// after the last slash.
func Key(name string) string {
	folder, file := path.Split(name)
	key, _, _ := strings.Cut(file, ".")
	return folder + key
}

// A Member is a regular file in a tar. Its contents can be read until the next member.
type Member struct {
	Name   string
	Offset int64 // of its contents in the tar, uncompressed
	Size   int64 // as the tar says
	*contents
}

// Cut reports whether reading has found the end of the tar, or damage, before the end of the
// member. The next in the sequence is then the error.
func (m Member) Cut() bool { return m.contents.err != nil }

// An Error reports a tar that cannot be read to its end.
type Error struct {
	Path string
	// Member is the member that is damaged, or the last one before the damage, and Offset
	// the byte of the uncompressed tar at which reading stopped. Before the first member
	// Member is "".
	Member string
	Offset int64
	Err    error
}

func (e *Error) Error() string {
	if e.Member == "" && e.Offset == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	after := "before its first member"
	if e.Member != "" {
		after = "at or after its member " + e.Member
	}
	return fmt.Sprintf("%s: damaged %s, at byte %d: %v", e.Path, after, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// block is the size of a block of a tar.
const block = 512

// errCut means that a tar lacks the blocks of zeros that mark its end.
var errCut = errors.New("the end of the tar is missing: it may have been truncated")

// Members goes through the regular files in a tar, compressed by gzip or not, in their order.
// An *Error ends the sequence.
func Members(path string) iter.Seq2[Member, error] {
	return func(yield func(Member, error) bool) {
		last, at := "", int64(0)
		fail := func(err error) {
			var of *os.PathError
			if errors.As(err, &of) { // it says the path again
				err = atomicfile.Plain(err)
			}
			yield(Member{}, &Error{path, last, at, err})
		}
		f, err := regular.Open(path)
		if err != nil {
			fail(err)
			return
		}
		defer f.Close()
		in := bufio.NewReaderSize(f, 1<<18)
		if _, err := in.Peek(1); err != nil {
			if err == io.EOF {
				err = errors.New("the file is empty")
			}
			fail(err)
			return
		}
		counted := &counter{r: in}
		if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
			z, err := gzip.NewReader(in)
			if err != nil {
				fail(words(err))
				return
			}
			defer z.Close()
			counted.r = z
		}
		t := tar.NewReader(counted)
		for {
			h, err := t.Next()
			at = counted.n
			if err == io.EOF && counted.zeros < block {
				err = errCut
			}
			if err == io.EOF {
				return
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // nothing is written to its paths
				fail(words(err))
				return
			}
			if h.Typeflag != tar.TypeReg {
				continue
			}
			last = h.Name
			in := &contents{r: t}
			if !yield(Member{h.Name, at, h.Size, in}, nil) {
				return
			}
			if in.err != nil {
				at = counted.n
				fail(words(in.err))
				return
			}
		}
	}
}

// words returns errors of archive/tar and gzip in words.
func words(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader):
		return errors.New("this is not the header of a member")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the file ends there: it may have been truncated")
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return fmt.Errorf("its compressed data are damaged (%w)", err)
	}
	return err
}

// counter counts what is read, and the zeros at its end.
type counter struct {
	r        io.Reader
	n, zeros int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if zeros := n - len(bytes.TrimRight(p[:n], "\x00")); zeros == n {
		c.zeros += int64(n)
	} else {
		c.zeros = int64(zeros)
	}
	return n, err
}

// contents remembers the error that ends the contents of a member too early.
type contents struct {
	r   io.Reader
	err error
}

func (c *contents) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
