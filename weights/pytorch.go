package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/big"
	"strconv"
	"strings"

	"cyclecap/internal/jsonerror"
	"cyclecap/internal/pickle"
	"cyclecap/torch"
)

// storage is what a persistent id in a pickle refers to: a sequence of elements
// of one type.
type storage struct {
	key    string
	dtype  torch.DType
	numel  int64
	offset int64  // of its first byte in the file; -1 until it is known
	name   string // of the storage among all files; set by the first entry
}

// tensor is the result of a _rebuild_tensor call in a pickle.
type tensor struct {
	storage        *storage
	dtype          torch.DType
	offset         int64 // in elements
	shape, strides []int64
}

var storageTypes = map[string]torch.DType{
	"FloatStorage": torch.Float32, "DoubleStorage": torch.Float64, "HalfStorage": torch.Float16, "BFloat16Storage": torch.BFloat16,
	"LongStorage": torch.Int64, "IntStorage": torch.Int32, "ShortStorage": torch.Int16, "CharStorage": torch.Int8,
	"ByteStorage": torch.Uint8, "BoolStorage": torch.Bool, "UntypedStorage": torch.Uint8,
	"ComplexFloatStorage": torch.Complex64, "ComplexDoubleStorage": torch.Complex128,
	"Float8_e5m2Storage": torch.Float8E5M2, "Float8_e4m3fnStorage": torch.Float8E4M3FN,
	"Float8_e5m2fnuzStorage": torch.Float8E5M2FNUZ, "Float8_e4m3fnuzStorage": torch.Float8E4M3FNUZ,
}

// opaque stands for a value that is not a tensor and is not used.
type opaque struct{ what string }

// unpickler builds tensors and accepts only the names that the pickle of a state
// dict may refer to. script also allows the classes of a TorchScript archive.
type unpickler struct {
	storages map[string]*storage
	script   bool
	budget   *pickle.Budget
}

func newUnpickler(b *pickle.Budget) *unpickler {
	return &unpickler{storages: map[string]*storage{}, budget: b}
}

// newBudget returns the budget for the pickles of a weights file. State dicts
// take 30 to 70 bytes of memory for each byte of pickle; names of 14 bytes that
// all refer to one tensor take 95, and a list of small integers takes 103.
func newBudget() *pickle.Budget { return pickle.NewBudget(128, 2<<30) }

// What a storage and a tensor spend: a tensor that is loaded takes about 2 KiB
// even if it has no elements of its own.
const (
	storageCost = 256
	tensorCost  = 2048
)

func (u *unpickler) machine() *pickle.Machine {
	return &pickle.Machine{Find: u.find, Call: u.call, New: u.newObject, Persistent: u.persistent, Budget: u.budget}
}

func (u *unpickler) find(g pickle.Global) error {
	switch g.Module {
	case "collections":
		if g.Name == "OrderedDict" {
			return nil
		}
	case "torch._utils":
		switch g.Name {
		case "_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter", "_rebuild_parameter_with_state":
			return nil
		}
		if strings.HasPrefix(g.Name, "_rebuild_") {
			return fmt.Errorf("the file contains a tensor of an unsupported kind (%v)", g)
		}
	case "torch._tensor":
		if g.Name == "_rebuild_from_type_v2" {
			return nil
		}
	case "torch", "torch.storage":
		if _, ok := storageTypes[g.Name]; ok {
			return nil
		}
		if _, ok := dtypeNamed(g); ok {
			return nil
		}
		switch g.Name {
		case "Size", "device", "strided", "Tensor", "contiguous_format", "preserve_format", "channels_last":
			return nil
		}
	case "torch.nn.parameter":
		if g.Name == "Parameter" {
			return nil
		}
	case "torch.serialization":
		if g.Name == "_get_layout" {
			return nil
		}
	case "_codecs":
		if g.Name == "encode" {
			return nil
		}
	case "numpy":
		if g.Name == "dtype" {
			return nil
		}
	case "numpy.core.multiarray", "numpy._core.multiarray":
		if g.Name == "scalar" {
			return nil
		}
	case "torch.jit._pickle":
		// TorchScript wraps typed containers in functions of this module.
		if u.script {
			return nil
		}
	}
	if u.script && strings.HasPrefix(g.Module, "__torch__") {
		return nil
	}
	if strings.HasPrefix(g.Module, "torch.nn.modules") || strings.HasPrefix(g.Module, "transformers.") || strings.HasPrefix(g.Module, "__main__") {
		return fmt.Errorf("the file contains a pickled Python object (%v), which only its own Python code can load; in Python, save model.state_dict() instead", g)
	}
	return fmt.Errorf("unsafe file: its pickle refers to %v, which is not needed for weights and could execute code", g)
}

