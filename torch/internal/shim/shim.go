// Package shim is the only package that calls libtorch through cgo. It wraps the
// C ABI of cpp/include/cyclecap_torch.h in Go functions on plain numbers, on
// which package torch builds the public API.
package shim

/*
#cgo CFLAGS: -I${SRCDIR}/../../../cpp/include
#cgo LDFLAGS: -lm -ldl -lpthread
#include <math.h>
#include <stdlib.h>
#ifdef __GLIBC__ // which stdlib.h says
#include <malloc.h>
#endif
#include "cyclecap_torch.h"

// These functions neither keep Go pointers nor call back. That holds only once
// the libraries are loaded, because loading them calls ct_open. Their callers
// have an operator or a tensor, which they cannot have got before.
#cgo noescape ct_call
#cgo nocallback ct_call
#cgo noescape ct_tensor_info
#cgo nocallback ct_tensor_info
#cgo noescape ct_tensor_item
#cgo nocallback ct_tensor_item
#cgo noescape ct_tensors_free
#cgo nocallback ct_tensors_free

// Settings of glibc's allocator for programs that do little but compute with tensors:
//   - By default it maps large blocks and unmaps them when they are freed, so
//     that every large result pays for zeroed pages. With the blocks kept in the
//     heap, GPT-2 takes 2/3 of the time for a batch of 80 prefixes.
//   - By default every OS thread has its own arena, whose heaps are too small
//     for that. Use one arena for all threads.
// Other C libraries (musl, macOS) have no such settings.
static void tune_malloc(void) {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 0x7fffffff);
#endif
}

static void trim_malloc(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
*/
import "C"

import (
	"slices"
	"strings"
	"time"
	"unsafe"

	_ "cyclecap/cpp" // the header: go mod vendor copies it, and Go sees when it changes
)

// TuneMalloc sets the C library's allocator up for large tensors, if it is glibc's.
func TuneMalloc() { C.tune_malloc() }

// TrimMemory returns freed memory to the operating system, if the C library is glibc.
func TrimMemory() { C.trim_malloc() }

// Tags of flattened values; see enum ct_tag in the header.
const (
	None       = C.CT_NONE
	Tensor     = C.CT_TENSOR
	Int        = C.CT_INT
	Double     = C.CT_DOUBLE
	Bool       = C.CT_BOOL
	String     = C.CT_STRING
	Ints       = C.CT_INTS
	Doubles    = C.CT_DOUBLES
	Bools      = C.CT_BOOLS
	Tensors    = C.CT_TENSORS
	OptTensors = C.CT_OPT_TENSORS
	Device     = C.CT_DEVICE
	Generator  = C.CT_GENERATOR
	Scalars    = C.CT_SCALARS
	Complex    = C.CT_COMPLEX
	Default    = C.CT_DEFAULT
	List       = C.CT_LIST
	Tuple      = C.CT_TUPLE
	Dict       = C.CT_DICT
)

// Error is an error reported by the shim: its kind (a CT_ERR_ byte) and message.
type Error struct {
	Kind byte
	Text string
}

func (e *Error) Error() string { return e.Text }

// take turns a ct_error into a Go error and frees it.
func take(e C.ct_error) error {
	if e == nil {
		return nil
	}
	s := C.GoString(e)
	C.ct_free(unsafe.Pointer(e))
	if s == "" {
		return &Error{Kind: C.CT_ERR_RUNTIME}
	}
	return &Error{Kind: s[0], Text: s[1:]}
}

func tensor(p uintptr) C.ct_tensor { return *(*C.ct_tensor)(unsafe.Pointer(&p)) }

func address(t C.ct_tensor) uintptr { return *(*uintptr)(unsafe.Pointer(&t)) }

func tensors(p []uintptr) *C.ct_tensor {
	if len(p) == 0 {
		return nil
	}
	return (*C.ct_tensor)(unsafe.Pointer(unsafe.SliceData(p)))
}

func generator(p uintptr) C.ct_generator { return *(*C.ct_generator)(unsafe.Pointer(&p)) }

