package shim

/*
#include <stdlib.h>
#include "cyclecap_torch.h"
*/
import "C"

import (
	"runtime/cgo"
	"slices"
	"unsafe"
)

// Held is an object that libtorch holds. Dropped is called once it no longer does: when
// tensors are freed, in whichever goroutine does that.
type Held interface{ Dropped() }

// Function has the passes of a function with a gradient of its own. c is valid until
// a pass returns. The inputs are the callee's, and the pass calls ContextReturn.
type Function interface {
	Forward(c uintptr, inputs []uintptr) *Error
	Hook
}

// Hook has the backward pass alone, of a tensor's hook: its input is the gradient, and its result
// takes the place of it unless it is none.
type Hook interface {
	Held
	Backward(c uintptr, inputs []uintptr) *Error
}

// dropHeld calls Dropped for the objects that libtorch no longer holds.
func dropHeld() {
	var ids [64]C.uintptr_t
	for {
		n := C.ct_dropped(&ids[0], C.int(len(ids)))
		for _, id := range ids[:n] {
			h := cgo.Handle(id)
			held := h.Value().(Held)
			h.Delete()
			held.Dropped()
		}
		if int(n) < len(ids) {
			return
		}
	}
}

// FromBlob returns a CPU tensor over the memory at data, which remains until held is
// dropped. See ct_from_blob.
func FromBlob(data unsafe.Pointer, sizes, strides []int64, dtype int, held Held) (uintptr, error) {
	id := cgo.NewHandle(held)
	var t C.ct_tensor
	err := take(C.ct_from_blob(data, (*C.int64_t)(unsafe.SliceData(sizes)), (*C.int64_t)(unsafe.SliceData(strides)),
		C.int(len(sizes)), C.int(dtype), C.uintptr_t(id), &t))
	if err != nil {
		id.Delete()
		return 0, err
	}
	return address(t), nil
}

// block returns the tensors in a block, and frees it.
func block(p *C.ct_tensor, n C.int) []uintptr {
	defer C.ct_free(unsafe.Pointer(p))
	return slices.Clone(unsafe.Slice((*uintptr)(unsafe.Pointer(p)), int(n)))
}

// ApplyFunction is ct_function_apply.
func ApplyFunction(f Function, inputs []uintptr) ([]uintptr, error) {
	var out *C.ct_tensor
	var n C.int
	err := take(C.ct_function_apply(C.uintptr_t(cgo.NewHandle(f)), tensors(inputs), C.int(len(inputs)), &out, &n))
	if err != nil {
		return nil, err
	}
	return block(out, n), nil
}

// RegisterHook adds a hook to tensor p, and returns its place among p's hooks.
func RegisterHook(p uintptr, h Hook) (at uint, err error) {
	var place C.uint
	err = take(C.ct_register_hook(tensor(p), C.uintptr_t(cgo.NewHandle(h)), &place))
	return uint(place), err
}

// RemoveHook removes the hook at a place.
func RemoveHook(p uintptr, at uint) error { return take(C.ct_remove_hook(tensor(p), C.uint(at))) }

//export ct_forward_pass
func ct_forward_pass(id C.uintptr_t, c C.ct_context, inputs *C.ct_tensor, n C.int) C.ct_error {
	return give(cgo.Handle(id).Value().(Function).Forward(*(*uintptr)(unsafe.Pointer(&c)), addresses(inputs, n)))
}

//export ct_backward_pass
func ct_backward_pass(id C.uintptr_t, c C.ct_context, inputs *C.ct_tensor, n C.int) C.ct_error {
	return give(cgo.Handle(id).Value().(Hook).Backward(*(*uintptr)(unsafe.Pointer(&c)), addresses(inputs, n)))
}

func addresses(t *C.ct_tensor, n C.int) []uintptr {
	return slices.Clone(unsafe.Slice((*uintptr)(unsafe.Pointer(t)), int(n)))
}

// give turns an error into a ct_error, which C++ frees.
func give(e *Error) C.ct_error {
	if e == nil {
		return nil
	}
	return C.ct_error(C.CString(string([]byte{e.Kind}) + e.Text))
}

func context(c uintptr) C.ct_context { return *(*C.ct_context)(unsafe.Pointer(&c)) }

// ContextReturn passes on the results of a pass.
func ContextReturn(c uintptr, t []uintptr) error {
	return take(C.ct_context_return(context(c), tensors(t), C.int(len(t))))
}

// ContextSave saves tensors for the backward pass.
func ContextSave(c uintptr, t []uintptr) error {
	return take(C.ct_context_save(context(c), tensors(t), C.int(len(t))))
}

// ContextMarkDirty marks inputs that the forward pass has changed.
func ContextMarkDirty(c uintptr, t []uintptr) error {
	return take(C.ct_context_mark_dirty(context(c), tensors(t), C.int(len(t))))
}

// ContextMarkNonDifferentiable marks outputs that have no gradient.
func ContextMarkNonDifferentiable(c uintptr, t []uintptr) error {
	return take(C.ct_context_mark_non_differentiable(context(c), tensors(t), C.int(len(t))))
}

// ContextSaved returns the saved tensors.
func ContextSaved(c uintptr) ([]uintptr, error) {
	var t *C.ct_tensor
	var n C.int
	if err := take(C.ct_context_saved(context(c), &t, &n)); err != nil {
		return nil, err
	}
	return block(t, n), nil
}

// ContextNeeds reports whether the backward pass needs the gradient of an input.
func ContextNeeds(c uintptr, input int) (bool, error) {
	var needed C.int
	err := take(C.ct_context_needs(context(c), C.int(input), &needed))
	return needed != 0, err
}
