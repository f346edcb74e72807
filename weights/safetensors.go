package weights

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

var safetensorsTypes = map[string]torch.DType{
	"F64": torch.Float64, "F32": torch.Float32, "F16": torch.Float16, "BF16": torch.BFloat16,
	"I64": torch.Int64, "I32": torch.Int32, "I16": torch.Int16, "I8": torch.Int8, "U8": torch.Uint8, "BOOL": torch.Bool,
	"U16": torch.Uint16, "U32": torch.Uint32, "U64": torch.Uint64,
	"F8_E5M2": torch.Float8E5M2, "F8_E4M3": torch.Float8E4M3FN, "C64": torch.Complex64,
}

// maxHeader is the limit of the reference implementation.
const maxHeader = 100_000_000

type safetensorsInfo struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// parseSafetensors reads the header of a file, which consists of an 8-byte
// length, JSON, and data without gaps.
func parseSafetensors(path string, in []byte) (*File, error) {
	n := binary.LittleEndian.Uint64(in)
	if n > maxHeader {
		return nil, fmt.Errorf("safetensors header of %d bytes; must be at most %d", n, maxHeader)
	}
	if n > uint64(len(in)-8) {
		return nil, fmt.Errorf("the file is truncated: it ends within its safetensors header of %d bytes", n)
	}
	header, size := in[8:8+n], int64(len(in))-8-int64(n)
	f := &File{Format: Safetensors}
	type placed struct {
		Entry
		from, to int64
	}
	var list []placed
	err := object(header, func(name string, raw json.RawMessage) error {
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &f.Meta); err != nil {
				return fmt.Errorf("__metadata__: %w", jsonerror.Words(err))
			}
			return nil
		}
		var i safetensorsInfo
		if err := json.Unmarshal(raw, &i); err != nil {
			return fmt.Errorf("tensor %q: %w", name, jsonerror.Words(err))
		}
		dtype, ok := safetensorsTypes[i.DType]
		if !ok {
			return fmt.Errorf("tensor %q: unknown dtype %q", name, i.DType)
		}
		if err := checkDims(len(i.Shape)); err != nil {
			return fmt.Errorf("tensor %q has %w", name, err)
		}
		for _, d := range i.Shape {
			if d < 0 {
				return fmt.Errorf("tensor %q has a negative dimension in shape %v", name, i.Shape)
			}
		}
		if err := checkNumel(i.Shape); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		from, to := i.Offsets[0], i.Offsets[1]
		if from < 0 || to < from || to > size {
			return fmt.Errorf("tensor %q is at bytes %d to %d, but there are only %d bytes of data; the file is truncated or damaged", name, from, to, size)
		}
		if want := numel(i.Shape) * dtype.Size(); to-from != want {
			return fmt.Errorf("tensor %q has %d bytes, but shape %v of %v takes %d", name, to-from, i.Shape, dtype, want)
		}
		if i.Shape == nil {
			i.Shape = []int64{}
		}
		e := Entry{Name: name, DType: dtype, Shape: i.Shape, Strides: contiguous(i.Shape), Path: path,
			Offset: 8 + int64(n) + from, Start: 8 + int64(n) + from, Storage: path + "#" + name}
		list = append(list, placed{e, from, to})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the safetensors header is damaged: %w", err)
	}
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b placed) int {
		if a.from != b.from {
			return int(max(-1, min(1, a.from-b.from)))
		}
		return int(max(-1, min(1, a.to-b.to)))
	})
	var end int64
	for _, p := range sorted {
		if p.from < end {
			return nil, fmt.Errorf("tensor %q overlaps another", p.Name)
		}
		if p.from > end {
			return nil, fmt.Errorf("%d bytes before tensor %q belong to no tensor", p.from-end, p.Name)
		}
		end = p.to
	}
	if text, ok := f.Meta[checksumKey]; ok {
		crc, err := strconv.ParseUint(text, 16, 32)
		at := checksumAt(header)
		if err != nil || at < 0 || len(text) != checksumDigits {
			return nil, fmt.Errorf("the safetensors header is damaged: %s is %q", checksumKey, text)
		}
		f.sums = map[string]sum{path: {what: "the file", to: int64(len(in)), crc: uint32(crc), table: castagnoli, hole: int64(8 + at)}}
		delete(f.Meta, checksumKey)
	} else if f.Meta[checkedKey] != "" {
		return nil, fmt.Errorf("the safetensors header is damaged: it has no %s", checksumKey)
	}
	delete(f.Meta, checkedKey)
	if end != size {
		return nil, fmt.Errorf("%d bytes after the last tensor belong to no tensor", size-end)
	}
	for _, p := range list {
		f.Entries = append(f.Entries, p.Entry)
	}
	return f, nil
}

