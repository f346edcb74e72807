package npy

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
	"cyclecap/torch"
)

// LoadZ reads the arrays of a .npz file, of numpy.savez or numpy.savez_compressed, by their
// names. It must be called in a scope.
func LoadZ(path string) (map[string]torch.Tensor, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: not a file of numpy.savez: %w", path, err)
	}
	list := map[string]torch.Tensor{}
	for _, m := range z.File {
		name := strings.TrimSuffix(m.Name, ".npy")
		if name == m.Name {
			return nil, fmt.Errorf("%s: %s is not an array (.npy)", path, m.Name)
		}
		if list[name], err = member(f, m); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, m.Name, err)
		}
	}
	return list, nil
}

// member reads an array in a zip file.
func member(file io.ReaderAt, m *zip.File) (torch.Tensor, error) {
	if m.Method == zip.Store {
		at, err := m.DataOffset()
		if err != nil {
			return torch.Tensor{}, err
		}
		return Read(io.NewSectionReader(file, at, int64(m.UncompressedSize64)), int64(m.UncompressedSize64))
	}
	r, err := m.Open()
	if err != nil {
		return torch.Tensor{}, err
	}
	defer r.Close()
	// Not more than it promises: a small member can expand to any size.
	b, err := io.ReadAll(io.LimitReader(r, int64(m.UncompressedSize64)))
	if err != nil {
		return torch.Tensor{}, err
	}
	return Read(bytes.NewReader(b), int64(len(b)))
}

// SaveZ writes tensors to a .npz file by their names, without compression, as numpy.savez does.
// A file at path is replaced once the new one is complete.
func SaveZ(ctx context.Context, path string, tensors map[string]torch.Tensor) error {
	return atomicfile.Write(ctx, path, func(w io.Writer) error {
		z := zip.NewWriter(w)
		for _, name := range slices.Sorted(maps.Keys(tensors)) {
			// The least time that a zip file can have, so that the same tensors have the same bytes.
			m, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)})
			if err != nil {
				return err
			}
			if err := Write(m, tensors[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return z.Close()
	})
}