func dtypeNamed(g pickle.Global) (torch.DType, bool) {
	d, err := torch.ParseDType("torch." + g.Name)
	return d, err == nil && g.Module == "torch"
}

func (u *unpickler) newObject(class pickle.Global, args pickle.Tuple) (any, error) {
	if u.script && strings.HasPrefix(class.Module, "__torch__") {
		return &pickle.Object{Class: class}, u.budget.Spend(64, "modules")
	}
	return u.call(class, args)
}

func (u *unpickler) call(f pickle.Global, args pickle.Tuple) (any, error) {
	switch {
	case f.Name == "OrderedDict":
		d, err := pickle.NewDict(u.budget)
		if err != nil {
			return nil, err
		}
		// OrderedDict([(k, v), …]), as written by Python 2.
		if len(args) == 1 {
			if l, ok := args[0].(*pickle.List); ok {
				if err := u.budget.Spend(16*len(l.Items), "dict items"); err != nil {
					return nil, err
				}
				for _, item := range l.Items {
					var kv []any
					switch v := item.(type) {
					case pickle.Tuple:
						kv = v
					case *pickle.List:
						kv = v.Items
					}
					if len(kv) != 2 {
						continue
					}
					if err := d.Put(kv[0], kv[1], u.budget); err != nil {
						return nil, err
					}
				}
			}
		}
		return d, nil
	case strings.HasPrefix(f.Name, "_rebuild_parameter"):
		if len(args) == 0 {
			return nil, fmt.Errorf("%v is called without arguments", f)
		}
		return args[0], nil
	case f.Name == "_rebuild_from_type_v2":
		// (function, type, args, state): a tensor with attributes.
		if len(args) >= 3 {
			g, ok := args[0].(pickle.Global)
			a, ok2 := args[2].(pickle.Tuple)
			if ok && ok2 && strings.HasPrefix(g.Name, "_rebuild_") && g.Name != f.Name {
				return u.call(g, a)
			}
		}
		return nil, fmt.Errorf("%v is called with arguments that do not describe a tensor", f)
	case strings.HasPrefix(f.Name, "_rebuild_tensor"):
		if err := u.budget.Spend(storageCost, "tensors"); err != nil {
			return nil, err
		}
		return u.rebuild(f, args)
	case f.Module == "torch.jit._pickle":
		if len(args) > 0 {
			return args[0], nil
		}
	case f.Name == "Size" && len(args) == 1:
		return args[0], nil
	}
	what := f.String()
	return opaque{what}, u.budget.Spend(len(what), "values")
}

// rebuild reads (storage, offset, size, stride, …).
func (u *unpickler) rebuild(f pickle.Global, args pickle.Tuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%v is called with %d arguments, want at least 4", f, len(args))
	}
	s, ok := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	shape, err := ints(args[2])
	strides, err2 := ints(args[3])
	switch {
	case !ok || !ok2:
		return nil, fmt.Errorf("%v is called without a storage and an offset", f)
	case err != nil:
		return nil, fmt.Errorf("tensor shape: %w", err)
	case err2 != nil:
		return nil, fmt.Errorf("tensor strides: %w", err2)
	case len(shape) != len(strides):
		return nil, fmt.Errorf("tensor with %d dimensions has %d strides", len(shape), len(strides))
	}
	if err := u.budget.Spend(64*len(shape), "tensor shapes"); err != nil {
		return nil, err
	}
	t := &tensor{storage: s, dtype: s.dtype, offset: offset, shape: shape, strides: strides}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// check reports a tensor that does not lie within its storage, including one
