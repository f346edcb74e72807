package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/optim"
)

// bounded checks that reading a file of a given size allocates no more than a
// constant and a multiple of that size, whatever the file contains.
func bounded(t *testing.T, size int, read func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	if n, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<20+512*size); n > most {
		t.Errorf("reading %d bytes allocated %d MiB, want at most %d", size, n>>20, most>>20)
	}
}

// code writes the opcodes of a pickle.
type code struct{ bytes.Buffer }

func pickled(parts ...any) []byte {
	p := &code{}
	p.WriteString("\x80\x02")
	p.add(parts...)
	p.WriteByte('.')
	return p.Bytes()
}

type (
	text  string   // a string, instead of opcodes
	get   int      // a memo entry
	put   int      // puts the top of the stack into a memo entry
	store int      // puts it there and pops it
	times struct { // repeats parts
		n    int
		part func(i int) []any
	}
)

// add writes opcodes (string), and what the types above stand for.
func (p *code) add(parts ...any) {
	for _, part := range parts {
		switch v := part.(type) {
		case string:
			p.WriteString(v)
		case text:
			p.WriteByte('X')
			binary.Write(p, binary.LittleEndian, uint32(len(v)))
			p.WriteString(string(v))
		case get:
			p.WriteByte('j')
			binary.Write(p, binary.LittleEndian, uint32(v))
		case put:
			p.WriteByte('r')
			binary.Write(p, binary.LittleEndian, uint32(v))
		case store:
			p.add(put(v), "0")
		case int64:
			p.WriteString("\x8a\x08")
			binary.Write(p, binary.LittleEndian, v)
		case []any:
			p.add(v...)
		case times:
			for i := range v.n {
				p.add(v.part(i)...)
			}
		default:
			panic(fmt.Sprintf("%T", part))
		}
	}
}

func repeat(n int, parts ...any) times { return times{n, func(int) []any { return parts }} }

// storageID and tensorOf describe a tensor of a storage with 4 floats.
var storageID = []any{"(", text("storage"), "ctorch\nFloatStorage\n", text("0"), text("cpu"), int64(4), "tQ"}

func tensorOf(shape, strides any) []any {
	return []any{"ctorch._utils\n_rebuild_tensor_v2\n(", storageID, int64(0), shape, strides, "\x89}tR"}
}

// small is a tensor of two elements; ones is a stride of 1.
var (
	ones  = []any{"(", int64(1), "t"}
	small = tensorOf([]any{"(", int64(2), "t"}, ones)
)

func name(i int) text { return text(fmt.Sprint(i)) }