func cbool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// Op is an operator.
type Op = uintptr

// FindOp looks up an operator by schema name and overload.
func FindOp(name, overload string) (Op, error) {
	n, o := C.CString(name), C.CString(overload)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(o))
	var op C.ct_op
	err := take(C.ct_op_find(n, o, &op))
	return *(*Op)(unsafe.Pointer(&op)), err
}

// Call calls operator op with nargs flattened values and returns the flattened
// results, in rets if they fit, and this thread's scope. If rets is empty, the results
// are dropped.
func Call(op Op, args []int64, nargs int, rets []int64) (results []int64, scope int64, err error) {
	var n C.int
	var s C.int64_t
	e := C.ct_call(*(*C.ct_op)(unsafe.Pointer(&op)), (*C.int64_t)(unsafe.SliceData(args)), C.int(len(args)), C.int(nargs),
		(*C.int64_t)(unsafe.SliceData(rets)), C.int(len(rets)), &n, &s)
	if e != nil {
		return nil, int64(s), take(e)
	}
	if int(n) <= len(rets) {
		return rets[:n], int64(s), nil
	}
	block := *(*unsafe.Pointer)(unsafe.Pointer(&rets[0]))
	defer C.ct_free(block)
	return slices.Clone(unsafe.Slice((*int64)(block), int(n))), int64(s), nil
}

// Schema returns the schema of an operator, or of all operators if name is empty.
func Schema(name, overload string) (string, error) {
	var n *C.char
	if name != "" {
		n = C.CString(name)
		defer C.free(unsafe.Pointer(n))
	}
	o := C.CString(overload)
	defer C.free(unsafe.Pointer(o))
	return text(func(out **C.char) C.ct_error { return C.ct_schema(n, o, out) })
}

// PanelsAble is ct_panels_able.
func PanelsAble() bool { return C.ct_panels_able() != 0 }

// PanelsPack is ct_panels_pack.
func PanelsPack(weight uintptr) (uintptr, error) {
	var packed C.ct_tensor
	err := take(C.ct_panels_pack(tensor(weight), &packed))
	return address(packed), err
}

// PanelsLinear is ct_panels_linear. p has x, the packed weight, and the bias or 0.
func PanelsLinear(p []uintptr, out int64, activation int) (uintptr, error) {
	var y C.ct_tensor
	err := take(C.ct_panels_linear(tensor(p[0]), tensor(p[1]), C.int64_t(out), tensor(p[2]), uint32(activation), &y))
	return address(y), err
}

// ExactLinear is ct_exact_linear. p has x, the weight, and the bias and the packed weight, or 0.
func ExactLinear(p []uintptr, transposed, eager bool) (y uintptr, lost int64, err error) {
	var t C.ct_tensor
	var ns C.int64_t
	err = take(C.ct_exact_linear(tensor(p[0]), tensor(p[1]), cbool(transposed), tensor(p[2]), tensor(p[3]), cbool(eager), &t, &ns))
	return address(t), int64(ns), err
}

// Int8Fast is ct_int8_fast.
func Int8Fast() bool { return C.ct_int8_fast() != 0 }

// Int8Pack is ct_int8_pack.
func Int8Pack(weight uintptr) (packed, scales, sums uintptr, err error) {
	var p, s, z C.ct_tensor
	err = take(C.ct_int8_pack(tensor(weight), &p, &s, &z))
	return address(p), address(s), address(z), err
}

// Int8Linear is ct_int8_linear. p has x, the packed weight, its scales, its sums, and the bias
// or 0.
func Int8Linear(p []uintptr, activation int, plain bool) (uintptr, error) {
	var y C.ct_tensor
	err := take(C.ct_int8_linear(tensor(p[0]), tensor(p[1]), tensor(p[2]), tensor(p[3]), tensor(p[4]), uint32(activation), cbool(plain), &y))
	return address(y), err
}