// whose size overflows.
func (t *tensor) check() error {
	last := big.NewInt(t.offset)
	empty := false
	for i, d := range t.shape {
		if d < 0 || t.strides[i] < 0 || t.offset < 0 {
			return fmt.Errorf("tensor has a negative size, stride or offset: shape %v, strides %v and offset %d", t.shape, t.strides, t.offset)
		}
		empty = empty || d == 0
		last.Add(last, new(big.Int).Mul(big.NewInt(d-1), big.NewInt(t.strides[i])))
	}
	if t.offset < 0 {
		return fmt.Errorf("tensor has the invalid offset %d", t.offset)
	}
	if empty {
		return checkNumel(t.shape)
	}
	if last.Cmp(big.NewInt(t.storage.numel)) >= 0 {
		return fmt.Errorf("tensor of shape %v, strides %v and offset %d extends past the end of its storage of %d elements", t.shape, t.strides, t.offset, t.storage.numel)
	}
	return checkNumel(t.shape)
}

// checkNumel rejects shapes with more elements than any real file contains.
// Strides of 0 could make such a shape fit in a small storage.
func checkNumel(shape []int64) error {
	n := big.NewInt(1)
	for _, d := range shape {
		n.Mul(n, big.NewInt(max(1, d)))
	}
	if !n.IsInt64() || n.Int64() > 1<<50 {
		return fmt.Errorf("tensor of shape %v has too many elements", shape)
	}
	return nil
}

// maxDims is the largest number of dimensions that PyTorch supports.
const maxDims = 64

func checkDims(n int) error {
	if n > maxDims {
		return fmt.Errorf("%d dimensions; at most %d are supported", n, maxDims)
	}
	return nil
}

func ints(v any) ([]int64, error) {
	var items []any
	switch v := v.(type) {
	case pickle.Tuple:
		items = v
	case *pickle.List:
		items = v.Items
	default:
		return nil, fmt.Errorf("expected a tuple, got %s", typeName(v))
	}
	if err := checkDims(len(items)); err != nil {
		return nil, err
	}
	out := make([]int64, len(items))
	for i, x := range items {
		n, ok := x.(int64)
		if !ok {
			return nil, fmt.Errorf("expected integers, got %s", typeName(x))
		}
		out[i] = n
	}
	return out, nil
}

// persistent reads ("storage", type, key, location, numel[, view]).
func (u *unpickler) persistent(id any) (any, error) {
	t, ok := id.(pickle.Tuple)
	if !ok || len(t) < 5 || t[0] != "storage" {
		return nil, fmt.Errorf("unexpected persistent id that does not refer to a storage")
	}
	class, ok := t[1].(pickle.Global)
	dtype, known := storageTypes[class.Name]
	key, ok2 := t[2].(string)
	n, ok3 := t[4].(int64)
	if !ok || !ok2 || !ok3 || !known || n < 0 || n > 1<<50 {
		return nil, fmt.Errorf("invalid storage: type %s, key %s, %s elements", brief(t[1]), brief(t[2]), brief(t[4]))
	}
	if len(t) > 5 && t[5] != nil {
		return nil, fmt.Errorf("storage %s is a view of another storage (the format of PyTorch before 0.4), which is not supported", key)
	}
	if err := u.budget.Spend(len(key), "storage keys"); err != nil {
		return nil, err
	}
	if s, ok := u.storages[key]; ok {
		if s.numel != n || s.dtype != dtype {
			return nil, fmt.Errorf("storage %s has conflicting descriptions", key)
		}
		return s, nil
	}
	s := &storage{key: key, dtype: dtype, numel: n, offset: -1}
	u.storages[key] = s
	return s, u.budget.Spend(storageCost+len(key), "storages")
}

// parseZip reads PyTorch's zip format and TorchScript archives.
func parseZip(path string, in []byte) (*File, error) {
	a, err := openArchive(in)
	if err != nil {
		return nil, err
	}
	_, noConstants := a.find("constants.pkl")
	u := newUnpickler(newBudget())
	u.script = noConstants == nil
	value, err := a.value(u)
	if err != nil {
		return nil, err
	}
	f := a.file(path, u)
	if u.script {
		f.Format = TorchScript
		return f, a.script(f, path, value, u.budget)
	}
	if err := flatten(f, path, value, u.budget); err != nil {
		return nil, err
	}
	return f, a.meta(f)
}

