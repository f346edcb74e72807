package shim

/*
#include <stdlib.h>
#include "cyclecap_torch.h"
*/
import "C"

import (
	"slices"
	"unsafe"
)

// LoadScript loads a TorchScript module to a device; see ct_script_load.
func LoadScript(path string, deviceType, deviceIndex int) (m uintptr, err error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var s C.ct_script
	err = take(C.ct_script_load(p, C.int(deviceType), C.int(deviceIndex), &s))
	return *(*uintptr)(unsafe.Pointer(&s)), err
}

func script(m uintptr) C.ct_script { return *(*C.ct_script)(unsafe.Pointer(&m)) }

// FreeScript frees a module.
func FreeScript(m uintptr) { C.ct_script_free(script(m)) }

// TrainScript sets a module to training or to evaluation.
func TrainScript(m uintptr, on bool) error { return take(C.ct_script_train(script(m), cbool(on))) }

// CallScript calls a method with n flattened values, and returns its flattened result.
func CallScript(m uintptr, method string, args []int64, n int) ([]int64, error) {
	name := C.CString(method)
	defer C.free(unsafe.Pointer(name))
	var block *C.int64_t
	var words C.int
	err := take(C.ct_script_call(script(m), name, (*C.int64_t)(unsafe.SliceData(args)), C.int(len(args)), C.int(n), &block, &words))
	if err != nil {
		return nil, err
	}
	defer C.ct_free(unsafe.Pointer(block))
	return slices.Clone(unsafe.Slice((*int64)(unsafe.Pointer(block)), int(words))), nil
}
