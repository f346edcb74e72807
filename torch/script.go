package torch

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// A ScriptModule is a TorchScript module: what torch.jit.script or torch.jit.trace has made and
// torch.jit.save has written. Its methods may be called concurrently.
type ScriptModule struct {
	mu      sync.RWMutex
	module  uintptr // 0: closed
	cleanup runtime.Cleanup
}

// A Tuple is a tuple of Python, as an argument or a result of a [ScriptModule].
type Tuple []any

// LoadScript loads a TorchScript module to a device, as torch.jit.load(path, map_location=d)
// does. Close frees its weights.
//
// The file contains code, which runs when it is loaded and called: load only files that you
// trust. Package weights reads the tensors of such a file without running anything.
func LoadScript(path string, d Device) (*ScriptModule, error) {
	p, err := shim.LoadScript(path, int(d.Type), int(d.index()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, wrap("jit.load", err))
	}
	m := &ScriptModule{module: p}
	m.cleanup = runtime.AddCleanup(m, shim.FreeScript, p)
	return m, nil
}

// Close frees the module. Calls that have begun end before.
func (m *ScriptModule) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.module != 0 {
		m.cleanup.Stop()
		shim.FreeScript(m.module)
		m.module = 0
	}
}

// Train sets the module to training, or to evaluation if on is false: dropout and batch norm.
func (m *ScriptModule) Train(on bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	must("ScriptModule.train", shim.TrainScript(m.module, on))
}

// Forward calls the method forward. See [ScriptModule.Call].
func (m *ScriptModule) Forward(args ...any) any { return m.Call("forward", args...) }

// Call calls a method of the module, in a scope, to which tensors in the result belong.
//
// An argument, and each of its elements, is a Tensor, a [Scalar], a string, a Device, a
// [Tuple], a slice for a list, a map for a dict, or nil for None. Arguments that have defaults
// may be left out at the end. The result is a Tensor, int64, float64, complex128, bool, string,
// Tuple, []any for a list, map[any]any for a dict, or nil for None.
//
// Call panics with an *Error if the method does not exist, does not take the arguments or fails.
func (m *ScriptModule) Call(method string, args ...any) any {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := begin(&op{name: "ScriptModule." + method}, nil)
	for _, a := range args {
		c.tree(a)
	}
	var words []int64
	var err error
	if c.err == nil {
		words, err = shim.CallScript(m.module, method, c.args, len(args))
	}
	c.release(err)
	v, _ := fromTree(c.op.String(), words)
	c.end()
	return v
}

// tree adds a value with its elements.
func (c *call) tree(v any) {
	switch v := v.(type) {
	case nil, Tensor, string, Device, []Tensor, []int64, []float64, []bool:
		c.value(v)
		return
	case Tuple:
		c.head(shim.Tuple, len(v))
		for _, e := range v {
			c.tree(e)
		}
		return
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Slice:
		c.head(shim.List, r.Len())
		for i := range r.Len() {
			c.tree(r.Index(i).Interface())
		}
	case reflect.Map:
		keys := r.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { // Python's dicts have an order
			return cmp.Compare(fmt.Sprint(a.Interface()), fmt.Sprint(b.Interface()))
		})
		c.head(shim.Dict, len(keys))
		for _, k := range keys {
			c.tree(k.Interface())
			c.tree(r.MapIndex(k).Interface())
		}
	default:
		c.value(v)
	}
}

// fromTree returns the first value in words, and the words after it.
func fromTree(op string, words []int64) (any, []int64) {
	head := words[0]
	n, words := int(head>>8), words[1:]
	elements := func() (list []any) {
		list = make([]any, n)
		for i := range list {
			list[i], words = fromTree(op, words)
		}
		return list
	}
	switch head & 0xff {
	case shim.Tensor:
		return adopt(op, uintptr(words[0])), words[1:]
	case shim.Int:
		return words[0], words[1:]
	case shim.Double:
		return math.Float64frombits(uint64(words[0])), words[1:]
	case shim.Bool:
		return words[0] != 0, words[1:]
	case shim.Complex:
		return complex(math.Float64frombits(uint64(words[0])), math.Float64frombits(uint64(words[1]))), words[2:]
	case shim.String:
		size := (n + 7) / 8
		if n == 0 {
			return "", words
		}
		return string(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), n)), words[size:]
	case shim.Tuple:
		return Tuple(elements()), words
	case shim.List:
		return elements(), words
	case shim.Dict:
		n *= 2
		list := elements()
		d := map[any]any{}
		for i := 0; i < n; i += 2 {
			d[list[i]] = list[i+1]
		}
		return d, words
	}
	return nil, words
}