// archiveOf returns a file in PyTorch's zip format; it is a TorchScript archive
// if there is code.
func archiveOf(t *testing.T, pickle []byte, code map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name string, data []byte, method uint16) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "a/" + name, Method: method})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("data.pkl", pickle, zip.Store)
	add("data/0", make([]byte, 16), zip.Store)
	if code != nil {
		add("constants.pkl", []byte("\x80\x02)."), zip.Store)
	}
	for name, text := range code {
		add("code/__torch__/"+name+".py", []byte(text), zip.Deflate)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func module(class string, attributes ...any) []any {
	return []any{"c__torch__." + class + "\n)\x81}(", attributes, "ub"}
}

// TestBudget has files that name something once and refer to it many times. They
// are refused for what they would take, in memory that is in proportion to their
// size.
func TestBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing here is concurrent, and under the race detector it takes a minute")
	}
	zipped := func(parts ...any) []byte { return archiveOf(t, pickled(parts...), nil) }
	var doubling []any
	for i := range 40 {
		doubling = append(doubling, "](", get(i), get(i), "e", store(i+1))
	}
	nested := append(module("m\nL", text("w"), small), store(0))
	for i := range 99 {
		nested = append(nested, module("m\nM", text("a"), get(i), text("b"), get(i))...)
		nested = append(nested, store(i+1))
	}
	source := "class L(Module):\n  __parameters__ = [\"w\", ]\nclass M(Module):\n  __parameters__ = []\n"
	modules := map[string]string{}
	for i := range 100 {
		modules[fmt.Sprint("m", i)] = strings.Repeat("#", 4<<20)
	}
	long := text(strings.Repeat("k", 1<<20))
	header := func(h string, data int) []byte {
		b := binary.LittleEndian.AppendUint64(nil, uint64(len(h)))
		return append(append(b, h...), make([]byte, data)...)
	}
	for title, c := range map[string]struct {
		file []byte
		want string
	}{
		"an OrderedDict of 10,000 pairs, 3,000 times": {zipped(
			"](", times{10000, func(i int) []any { return []any{name(i), "N\x86"} }}, "e", store(0),
			"](", repeat(3000, "ccollections\nOrderedDict\n", get(0), "\x85R"), "e"), "its dict items would take more than"},
		"a list that doubles":                {zipped("]", store(0), doubling, "}", text("a"), get(40), "s"), "its names of values would take"},
		"a key of 1 MB above 20,000 tensors": {zipped(small, store(0), "}", long, "}(", times{20000, func(i int) []any { return []any{name(i), get(0)} }}, "us"), "its names of values would take"},
		"a key of 1 MB in 100,000 dicts":     {zipped(long, store(0), "](", repeat(100000, "}", get(0), "Ns"), "e"), "its dict items would take"},
		"a string of 1 MB, 100,000 times":    {zipped(long, store(0), "}(", times{100000, func(i int) []any { return []any{name(i), get(0)} }}, "u"), "its values would take"},
		"100,000 names for one tensor":       {zipped(small, store(0), "}(", times{100000, func(i int) []any { return []any{name(i), get(0)} }}, "u"), "its tensors would take"},
		"a shape of 200,000 dimensions":      {zipped("}", text("w"), tensorOf([]any{"(", repeat(200000, "K\x01"), "t"}, ones), "s"), "200000 dimensions; at most 64"},
		"a tensor of 64 dimensions, built often": {zipped("(", storageID, "K\x00(", repeat(64, "K\x01"), "t(", repeat(64, "K\x00"), "t\x89}t", store(0),
			"ctorch._utils\n_rebuild_tensor_v2\n", store(1), "](", repeat(50000, get(1), get(0), "R"), "e"), "its tensor shapes would take"},
		"a class name of 4 kB, often": {zipped(text("torch"), store(0), text(strings.Repeat("x", 4000)), store(1), "](", repeat(100000, get(0), get(1), "\x93"), "e"), "not needed for weights"},
		"nothing but dicts":           {zipped("](", repeat(2000000, "}"), "e"), "would take more than"},
		"modules nested by reference": {archiveOf(t, pickled(nested, get(99)), map[string]string{"m": source}), "its tensors would take"},
		"compressed source code": {archiveOf(t, pickled("c__torch__\nR\n)\x81}(", times{100, func(i int) []any {
			return []any{name(i), module(fmt.Sprintf("m%d\nC", i), text("w"), small)}
		}}, "ub"), modules), "source code of this archive is larger than"},
		"a safetensors shape of 200,000 dimensions": {header(`{"a":{"dtype":"F32","shape":[1`+strings.Repeat(",1", 199999)+`],"data_offsets":[0,4]}}`, 4), "200000 dimensions; at most 64"},
	} {
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file.pt")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			bounded(t, len(c.file), func() {
				if _, err := Open(path); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 4096 {
					t.Errorf("want %q: %.500v", c.want, err)
				}
			})
		})
	}
}