// object reads a JSON object in order and rejects duplicate keys.
func object(in []byte, each func(name string, raw json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(in))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if seen[name] {
			return fmt.Errorf("duplicate key %q", name)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if err := each(name, raw); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if rest := bytes.TrimSpace(in[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("unexpected data after the JSON object")
	}
	return nil
}

// openIndex reads the shards listed in an index.
func openIndex(path string) (*File, error) {
	text, err := regular.Read(path, maxHeader)
	if err != nil {
		return nil, err
	}
	var index struct {
		Metadata  map[string]any    `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("not an index of shards: %w", jsonerror.Words(err))
	}
	if len(index.WeightMap) == 0 {
		return nil, fmt.Errorf("not an index of shards: its weight_map is empty")
	}
	f := &File{Path: path, Meta: map[string]string{}}
	for k, v := range index.Metadata {
		f.Meta[k] = fmt.Sprint(v)
	}
	shards := slices.Compact(slices.Sorted(maps.Values(index.WeightMap)))
	for _, shard := range shards {
		if shard != filepath.Base(shard) || strings.HasSuffix(shard, ".index.json") {
			return nil, fmt.Errorf("shard %q: must be the name of a file in the same folder", shard)
		}
		file := filepath.Join(filepath.Dir(path), shard)
		s, err := openFile(file)
		if err != nil {
			return nil, &Error{file, atomicfile.Plain(err)}
		}
		f.Format = s.Format
		for _, e := range s.Entries {
			if index.WeightMap[e.Name] != shard {
				return nil, fmt.Errorf("shard %s contains tensor %s, which the index does not list for it", shard, e.Name)
			}
			f.Entries = append(f.Entries, e)
			delete(index.WeightMap, e.Name)
		}
		if f.sums == nil {
			f.sums = map[string]sum{}
		}
		maps.Copy(f.sums, s.sums)
	}
	if len(index.WeightMap) > 0 {
		return nil, fmt.Errorf("tensors listed in the index are missing from the shards: %s", strings.Join(slices.Sorted(maps.Keys(index.WeightMap)), ", "))
	}
	return f, nil
}

// SaveSafetensors writes tensors to a safetensors file, atomically. Tensors that
// share memory are written in full for each name, because the format has no
// sharing; that is an error if it takes much more than their memory. The header
// and the order match the Python library: by element size, then by name. The
// metadata also have a checksum of the file, which Load checks.
func SaveSafetensors(ctx context.Context, path string, sd *nn.StateDict, meta map[string]string) error {
	names := map[torch.DType]string{}
	for n, d := range safetensorsTypes {
		names[d] = n
	}
	if err := checkLayouts(sd); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := checkCopies(sd); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	type item struct {
		name  string
		dtype torch.DType
		t     torch.Tensor
	}
	var items []item
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		d := t.DType()
		if names[d] == "" {
			return fmt.Errorf("%s: tensor %q: safetensors does not support dtype %v", path, name, d)
		}
		items = append(items, item{name, d, t})
	}
	slices.SortStableFunc(items, func(a, b item) int {
		if a.dtype.Size() != b.dtype.Size() {
			return int(b.dtype.Size() - a.dtype.Size())
		}
		return strings.Compare(a.name, b.name)
	})
	var h bytes.Buffer
	h.WriteByte('{')
	about := map[string]string{checkedKey: "crc32c", checksumKey: string(noChecksum)}
	maps.Copy(about, meta)
	b, err := json.Marshal(about)
	if err != nil {
		return err
	}
	fmt.Fprintf(&h, `"__metadata__":%s`, b)
	var at int64
	for _, i := range items {
		if h.Len() > 1 {
			h.WriteByte(',')
		}
		key, _ := json.Marshal(i.name)
		shape, _ := json.Marshal(i.t.Shape())
		end := at + i.t.NBytes()
		fmt.Fprintf(&h, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, key, names[i.dtype], shape, at, end)
		at = end
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	write := func(w io.Writer) error {
		if err := binary.Write(w, binary.LittleEndian, uint64(h.Len())); err != nil {
			return err
		}
		if _, err := w.Write(h.Bytes()); err != nil {
			return err
		}
		for _, i := range items {
			if err := withBytes(i.t.Detach, func(b []byte) error { _, err := w.Write(b); return err }); err != nil {
				return err
			}
		}
		return nil
	}
	crc := crc32.New(castagnoli)
	if err := write(crc); err != nil {
		return err
	}
	copy(h.Bytes()[checksumAt(h.Bytes()):], fmt.Sprintf("%0*x", checksumDigits, crc.Sum32()))
	return atomicfile.Write(ctx, path, write)
}

// withBytes calls f with the elements of the tensor that get returns, in row-major
// order. It copies the tensor only if it is not contiguous or not on the CPU.
func withBytes(get func() torch.Tensor, f func([]byte) error) error {
	return torch.Scope(func() (err error) {
		torch.NoGrad(func() {
			c := get().To(torch.WithDevice(torch.CPU)).Contiguous()
			if c.NBytes() == 0 {
				err = f(nil)
				return
			}
			torch.Data(c.View([]int64{-1}).ViewDType(torch.Uint8), func(data []uint8) { err = f(data) })
		})
		return err
	})
}
