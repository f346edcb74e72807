package npy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/npy"
)

func scope(t *testing.T, f func()) {
	t.Helper()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// count is the array of testdata/make.py in a type.
func count(dtype torch.DType) torch.Tensor {
	x := torch.Arange(0, 24).View([]int64{2, 3, 4})
	switch dtype {
	case torch.Bool:
		return x.RemainderScalar(2).EqScalar(0)
	case torch.Complex64, torch.Complex128:
		part := map[torch.DType]torch.DType{torch.Complex64: torch.Float32, torch.Complex128: torch.Float64}[dtype]
		x = x.To(torch.WithDType(part))
		return torch.Complex(x, x.Flip([]int64{0}))
	}
	return x.To(torch.WithDType(dtype))
}

// Arrays of numpy are tensors with the same numbers, and are written with the bytes of numpy.
func TestFiles(t *testing.T) {
	float := torch.WithDType(torch.Float32)
	for name, want := range map[string]func() torch.Tensor{
		"bool": func() torch.Tensor { return count(torch.Bool) }, "uint8": func() torch.Tensor { return count(torch.Uint8) },
		"int8": func() torch.Tensor { return count(torch.Int8) }, "int16": func() torch.Tensor { return count(torch.Int16) },
		"int32": func() torch.Tensor { return count(torch.Int32) }, "int64": func() torch.Tensor { return count(torch.Int64) },
		"float16": func() torch.Tensor { return count(torch.Float16) }, "float32": func() torch.Tensor { return count(torch.Float32) },
		"float64": func() torch.Tensor { return count(torch.Float64) }, "complex64": func() torch.Tensor { return count(torch.Complex64) },
		"complex128": func() torch.Tensor { return count(torch.Complex128) },
		"scalar":     func() torch.Tensor { return torch.Full([]int64{}, 3.5, float) },
		"vector":     func() torch.Tensor { return torch.FromSlice([]float32{1.5, -2.25, 1e-30}) },
		"empty":      func() torch.Tensor { return torch.Zeros([]int64{0, 5}, float) },
		"wide": func() torch.Tensor {
			return torch.Zeros(append(slices.Repeat([]int64{1}, 12), 2), torch.WithDType(torch.Int8))
		},
		"version2": func() torch.Tensor { return count(torch.Float32) },
		"fortran":  func() torch.Tensor { return count(torch.Int16) },
	} {
		t.Run(name, func(t *testing.T) {
			scope(t, func() {
				file := "testdata/" + name + ".npy"
				got, err := npy.Load(file)
				if err != nil {
					t.Fatal(err)
				}
				w := want()
				if got.DType() != w.DType() || !slices.Equal(got.Shape(), w.Shape()) || !got.Equal(w) {
					t.Errorf("got %v, want %v", got, w)
				}
				if name == "version2" {
					return // only version 1.0 is written
				}
				var b bytes.Buffer
				if err := npy.Write(&b, got); err != nil {
					t.Fatal(err)
				}
				if name == "fortran" {
					file = "testdata/int16.npy" // written in C's order
					if got.IsContiguous() {
						t.Error("an array in Fortran's order is contiguous")
					}
				}
				recorded, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b.Bytes(), recorded) {
					t.Errorf("%d bytes differ from numpy's %d:\n%.140q\n%.140q", b.Len(), len(recorded), b.Bytes(), recorded)
				}
			})
		})
	}
}

func TestZ(t *testing.T) {
	for _, name := range []string{"stored", "compressed"} {
		scope(t, func() {
			list, err := npy.LoadZ("testdata/" + name + ".npz")
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != 2 || !list["x"].Equal(count(torch.Float32)) || !list["fortran"].Equal(count(torch.Int16)) {
				t.Errorf("%s: %v", name, list)
			}
			path := filepath.Join(t.TempDir(), "x.npz")
			if err := npy.SaveZ(t.Context(), path, list); err != nil {
				t.Fatal(err)
			}
			again, err := npy.LoadZ(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(again) != 2 || !again["x"].Equal(list["x"]) || !again["fortran"].Equal(list["fortran"]) {
				t.Errorf("%s, again: %v", name, again)
			}
			// numpy reads it, where there is one.
			check := exec.Command("../../.venv/bin/python", "-c", "import sys, numpy as np\nz = np.load(sys.argv[1])\nassert sorted(z) == ['fortran', 'x'] and (z['x'] == np.arange(24).reshape(2, 3, 4)).all() and z['fortran'].dtype == np.int16", path)
			if err := exec.Command("../../.venv/bin/python", "-c", "import numpy").Run(); err != nil {
				t.Log("no numpy")
			} else if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("numpy: %v\n%s", err, out)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	good, err := os.ReadFile("testdata/float32.npy")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for path, says := range map[string]string{
		"testdata/big.npy":   "big-endian",
		"testdata/words.npy": "the type '<U1', which tensors do not have",
		dir + "/none.npy":    "no such file",
		write("text.npy", "this is no array of numpy"):                            "not an array of numpy",
		write("header.npy", string(good[:60])):                                    "ends within its header",
		write("cut.npy", string(good[:len(good)-1])):                              "truncated or damaged",
		write("negative.npy", text("(2, 3, 4)", "(2, -3, 4)")):                    "its shape is (2, -3, 4)",
		write("huge.npy", text("(2, 3, 4), }   ", "(99999999999, 99999999999)}")): "truncated or damaged",
		write("version.npy", text("\x93NUMPY\x01", "\x93NUMPY\x07")):              "version 7.0",
	} {
		scope(t, func() {
			if _, err := npy.Load(path); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	scope(t, func() {
		if _, err := npy.LoadZ(write("x.npz", "no zip")); err == nil || !strings.Contains(err.Error(), "not a file of numpy.savez") {
			t.Error(err)
		}
		path := write("keep.npy", string(good))
		if err := npy.Save(t.Context(), path, torch.Zeros([]int64{2}, torch.WithDType(torch.BFloat16))); err == nil || !strings.Contains(err.Error(), "convert the tensor to float32") {
			t.Error(err)
		}
		if err := npy.Save(t.Context(), path, torch.Ones([]int64{2}).ToSparse()); err == nil || !strings.Contains(err.Error(), "layout sparse_coo; call ToDense") {
			t.Error(err)
		}
		if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, good) {
			t.Errorf("a failed write has changed the file: %v", err)
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.npy")
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := npy.ReadHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if h.Offset+h.Bytes() != int64(len(b)) {
			t.Errorf("%+v of %d bytes", h, len(b))
		}
		encoded, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := npy.ReadHeader(bytes.NewReader(append(encoded, b[h.Offset:]...)), int64(len(encoded))+h.Bytes())
		if err != nil || again.DType != h.DType || again.Fortran != h.Fortran || !slices.Equal(again.Shape, h.Shape) {
			t.Errorf("%+v, again %+v, %v", h, again, err)
		}
	})
}
