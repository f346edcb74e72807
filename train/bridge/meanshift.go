package bridge

import "cyclecap/torch"

// meanshift takes the image features' mean away, adds the text features' and
// gives the result the length of a text feature.
var _ = register(Bridge{
	Name: "meanshift", Title: "mean shift", Decoder: OfTexts,
	Fit: func(e Env) (Transform, error) {
		images, err := mean(e.Images, e.Device)
		if err != nil {
			return nil, err
		}
		texts, err := mean(e.Texts, e.Device)
		if err != nil {
			return nil, err
		}
		shift := texts.Sub(images).Keep()
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x.Add(shift)) }, nil
	},
})
