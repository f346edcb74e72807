package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"regexp"
	"strings"

	"cyclecap/internal/pickle"
	"cyclecap/torch"
)

// storage is a persistent id of a pickle: a run of elements of one type.
type storage struct {
	key    string
	dtype  torch.DType
	numel  int64
	offset int64 // of its first byte in the file; legacy files tell it late
}

// tensor is a _rebuild_tensor of a pickle.
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

// opaque stands for a value that is no tensor and of no interest.
type opaque struct{ what string }

// unpickler builds tensors from what a state dict's pickle may name; script
// allows the classes of a TorchScript archive too.
type unpickler struct {
	storages map[string]*storage
	script   bool
}

func (u *unpickler) machine() *pickle.Machine {
	return &pickle.Machine{Find: u.find, Call: u.call, New: u.newObject, Persistent: u.persistent}
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
			return fmt.Errorf("the file holds a tensor of a kind that is not supported (%v)", g)
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
		// TorchScript marks typed containers with functions of this module.
		if u.script {
			return nil
		}
	}
	if u.script && strings.HasPrefix(g.Module, "__torch__") {
		return nil
	}
	if strings.HasPrefix(g.Module, "torch.nn.modules") || strings.HasPrefix(g.Module, "transformers.") || strings.HasPrefix(g.Module, "__main__") {
		return fmt.Errorf("the file pickles a whole Python object (%v), which only its own code could read; in Python save model.state_dict() instead", g)
	}
	return fmt.Errorf("the file is refused: its pickle names %v, which does not belong to weights and could run code", g)
}

func dtypeNamed(g pickle.Global) (torch.DType, bool) {
	d, err := torch.ParseDType("torch." + g.Name)
	return d, err == nil && g.Module == "torch"
}

func (u *unpickler) newObject(class pickle.Global, args pickle.Tuple) (any, error) {
	if u.script && strings.HasPrefix(class.Module, "__torch__") {
		return &pickle.Object{Class: class}, nil
	}
	return u.call(class, args)
}

func (u *unpickler) call(f pickle.Global, args pickle.Tuple) (any, error) {
	switch {
	case f.Name == "OrderedDict":
		d := &pickle.Dict{}
		// OrderedDict([(k, v), …]), as Python 2 wrote it.
		if len(args) == 1 {
			if l, ok := args[0].(*pickle.List); ok {
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
					if err := d.Set(kv[0], kv[1]); err != nil {
						return nil, err
					}
				}
			}
		}
		return d, nil
	case strings.HasPrefix(f.Name, "_rebuild_parameter"):
		if len(args) == 0 {
			return nil, fmt.Errorf("%v without arguments", f)
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
		return nil, fmt.Errorf("%v with arguments that make no tensor", f)
	case strings.HasPrefix(f.Name, "_rebuild_tensor"):
		return rebuild(f, args)
	case f.Module == "torch.jit._pickle":
		if len(args) > 0 {
			return args[0], nil
		}
	case f.Name == "Size" && len(args) == 1:
		return args[0], nil
	}
	return opaque{f.String()}, nil
}

// rebuild reads (storage, offset, size, stride, …).
func rebuild(f pickle.Global, args pickle.Tuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%v with %d arguments", f, len(args))
	}
	s, ok := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	shape, err := ints(args[2])
	strides, err2 := ints(args[3])
	switch {
	case !ok || !ok2:
		return nil, fmt.Errorf("%v without a storage and an offset", f)
	case err != nil:
		return nil, fmt.Errorf("a tensor's shape: %w", err)
	case err2 != nil:
		return nil, fmt.Errorf("a tensor's strides: %w", err2)
	case len(shape) != len(strides):
		return nil, fmt.Errorf("a tensor of %d dimensions with %d strides", len(shape), len(strides))
	}
	t := &tensor{storage: s, dtype: s.dtype, offset: offset, shape: shape, strides: strides}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// check holds a tensor to its storage; shapes that overflow end here.
