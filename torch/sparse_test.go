package torch_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// dense is the tensor that the tests make sparse or quantize.
func dense() torch.Tensor { return torch.FromSlice([]float32{0, 1, 0, 2.5, 0, -3}, 2, 3) }

// TestSparseString compares with what PyTorch 2.11 prints.
func TestSparseString(t *testing.T) {
	run(t, func() {
		d := dense()
		for _, c := range []struct {
			t    torch.Tensor
			want string
		}{
			{d.ToSparse(), `tensor(indices=tensor([[0, 1, 1],
                       [1, 0, 2]]),
       values=tensor([ 1.0000,  2.5000, -3.0000]),
       size=(2, 3), nnz=3, layout=torch.sparse_coo)`},
			{d.To(torch.WithDType(torch.Float64)).ToSparse(), `tensor(indices=tensor([[0, 1, 1],
                       [1, 0, 2]]),
       values=tensor([ 1.0000,  2.5000, -3.0000]),
       size=(2, 3), nnz=3, dtype=torch.float64, layout=torch.sparse_coo)`},
			{torch.Zeros([]int64{4}).ToSparse(), `tensor(indices=tensor([], size=(1, 0)),
       values=tensor([], size=(0,)),
       size=(4,), nnz=0, layout=torch.sparse_coo)`},
			{torch.SparseCooTensorSize([]int64{2, 3}), `tensor(indices=tensor([], size=(2, 0)),
       values=tensor([], size=(0,)),
       size=(2, 3), nnz=0, layout=torch.sparse_coo)`},
			{d.ToSparse().SetRequiresGrad(true), `tensor(indices=tensor([[0, 1, 1],
                       [1, 0, 2]]),
       values=tensor([ 1.0000,  2.5000, -3.0000]),
       size=(2, 3), nnz=3, layout=torch.sparse_coo, requires_grad=True)`},
			{d.ToSparse().SetRequiresGrad(true).Neg(), `tensor(indices=tensor([[0, 1, 1],
                       [1, 0, 2]]),
       values=tensor([-1.0000, -2.5000,  3.0000]),
       size=(2, 3), nnz=3, layout=torch.sparse_coo, grad_fn=<NegBackward0>)`},
			{torch.Arange(0, 1200).ToSparse(), `tensor(indices=tensor([[   1,    2,    3,  ..., 1197, 1198, 1199]]),
       values=tensor([   1,    2,    3,  ..., 1197, 1198, 1199]),
       size=(1200,), nnz=1199, layout=torch.sparse_coo)`},
			{d.ToSparseCsr(), `tensor(crow_indices=tensor([0, 1, 3]),
       col_indices=tensor([1, 0, 2]),
       values=tensor([ 1.0000,  2.5000, -3.0000]), size=(2, 3), nnz=3,
       layout=torch.sparse_csr)`},
			{d.ToSparseCsc(), `tensor(ccol_indices=tensor([0, 1, 2, 3]),
       row_indices=tensor([1, 0, 1]),
       values=tensor([ 2.5000,  1.0000, -3.0000]), size=(2, 3), nnz=3,
       layout=torch.sparse_csc)`},
			{torch.Ones([]int64{4, 4}).ToSparseBsr([]int64{2, 2}), `tensor(crow_indices=tensor([0, 2, 4]),
       col_indices=tensor([0, 1, 0, 1]),
       values=tensor([[[1., 1.],
                       [1., 1.]],

                      [[1., 1.],
                       [1., 1.]],

                      [[1., 1.],
                       [1., 1.]],

                      [[1., 1.],
                       [1., 1.]]]), size=(4, 4), nnz=4,
       layout=torch.sparse_bsr)`},
			{d.To(torch.WithDType(torch.BFloat16)).ToSparseCsr(), `tensor(crow_indices=tensor([0, 1, 3]),
       col_indices=tensor([1, 0, 2]),
       values=tensor([ 1.0000,  2.5000, -3.0000]), size=(2, 3), nnz=3,
       dtype=torch.bfloat16, layout=torch.sparse_csr)`},
			{d.ToMkldnn(), `tensor([[ 0.0000,  1.0000,  0.0000],
        [ 2.5000,  0.0000, -3.0000]], layout=torch._mkldnn)`},
			{d.QuantizePerTensor(0.1, 10, torch.Quint8), `tensor([[ 0.0000,  1.0000,  0.0000],
        [ 2.5000,  0.0000, -1.0000]], size=(2, 3), dtype=torch.quint8,
       quantization_scheme=torch.per_tensor_affine, scale=0.1, zero_point=10)`},
			{d.QuantizePerTensor(1e-5, 0, torch.Qint32).Select(0, 1), `tensor([ 2.5000,  0.0000, -3.0000], size=(3,), dtype=torch.qint32,
       quantization_scheme=torch.per_tensor_affine, scale=1e-05, zero_point=0)`},
			{torch.Ones([]int64{}).QuantizePerTensor(2, 0, torch.Qint8), `tensor(0., size=(), dtype=torch.qint8,
       quantization_scheme=torch.per_tensor_affine, scale=2.0, zero_point=0)`},
			{d.QuantizePerChannel(torch.FromSlice([]float64{0.1, 0.2}), torch.FromSlice([]int64{0, 1}), 0, torch.Qint8), `tensor([[ 0.0000,  1.0000,  0.0000],
        [ 2.4000,  0.0000, -3.0000]], size=(2, 3), dtype=torch.qint8,
       quantization_scheme=torch.per_channel_affine,
       scale=tensor([0.1000, 0.2000], dtype=torch.float64),
       zero_point=tensor([0, 1]), axis=0)`},
		} {
			if diff := cmp.Diff(c.want, c.t.String()); diff != "" {
				t.Errorf("PyTorch's (-) and ours (+):\n%s", diff)
			}
		}
	})
}

