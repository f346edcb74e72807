package shim

/*
#include <dlfcn.h>
#include <stdlib.h>
#include "cyclecap_torch.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"cyclecap/torch/internal/libtorch"
)

// Find returns the shim and the libtorch that the first operator will load, or
// has loaded.
func Find() (libtorch.Found, error) { return libtorch.Find(C.CT_ABI) }

// ct_open opens libtorch and then the shim. In this order the shim's dependency
// on libtorch is satisfied wherever libtorch is installed. load.c calls it once.
//
//export ct_open
func ct_open(shim *unsafe.Pointer) C.ct_error {
	handle, err := open()
	if err != nil {
		return C.ct_error(C.CString(string(C.CT_ERR_RUNTIME) + "cannot load libtorch: " + err.Error()))
	}
	*shim = handle
	return nil
}

func open() (unsafe.Pointer, error) {
	found, err := Find()
	if err != nil {
		return nil, err
	}
	if _, err := dlopen(found.Libtorch.CPU()); err != nil {
		return nil, fmt.Errorf("%w; run `pip install torch==%s` to install it with everything it needs", err, found.About.Release)
	}
	shim, err := dlopen(found.Shim)
	if err != nil {
		return nil, fmt.Errorf("%w (with %v); run %s to rebuild the shim", err, found.Libtorch, libtorch.BuildCommand())
	}
	return shim, nil
}

// LoadLibrary opens a library that registers operators. libtorch is loaded first,
// because the library needs it.
func LoadLibrary(path string) error {
	if _, err := BuildInfo(); err != nil {
		return err
	}
	_, err := dlopen(path)
	return err
}

// dlerror returns the last error of the OS thread. This is safe because a
// goroutine that is called from C stays on its thread.
func dlopen(file string) (unsafe.Pointer, error) {
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	if handle := C.dlopen(name, C.RTLD_NOW|C.RTLD_LOCAL); handle != nil {
		return handle, nil
	}
	return nil, fmt.Errorf("%s", C.GoString(C.dlerror()))
}