// RowProducts is ct_row_products.
func RowProducts(x, w uintptr, width int) (products, squares uintptr, err error) {
	var y, s C.ct_tensor
	err = take(C.ct_row_products(tensor(x), tensor(w), C.int(width), &y, &s))
	return address(y), address(s), err
}

// Layer describes a layer for TransformerLayer, without its tensors.
type Layer struct {
	Epsilon1, Epsilon2     float64
	QKV                    []int64 // numbers of outputs
	AttentionOut, Up, Down int64
	Activation             int
	Heads                  int64
	Scale                  float64
	Causal                 bool
	First                  int64
	Past, Only             []int64 // or nil
}

// TransformerLayer is ct_transformer_layer. p has the weights and biases of the two norms; the
// weight, scales, sums and bias of each linear layer, those of QKV first; keys, values and x.
func TransformerLayer(p []uintptr, l Layer) (uintptr, error) {
	next := func() (t C.ct_tensor) {
		t, p = tensor(p[0]), p[1:]
		return t
	}
	packed := func(out int64) C.ct_packed {
		return C.ct_packed{weight: next(), scales: next(), sums: next(), bias: next(), out: C.int64_t(out)}
	}
	c := C.ct_layer{norm1_weight: next(), norm1_bias: next(), norm2_weight: next(), norm2_bias: next(),
		epsilon1: C.double(l.Epsilon1), epsilon2: C.double(l.Epsilon2),
		qkv_layers: C.int(len(l.QKV)), activation: uint32(l.Activation), heads: C.int64_t(l.Heads), scale: C.double(l.Scale)}
	for i, out := range l.QKV {
		c.qkv[i] = packed(out)
	}
	c.attention_out, c.up, c.down = packed(l.AttentionOut), packed(l.Up), packed(l.Down)
	keys, values, x := next(), next(), next()
	var y C.ct_tensor
	err := take(C.ct_transformer_layer(&c, x, cbool(l.Causal), keys, values, C.int64_t(l.First),
		(*C.int64_t)(unsafe.SliceData(l.Past)), (*C.int64_t)(unsafe.SliceData(l.Only)), &y))
	return address(y), err
}

// GeluNew is ct_gelu_new.
func GeluNew(p uintptr) (uintptr, error) {
	var y C.ct_tensor
	err := take(C.ct_gelu_new(tensor(p), &y))
	return address(y), err
}

// QuickGelu is ct_quick_gelu.
func QuickGelu(p uintptr) (uintptr, error) {
	var y C.ct_tensor
	err := take(C.ct_quick_gelu(tensor(p), &y))
	return address(y), err
}

func text(f func(**C.char) C.ct_error) (string, error) {
	var out *C.char
	if err := take(f(&out)); err != nil {
		return "", err
	}
	if out == nil {
		return "", nil
	}
	defer C.ct_free(unsafe.Pointer(out))
	return C.GoString(out), nil
}

// facts returns the values of "key=value" lines by their keys.
func facts(f func(**C.char) C.ct_error) (map[string]string, error) {
	lines, err := text(f)
	if err != nil {
		return nil, err
	}
	v := map[string]string{}
	for line := range strings.Lines(lines) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		v[key] = value
	}
	return v, nil
}

// Free releases the references in p.
func Free(p []uintptr) {
	if len(p) > 0 && C.ct_tensors_free(tensors(p), C.int(len(p))) > 0 {
		dropHeld()
	}
}

// Ref returns another reference to the same tensor.
func Ref(p uintptr) uintptr { return address(C.ct_tensor_ref(tensor(p))) }

// Alive returns the number of references held by this process.
func Alive() int64 { return int64(C.ct_tensors_alive()) }

// Info describes a tensor.
type Info struct {
	Numel, StorageOffset, NBytes, StorageNBytes int64
	Data, Storage                               unsafe.Pointer
	DType, DeviceType, DeviceIndex, Dim         int
	RequiresGrad, IsLeaf, Contiguous, Inference bool
	Lazy                                        bool // the elements are still to be conjugated or negated
	Layout                                      int

	few  [2 * few]C.int64_t // the sizes, and from few on the strides, of up to few dimensions
	more []C.int64_t        // of more: the sizes and strides
}

