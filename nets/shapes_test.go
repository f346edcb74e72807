// Package nets_test holds all nets to the shapes of their weights.
package nets_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// TestShapes changes each dimension of each tensor of a net's weights. Loading them
// may fail, but only with an error that says which tensor is wrong; a file may
// contain any shape, also one of size 0.
func TestShapes(t *testing.T) {
	const width = 64
	mapper := func(sd *nn.StateDict) error { return second(clipcap.LoadMapper(sd, width)) }
	generator := func(sd *nn.StateDict) error { return second(cyclegan.LoadGenerator(sd)) }
	for name, net := range map[string]struct {
		module func() any
		prefix string
		load   func(sd *nn.StateDict) error
	}{
		"CLIP": {func() any {
			return clip.New(clip.Config{EmbedDim: 16, ImageSize: 32, PatchSize: 16, VisionWidth: 64, VisionDepth: 1, Context: 8, Vocab: 100, TextWidth: 64, TextHeads: 1, TextDepth: 1})
		}, "", loadCLIP},
		"GPT-2": {func() any {
			return gpt2.New(gpt2.Config{VocabSize: 100, NPositions: 16, NEmbd: width, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
		}, "", func(sd *nn.StateDict) error { return second(gpt2.Load(sd)) }},
		"transformer mapper": {func() any {
			return clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: width, ClipLength: 2, PrefixLength: 3, Layers: 1, Heads: clipcap.Heads})
		}, "clip_project.", mapper},
		"MLP mapper":       {func() any { return clipcap.NewMLPMapper(16, width, 3) }, "clip_project.", mapper},
		"linear mapper":    {func() any { return clipcap.NewLinearMapper(16, width) }, "clip_project.", mapper},
		"generator":        {func() any { return cyclegan.NewGenerator(16) }, "", generator},
		"linear generator": {func() any { return cyclegan.NewGeneratorOf(16, 1) }, "", generator},
	} {
		t.Run(name, func(t *testing.T) {
			err := torch.Scope(func() error {
				var module any
				torch.OnDevice(torch.Meta, func() { module = net.module() })
				good := nn.StateDictOf(module)
				for _, wrong := range good.Names() {
					x, _ := good.Get(wrong)
					shapes := [][]int64{append(x.Shape(), 2), {}, {0}, {0, 0}, {0, 0, 0, 0}}
					for i := range x.Shape() {
						for _, n := range []int64{0, 1, 1 << 24, 1 << 40} {
							s := x.Shape()
							s[i] = n
							shapes = append(shapes, s)
						}
					}
					for _, s := range shapes {
						if slices.Equal(s, x.Shape()) {
							continue
						}
						err := torch.Scope(func() error {
							sd := nn.NewStateDict()
							for _, n := range good.Names() {
								y, _ := good.Get(n)
								if n == wrong {
									y = torch.Empty(s, torch.WithDevice(torch.Meta))
								}
								sd.Add(net.prefix+n, y)
							}
							return net.load(sd)
						})
						if err == nil && (slices.Contains(s, 0) || slices.Contains(s, 1<<40)) {
							t.Errorf("%s of shape %v was loaded", wrong, s)
						}
						if err != nil && strings.Contains(err.Error(), "internal") {
							t.Errorf("%s of shape %v: %v", wrong, s, err)
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func loadCLIP(sd *nn.StateDict) error {
	c, err := clip.ConfigOf(sd, clip.Both)
	if err != nil {
		return err
	}
	return second(clip.Load(sd, c, clip.Both))
}

func second(_ any, err error) error { return err }

// TestSizeErrors: the error names the tensor and the sizes that are possible.
func TestSizeErrors(t *testing.T) {
	err := torch.Scope(func() error {
		sd := nn.NewStateDict()
		for name, shape := range map[string][]int64{
			"visual.conv1.weight": {64, 3, 8, 8}, "visual.positional_embedding": {5, 64},
			"text_projection": {64, 16}, "positional_embedding": {8, 64}, "token_embedding.weight": {100, 64}, "visual.proj": {64, 16},
		} {
			sd.Add(name, torch.Empty(shape, torch.WithDevice(torch.Meta)))
		}
		for _, c := range []struct {
			name  string
			shape []int64
			want  string
		}{
			{"visual.conv1.weight", []int64{0, 0, 0, 0}, "visual.conv1.weight has shape [0 0 0 0]: each size must be between 1 and 16777216"},
			{"visual.conv1.weight", []int64{64, 3, 8, 0}, "visual.conv1.weight has shape [64 3 8 0]"},
			{"visual.positional_embedding", []int64{1, 64}, "visual.positional_embedding has 1 rows"},
			{"visual.positional_embedding", []int64{1 << 40, 64}, "visual.positional_embedding has shape"},
			{"visual.positional_embedding", []int64{2000*2000 + 1, 64}, "images of 16000 pixels"},
			{"positional_embedding", []int64{2, 64}, "positional_embedding has 2 rows"},
			{"text_projection", []int64{64, 0}, "text_projection has shape [64 0]"},
			{"text_projection", []int64{64, 32}, "its image features have width 16 and its text features 32"},
		} {
			before, _ := sd.Get(c.name)
			sd.Add(c.name, torch.Empty(c.shape, torch.WithDevice(torch.Meta)))
			if _, err := clip.ConfigOf(sd, clip.Both); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %v: want %q: %v", c.name, c.shape, c.want, err)
			}
			sd.Add(c.name, before)
		}
		c, err := clip.ConfigOf(sd, clip.Both)
		if err != nil || fmt.Sprint(c.ImageSize, c.PatchSize, c.EmbedDim) != "16 8 16" {
			t.Errorf("%+v, %v", c, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
