package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/internal/pickle"
	"cyclecap/torch"
	"cyclecap/torch/optim"
)

// The readers are given files that nobody wrote on purpose: they may refuse
// them, but not panic, what they accept must lie within the file, and what they
// allocate must be in proportion to it.

// seeds adds small files that Python wrote.
func seeds(f *testing.F, names ...string) {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func check(t *testing.T, f *File, err error, size int) {
	if err != nil {
		return
	}
	for _, e := range f.Entries {
		span := e.span() * e.DType.Size()
		if span < 0 || e.Offset < 0 || e.Offset+span > int64(size) {
			t.Fatalf("tensor %q of %v lies at %d, %d bytes, in a file of %d", e.Name, e.Shape, e.Offset, span, size)
		}
	}
	Describe(f)
	f.Quantized()
	_ = f.CheckQuantized()
}

func FuzzZip(f *testing.F) {
	seeds(f, "zip.pt", "checkpoint.pt", "script.pt", "protocol4.pt")
	f.Fuzz(func(t *testing.T, in []byte) {
		bounded(t, len(in), func() {
			file, err := parseZip("fuzz.pt", in)
			check(t, file, err, len(in))
		})
	})
}

func FuzzLegacy(f *testing.F) {
	seeds(f, "legacy.pt")
	f.Fuzz(func(t *testing.T, in []byte) {
		bounded(t, len(in), func() {
			file, err := parseLegacy("fuzz.bin", in)
			check(t, file, err, len(in))
		})
	})
}

func FuzzSafetensors(f *testing.F) {
	seeds(f, "single.safetensors", "sharded/model-00001-of-00002.safetensors")
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{\"dtype\":1}}"))
	for _, scale := range []string{"", `,"h.0.mlp.c_fc.weight_scale":{"dtype":"F32","shape":[1,3],"data_offsets":[6,18]}`,
		`,"h.0.mlp.c_fc.weight_scale":{"dtype":"I8","shape":[12],"data_offsets":[6,18]}`} {
		header := `{"h.0.mlp.c_fc.weight":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]}` + scale + "}"
		f.Add(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+strings.Repeat("\x01", 18)...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 10 {
			return // told apart before
		}
		bounded(t, len(in), func() {
			file, err := parseSafetensors("fuzz.safetensors", in)
			check(t, file, err, len(in))
		})
	})
}

// FuzzPickle runs the machine alone, with everything allowed.
func FuzzPickle(f *testing.F) {
	f.Add([]byte("\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u."))
	f.Add([]byte("\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e."))
	f.Add([]byte("cos\nsystem\n(S'true'\ntR."))
	m := &pickle.Machine{
		Find:       func(pickle.Global) error { return nil },
		Call:       func(_ pickle.Global, args pickle.Tuple) (any, error) { return args, nil },
		New:        func(c pickle.Global, _ pickle.Tuple) (any, error) { return &pickle.Object{Class: c}, nil },
		Persistent: func(id any) (any, error) { return id, nil },
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m.Budget = newBudget()
		bounded(t, len(in), func() {
			_, n, err := m.Load(in)
			if n < 0 || n > len(in) {
				t.Fatalf("%d of %d bytes were read (%v)", n, len(in), err)
			}
		})
	})
}

// FuzzPlainPickle reads plain pickles with tensors.
func FuzzPlainPickle(f *testing.F) {
	seeds(f, "../../data/clipcap/testdata/clipcap.pkl", "../../data/clipcap/testdata/clipcap-nested.pkl")
	f.Fuzz(func(t *testing.T, in []byte) {
		var value any
		var err error
		bounded(t, len(in), func() { value, err = parsePickle("fuzz.pkl", in, newBudget()) })
		if err != nil {
			return
		}
		d, ok := value.(*pickle.Dict)
		if !ok {
			return
		}
		v, _ := d.Get("clip_embedding")
		if e, ok := v.(Entry); ok {
			check(t, &File{Entries: []Entry{e}}, nil, len(in))
		}
	})
}

// FuzzOptimizer reads states of optimizers, and loads them: an optimizer that refuses one is unchanged. The input is
// the pickle of a file of which the rest, with the tensors' elements, is one that SaveOptimizer wrote. FuzzZip is for
// the file around it.
func FuzzOptimizer(f *testing.F) {
	names := []string{"optimizer_go.pt", "sparse_adam_go.pt"}
	files := map[string]*zip.ReadCloser{}
	for _, name := range names {
		z, err := zip.OpenReader(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		defer z.Close()
		files[name] = z
		for _, e := range z.File {
			if !strings.HasSuffix(e.Name, "/data.pkl") {
				continue
			}
			r, err := e.Open()
			if err != nil {
				f.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	weight := func(shape ...int64) torch.Tensor { return torch.Zeros(shape).SetRequiresGrad(true) }
	create := map[string]func() optim.Optimizer{
		"optimizer_go.pt": func() optim.Optimizer {
			o := optim.NAdam([]torch.Tensor{weight(7, 5), weight(7)}, optim.NAdamDefaults())
			o.AddGroup([]torch.Tensor{weight(3, 7), weight(3)}, optim.NAdamDefaults())
			return o
		},
		"sparse_adam_go.pt": func() optim.Optimizer {
			return optim.SparseAdam([]torch.Tensor{weight(9, 4)}, optim.SparseAdamDefaults())
		},
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, name := range names {
			file := withPickle(t, files[name], in)
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			before := torch.Alive()
			err := torch.Scope(func() error {
				bounded(t, len(file), func() {
					s, err := parseOptimizer(path, file)
					check(t, s.file, err, len(file))
				})
				opt := create[name]()
				defer opt.Close()
				was := opt.LRs()
				if err := LoadOptimizer(path, opt); err == nil {
					opt.StateDict()
				} else if now := opt.LRs(); !slices.Equal(now, was) || opt.State()[0].Step != 0 || opt.State()[0].Tensors != nil {
					t.Errorf("the file was refused (%v), but the optimizer has changed: %v", err, opt.State()[0])
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if now := torch.Alive(); now != before {
				t.Errorf("%d tensors remain", now-before)
			}
		}
	})
}

// withPickle returns an archive with another pickle.
func withPickle(t *testing.T, z *zip.ReadCloser, pickle []byte) []byte {
	var b bytes.Buffer
	to := zip.NewWriter(&b)
	for _, e := range z.File {
		w, err := to.CreateHeader(&zip.FileHeader{Name: e.Name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name, "/data.pkl") {
			_, err = w.Write(pickle)
		} else {
			var r io.ReadCloser
			if r, err = e.Open(); err == nil {
				_, err = io.Copy(w, r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