// few is a number of dimensions that tensors rarely exceed.
const few = 8

// Size returns the size of a dimension.
func (i *Info) Size(dim int) int64 { return int64(i.dims()[dim]) }

// Sizes returns the sizes of the dimensions.
func (i *Info) Sizes() []int64 { return integers(i.dims()[:i.Dim]) }

// Strides returns the strides of the dimensions.
func (i *Info) Strides() []int64 {
	d := i.dims()
	return integers(d[len(d)/2:][:i.Dim])
}

func (i *Info) dims() []C.int64_t {
	if i.more != nil {
		return i.more
	}
	return i.few[:]
}

func integers(l []C.int64_t) []int64 {
	out := make([]int64, len(l))
	for i, v := range l {
		out[i] = int64(v)
	}
	return out
}

// TensorInfo returns the description of tensor p.
func TensorInfo(p uintptr) (i Info, err error) {
	var c C.ct_info
	e := C.ct_tensor_info(tensor(p), &c, &i.few[0], &i.few[few], few)
	if n := int(c.dim); e == nil && n > few {
		i.more = make([]C.int64_t, 2*n)
		e = C.ct_tensor_info(tensor(p), &c, &i.more[0], &i.more[n], c.dim)
	}
	if e != nil {
		return Info{}, take(e)
	}
	i.Numel, i.StorageOffset = int64(c.numel), int64(c.storage_offset)
	i.NBytes, i.StorageNBytes = int64(c.nbytes), int64(c.storage_nbytes)
	i.Data, i.Storage = c.data, c.storage
	i.DType, i.DeviceType, i.DeviceIndex, i.Dim = int(c.dtype), int(c.device_type), int(c.device_index), int(c.dim)
	i.RequiresGrad, i.IsLeaf = c.requires_grad != 0, c.is_leaf != 0
	i.Layout = int(c.layout)
	i.Contiguous, i.Inference, i.Lazy = c.is_contiguous != 0, c.is_inference != 0, c.is_lazy != 0
	return i, nil
}

// Write copies n bytes at src to contiguous CPU tensor p.
func Write(p uintptr, src unsafe.Pointer, n int64) error {
	return take(C.ct_tensor_write(tensor(p), src, C.size_t(n)))
}

// Read copies the elements of tensor p, converted to dtype, to the n bytes at dst.
func Read(p uintptr, dtype int, dst unsafe.Pointer, n int64) error {
	return take(C.ct_tensor_read(tensor(p), C.int(dtype), dst, C.size_t(n)))
}

// Item copies the only element of tensor p, converted to dtype, to value, and returns the
// tensor's dtype. dtype Own is Python's number; see ct_tensor_item.
func Item(p uintptr, dtype int, value unsafe.Pointer) (own int, err error) {
	var c C.int
	if e := C.ct_tensor_item(tensor(p), C.int(dtype), value, &c); e != nil {
		return int(c), take(e)
	}
	return int(c), nil
}

// Own is the dtype of Item for a number in Python's type.
const Own = -1

// Backward is torch.autograd.backward. grads is empty or as long as outputs.
func Backward(outputs, grads []uintptr, retain, create bool) error {
	return take(C.ct_backward(tensors(outputs), C.int(len(outputs)), tensors(grads), C.int(len(grads)),
		cbool(retain), cbool(create)))
}

// Grad is torch.autograd.grad. grads is empty or as long as outputs.
func Grad(outputs, grads, inputs []uintptr, retain, create, unused bool) ([]uintptr, error) {
	out := make([]uintptr, len(inputs))
	err := take(C.ct_grad(tensors(outputs), C.int(len(outputs)), tensors(grads), C.int(len(grads)),
		tensors(inputs), C.int(len(inputs)), cbool(retain), cbool(create), cbool(unused), tensors(out)))
	return out, err
}

// TensorGrad returns t.grad, or 0 if there is none.
func TensorGrad(p uintptr) (uintptr, error) {
	var g C.ct_tensor
	err := take(C.ct_tensor_grad(tensor(p), &g))
	return address(g), err
}