// openArchive lists the entries of a file that torch.save wrote.
func openArchive(in []byte) (*archive, error) {
	z, err := zip.NewReader(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		return nil, fmt.Errorf("the zip file is damaged or truncated (%v)", err)
	}
	a := &archive{in: in, files: map[string]*zip.File{}, codeLeft: min(maxCode, 1<<20+100*int64(len(in)))}
	npy := 0
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, ".npy") {
			npy++
		}
		if a.root == "" && strings.HasSuffix(f.Name, "/data.pkl") && strings.Count(f.Name, "/") == 1 {
			a.root = strings.TrimSuffix(f.Name, "data.pkl")
		}
		a.files[f.Name] = f
	}
	if a.root == "" {
		if npy > 0 {
			return nil, fmt.Errorf("a NumPy archive (.npz), not a PyTorch file")
		}
		return nil, fmt.Errorf("a zip file without data.pkl, not a PyTorch file")
	}
	if order, err := a.read("byteorder"); err == nil && string(order) != "little" {
		return nil, fmt.Errorf("byte order %q is not supported; only little-endian files are", order)
	}
	return a, nil
}

// value reads the pickled value, and finds the storages of its tensors.
func (a *archive) value(u *unpickler) (any, error) {
	data, err := a.read("data.pkl")
	if err != nil {
		return nil, err
	}
	value, _, err := u.machine().Load(data)
	if err != nil {
		return nil, err
	}
	for key, s := range u.storages {
		offset, size, err := a.locate("data/" + key)
		if err != nil {
			return nil, err
		}
		if size < s.numel*s.dtype.Size() {
			return nil, fmt.Errorf("storage %s is too small: %d bytes for %d elements of %v", key, size, s.numel, s.dtype)
		}
		s.offset = offset
	}
	return value, nil
}

// file returns a File without tensors, which has the checksums of the entries.
func (a *archive) file(path string, u *unpickler) *File {
	f := &File{Format: Zip, sums: map[string]sum{}}
	for _, name := range []string{"data.pkl", "byteorder", metaFile} {
		if z, err := a.find(name); err == nil && z.CRC32 != 0 && z.Method == zip.Store {
			if offset, size, err := a.locate(name); err == nil {
				f.small = append(f.small, sum{what: "entry " + z.Name, from: offset, to: offset + size, crc: z.CRC32, table: crc32.IEEETable})
			}
		}
	}
	for key, s := range u.storages {
		// PyTorch can be told to write no checksums (set_crc32_options); they are 0 then.
		if z, err := a.find("data/" + key); err == nil && z.CRC32 != 0 {
			f.sums[path+"#"+key] = sum{what: "entry " + z.Name, from: s.offset, to: s.offset + int64(z.UncompressedSize64), crc: z.CRC32, table: crc32.IEEETable}
		}
	}
	return f
}

// checkSmall checks the entries of a zip file that are not storages.
func checkSmall(f *File, in []byte) error {
	for _, s := range f.small {
		if have := crc32.Checksum(in[s.from:s.to], s.table); have != s.crc {
			return fmt.Errorf("%s is damaged: its checksum is %08x, but %08x was written", s.what, have, s.crc)
		}
	}
	return nil
}

// meta reads the meta that was passed to Save, if Save wrote this file.
func (a *archive) meta(f *File) error {
	if _, err := a.find(metaFile); err != nil {
		return nil
	}
	text, err := a.read(metaFile)
	if err != nil {
		return err
	}
	if len(text) > maxCode {
		return fmt.Errorf("entry %s has %d bytes; at most %d are supported", metaFile, len(text), maxCode)
	}
	var own map[string]string
	if err := json.Unmarshal(text, &own); err != nil {
		return fmt.Errorf("entry %s is damaged: %w", metaFile, jsonerror.Words(err))
	}
	if f.Meta == nil {
		f.Meta = map[string]string{}
	}
	maps.Copy(f.Meta, own)
	return nil
}

type archive struct {
	in    []byte
	root  string // "archive/"
	files map[string]*zip.File
	// codeLeft is how much more source code may be read. The same few bytes of a
	// file can be the compressed contents of many entries.
	codeLeft int64
}

