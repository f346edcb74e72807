package torch

import "cyclecap/torch/internal/shim"

// RowProducts returns the products [m, n] of the rows of x [m, k] with those of w [n, k], and the
// sums [m] of the squares of each row of x (all f32, CPU). It is for searches in large files: x is
// read once, where x wᵀ and [Tensor.LinalgVectorNorm] read it twice. It is fastest for up to about
// 32 rows of w. Autograd does not support it.
//
// Products are added in f32, in another order than that of [Tensor.MM]. Sums that exceed f32 are
// infinite, or NaN.
func RowProducts(x, w Tensor) (products, squares Tensor) { return rowProducts(x, w, 0) }

// rowProducts is RowProducts. width asks for the kernel with vectors of 16, 8 or 4 numbers; 0 is
// the best one of the processor.
func rowProducts(x, w Tensor, width int) (products, squares Tensor) {
	some("row_products", x, w)
	var y, s uintptr
	must("row_products", lend("row_products", func(p []uintptr) (err error) {
		y, s, err = shim.RowProducts(p[0], p[1], width)
		return err
	}, x, w))
	return adopt("row_products", y), adopt("row_products", s)
}
