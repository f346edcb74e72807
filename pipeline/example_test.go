package pipeline_test

import (
	"context"
	"fmt"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
)

// This example captions a photo. It uses the small random weights of this project's
// tests instead of real ones, so the caption itself (c.Direct[0].Text) is nonsense.
func Example() {
	const weights = "../internal/parity/testdata/small/"
	captioner, err := pipeline.Load(pipeline.Files{CLIP: weights + "clip.pt", Decoder: weights + "decoder.pt", GPT2: weights + "gpt2"}, pipeline.Options{})
	if err != nil {
		panic(err)
	}
	defer captioner.Close()
	photos := []string{"../testdata/photos/000000126107.jpg"}
	options := clipcap.Options{Method: clipcap.Beam, Beam: 3, MaxTokens: 5, Stop: captioner.Decoder.GPT2.Stop}
	for batch, err := range captioner.Photos(context.Background(), photos, 16, options) {
		if err != nil {
			panic(err)
		}
		for i, c := range batch.Captions {
			fmt.Printf("%s: %d alternatives, the best of %d tokens\n", photos[batch.Index[i]], len(c.Direct), len(c.Direct[0].Tokens))
		}
	}
	// Output:
	// ../testdata/photos/000000126107.jpg: 3 alternatives, the best of 5 tokens
}
