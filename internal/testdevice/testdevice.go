// Package testdevice opens the pretend accelerator of the tests, cpp/testdevice: a
// device of libtorch whose memory the host cannot access, whose operators are the
// CPU's, and which counts copies, synchronizations and operators. A tensor that is
// left on the CPU, or read without a copy, fails there as it would on a GPU.
package testdevice

/*
#cgo CFLAGS: -I${SRCDIR}/../../cpp/testdevice
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include "testdevice.h"

static char *(*p_open)(void);
static void (*p_read)(testdevice_counts *);
static void (*p_reset)(void);
static char *(*p_operators)(void);

// Returns NULL or a message to free.
static char *load(const char *file) {
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!library) return strdup(dlerror());
  *(void **)&p_open = dlsym(library, "testdevice_open");
  *(void **)&p_read = dlsym(library, "testdevice_read");
  *(void **)&p_reset = dlsym(library, "testdevice_reset");
  *(void **)&p_operators = dlsym(library, "testdevice_operators");
  if (!p_open || !p_read || !p_reset || !p_operators) return strdup("the library lacks a function");
  return p_open();
}
static void read_counts(testdevice_counts *c) { p_read(c); }
static void reset(void) { p_reset(); }
static char *operators(void) { return p_operators(); }
static char read_byte(void *p) { return *(volatile char *)p; }
*/
import "C"

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"cyclecap/torch"
)

// Device is the pretend accelerator.
var Device = torch.Device{Type: torch.PrivateUse1Device}

// Open loads the library, which is next to the shim, and registers the device. Call
// it before the first backward pass, when libtorch counts its devices.
var Open = sync.OnceValue(func() error {
	libraries, err := torch.FindLibraries()
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(libraries.Shim), "libcyclecap_testdevice.so")
	if err := torch.LoadLibrary(file); err != nil {
		return fmt.Errorf("cannot open the pretend accelerator: %w; run `make build` to build it", err)
	}
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	if why := C.load(name); why != nil {
		defer C.free(unsafe.Pointer(why))
		return fmt.Errorf("cannot open the pretend accelerator: %s: %s; run `make build` to build it", file, C.GoString(why))
	}
	return nil
})

// Counts is what would cost time on a GPU.
type Counts struct {
	ToDevice     int64 // copies from the host to the device
	ToHost       int64 // copies from the device to the host, those of Item included
	Synchronized int64 // times that the host waited for the device
	Operators    int64 // operators that computed on the device; views do not
}

// Read returns the counts since the last Reset.
func Read() Counts {
	c := read()
	return Counts{ToDevice: int64(c.to_device), ToHost: int64(c.to_host), Synchronized: int64(c.synchronized), Operators: int64(c.operators)}
}

// Allocated returns the number of bytes of device memory in use.
func Allocated() int64 { return int64(read().allocated) }

func read() C.testdevice_counts {
	var c C.testdevice_counts
	C.read_counts(&c)
	return c
}

// readInC reads a byte as a kernel of the CPU would. Go's tests cannot contain C.
func readInC(p unsafe.Pointer) byte { return byte(C.read_byte(p)) }

// Reset sets the counts to 0.
func Reset() { C.reset() }

// Operators returns the number of calls since the last Reset by the name of the
// operator. Copies are listed as "to host: NAME" and "to device: NAME".
func Operators() map[string]int {
	text := C.operators()
	defer C.free(unsafe.Pointer(text))
	out := map[string]int{}
	for line := range strings.Lines(C.GoString(text)) {
		var n int
		count, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		fmt.Sscan(count, &n)
		out[name] = n
	}
	return out
}