// TestSparseMetadata: what describes a tensor is there in every layout.
func TestSparseMetadata(t *testing.T) {
	run(t, func() {
		d := dense()
		for _, c := range []struct {
			t      torch.Tensor
			dtype  torch.DType
			layout torch.Layout
			bytes  int64
		}{
			{d.ToSparse(), torch.Float32, torch.SparseCOO, 3*2*8 + 3*4},
			{d.ToSparseCsr(), torch.Float32, torch.SparseCSR, 3*8 + 3*8 + 3*4},
			{d.ToSparseCsc(), torch.Float32, torch.SparseCSC, 4*8 + 3*8 + 3*4},
			{d.ToSparseBsr([]int64{1, 3}), torch.Float32, torch.SparseBSR, 3*8 + 2*8 + 6*4},
			{d.ToSparseBsc([]int64{2, 1}), torch.Float32, torch.SparseBSC, 4*8 + 3*8 + 6*4},
			{d.ToMkldnn(), torch.Float32, torch.Mkldnn, 24},
			{d.QuantizePerTensor(0.5, 1, torch.Quint8), torch.Quint8, torch.Strided, 6},
			{d.QuantizePerTensor(0.5, 1, torch.Qint32), torch.Qint32, torch.Strided, 24},
		} {
			name := c.layout.String() + " " + c.dtype.String()
			if diff := cmp.Diff([]int64{2, 3, 2, 6, c.bytes}, append(c.t.Shape(), int64(c.t.Dim()), c.t.Numel(), c.t.NBytes())); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if c.t.Size(-1) != 3 || c.t.DType() != c.dtype || c.t.Layout() != c.layout || c.t.Device() != torch.CPU || c.t.StorageOffset() != 0 {
				t.Errorf("%s: %d, %v, %v, %v, %d", name, c.t.Size(-1), c.t.DType(), c.t.Layout(), c.t.Device(), c.t.StorageOffset())
			}
			if c.t.SharesStorage(c.t) != (c.layout == torch.Strided) {
				t.Errorf("%s: SharesStorage is %v", name, c.t.SharesStorage(c.t))
			}
			before := torch.KeptBytes()
			kept := c.t.Keep()
			if now := torch.KeptBytes() - before; now != c.bytes {
				t.Errorf("%s: %d bytes are kept, want %d", name, now, c.bytes)
			}
			kept.Close()
		}
		// As in PyTorch.
		if s := d.ToSparse(); s.IsContiguous() || !cmp.Equal(s.Strides(), []int64{0, 0}) {
			t.Errorf("contiguous: %v, strides %v", s.IsContiguous(), s.Strides())
		}
		wantSparseError(t, "sparse_csr float32[2,3]", "sparse_csr has no strides", func() { d.ToSparseCsr().Strides() })
	})
}