func (t *tensor) check() error {
	if len(t.shape) > 64 {
		return fmt.Errorf("a tensor of %d dimensions", len(t.shape))
	}
	last := big.NewInt(t.offset)
	empty := false
	for i, d := range t.shape {
		if d < 0 || t.strides[i] < 0 || t.offset < 0 {
			return fmt.Errorf("a tensor of shape %v, strides %v and offset %d", t.shape, t.strides, t.offset)
		}
		empty = empty || d == 0
		last.Add(last, new(big.Int).Mul(big.NewInt(d-1), big.NewInt(t.strides[i])))
	}
	if t.offset < 0 {
		return fmt.Errorf("a tensor with offset %d", t.offset)
	}
	if empty {
		return checkNumel(t.shape)
	}
	if last.Cmp(big.NewInt(t.storage.numel)) >= 0 {
		return fmt.Errorf("a tensor of shape %v, strides %v and offset %d reaches behind its storage of %d elements", t.shape, t.strides, t.offset, t.storage.numel)
	}
	return checkNumel(t.shape)
}

// checkNumel refuses shapes whose number of elements is beyond any file, as
// strides of 0 could make of a small storage.
func checkNumel(shape []int64) error {
	n := big.NewInt(1)
	for _, d := range shape {
		n.Mul(n, big.NewInt(max(1, d)))
	}
	if !n.IsInt64() || n.Int64() > 1<<50 {
		return fmt.Errorf("a tensor of shape %v: so many elements don't exist", shape)
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
		return nil, fmt.Errorf("a %T instead of a tuple", v)
	}
	out := make([]int64, len(items))
	for i, x := range items {
		n, ok := x.(int64)
		if !ok {
			return nil, fmt.Errorf("it holds a %T", x)
		}
		out[i] = n
	}
	return out, nil
}

// persistent reads ("storage", type, key, location, numel[, view]).
func (u *unpickler) persistent(id any) (any, error) {
	t, ok := id.(pickle.Tuple)
	if !ok || len(t) < 5 || t[0] != "storage" {
		return nil, fmt.Errorf("a persistent id that is no storage")
	}
	class, ok := t[1].(pickle.Global)
	dtype, known := storageTypes[class.Name]
	key, ok2 := t[2].(string)
	n, ok3 := t[4].(int64)
	if !ok || !ok2 || !ok3 || !known || n < 0 || n > 1<<50 {
		return nil, fmt.Errorf("a storage of type %s, key %s and %s elements", brief(t[1]), brief(t[2]), brief(t[4]))
	}
	if len(t) > 5 && t[5] != nil {
		return nil, fmt.Errorf("storage %s is a view of another, as PyTorch before 0.4 wrote it: not supported", key)
	}
	if s, ok := u.storages[key]; ok {
		if s.numel != n || s.dtype != dtype {
			return nil, fmt.Errorf("storage %s is described in two ways", key)
		}
		return s, nil
	}
	s := &storage{key: key, dtype: dtype, numel: n, offset: -1}
	u.storages[key] = s
	return s, nil
}

// parseZip reads PyTorch's zip form and TorchScript archives.
func parseZip(path string, in []byte) (*File, error) {
	z, err := zip.NewReader(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		return nil, fmt.Errorf("a damaged or truncated zip file (%v)", err)
	}
	a := &archive{in: in, files: map[string]*zip.File{}}
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
			return nil, fmt.Errorf("a NumPy archive (.npz), not weights of PyTorch")
		}
		return nil, fmt.Errorf("a zip file without data.pkl: not one of PyTorch's")
	}
	if order, err := a.read("byteorder"); err == nil && string(order) != "little" {
		return nil, fmt.Errorf("its byte order is %q; only little-endian files are supported", order)
	}
	data, err := a.read("data.pkl")
	if err != nil {
		return nil, err
	}
	_, noConstants := a.find("constants.pkl")
	u := &unpickler{storages: map[string]*storage{}, script: noConstants == nil}
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
			return nil, fmt.Errorf("storage %s has %d bytes for %d elements of %v", key, size, s.numel, s.dtype)
		}
		s.offset = offset
	}
	f := &File{Format: Zip}
	if u.script {
		f.Format = TorchScript
		return f, a.script(f, path, value)
	}
	if err := flatten(f, path, value); err != nil {
		return nil, err
	}
	return f, a.meta(f)
}

