package pipeline

import (
	"cyclecap/data/photo"
	"cyclecap/nets/clip"
)

// preprocessOf returns how photos become the input of a CLIP.
func preprocessOf(c clip.Config) photo.Preprocess { return photo.CLIP(int(c.ImageSize)) }
