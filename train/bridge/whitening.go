package bridge

import (
	"cyclecap/torch"
	"cyclecap/train"
)

// whitening is the closed-form optimal transport between two Gaussians (Dowson and
// Landau 1982) with the means and covariances of the image features and of the text
// features: it whitens image features and colours them like text features. Of all maps
// between the two Gaussians, it moves features least. The paper does not have this
// baseline.
var _ = Register(Bridge{
	Name: "whitening", Title: "whitening and colouring", Decoder: OfTexts, Sets: true,
	// A matrix, and a vector that joins the two means.
	Parameters: func(e Env) int64 { return int64(e.Texts.Width()) * int64(e.Texts.Width()+1) },
	Fit: func(e Env) (Transform, error) {
		a, from, to, err := gaussianMap(e.Images, e.Texts, whiteningRidge)
		if err != nil {
			return nil, err
		}
		on := []torch.Option{torch.WithDType(torch.Float32), torch.WithDevice(e.Device)}
		a, from, to = a.To(on...), from.To(on...), to.To(on...)
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x.Sub(from).MM(a).Add(to)) }, nil
	},
})

// whiteningRidge is added to each variance, as a fraction of the mean variance, so that
// directions with little variance are not amplified.
const whiteningRidge = 1e-3

// gaussianMap returns the optimal transport x -> (x - from) A + to from one Gaussian to
// another, given samples of each, with the symmetric matrix
//
//	A = S^(-1/2) (S^(1/2) T S^(1/2))^(1/2) S^(-1/2)
//
// where S and T are the covariances. ridge is added to the variances of each, as a
// fraction of its mean variance. All computation is in f64 on the CPU.
func gaussianMap(source, target train.Features, ridge float64) (a, from, to torch.Tensor, err error) {
	from, s, err := covariance(source, ridge)
	if err != nil {
		return a, from, to, err
	}
	to, t, err := covariance(target, ridge)
	if err != nil {
		return a, from, to, err
	}
	half, inverse := root(s)
	middle, _ := root(half.MM(t).MM(half))
	return inverse.MM(middle).MM(inverse), from, to, nil
}

// covariance returns the mean [width] and the covariance [width, width] of the rows
// (divided by n, not n - 1), computed in two passes.
func covariance(f train.Features, ridge float64) (m, c torch.Tensor, err error) {
	if m, err = mean(f); err != nil {
		return m, c, err
	}
	w := int64(f.Width())
	f64 := []torch.Option{torch.WithDType(torch.Float64), torch.WithDevice(torch.CPU)}
	c = torch.Zeros([]int64{w, w}, f64...)
	err = blocks(f, func(x torch.Tensor) error {
		x = x.To(f64...).Sub(m)
		c.Add_(x.T().MM(x))
		return nil
	})
	if err != nil {
		return m, c, err
	}
	c = c.DivScalar(f.Len())
	return m, c.Add(torch.Eye(w, f64...).Mul(c.Diagonal().Mean().MulScalar(ridge))), nil
}

// root returns the square root of a symmetric positive semidefinite matrix, and the
// inverse of that root.
func root(c torch.Tensor) (half, inverse torch.Tensor) {
	values, vectors := c.Add(c.T()).MulScalar(0.5).LinalgEigh()
	d := values.Clamp(torch.WithMin(0)).Sqrt()
	return vectors.Mul(d).MM(vectors.T()), vectors.Div(d).MM(vectors.T())
}