// meta reads what Save was given as meta, where this is a file of Save's.
func (a *archive) meta(f *File) error {
	if _, err := a.find(metaFile); err != nil {
		return nil
	}
	text, err := a.read(metaFile)
	if err != nil {
		return err
	}
	if len(text) > maxCode {
		return fmt.Errorf("its entry %s has %d bytes", metaFile, len(text))
	}
	var own map[string]string
	if err := json.Unmarshal(text, &own); err != nil {
		return fmt.Errorf("its entry %s is damaged: %w", metaFile, err)
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
}

func (a *archive) find(name string) (*zip.File, error) {
	f, ok := a.files[a.root+name]
	if !ok {
		return nil, fmt.Errorf("its entry %s%s is missing", a.root, name)
	}
	return f, nil
}

// locate gives the place of an entry, which must be stored as it is.
func (a *archive) locate(name string) (offset, size int64, err error) {
	f, err := a.find(name)
	if err != nil {
		return 0, 0, err
	}
	if f.Method != zip.Store {
		return 0, 0, fmt.Errorf("its entry %s is compressed, which PyTorch never does: refused", f.Name)
	}
	offset, err = f.DataOffset()
	if err != nil {
		return 0, 0, fmt.Errorf("its entry %s: %w", f.Name, err)
	}
	if n := uint64(len(a.in)); f.UncompressedSize64 > n || uint64(offset) > n-f.UncompressedSize64 {
		return 0, 0, fmt.Errorf("its entry %s reaches behind the end of the file", f.Name)
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

// maxCode bounds a text of an archive's code, the one thing that PyTorch
// compresses; a large model's is less than a megabyte.
const maxCode = 16 << 20

func (a *archive) code(name string) ([]byte, error) {
	f, err := a.find(name)
	if err != nil {
		return nil, err
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxCode))
}

// script lists a TorchScript module's parameters and buffers under the names
// that its state_dict gives them.
func (a *archive) script(f *File, path string, value any) error {
	root, ok := value.(*pickle.Object)
	if !ok {
		return fmt.Errorf("its data.pkl holds a %T, not a module", value)
	}
	classes := map[string]map[string]bool{}
	var walk func(prefix string, o *pickle.Object, depth int) error
	walk = func(prefix string, o *pickle.Object, depth int) error {
		if depth > 100 || len(f.Entries) > 1e6 {
			return fmt.Errorf("its modules are nested without end")
		}
		own, ok := classes[o.Class.String()]
		if !ok {
			own = a.tensorsOf(o.Class)
			classes[o.Class.String()] = own
		}
		state, ok := o.State.(*pickle.Dict)
		if !ok {
			return nil // a module without attributes
		}
		var parts []int
		for i, k := range state.Keys {
			name, _ := k.(string)
			switch v := state.Values[i].(type) {
			case *tensor:
				if own == nil || own[name] {
					f.add(path, prefix+name, v)
				}
			case *pickle.Object:
				parts = append(parts, i)
			}
		}
		for _, i := range parts {
			name, _ := state.Keys[i].(string)
			if err := walk(prefix+name+".", state.Values[i].(*pickle.Object), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk("", root, 0)
}

var tensorLists = regexp.MustCompile(`(?m)^  __(?:parameters|buffers)__ = \[(.*)\]`)

// tensorsOf reads from an archive's code which attributes of a class are
// parameters or buffers; other tensors are not in the state dict. nil where
// the code is not there.
func (a *archive) tensorsOf(class pickle.Global) map[string]bool {
	code, err := a.code("code/" + strings.ReplaceAll(class.Module, ".", "/") + ".py")
	if err != nil {
		return nil
	}
	_, text, ok := strings.Cut(string(code), "class "+class.Name+"(")
	if !ok {
		return nil
	}
	text, _, _ = strings.Cut(text, "\nclass ")
	names := map[string]bool{}
	for _, list := range tensorLists.FindAllStringSubmatch(text, -1) {
		for _, item := range strings.Split(list[1], ",") {
			if name := strings.Trim(item, ` "'`); name != "" {
				names[name] = true
			}
		}
	}
	return names
}

func (f *File) add(path, name string, t *tensor) { f.Entries = append(f.Entries, t.entry(path, name)) }

func (t *tensor) entry(path, name string) Entry {
	return Entry{
		Name: name, DType: t.dtype, Shape: t.shape, Strides: t.strides, Path: path,
		Offset:  t.storage.offset + t.offset*t.dtype.Size(),
		Storage: path + "#" + t.storage.key,
		Start:   t.storage.offset,
	}
}

// flatten lists the tensors of a pickled value. A checkpoint's state dict is
// looked for where trainers put it; what stands beside it is told apart.
func flatten(f *File, path string, value any) error {
	root, ok := value.(*pickle.Dict)
	if !ok {
		if t, ok := value.(*tensor); ok {
			f.add(path, "tensor", t)
			return nil
		}
		return fmt.Errorf("it holds a %s, not a state dict", typeName(value))
	}
	f.Meta = map[string]string{}
	for _, key := range []string{"state_dict", "model_state_dict", "model"} {
		if d, ok := root.Get(key); ok {
			if d, ok := d.(*pickle.Dict); ok && holdsTensors(d) {
				rest := &File{}
				left := maxNodes
				for i, k := range root.Keys {
					if k != key {
						if err := rest.walk(path, brief(k), root.Values[i], &left, f.Meta); err != nil {
							return err
						}
					}
				}
				for _, e := range rest.Entries {
					f.Ignored = append(f.Ignored, e.Name)
				}
				f.Root, root = key, d
				break
			}
		}
	}
	left := maxNodes
	return f.walk(path, "", root, &left, f.Meta)
}

func holdsTensors(d *pickle.Dict) bool {
	for _, v := range d.Values {
		if _, ok := v.(*tensor); ok {
			return true
		}
	}
	return false
}

// maxNodes bounds the walk: a pickle of a kilobyte can refer to one list from
// so many places that it never ends.
const maxNodes = 5_000_000

func (f *File) walk(path, name string, v any, left *int, meta map[string]string) error {
	if *left--; *left < 0 {
		return fmt.Errorf("it holds more than %d values, or refers to its own without end", maxNodes)
	}
	join := func(key string) string {
		if name == "" {
			return key
		}
		return name + "." + key
	}
	if strings.Count(name, ".") > 200 {
		return fmt.Errorf("it is nested without end")
	}
	switch v := v.(type) {
	case *tensor:
		f.add(path, name, v)
	case *pickle.Dict:
		at := map[string]int{}
		for i, k := range v.Keys {
			at[brief(k)] = i
		}
		for i, k := range v.Keys {
			key := brief(k)
			if at[key] != i {
				continue // replaced by a later entry, as in Python
			}
			if err := f.walk(path, join(key), v.Values[i], left, meta); err != nil {
				return err
			}
		}
	case *pickle.List:
		for i, x := range v.Items {
			if err := f.walk(path, join(fmt.Sprint(i)), x, left, meta); err != nil {
				return err
			}
		}
	case pickle.Tuple:
		for i, x := range v {
			if err := f.walk(path, join(fmt.Sprint(i)), x, left, meta); err != nil {
				return err
			}
		}
	case string, bool, int64, float64:
		meta[name] = fmt.Sprint(v)
	}
	return nil
}

// brief prints a plain value; a nested one, which could be without end, only
// as its type.
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

// The magic number of PyTorch's form before 1.6.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

// parseLegacy reads PyTorch's form before 1.6: four pickles (magic number,
// protocol, system, object), a pickle of the storages' keys, and behind it
// each storage as a count and its elements.
func parseLegacy(path string, in []byte) (*File, error) {
	object, err := legacyObject(in)
	if err != nil {
		return nil, err
	}
	f := &File{Format: Legacy}
	return f, flatten(f, path, object)
}

// legacyObject gives what a file of that form holds; its storages know their
// places in it.
func legacyObject(in []byte) (any, error) {
	u := &unpickler{storages: map[string]*storage{}}
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
		return nil, fmt.Errorf("a Python pickle that is not a PyTorch file")
	}
	if v, err := next("protocol"); err != nil {
		return nil, err
	} else if v != int64(1001) {
		return nil, fmt.Errorf("a PyTorch file of protocol %s; 1001 is supported", brief(v))
	}
	sys, err := next("system")
	if err != nil {
		return nil, err
	}
	if d, ok := sys.(*pickle.Dict); ok {
		if little, ok := d.Get("little_endian"); ok && little == false {
			return nil, fmt.Errorf("it was written on a big-endian machine; only little-endian files are supported")
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
		return nil, fmt.Errorf("its storage keys are a %s", typeName(keys))
	}
	for _, k := range list.Items {
		key, _ := k.(string)
		s, ok := u.storages[key]
		if !ok || s.offset >= 0 {
			return nil, fmt.Errorf("its storage keys name %s, which no tensor uses", brief(k))
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
			return nil, fmt.Errorf("the file ends within storage %s: it is truncated", key)
		}
		pos += 8 + int(size)
	}
	for key, s := range u.storages {
		if s.offset < 0 {
			return nil, fmt.Errorf("storage %s is not in the file", key)
		}
	}
	return object, nil
}
