package bridge

import (
	"cyclecap/nets/clip"
	"cyclecap/torch"
)

// c3 is C3, "connect, collapse, corrupt" (Zhang, Sui and Yeung-Levy, ICLR 2024, arXiv
// 2401.08567): the mean of each modality is removed from its features, which closes the
// gap between the means, and the decoder is trained on text features with added noise,
// which covers the rest. The rule is that of the paper's code
// (github.com/yuhui-zh15/C3, image_captioning/src/datasets/dataset_coco.py with the
// options of train_unimodal_c3.sh): features are scaled to length 1, the mean of such
// features is subtracted, noise of variance 0.016 is added to texts in training, and the
// result is scaled to length 1.
var _ = Register(Bridge{
	Name: "c3", Title: "C3",
	Decoder: Decoder{Name: "centered-noisy-texts", Noise: "c3_variance", Centered: true},
	Sets:    true,
	Settings: []Setting{{Key: "c3_variance", Default: 0.016, Range: "[0,100]", Source: "C3",
		Text: "is the variance of the Gaussian noise that C3 adds to text features of length 1 whose mean was removed."}},
	Parameters: func(e Env) int64 { return int64(e.Images.Width()) },
	Fit: func(e Env) (Transform, error) {
		mean, err := MeanDirection(e.Images)
		if err != nil {
			return nil, err
		}
		center := torch.FromSlice(mean, int64(len(mean))).To(torch.WithDevice(e.Device))
		return func(x torch.Tensor) torch.Tensor { return clip.Normalize(clip.Normalize(x).Sub(center)) }, nil
	},
})