// SetGrad sets t.grad; 0 clears it.
func SetGrad(p, grad uintptr) error { return take(C.ct_tensor_set_grad(tensor(p), tensor(grad))) }

// SetRequiresGrad sets t.requires_grad.
func SetRequiresGrad(p uintptr, on bool) error {
	return take(C.ct_tensor_set_requires_grad(tensor(p), cbool(on)))
}

// GradFn returns the name of t.grad_fn, or "" for a leaf.
func GradFn(p uintptr) (string, error) {
	return text(func(out **C.char) C.ct_error { return C.ct_tensor_grad_fn(tensor(p), out) })
}

// SetData is t.data = other.
func SetData(p, other uintptr) error { return take(C.ct_tensor_set_data(tensor(p), tensor(other))) }

// GradMode sets this thread's grad mode and returns the previous one.
func GradMode(on bool) bool { return C.ct_grad_mode(cbool(on)) != 0 }

// InferenceEnter turns inference mode on or off. leave restores the previous
// state.
func InferenceEnter(on bool) (leave func()) {
	g := C.ct_inference_enter(cbool(on))
	return func() { C.ct_inference_leave(g) }
}

// AutocastEnter turns autocast on or off for a device type. leave restores the
// previous state.
func AutocastEnter(deviceType int, on bool, dtype int) (leave func() error, err error) {
	var wasOn, wasType C.int
	if err := take(C.ct_autocast_enter(C.int(deviceType), cbool(on), C.int(dtype), &wasOn, &wasType)); err != nil {
		return nil, err
	}
	return func() error { return take(C.ct_autocast_leave(C.int(deviceType), wasOn, wasType)) }, nil
}

// Scope returns the id of this thread's scope.
func Scope() int64 { return int64(C.ct_scope_get()) }

// SetScope sets the id of this thread's scope and returns the previous one.
func SetScope(id int64) int64 { return int64(C.ct_scope_set(C.int64_t(id))) }

// ManualSeed seeds the default generators.
func ManualSeed(seed uint64) error { return take(C.ct_manual_seed(C.uint64_t(seed))) }

// NewGenerator returns a new generator for a device.
func NewGenerator(deviceType, index int) (uintptr, error) {
	var g C.ct_generator
	err := take(C.ct_generator_new(C.int(deviceType), C.int(index), &g))
	return *(*uintptr)(unsafe.Pointer(&g)), err
}

// DefaultGenerator returns a device's default generator.
func DefaultGenerator(deviceType, index int) (uintptr, error) {
	var g C.ct_generator
	err := take(C.ct_generator_default(C.int(deviceType), C.int(index), &g))
	return *(*uintptr)(unsafe.Pointer(&g)), err
}

// FreeGenerator frees g.
func FreeGenerator(g uintptr) { C.ct_generator_free(generator(g)) }

// SeedGenerator seeds g.
func SeedGenerator(g uintptr, seed uint64) error {
	return take(C.ct_generator_seed(generator(g), C.uint64_t(seed)))
}

// GeneratorState returns g's state as a uint8 tensor.
func GeneratorState(g uintptr) (uintptr, error) {
	var t C.ct_tensor
	err := take(C.ct_generator_get_state(generator(g), &t))
	return address(t), err
}

// Adam has the options of ct_adam.
type Adam struct {
	Kind                               int // Plain, Decoupled or Transformers
	LR, Beta1, Beta2, Eps, WeightDecay float64
}

// The kinds of Adam.
const (
	AdamPlain        = C.CT_ADAM_PLAIN
	AdamDecoupled    = C.CT_ADAM_DECOUPLED
	AdamTransformers = C.CT_ADAM_TRANSFORMERS
)

