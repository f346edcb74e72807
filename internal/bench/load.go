package main

// TEMPORARY until package weights is there.

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

func read(path string) (*nn.StateDict, error) {
	path = strings.Replace(path, "clip/model.safetensors", "tmp-clip.safetensors", 1)
	path = strings.Replace(path, "decoder.pt", "tmp-decoder.safetensors", 1)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, _ := f.Stat()
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(b)
	var h map[string]json.RawMessage
	json.Unmarshal(b[8:8+n], &h)
	sd := nn.NewStateDict()
	dec := json.NewDecoder(strings.NewReader(string(b[8 : 8+n])))
	dec.Token()
	for dec.More() {
		k, _ := dec.Token()
		var e struct {
			Dtype        string
			Shape        []int64
			Data_offsets [2]int64
		}
		dec.Decode(&e)
		if k == "__metadata__" {
			continue
		}
		d := b[8+int64(n)+e.Data_offsets[0] : 8+int64(n)+e.Data_offsets[1]]
		name := strings.TrimPrefix(k.(string), "transformer.")
		if strings.Contains(path, "tmp-clip") {
			name = k.(string)
		}
		var t torch.Tensor
		if e.Dtype == "I64" {
			t = torch.FromSlice(unsafe.Slice((*int64)(unsafe.Pointer(&d[0])), len(d)/8), e.Shape...)
		} else if len(e.Shape) == 0 {
			t = torch.Scalar0(*(*float32)(unsafe.Pointer(&d[0])))
		} else {
			t = torch.FromSlice(unsafe.Slice((*float32)(unsafe.Pointer(&d[0])), len(d)/4), e.Shape...)
		}
		sd.Add(name, t.Keep())
	}
	return sd, nil
}
