package torch

import "fmt"

// DType is the element type of a tensor; its values are those of libtorch's
// ScalarType.
type DType int8

// The element types, with PyTorch's names.
const (
	Uint8          DType = 0
	Int8           DType = 1
	Int16          DType = 2
	Int32          DType = 3
	Int64          DType = 4
	Float16        DType = 5
	Float32        DType = 6
	Float64        DType = 7
	Complex32      DType = 8
	Complex64      DType = 9
	Complex128     DType = 10
	Bool           DType = 11
	Qint8          DType = 12 // quantized: see QuantizePerTensor, Dequantize and IntRepr
	Quint8         DType = 13
	Qint32         DType = 14
	BFloat16       DType = 15
	Float8E5M2     DType = 23
	Float8E4M3FN   DType = 24
	Float8E5M2FNUZ DType = 25
	Float8E4M3FNUZ DType = 26
	Uint16         DType = 27
	Uint32         DType = 28
	Uint64         DType = 29
	Float8E8M0FNU  DType = 44
)

var dtypes = map[DType]struct {
	name string
	size int64
}{
	Uint8: {"uint8", 1}, Int8: {"int8", 1}, Int16: {"int16", 2}, Int32: {"int32", 4}, Int64: {"int64", 8},
	Float16: {"float16", 2}, Float32: {"float32", 4}, Float64: {"float64", 8},
	Complex32: {"complex32", 4}, Complex64: {"complex64", 8}, Complex128: {"complex128", 16},
	Bool: {"bool", 1}, Qint8: {"qint8", 1}, Quint8: {"quint8", 1}, Qint32: {"qint32", 4}, BFloat16: {"bfloat16", 2},
	Float8E5M2: {"float8_e5m2", 1}, Float8E4M3FN: {"float8_e4m3fn", 1},
	Float8E5M2FNUZ: {"float8_e5m2fnuz", 1}, Float8E4M3FNUZ: {"float8_e4m3fnuz", 1},
	Uint16: {"uint16", 2}, Uint32: {"uint32", 4}, Uint64: {"uint64", 8}, Float8E8M0FNU: {"float8_e8m0fnu", 1},
}

// String returns PyTorch's name without "torch.": "float32", "bfloat16".
func (d DType) String() string {
	if t, ok := dtypes[d]; ok {
		return t.name
	}
	return fmt.Sprintf("dtype(%d)", int8(d))
}

// Size returns the size of one element in bytes.
func (d DType) Size() int64 { return dtypes[d].size }

// IsFloat reports whether d is a floating point type. Complex types are not.
func (d DType) IsFloat() bool {
	switch d {
	case Float16, Float32, Float64, BFloat16, Float8E5M2, Float8E4M3FN, Float8E5M2FNUZ, Float8E4M3FNUZ, Float8E8M0FNU:
		return true
	}
	return false
}

// quantized reports whether the elements are integers that stand for floats.
func (d DType) quantized() bool { return d >= Qint8 && d <= Qint32 || d == quint4x2 || d == quint2x4 }

// Those of which a byte holds several.
const (
	quint4x2 DType = 16
	quint2x4 DType = 17
)

// Layout is torch.layout, how the elements of a tensor are stored; its values are those of
// libtorch's Layout.
type Layout int8

// The layouts, with PyTorch's names.
const (
	Strided   Layout = 0
	SparseCOO Layout = 1
	SparseCSR Layout = 2
	Mkldnn    Layout = 3 // oneDNN's own, such as that of packed weights
	SparseCSC Layout = 4
	SparseBSR Layout = 5
	SparseBSC Layout = 6
)

var layouts = []string{"strided", "sparse_coo", "sparse_csr", "_mkldnn", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged"}

// String returns PyTorch's name without "torch.": "sparse_coo".
func (l Layout) String() string {
	if l >= 0 && int(l) < len(layouts) {
		return layouts[l]
	}
	return fmt.Sprintf("layout(%d)", int8(l))
}

// ParseDType parses PyTorch's name of a dtype, with or without "torch.", or one
// of the short forms f16, bf16, f32 and f64.
func ParseDType(s string) (DType, error) {
	switch s {
	case "f16":
		return Float16, nil
	case "bf16":
		return BFloat16, nil
	case "f32":
		return Float32, nil
	case "f64":
		return Float64, nil
	}
	for d, t := range dtypes {
		if s == t.name || s == "torch."+t.name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("unknown dtype %q; must be f32, bf16, f16, f64 or a PyTorch name such as float32", s)
}

// Element is a Go type as which the elements of a tensor can be read and
// written. Half-precision types have no Go type; convert them with
// To(WithDType(Float32)) first.
type Element interface {
	uint8 | int8 | int16 | int32 | int64 | float32 | float64 | bool | complex64 | complex128 | uint16 | uint32 | uint64
}

func dtypeOf[T Element]() DType {
	var v T
	switch any(v).(type) {
	case uint8:
		return Uint8
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case float32:
		return Float32
	case float64:
		return Float64
	case bool:
		return Bool
	case complex64:
		return Complex64
	case complex128:
		return Complex128
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	default:
		return Uint64
	}
}
