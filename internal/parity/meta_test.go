package parity

import (
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/train"
)

// TestMeta runs every net at its real size forward, backward and through a
// training step on the meta device, where tensors have no data: one that was
// left on the CPU does not mix with the others, as on CUDA.
func TestMeta(t *testing.T) {
	ids := func(shape ...int64) torch.Tensor {
		return torch.Zeros(shape, torch.WithDType(torch.Int64))
	}
	backward := func(t *testing.T, m any, y torch.Tensor, unused ...string) {
		y.Sum().Backward()
		skip := map[string]bool{}
		for _, u := range unused {
			skip[u] = true
		}
		for _, p := range nn.NamedParameters(m) {
			if g := p.Tensor.Grad(); g.Defined() == skip[p.Name] || g.Defined() && g.Device() != torch.Meta {
				t.Errorf("%s: gradient %v", p.Name, g)
			}
		}
		nn.Close(m)
	}
	config := gpt2.Small()
	config.NLayer = 3
	for name, f := range map[string]func(t *testing.T){
		"clip image": func(t *testing.T) {
			m := clip.New(clip.ViTB32())
			backward(t, m.Visual, m.EncodeImage(torch.Randn([]int64{2, 3, 224, 224})))
		},
		"clip text": func(t *testing.T) {
			m := clip.New(clip.ViTB32())
			y := m.EncodeText(ids(2, 77))
			y.Sum().Backward()
			if g := m.TokenEmbedding.Weight.Grad(); g.Device() != torch.Meta {
				t.Error(g)
			}
			nn.Close(m)
		},
		"gpt-2": func(t *testing.T) {
			m := gpt2.New(config)
			backward(t, m, m.Logits(m.Forward(m.Embed(ids(2, 9)), nil, torch.Tensor{})))
		},
		"gpt-2 with cache": func(t *testing.T) {
			m := gpt2.New(config)
			defer nn.Close(m)
			torch.NoGrad(func() {
				c := m.NewCache(2, 10)
				m.Forward(m.Embed(ids(2, 9)), c, torch.Tensor{})
				if h := m.Forward(m.Embed(ids(2, 1)), c, torch.Tensor{}); h.Device() != torch.Meta {
					t.Error(h)
				}
			})
		},
		"transformer mapper": func(t *testing.T) {
			m := clipcap.NewTransformerMapper(clipcap.PaperTransformer())
			backward(t, m, m.Forward(torch.Randn([]int64{2, 512})))
		},
		"mlp mapper": func(t *testing.T) {
			m := clipcap.NewMLPMapper(512, 768, 10)
			backward(t, m, m.Forward(torch.Randn([]int64{2, 512})))
		},
		"generator": func(t *testing.T) {
			m := cyclegan.NewGenerator(512)
			backward(t, m, m.Forward(torch.Randn([]int64{2, 512})))
		},
		"discriminator": func(t *testing.T) {
			m := cyclegan.NewDiscriminator(512)
			backward(t, m, m.Forward(torch.Randn([]int64{2, 512})))
		},
		"cyclegan step": func(t *testing.T) {
			c := train.DefaultCycleGAN()
			c.Device = torch.Meta
			zeros := train.Matrix{Data: make([]float32, 64*512), Cols: 512}
			g, err := train.NewCycleGANTask(c, zeros, zeros)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if _, err := g.Step(0); err != nil {
				t.Error(err)
			}
		},
		"mapper step": func(t *testing.T) {
			m := &clipcap.Model{Mapper: clipcap.NewTransformerMapper(clipcap.PaperTransformer()), GPT2: gpt2.New(config)}
			nn.SetRequiresGrad(m.GPT2, false)
			opt := optim.TransformersAdamW(nn.Parameters(m.Mapper), optim.AdamDefaults())
			train.DecoderLoss(m, torch.Randn([]int64{2, 512}), ids(2, 12), true).Backward()
			opt.Step()
			opt.Close()
			nn.Close(m.Mapper)
			nn.Close(m.GPT2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := torch.Scope(func() error {
				torch.OnDevice(torch.Meta, func() { f(t) })
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
