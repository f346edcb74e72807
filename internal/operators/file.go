// Package operators repeats calls of PyTorch's operators that
// torch/testdata/make_operators.py has recorded, through the typed functions of package
// torch, and compares results, gradients and errors.
package operators

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"cyclecap/torch"
)

// A File is what make_operators.py writes.
type File struct {
	Torch, CPU string
	Seed       uint64 // before each call
	Calls      []Call
}

// A Call is a call of an operator in Python. Either it has results or an error.
type Call struct {
	Op      string // "aten::add.Tensor"
	Entry   string // the function of op_db that called it
	DType   string // of the sample
	Args    []argument
	Results []value
	Grads   []value // of the tensors among the arguments that can have one, or nil
	Error   string  // Python's exception, or ""
}

type argument struct {
	name  string
	value value
}

func (a *argument) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&a.name, &a.value})
}

// A value is a tag and what it consists of; see encode() in make_operators.py.
type value []json.RawMessage

// Read reads a file.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func read(r io.Reader) (*File, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	file := &File{}
	lines := bufio.NewReader(z)
	for first := true; ; first = false {
		line, err := lines.ReadBytes('\n')
		switch {
		case err == io.EOF && len(line) == 0 && !first:
			return file, nil
		case err != nil:
			return nil, err
		case first:
			err = json.Unmarshal(line, file)
		default:
			var c Call
			err = json.Unmarshal(bytes.TrimSpace(line), &c)
			file.Calls = append(file.Calls, c)
		}
		if err != nil {
			return nil, err
		}
	}
}

// layout is torch.strided, the only layout of the files.
type layout struct{}

// decode returns the value: a torch.Tensor, bool, int64, float64, complex128, string,
// torch.DType, torch.Device, torch.MemoryFormat, layout, []any or nil. Tensors need a
// scope.
func (v value) decode() (any, error) {
	if len(v) == 0 {
		return nil, fmt.Errorf("a value without a tag")
	}
	var tag, s, im string
	if err := json.Unmarshal(v[0], &tag); err != nil {
		return nil, err
	}
	var err error
	into := func(p ...any) {
		if len(v) != len(p)+1 {
			err = fmt.Errorf("a value of tag %q with %d parts", tag, len(v))
			return
		}
		for i, p := range p {
			if e := json.Unmarshal(v[i+1], p); e != nil {
				err = e
			}
		}
	}
	switch tag {
	case "n":
		return nil, nil
	case "layout":
		return layout{}, nil
	case "b":
		var b bool
		into(&b)
		return b, err
	case "l":
		var l []value
		if into(&l); err != nil {
			return nil, err
		}
		out := make([]any, len(l))
		for i, v := range l {
			if out[i], err = v.decode(); err != nil {
				return nil, err
			}
		}
		return out, nil
	case "c":
		into(&s, &im)
	case "t":
		return v.tensor()
	default:
		into(&s)
	}
	if err != nil {
		return nil, err
	}
	switch tag {
	case "i":
		return strconv.ParseInt(s, 10, 64)
	case "f":
		return strconv.ParseFloat(s, 64)
	case "c":
		re, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, err
		}
		i, err := strconv.ParseFloat(im, 64)
		return complex(re, i), err
	case "s":
		return s, nil
	case "dtype":
		return torch.ParseDType(s)
	case "device":
		return torch.ParseDevice(s)
	case "memory_format":
		formats := map[string]torch.MemoryFormat{"contiguous_format": torch.ContiguousFormat, "preserve_format": torch.PreserveFormat, "channels_last": torch.ChannelsLastFormat, "channels_last_3d": 3}
		f, ok := formats[s]
		if !ok {
			return nil, fmt.Errorf("unknown memory format %q", s)
		}
		return f, nil
	}
	return nil, fmt.Errorf("unknown tag %q", tag)
}

// tensor builds a tensor with its own storage.
func (v value) tensor() (torch.Tensor, error) {
	var tag, name, data string
	var sizes, strides []int64
	var offset int64
	var conj bool
	for i, p := range []any{&tag, &name, &sizes, &strides, &offset, &conj, &data} {
		if i >= len(v) {
			return torch.Tensor{}, fmt.Errorf("a tensor of %d parts", len(v))
		}
		if err := json.Unmarshal(v[i], p); err != nil {
			return torch.Tensor{}, err
		}
	}
	dtype, err := torch.ParseDType(name)
	if err != nil {
		return torch.Tensor{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return torch.Tensor{}, err
	}
	t := torch.Empty([]int64{int64(len(raw)) / dtype.Size()}, torch.WithDType(dtype), torch.WithDevice(torch.CPU))
	if len(raw) > 0 {
		torch.Data(t.ViewDType(torch.Uint8), func(b []uint8) { copy(b, raw) })
	}
	t = t.AsStrided(sizes, strides, torch.WithStorageOffset(offset))
	if conj {
		t = t.Conj()
	}
	return t, nil
}