func (a *archive) find(name string) (*zip.File, error) {
	f, ok := a.files[a.root+name]
	if !ok {
		return nil, fmt.Errorf("entry %s%s is missing", a.root, name)
	}
	return f, nil
}

// locate returns the offset and size of an entry, which must not be compressed.
func (a *archive) locate(name string) (offset, size int64, err error) {
	f, err := a.find(name)
	if err != nil {
		return 0, 0, err
	}
	if f.Method != zip.Store {
		return 0, 0, fmt.Errorf("entry %s is compressed, which is not supported; PyTorch never compresses it", f.Name)
	}
	offset, err = f.DataOffset()
	if err != nil {
		return 0, 0, fmt.Errorf("entry %s: %w", f.Name, err)
	}
	if n := uint64(len(a.in)); f.UncompressedSize64 > n || uint64(offset) > n-f.UncompressedSize64 {
		return 0, 0, fmt.Errorf("entry %s extends past the end of the file", f.Name)
	}
	return offset, int64(f.UncompressedSize64), nil
}

func (a *archive) read(name string) ([]byte, error) {
	offset, size, err := a.locate(name)
	if err != nil {
		return nil, err
	}
	return a.in[offset : offset+size], nil
}

// maxCode limits the size of an archive's source code, the only entries that
// PyTorch compresses, and of Save's meta. The code of a large model is smaller
// than a megabyte.
const maxCode = 16 << 20

