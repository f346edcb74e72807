package torch

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"
)

// DropPages takes the pages of a memory-mapped file that a tensor occupies out of
// the memory of the process (see [FromFile]). The tensor keeps its values: the
// system reads a page again when it is used, from its cache or from the disk.
// DropPages has no effect on pages that were written to, nor on tensors that are
// not contiguous or not mapped.
//
// Call it for tensors that were converted or copied and are not needed any more:
// the pages of a file stay in memory until the last tensor in it is closed.
func DropPages(t Tensor) {
	if !t.Defined() || t.Layout() != Strided || t.Device() != CPU || !t.IsContiguous() || t.NBytes() == 0 {
		return
	}
	NoGrad(func() {
		Tidy(func() Tensor {
			Data(t.Detach().View([]int64{-1}).ViewDType(Uint8), dropPages)
			return Tensor{}
		})
	})
}

// dropPages drops the pages that lie in b as a whole.
func dropPages(b []byte) {
	size := os.Getpagesize()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if skip := int(-at & uintptr(size-1)); skip < len(b) {
		b, at = b[skip:], at+uintptr(skip)
	}
	pages := len(b) / size
	if pages == 0 {
		return
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return
	}
	defer f.Close()
	// The system's table says of each page whether it is present, and whether it is a
	// page of a file. One that was written to is a copy, which is not.
	table := make([]byte, 8*pages)
	if _, err := f.ReadAt(table, int64(at/uintptr(size))*8); err != nil {
		return
	}
	const present, ofFile = 1 << 63, 1 << 61
	mapped := func(i int) bool {
		return i < pages && binary.NativeEndian.Uint64(table[8*i:])&(present|ofFile) == present|ofFile
	}
	for i := 0; i < pages; i++ {
		from := i
		for mapped(i) {
			i++
		}
		if i > from {
			_ = syscall.Madvise(b[from*size:i*size], syscall.MADV_DONTNEED) // without it, the pages stay
		}
	}
}
