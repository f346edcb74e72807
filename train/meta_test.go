package train

import (
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// TestMeta runs a step of each task with its network on the meta device and its data on
// the CPU. A tensor left behind on the CPU makes it fail, as it would on CUDA.
func TestMeta(t *testing.T) {
	matrix := func(n, width int) Matrix { return Matrix{Data: make([]float32, n*width), Cols: width} }
	texts := func(n int) *Texts {
		l := &Texts{}
		for i := range n {
			l.Add([]int{1 + i, 2, 3})
		}
		return l
	}
	language := func() *gpt2.Model {
		return gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 20, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
	}
	contrastive := func(lockText bool) func() (Task, error) {
		return func() (Task, error) {
			m := clip.New(clip.Config{EmbedDim: 8, ImageSize: 8, PatchSize: 4, VisionWidth: 64, VisionDepth: 1,
				Context: 4, Vocab: 50, TextWidth: 64, TextHeads: 1, TextDepth: 1})
			return NewCLIPTask(CLIPConfig{Std: [3]float32{1, 1, 1}, Epochs: 1, Batch: 2, LR: 1, LockText: lockText, Device: torch.Meta}, m,
				CLIPData{Pixels: make([]uint8, 2*3*8*8), Captions: texts(2), Of: [][]int32{{0}, {1}}})
		}
	}
	decoder := func(tune bool, noise *Noise) func() (Task, error) {
		return func() (Task, error) {
			m := &clipcap.Model{GPT2: language(), Mapper: clipcap.NewTransformerMapper(clipcap.TransformerConfig{
				FeatureWidth: 8, Width: 64, ClipLength: 2, PrefixLength: 2, Layers: 1, Heads: 8})}
			data := DecoderData{Captions: texts(4), Features: matrix(4, 8)}
			return NewDecoderTask(DecoderConfig{Epochs: 1, Batch: 2, LR: 1, TuneGPT2: tune, Noise: noise, Device: torch.Meta}, m, data, data)
		}
	}
	for name, newTask := range map[string]func() (Task, error){
		// Not with a ResNet: libtorch has no batch norm on the meta device.
		"clip":                         contrastive(false),
		"clip, text encoder as it was": contrastive(true),
		"gpt2": func() (Task, error) {
			return NewGPT2Task(GPT2Config{Epochs: 1, Batch: 2, Window: 5, LR: 1, Device: torch.Meta}, language(), make([]int32, 40))
		},
		"decoder":       decoder(false, nil),
		"noisy decoder": decoder(false, &Noise{Variance: 0.1, Mean: make([]float32, 8)}),
		"tuned decoder": decoder(true, nil),
		"cyclegan": func() (Task, error) {
			c := DefaultCycleGAN()
			c.Width, c.Epochs, c.Batch, c.DecayFrom, c.Standardize, c.Device = 8, 1, 2, 1, true, torch.Meta
			return NewCycleGANTask(c, matrix(4, 8), matrix(4, 8))
		},
	} {
		err := torch.Scope(func() error {
			var task Task
			var err error
			torch.OnDevice(torch.Meta, func() { task, err = newTask() })
			if err != nil {
				return err
			}
			if _, err := task.Step(0); err != nil {
				return err
			}
			if v, ok := task.(Validator); ok {
				torch.NoGrad(func() { _, err = v.Validate() })
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStateToDevice checks that SetState moves the state of a checkpoint from the CPU to
// the device of the parameters.
func TestStateToDevice(t *testing.T) {
	err := torch.Scope(func() error {
		var m *nn.LinearModule
		torch.OnDevice(torch.Meta, func() { m = nn.Linear(3, 2, true) })
		defer nn.Close(m)
		o := optim.Adam(nn.Parameters(m), optim.AdamDefaults())
		defer o.Close()
		var s []optim.ParamState
		for _, p := range nn.Parameters(m) {
			s = append(s, optim.ParamState{Step: 1, Tensors: []torch.Tensor{torch.Zeros(p.Shape()).Keep(), torch.Zeros(p.Shape()).Keep()}})
		}
		if err := o.SetState(s); err != nil {
			return err
		}
		for _, p := range o.State() {
			for _, x := range p.Tensors {
				if x.Device() != torch.Meta {
					t.Errorf("a state on %v", x.Device())
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
