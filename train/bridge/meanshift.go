package bridge

import "cyclecap/torch"

// meanshift subtracts the mean of the image features, adds the mean of the text features
// and scales the result to the length of a text feature.
var _ = Register(Bridge{
	Name: "meanshift", Title: "mean shift", Decoder: OfTexts, Sets: true,
	Parameters: func(e Env) int64 { return int64(e.Texts.Width()) },
	Fit: func(e Env) (Transform, error) {
		images, err := mean(e.Images)
		if err != nil {
			return nil, err
		}
		texts, err := mean(e.Texts)
		if err != nil {
			return nil, err
		}
		on := []torch.Option{torch.WithDType(torch.Float32), torch.WithDevice(e.Device)}
		shift := texts.To(on...).Sub(images.To(on...))
		return func(x torch.Tensor) torch.Tensor { return e.rescale(x.Add(shift)) }, nil
	},
})
