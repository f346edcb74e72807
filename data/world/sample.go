package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
)

// MaxSample is the largest number of photos that WriteSample writes.
const MaxSample = 10_000

// sampleCaptions is the captions file of a sample.
const sampleCaptions = "captions.json"

// samplePart is the part that a sample consists of: scenes like those of val, with ids
// of their own.
func samplePart(n int) part {
	return part{part: Val, n: n, prefix: "", captions: sampleCaptions, firstID: 4*maxPart + 1}
}

// CheckSample returns an error if WriteSample cannot write such a sample.
func CheckSample(seed uint64, size, n int) error {
	if n < 1 || n > MaxSample {
		return fmt.Errorf("world: sample must be between 1 and %d photos, got %d", MaxSample, n)
	}
	return Config{Seed: seed, Size: size, Val: n}.Check()
}

// WriteSample writes n photos of size pixels to a folder, and their captions in COCO's
// format to captions.json beside them. The photos show scenes like those of the part
// val, of which one in five contains a combination that is held out from training, and
// are in no data set of Write. The same arguments give the same bytes.
//
// WriteSample completes an unfinished sample. A folder that contains another sample or
// other files is an error.
func WriteSample(ctx context.Context, dir string, seed uint64, size, n int) error {
	if err := CheckSample(seed, size, n); err != nil {
		return err
	}
	c, p := Config{Seed: seed, Size: size, Val: n}, samplePart(n)
	var captions bytes.Buffer
	if err := c.captions(ctx, p, &captions); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("world: %w", err)
	}
	// The captions are written first: they tell whether photos belong to this sample.
	path := filepath.Join(dir, sampleCaptions)
	if begun, err := sameFile(path, captions.Bytes()); err != nil {
		return err
	} else if !begun {
		list, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("world: %w", err)
		}
		for _, e := range list {
			if e.Name() != "."+sampleCaptions+".tmp" { // left by a process that was killed
				return fmt.Errorf("world: %s contains other files (%s): choose a new or empty folder", dir, e.Name())
			}
		}
		if err := writeFile(path, func(w io.Writer) error { _, err := w.Write(captions.Bytes()); return err }); err != nil {
			return err
		}
	}
	e := &easel{canvas: newCanvas(size)}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.photo(filepath.Join(dir, p.name(i)), p, i, e); err != nil {
			return err
		}
	}
	return nil
}

// sameFile reports whether there is a file with this content; one with another content
// is an error.
func sameFile(path string, want []byte) (bool, error) {
	got, err := regular.Read(path, 1<<30)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("world: %s: %w", path, atomicfile.Plain(err))
	case !bytes.Equal(got, want):
		return false, fmt.Errorf("world: %s belongs to another sample or data set: delete the folder or choose another", path)
	}
	return true, nil
}