// wantSparseError fails unless f ends with an error of type *torch.Error that says so.
func wantSparseError(t *testing.T, args, text string, f func()) {
	t.Helper()
	err := torch.Scope(func() error { f(); return nil })
	var e *torch.Error
	if !errors.As(err, &e) || e.Args != args || !strings.Contains(e.Text, text) {
		t.Errorf("got  %v\nwant %s(%s): … %s", err, "op", args, text)
	}
}

// TestSparseElements: the elements of a sparse tensor cannot be read at places, but one can.
func TestSparseElements(t *testing.T) {
	run(t, func() {
		d := dense()
		for name, s := range map[string]torch.Tensor{"sparse_coo": d.ToSparse(), "sparse_csr": d.ToSparseCsr(), "_mkldnn": d.ToMkldnn()} {
			args := name + " float32[2,3]"
			wantSparseError(t, args, "call ToDense", func() { torch.ToSlice[float32](s) })
			wantSparseError(t, args, "call ToDense", func() { torch.Data(s, func([]float32) {}) })
			wantSparseError(t, args, "cannot assign to a tensor of layout "+name, func() { s.SetAt(1, 0) })
			wantSparseError(t, args, "one element", func() { s.Item() })
			if diff := cmp.Diff(torch.ToSlice[float32](d), torch.ToSlice[float32](s.ToDense())); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if diff := cmp.Diff([]float32{2.5, 0, -3}, torch.ToSlice[float32](d.ToSparse().At(1).ToDense())); diff != "" {
			t.Error(diff)
		}
		twice := torch.SparseCooTensorIndicesSize(torch.FromSlice([]int64{0, 0}, 1, 2), torch.FromSlice([]float32{1, 2}), []int64{1})
		if got := []float64{d.ToSparse().At(1, 0).Item(), twice.Item(), torch.Zeros([]int64{1}).ToSparse().Item(), float64(torch.ItemOf[int64](twice.SetRequiresGrad(true)))}; !cmp.Equal(got, []float64{2.5, 3, 0, 3}) {
			t.Error(got)
		}
		wantSparseError(t, "sparse_csr float32[1,1]", "call ToDense", func() { torch.Ones([]int64{1, 1}).ToSparseCsr().Item() })
		// A shape far beyond the memory.
		huge := torch.SparseCooTensorSize([]int64{1 << 40, 1 << 20})
		if huge.Numel() != 1<<60 || huge.NBytes() != 0 || !strings.Contains(huge.String(), "nnz=0") {
			t.Error(huge)
		}
		wantSparseError(t, "sparse_coo float32[1099511627776,1048576]", "call ToDense", func() { torch.ToSlice[float32](huge) })
	})
}

// TestQuantizedElements: a quantized tensor has two kinds of elements.
func TestQuantizedElements(t *testing.T) {
	run(t, func() {
		q := dense().QuantizePerTensor(0.1, 10, torch.Quint8)
		const args = "quint8[2,3]"
		wantSparseError(t, args, "call Dequantize for their values, or IntRepr", func() { torch.ToSlice[float32](q) })
		wantSparseError(t, args, "call Dequantize for their values, or IntRepr", func() { torch.Data(q, func([]uint8) {}) })
		if diff := cmp.Diff([]uint8{10, 20, 10, 35, 10, 0}, torch.ToSlice[uint8](q.IntRepr())); diff != "" {
			t.Error(diff)
		}
		if got := q.At(1, 0).Item(); got != 2.5 {
			t.Errorf("q[1, 0] is %v", got)
		}
		channels := dense().QuantizePerChannel(torch.FromSlice([]float64{0.1, 0.2}), torch.FromSlice([]int64{0, 1}), 0, torch.Qint8)
		if got, want := channels.At(1, 0).Item(), 2.4000000953674316; math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("got %v, PyTorch has %v", got, want)
		}
	})
}