// code reads a source file. It returns nil if there is none with this name.
func (a *archive) code(name string) ([]byte, error) {
	f, err := a.find(name)
	if err != nil {
		return nil, nil
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", f.Name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, a.codeLeft+1))
	if err != nil {
		return nil, fmt.Errorf("entry %s is damaged: %w", f.Name, err)
	}
	if int64(len(text)) > a.codeLeft {
		return nil, fmt.Errorf("entry %s: the source code of this archive is larger than %d bytes, the limit for a file of %d bytes", f.Name, min(maxCode, 1<<20+100*int64(len(a.in))), len(a.in))
	}
	a.codeLeft -= int64(len(text))
	return text, nil
}

// script lists a TorchScript module's parameters and buffers under the same
// names as in its state_dict.
func (a *archive) script(f *File, path string, value any, budget *pickle.Budget) error {
	root, ok := value.(*pickle.Object)
	if !ok {
		return fmt.Errorf("data.pkl: expected a module, got %s", typeName(value))
	}
	sources := map[string]map[string]map[string]bool{} // by module
	tensorsOf := func(class pickle.Global) (map[string]bool, error) {
		classes, ok := sources[class.Module]
		if !ok {
			text, err := a.code("code/" + strings.ReplaceAll(class.Module, ".", "/") + ".py")
			if err != nil {
				return nil, err
			}
			classes = tensorsIn(string(text))
			sources[class.Module] = classes
		}
		return classes[class.Name], nil
	}
	var walk func(prefix string, o *pickle.Object, depth int) error
	walk = func(prefix string, o *pickle.Object, depth int) error {
		if depth > maxDepth {
			return errDepth
		}
		state, ok := o.State.(*pickle.Dict)
		if !ok {
			return nil // a module without attributes
		}
		if err := budget.Spend(64+len(o.Class.Module)+len(o.Class.Name)+16*len(state.Keys), "modules"); err != nil {
			return err
		}
		own, err := tensorsOf(o.Class)
		if err != nil {
			return err
		}
		var parts []int
		for i, k := range state.Keys {
			name, _ := k.(string)
			switch v := state.Values[i].(type) {
			case *tensor:
				if own == nil || own[name] {
					if err := f.add(path, prefix+name, v, budget); err != nil {
						return err
					}
				}
			case *pickle.Object:
				parts = append(parts, i)
			}
		}
		for _, i := range parts {
			name, _ := state.Keys[i].(string)
			if err := budget.Spend(len(prefix)+len(name), "module names"); err != nil {
				return err
			}
			if err := walk(prefix+name+".", state.Values[i].(*pickle.Object), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk("", root, 0)
}

// tensorsIn reads from source code which attributes of each class are parameters
// or buffers; other tensors are not part of the state dict.
func tensorsIn(code string) map[string]map[string]bool {
	classes := map[string]map[string]bool{}
	var names map[string]bool // of the class that is being read
	for line := range strings.Lines(code) {
		if after, ok := strings.CutPrefix(line, "class "); ok {
			class, _, _ := strings.Cut(after, "(")
			names = map[string]bool{}
			classes[class] = names
			continue
		}
		list, ok := strings.CutPrefix(line, "  __parameters__ = [")
		if !ok {
			list, ok = strings.CutPrefix(line, "  __buffers__ = [")
		}
		end := strings.LastIndexByte(list, ']')
		if !ok || end < 0 || names == nil {
			continue
		}
		for item := range strings.SplitSeq(list[:end], ",") {
			if name := strings.Trim(item, ` "'`); name != "" {
				names[name] = true
			}
		}
	}
	return classes
}

func (f *File) add(path, name string, t *tensor, budget *pickle.Budget) error {
	if err := budget.Spend(tensorCost+len(name), "tensors"); err != nil {
		return err
	}
	f.Entries = append(f.Entries, t.entry(path, name))
	return nil
}

func (t *tensor) entry(path, name string) Entry {
	s := t.storage
	if s.name == "" {
		s.name = path + "#" + s.key
	}
	return Entry{
		Name: name, DType: t.dtype, Shape: t.shape, Strides: t.strides, Path: path,
		Offset: s.offset + t.offset*t.dtype.Size(), Storage: s.name, Start: s.offset,
	}
}

// stateDictKeys are the keys under which training programs store a state dict:
// open_clip and Lightning, PyTorch's tutorials, many scripts, DeepSpeed.
var stateDictKeys = []string{"state_dict", "model_state_dict", "model", "module", "net"}

// flatten lists the tensors of a pickled value. It looks for the state dict of a
// checkpoint under the usual keys, and lists everything outside it separately.
func flatten(f *File, path string, value any, budget *pickle.Budget) error {
	root, ok := value.(*pickle.Dict)
	if !ok {
		if t, ok := value.(*tensor); ok {
			return f.add(path, "tensor", t, budget)
		}
		return fmt.Errorf("expected a state dict, but the file contains a %s", typeName(value))
	}
	f.Meta = map[string]string{}
	for _, key := range stateDictKeys {
		if d, ok := root.Get(key); ok {
			if d, ok := d.(*pickle.Dict); ok && holdsTensors(d) {
				rest := &walker{f: &File{}, meta: f.Meta, path: path, budget: budget}
				for i, k := range root.Keys {
					if k != key {
						if err := rest.walk(brief(k), root.Values[i], 0); err != nil {
							return err
						}
					}
				}
				for _, e := range rest.f.Entries {
					f.Ignored = append(f.Ignored, e.Name)
				}
				f.Root, root = key, d
				break
			}
		}
	}
	w := &walker{f: f, meta: f.Meta, path: path, budget: budget}
	return w.walk("", root, 0)
}

func holdsTensors(d *pickle.Dict) bool {
	for _, v := range d.Values {
		if _, ok := v.(*tensor); ok {
			return true
		}
	}
	return false
}

// maxDepth limits the nesting of values.
const maxDepth = 200

var errDepth = fmt.Errorf("the values are nested more than %d levels deep, or refer to themselves without end", maxDepth)

// walker lists the tensors and the plain values in a pickled value.
type walker struct {
	f      *File
	meta   map[string]string
	path   string
	budget *pickle.Budget
}

func (w *walker) walk(name string, v any, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	part := func(key string, v any) error {
		if err := w.budget.Spend(itemCost+len(name)+len(key), "names of values"); err != nil {
			return err
		}
		if name != "" {
			key = name + "." + key
		}
		return w.walk(key, v, depth+1)
	}
	switch v := v.(type) {
	case *tensor:
		return w.f.add(w.path, name, v, w.budget)
	case *pickle.Dict:
		at := map[string]int{}
		for i, k := range v.Keys {
			key := brief(k)
			if err := w.budget.Spend(itemCost+len(key), "keys"); err != nil {
				return err
			}
			at[key] = i
		}
		for i, k := range v.Keys {
			key := brief(k)
			if at[key] != i {
				continue // replaced by a later entry, as in Python
			}
			if err := part(key, v.Values[i]); err != nil {
				return err
			}
		}
	case *pickle.List:
		for i, x := range v.Items {
			if err := part(strconv.Itoa(i), x); err != nil {
				return err
			}
		}
	case pickle.Tuple:
		for i, x := range v {
			if err := part(strconv.Itoa(i), x); err != nil {
				return err
			}
		}
	case string, bool, int64, float64:
		text := fmt.Sprint(v)
		if s, ok := v.(string); ok {
			text = s
		}
		w.meta[name] = text
		return w.budget.Spend(2*itemCost+len(text), "values")
	}
	return nil
}

// itemCost is what an item of a list or a map takes.
const itemCost = 32

// brief formats a plain value, or only the type of a nested one, which could
// refer to itself.
func brief(v any) string {
	switch v := v.(type) {
	case string, bool, int64, float64, nil, pickle.Global:
		return fmt.Sprint(v)
	}
	return typeName(v)
}

func typeName(v any) string {
	if o, ok := v.(opaque); ok {
		return o.what
	}
	return pickle.TypeName(v)
}

// The magic number of the format of PyTorch before 1.6.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

// parseLegacy reads the format of PyTorch before 1.6: four pickles (magic
// number, protocol, system, object), a pickle of the storage keys, and then each
// storage as an element count and its elements.
func parseLegacy(path string, in []byte) (*File, error) {
	budget := newBudget()
	object, err := legacyObject(in, budget)
	if err != nil {
		return nil, err
	}
	f := &File{Format: Legacy}
	return f, flatten(f, path, object, budget)
}

// legacyObject returns the object in a file of that format. Its storages have
// their offsets in the file.
func legacyObject(in []byte, budget *pickle.Budget) (any, error) {
	u := newUnpickler(budget)
	pos := 0
	next := func(what string) (any, error) {
		v, n, err := u.machine().Load(in[pos:])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		pos += n
		return v, nil
	}
	magic, err := next("magic number")
	if err != nil {
		return nil, err
	}
	if m, ok := magic.(*big.Int); !ok || m.Cmp(legacyMagic) != 0 {
		return nil, fmt.Errorf("a Python pickle, but not a PyTorch file")
	}
	if v, err := next("protocol"); err != nil {
		return nil, err
	} else if v != int64(1001) {
		return nil, fmt.Errorf("unsupported PyTorch protocol version %s; must be 1001", brief(v))
	}
	sys, err := next("system")
	if err != nil {
		return nil, err
	}
	if d, ok := sys.(*pickle.Dict); ok {
		if little, ok := d.Get("little_endian"); ok && little == false {
			return nil, fmt.Errorf("the file was written on a big-endian machine; only little-endian files are supported")
		}
	}
	object, err := next("object")
	if err != nil {
		return nil, err
	}
	keys, err := next("storage keys")
	if err != nil {
		return nil, err
	}
	list, ok := keys.(*pickle.List)
	if !ok {
		return nil, fmt.Errorf("storage keys: expected a list, got %s", typeName(keys))
	}
	for _, k := range list.Items {
		key, _ := k.(string)
		s, ok := u.storages[key]
		if !ok || s.offset >= 0 {
			return nil, fmt.Errorf("storage keys: no tensor uses %s, or it is listed twice", brief(k))
		}
		if len(in)-pos < 8 {
			return nil, errors.Join(io.ErrUnexpectedEOF, fmt.Errorf("the file ends before storage %s", key))
		}
		n := int64(binary.LittleEndian.Uint64(in[pos:]))
		if n != s.numel {
			return nil, fmt.Errorf("storage %s has %d elements instead of %d", key, n, s.numel)
		}
		s.offset = int64(pos) + 8
		size := s.numel * s.dtype.Size()
		if size > int64(len(in))-s.offset {
			return nil, fmt.Errorf("the file is truncated: it ends within storage %s", key)
		}
		pos += 8 + int(size)
	}
	for key, s := range u.storages {
		if s.offset < 0 {
			return nil, fmt.Errorf("storage %s is missing from the file", key)
		}
	}
	return object, nil
}