// AdamStep runs a step. p has the parameters, the gradients and both moments, one list after
// the other. See ct_adam_step.
func AdamStep(o Adam, p []uintptr, roots, sizes []float64) error {
	n := len(roots)
	if n == 0 {
		return nil
	}
	c := C.ct_adam{kind: C.int(o.Kind), lr: C.double(o.LR), beta1: C.double(o.Beta1), beta2: C.double(o.Beta2), eps: C.double(o.Eps), weight_decay: C.double(o.WeightDecay)}
	list := func(i int) *C.ct_tensor { return (*C.ct_tensor)(unsafe.Pointer(&p[i*n])) }
	return take(C.ct_adam_step(&c, C.int(n), list(0), list(1), list(2), list(3), (*C.double)(&roots[0]), (*C.double)(&sizes[0])))
}

// SetGeneratorState sets g's state.
func SetGeneratorState(g, state uintptr) error {
	return take(C.ct_generator_set_state(generator(g), tensor(state)))
}

// Lend calls f with the addresses of torch.Tensors, which cannot be freed until f
// returns. It panics with a *torch.Error of op if one is none or freed. Package
// torch sets it, for use by its subpackages.
var Lend func(op string, f func(p []uintptr) error, tensors ...any) error

// HasGroups reports whether the shim was built with c10d and Gloo.
func HasGroups() bool { return C.ct_group_available() != 0 }

// NewGroup joins a process group over c10d and Gloo. listener is a listening
// socket, whose ownership it takes, or -1. See ct_group_new.
func NewGroup(host string, port, listener, rank, size int, prefix, address string, join, timeout time.Duration) (uintptr, error) {
	h, p, a := C.CString(host), C.CString(prefix), C.CString(address)
	defer C.free(unsafe.Pointer(h))
	defer C.free(unsafe.Pointer(p))
	defer C.free(unsafe.Pointer(a))
	var g C.ct_group
	err := take(C.ct_group_new(h, C.int(port), C.int(listener), C.int(rank), C.int(size), p, a, C.int64_t(join.Milliseconds()), C.int64_t(timeout.Milliseconds()), &g))
	return *(*uintptr)(unsafe.Pointer(&g)), err
}

func store(s uintptr) C.ct_store { return *(*C.ct_store)(unsafe.Pointer(&s)) }

// OpenStore opens a connection to the rendezvous store of a group. See ct_store_open.
func OpenStore(host string, port int, timeout time.Duration) (uintptr, error) {
	h := C.CString(host)
	defer C.free(unsafe.Pointer(h))
	var s C.ct_store
	err := take(C.ct_store_open(h, C.int(port), C.int64_t(timeout.Milliseconds()), &s))
	return *(*uintptr)(unsafe.Pointer(&s)), err
}

// CloseStore closes a connection.
func CloseStore(s uintptr) { C.ct_store_free(store(s)) }

// StoreGet returns the value of a key in the store, or "".
func StoreGet(s uintptr, key string) (string, error) {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	return text(func(out **C.char) C.ct_error { return C.ct_store_get(store(s), k, out) })
}

// StoreSet sets the value of a key in the store.
func StoreSet(s uintptr, key, value string) error {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	return take(C.ct_store_set(store(s), k, v))
}

func group(g uintptr) C.ct_group { return *(*C.ct_group)(unsafe.Pointer(&g)) }

// OpenNCCL adds NCCL to g, for CUDA tensors. found reports whether the shim has a
// library for it; if not, nothing else happens.
func OpenNCCL(g uintptr) (found bool, err error) {
	var n C.int
	err = take(C.ct_group_open_nccl(group(g), &n))
	return n != 0, err
}

// FreeGroup leaves g and frees it.
func FreeGroup(g uintptr) { C.ct_group_free(group(g)) }

// AllReduce sums or averages p over the processes, in place.
func AllReduce(g, p uintptr, average bool) error {
	return take(C.ct_group_all_reduce(group(g), tensor(p), cbool(average)))
}

// Broadcast replaces p with the p of rank root, in place.
func Broadcast(g, p uintptr, root int) error {
	return take(C.ct_group_broadcast(group(g), tensor(p), C.int(root)))
}

