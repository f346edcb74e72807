package bridge

import (
	"cyclecap/torch"
	"cyclecap/train"
)

// meandev gives each dimension of the image features the mean and the standard deviation
// that it has in the text features, and scales the result to the length of a text
// feature. TOMCap (Fonseca, Martins and Rocha, CVPR 2026, arXiv 2512.04309) has the same
// map in the other direction: its decoder is trained on text features with the means and
// deviations of image features, and with noise. Here the map is applied to image
// features, without noise, so that the bridge shares the decoder of texts; CapDec and C3
// show what noise does.
var _ = Register(Bridge{
	Name: "meandev", Title: "mean and deviation", Decoder: OfTexts, Sets: true,
	Parameters: func(e Env) int64 { return 2 * int64(e.Texts.Width()) },
	Fit: func(e Env) (Transform, error) {
		from, images, err := deviation(e.Images)
		if err != nil {
			return nil, err
		}
		to, texts, err := deviation(e.Texts)
		if err != nil {
			return nil, err
		}
		// A dimension in which all image features are equal says nothing about a photo.
		scale := texts.Div(images).MaskedFill(images.EqScalar(0), 0)
		on := []torch.Option{torch.WithDType(torch.Float32), torch.WithDevice(e.Device)}
		from, scale, to = from.To(on...), scale.To(on...), to.To(on...)
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x.Sub(from).Mul(scale).Add(to)) }, nil
	},
})

// deviation returns the mean and the standard deviation [width] of the rows (divided by n,
// not n - 1), computed in two passes, as f64 on the CPU.
func deviation(f train.Features) (m, d torch.Tensor, err error) {
	if m, err = mean(f); err != nil {
		return m, d, err
	}
	d, err = meanOf(f, func(x torch.Tensor) torch.Tensor {
		x = x.To(torch.WithDType(torch.Float64)).Sub(m)
		return x.Mul(x)
	})
	return m, d.Sqrt(), err
}