// TestOptimizerBudget has states of optimizers that name something once and refer to it many times, or that
// have a huge shape with a single element.
func TestOptimizerBudget(t *testing.T) {
	file := func(before, state, groups any) []byte {
		return archiveOf(t, pickled(before, "}(", text("state"), state, text("param_groups"), "](", groups, "eu"), nil)
	}
	group := func(options ...any) []any { return []any{"}(", text("params"), "](K\x00e", options, "u"} }
	huge := tensorOf([]any{"(", int64(1 << 40), "t"}, []any{"(", int64(0), "t"})
	for title, c := range map[string]struct {
		file []byte
		want string
	}{
		"a list of 10,000 parameters in 10,000 groups": {file([]any{"](", repeat(10000, "K\x00"), "e", store(0)}, "}", repeat(10000, "}", text("params"), get(0), "s")), "its groups of parameters would take"},
		"a group of 1,000 options, 10,000 times":       {file([]any{group(times{1000, func(i int) []any { return []any{name(i), "N"} }}), store(0)}, "}", repeat(10000, get(0))), "its options would take"},
		"a tuple of 64 numbers, often":                 {file([]any{"(", repeat(64, "K\x01"), "t", store(0)}, "}", group(times{100000, func(i int) []any { return []any{name(i), get(0)} }})), "its options would take"},
		"a state of 10,000 numbers, of 1,000 parameters": {file([]any{"}(", times{10000, func(i int) []any { return []any{name(i), "K\x01"} }}, "u", store(0)},
			[]any{"}(", times{1000, func(i int) []any { return []any{int64(i), get(0)} }}, "u"}, []any{"}", text("params"), "](", times{1000, func(i int) []any { return []any{int64(i)} }}, "es"}), "its numbers of parameters would take"},
		"one element with a huge shape": {file("", []any{"}K\x00}(", text("step"), "K\x01", text("exp_avg"), huge, text("exp_avg_sq"), huge, "us"}, group()), "but its exp_avg has shape [1099511627776]"},
	} {
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file.pt")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			err := torch.Scope(func() error {
				opt := optim.SparseAdam([]torch.Tensor{torch.Ones([]int64{2}).SetRequiresGrad(true)}, optim.SparseAdamDefaults())
				defer opt.Close()
				bounded(t, len(c.file), func() {
					if err := LoadOptimizer(path, opt); err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("want %q: %.500v", c.want, err)
					}
				})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWithinBudget has files that are unusual, but refer to nothing more often
// than they must.
func TestWithinBudget(t *testing.T) {
	var classes strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&classes, "class C%d(Module):\n  __parameters__ = [\"w\", ]\n", i)
	}
	classes.WriteString(strings.Repeat("#", 8<<20))
	for title, c := range map[string]struct {
		file    []byte
		tensors int
	}{
		"300,000 labels":       {archiveOf(t, pickled("}(", text("w"), small, text("labels"), "](", repeat(300000, "K\x07"), "eu"), nil), 1},
		"30,000 tied tensors":  {archiveOf(t, pickled(small, store(0), "}(", times{30000, func(i int) []any { return []any{text(fmt.Sprintf("layers.%d.weight", i)), get(0)} }}, "u"), nil), 30000},
		"tensors without data": {archiveOf(t, pickled("}(", times{10000, func(i int) []any { return []any{name(i), small} }}, "u"), nil), 10000},
		"20,000 classes in one source file": {archiveOf(t, pickled("c__torch__\nR\n)\x81}(", times{20000, func(i int) []any {
			return []any{name(i), module(fmt.Sprintf("m\nC%d", i), text("w"), small)}
		}}, "ub"), map[string]string{"m": classes.String()}), 20000},
	} {
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file.pt")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			bounded(t, len(c.file), func() {
				if f, err := Open(path); err != nil || len(f.Entries) != c.tensors {
					t.Errorf("%d tensors, want %d: %v", len(f.Entries), c.tensors, err)
				}
			})
		})
	}
}

// TestStorageOnce: a storage that a plain pickle loads many times is read once.
func TestStorageOnce(t *testing.T) {
	legacy := append([]byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."), pickled(storageID)...)
	legacy = append(legacy, pickled("]", text("0"), "a")...)
	legacy = append(binary.LittleEndian.AppendUint64(legacy, 4), make([]byte, 16)...)
	inner := &code{}
	inner.WriteByte('B')
	binary.Write(inner, binary.LittleEndian, uint32(len(legacy)))
	inner.Write(legacy)
	in := pickled(inner.String(), "\x85", store(0), "ctorch.storage\n_load_from_bytes\n", store(1), "](", repeat(100000, get(1), get(0), "R"), "e")
	bounded(t, len(in), func() {
		if _, err := parsePickle("x.pkl", in, newBudget()); err != nil {
			t.Error(err)
		}
	})
}