// AllGather copies the p of rank i to out[i].
func AllGather(g, p uintptr, out []uintptr) error {
	return take(C.ct_group_all_gather(group(g), tensor(p), tensors(out)))
}

// Barrier waits until all processes have called it.
func Barrier(g uintptr) error { return take(C.ct_group_barrier(group(g))) }

// NewReducer returns a reducer of the gradients of params. See ct_reducer_new.
func NewReducer(g uintptr, params []uintptr, ends []int32, hooks bool) (uintptr, error) {
	var r C.ct_reducer
	err := take(C.ct_reducer_new(group(g), tensors(params), (*C.int)(unsafe.Pointer(unsafe.SliceData(ends))), C.int(len(ends)), cbool(hooks), &r))
	return *(*uintptr)(unsafe.Pointer(&r)), err
}

func reducer(r uintptr) C.ct_reducer { return *(*C.ct_reducer)(unsafe.Pointer(&r)) }

// BeginReducer prepares r for a backward pass. See ct_reducer_begin.
func BeginReducer(r uintptr) error { return take(C.ct_reducer_begin(reducer(r))) }

// FinishReducer averages gradients, and sums values in place. See ct_reducer_finish.
func FinishReducer(r, values uintptr) error {
	return take(C.ct_reducer_finish(reducer(r), tensor(values)))
}

// FreeReducer frees r.
func FreeReducer(r uintptr) { C.ct_reducer_free(reducer(r)) }

// CUDAOpen returns whether libtorch_cuda.so exists, and if so, why it could not be
// opened when libtorch was loaded.
func CUDAOpen() (found bool, err error) {
	var f C.int
	err = take(C.ct_cuda_open(&f))
	return f != 0, err
}

// CUDADeviceCount returns the number of CUDA devices. If there are none, err says
// why, if known.
func CUDADeviceCount() (int, error) {
	var why *C.char
	n := int(C.ct_cuda_device_count(&why))
	return n, take(why)
}

// CUDASynchronize waits until all work on a device is complete.
func CUDASynchronize(index int) error { return take(C.ct_cuda_synchronize(C.int(index))) }

// SetNumThreads sets libtorch's number of intra-op threads.
func SetNumThreads(n int) { C.ct_set_num_threads(C.int(n)) }

// NumThreads returns libtorch's number of intra-op threads.
func NumThreads() int { return int(C.ct_get_num_threads()) }

// BuildInfo returns facts about the libtorch in use; ct_build_info lists their keys.
func BuildInfo() (map[string]string, error) {
	return facts(func(out **C.char) C.ct_error { return C.ct_build_info(out) })
}

// Pow is the C library's pow, which Python's ** operator calls. Some results of
// Go's math.Pow differ from it in the last bit.
func Pow(x, y float64) float64 { return float64(C.pow(C.double(x), C.double(y))) }

// Switches of libtorch; see enum ct_switch in the header.
const (
	TF32Matmul     = C.CT_TF32_MATMUL
	TF32CuDNN      = C.CT_TF32_CUDNN
	CuDNNBenchmark = C.CT_CUDNN_BENCHMARK
	Deterministic  = C.CT_DETERMINISTIC
	FlashSDP       = C.CT_FLASH_SDP
)

// Switch returns the state of a switch.
func Switch(which int) (bool, error) {
	var v C.int
	err := take(C.ct_switch_get(C.int(which), &v))
	return v != 0, err
}

// SetSwitch sets a switch.
func SetSwitch(which int, on bool) error { return take(C.ct_switch_set(C.int(which), cbool(on))) }

// Stream is a stream of a device.
type Stream struct {
	ID                      int64
	DeviceType, DeviceIndex int
}

func (s Stream) c() C.ct_stream {
	return C.ct_stream{id: C.int64_t(s.ID), device_type: C.int32_t(s.DeviceType), device_index: C.int32_t(s.DeviceIndex)}
}

func stream(s C.ct_stream) Stream {
	return Stream{int64(s.id), int(s.device_type), int(s.device_index)}
}

