package pipeline

import (
	"cyclecap/nets/clip"
	"cyclecap/torch"
)

// Encoder is a model that maps photos and texts to features of the same space. Its
// parameters are those of a module (nn.To, nn.Pack and nn.Close work on it).
type Encoder interface {
	// EncodeImage returns the features [n, FeatureWidth] of preprocessed photos
	// [n, 3, ImageSize, ImageSize].
	EncodeImage(pixels torch.Tensor) torch.Tensor
	// EncodeText returns the features [n, FeatureWidth] of token ids
	// [n, ContextLength] in the range 0 to VocabSize-1.
	EncodeText(ids torch.Tensor) torch.Tensor

	FeatureWidth() int64
	ImageSize() int64 // pixels; 0 without an image encoder
	// ContextLength and VocabSize are 0 without a text encoder.
	ContextLength() int64
	VocabSize() int64
	// Name is the kind and size of the model, such as "CLIP ViT-B/32". Feature files
	// record it.
	Name() string
}

var _ Encoder = (*clip.Model)(nil)
