package weights

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// saved writes two tensors in a format and returns the file.
func saved(t *testing.T, name string) (path string, file []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	err := torch.Scope(func() error {
		torch.ManualSeed(4)
		sd := nn.NewStateDict()
		sd.Add("a", torch.Randn([]int64{40, 8}))
		sd.Add("b", torch.Randn([]int64{300}))
		return Save(context.Background(), path, sd, map[string]string{"key": "value"})
	})
	if err == nil {
		file, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, file
}

func loads(path string) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	sd, err := f.Load()
	if err == nil {
		sd.Close()
	}
	return err
}

// TestBits flips bits of files that we write. Every bit of a safetensors file counts, and
// every bit of the weights, names and metadata in PyTorch's format.
func TestBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, name := range []string{"x.safetensors", "x.pt"} {
		path, file := saved(t, name)
		if err := loads(path); err != nil {
			t.Fatal(err)
		}
		parts := [][2]int{{0, len(file)}}
		if name == "x.pt" {
			parts = nil
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range f.small {
				parts = append(parts, [2]int{int(s.from), int(s.to)})
			}
			for _, s := range f.sums {
				parts = append(parts, [2]int{int(s.from), int(s.to)})
			}
			if len(parts) != 5 { // data.pkl, byteorder, the metadata and two storages
				t.Errorf("%d parts have checksums", len(parts))
			}
		}
		for i := range 500 {
			p := parts[i%len(parts)]
			at, bit := p[0]+rng.IntN(p[1]-p[0]), byte(1)<<rng.IntN(8)
			bad := bytes.Clone(file)
			bad[at] ^= bit
			if err := os.WriteFile(path, bad, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := loads(path); err == nil {
				t.Errorf("%s: bit %#x of byte %d was not noticed", name, bit, at)
			}
		}
	}
}

// TestNoChecksums reads a file whose checksums are 0, as PyTorch writes it after
// torch.serialization.set_crc32_options(False).
func TestNoChecksums(t *testing.T) {
	path, file := saved(t, "x.pt")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.sums {
		crc := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(file[s.from:s.to]))
		if n := bytes.Count(file, crc); n != 2 { // in the local header and in the directory
			t.Fatalf("the checksum is there %d times", n)
		}
		file = bytes.ReplaceAll(file, crc, make([]byte, 4))
		file[s.from] ^= 1
	}
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := loads(path); err != nil {
		t.Error(err)
	}
}

// TestDamagedMessage checks what the error says: the file, the entry and both checksums.
func TestDamagedMessage(t *testing.T) {
	path, file := saved(t, "x.pt")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := f.Get("b")
	file[e.Offset] ^= 1
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	err = loads(path)
	for _, want := range []string{path, "entry archive/data/1 is damaged", "was written"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	// Tensors of other entries can be read.
	sd, err := f.LoadOnly(func(name string) bool { return name == "a" })
	if err != nil {
		t.Fatal(err)
	}
	sd.Close()
}