// NewStream returns a stream from the pool of a device.
func NewStream(deviceType, index int, highPriority bool) (Stream, error) {
	var s C.ct_stream
	err := take(C.ct_stream_new(C.int(deviceType), C.int(index), cbool(highPriority), &s))
	return stream(s), err
}

// CurrentStream returns this OS thread's stream of a device.
func CurrentStream(deviceType, index int) (Stream, error) {
	var s C.ct_stream
	err := take(C.ct_stream_current(C.int(deviceType), C.int(index), &s))
	return stream(s), err
}

// SetStream makes s this OS thread's stream of its device.
func SetStream(s Stream) error {
	c := s.c()
	return take(C.ct_stream_set(&c))
}

// SynchronizeStream waits for the work on s.
func SynchronizeStream(s Stream) error {
	c := s.c()
	return take(C.ct_stream_synchronize(&c))
}

func event(p uintptr) C.ct_event { return *(*C.ct_event)(unsafe.Pointer(&p)) }

// NewEvent returns a new event.
func NewEvent(deviceType int, timing bool) (uintptr, error) {
	var e C.ct_event
	err := take(C.ct_event_new(C.int(deviceType), cbool(timing), &e))
	return *(*uintptr)(unsafe.Pointer(&e)), err
}

// FreeEvent frees an event.
func FreeEvent(e uintptr) { C.ct_event_free(event(e)) }

// RecordEvent records an event on a stream.
func RecordEvent(e uintptr, s Stream) error {
	c := s.c()
	return take(C.ct_event_record(event(e), &c))
}

// WaitEvent makes a stream wait for an event.
func WaitEvent(e uintptr, s Stream) error {
	c := s.c()
	return take(C.ct_event_wait(event(e), &c))
}

// SynchronizeEvent waits for an event.
func SynchronizeEvent(e uintptr) error { return take(C.ct_event_synchronize(event(e))) }

// Elapsed returns the milliseconds between two events.
func Elapsed(from, to uintptr) (float64, error) {
	var ms C.double
	err := take(C.ct_event_elapsed(event(from), event(to), &ms))
	return float64(ms), err
}

// Memory is ct_memory: bytes of a CUDA device.
type Memory struct {
	Allocated, MaxAllocated, Reserved, MaxReserved, Free, Total int64
}

// CUDAMemory returns the memory figures of a CUDA device.
func CUDAMemory(index int) (Memory, error) {
	var m C.ct_memory
	err := take(C.ct_cuda_memory(C.int(index), &m))
	return Memory{int64(m.allocated), int64(m.max_allocated), int64(m.reserved), int64(m.max_reserved), int64(m.free), int64(m.total)}, err
}

// CUDAResetPeakMemory resets the peaks of a device's memory figures.
func CUDAResetPeakMemory(index int) error { return take(C.ct_cuda_reset_peak_memory(C.int(index))) }

// CUDAEmptyCache returns unused cached memory to the driver.
func CUDAEmptyCache() error { return take(C.ct_cuda_empty_cache()) }

// CUDAProperties returns facts about a device; ct_cuda_properties lists their keys.
func CUDAProperties(index int) (map[string]string, error) {
	return facts(func(out **C.char) C.ct_error { return C.ct_cuda_properties(C.int(index), out) })
}

func graph(g uintptr) C.ct_graph { return *(*C.ct_graph)(unsafe.Pointer(&g)) }

// GraphBegin starts to record this OS thread's work on a CUDA device.
func GraphBegin(index int) (uintptr, error) {
	var g C.ct_graph
	err := take(C.ct_graph_begin(C.int(index), &g))
	return *(*uintptr)(unsafe.Pointer(&g)), err
}

// GraphEnd ends the recording. If it fails, g is freed.
func GraphEnd(g uintptr) error { return take(C.ct_graph_end(graph(g))) }

// GraphReplay launches a graph on the current stream.
func GraphReplay(g uintptr) error { return take(C.ct_graph_replay(graph(g))) }

// GraphFree frees a graph.
func GraphFree(g uintptr) { C.ct_graph_free(graph(g)) }
