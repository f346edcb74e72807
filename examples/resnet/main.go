// Resnet trains a ResNet in the shape of CIFAR's to tell drawn shapes of 32 x 32 pixels apart. With -checkpoint,
// it writes the state of the training every 20 steps, and a program that was interrupted continues from the last
// one: its weights have the bits of a training that was not.
//
//	go run ./examples/resnet -checkpoint /tmp/resnet -o resnet.pt
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/data"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
	"cyclecap/weights"
)

const size = 32 // of a picture

// A sample is a picture [3, size, size] and the number of its shape.
type sample struct {
	pixels []float32
	shape  int64
}

// shapes are functions that say whether a place, relative to the middle of a shape of radius 1, belongs to it.
var shapes = []func(x, y float64) bool{
	func(x, y float64) bool { return x*x+y*y < 1 },                                      // a disc
	func(x, y float64) bool { return max(x, -x, y, -y) < 0.8 },                          // a square
	func(x, y float64) bool { return y < 0.8 && y > 2*max(x, -x)-1 },                    // a triangle
	func(x, y float64) bool { return min(max(x, -x), max(y, -y)) < 0.3 && x*x+y*y < 1 }, // a cross
}

// Shapes is a data set of drawn shapes: the same numbers for the same seed.
type Shapes struct {
	seed uint64
	n    int
}

// Len returns the number of pictures.
func (s Shapes) Len() int { return s.n }

// Item draws picture i: a shape of a random colour, size and place on a noisy ground of another colour.
func (s Shapes) Item(i int) (sample, error) {
	r := rand.New(rand.NewPCG(s.seed, uint64(i)))
	shape := r.IntN(len(shapes))
	radius := 6 + 6*r.Float64()
	x0, y0 := radius+r.Float64()*(size-2*radius), radius+r.Float64()*(size-2*radius)
	pixels := make([]float32, 3*size*size)
	for c := range 3 {
		ground, ink := r.Float64()-1, r.Float64()
		for p := range size * size {
			v := ground
			if shapes[shape]((float64(p%size)-x0)/radius, (float64(p/size)-y0)/radius) {
				v = ink
			}
			pixels[c*size*size+p] = float32(v + 0.2*r.NormFloat64())
		}
	}
	return sample{pixels, int64(shape)}, nil
}

// collate returns the tensors of a batch: pictures [n, 3, size, size] and shapes [n].
func collate(batch []sample) (x, y torch.Tensor) {
	var pixels []float32
	var classes []int64
	for _, s := range batch {
		pixels, classes = append(pixels, s.pixels...), append(classes, s.shape)
	}
	return torch.FromSlice(pixels, int64(len(batch)), 3, size, size), torch.FromSlice(classes)
}

// A Block is torchvision's BasicBlock: its fields, and so the names of its parameters, are the same.
type Block struct {
	Conv1      *nn.ConvModule
	Bn1        *nn.BatchNormModule
	Conv2      *nn.ConvModule
	Bn2        *nn.BatchNormModule
	Downsample *nn.SequentialModule // or nil
}

// NewBlock returns a block from in to out channels.
func NewBlock(in, out, stride int64) *Block {
	b := &Block{
		Conv1: conv(in, out, 3, stride), Bn1: nn.BatchNorm2d(out, nn.BatchNormDefaults()),
		Conv2: conv(out, out, 3, 1), Bn2: nn.BatchNorm2d(out, nn.BatchNormDefaults()),
	}
	if stride != 1 || in != out {
		b.Downsample = nn.Sequential(conv(in, out, 1, stride), nn.BatchNorm2d(out, nn.BatchNormDefaults()))
	}
	return b
}

// Forward maps [n, in, h, w] to [n, out, h/stride, w/stride].
func (b *Block) Forward(x torch.Tensor) torch.Tensor {
	y := b.Bn1.Forward(b.Conv1.Forward(x)).Relu()
	y = b.Bn2.Forward(b.Conv2.Forward(y))
	if b.Downsample != nil {
		x = b.Downsample.Forward(x)
	}
	return y.Add(x).Relu()
}

// conv returns a convolution that keeps the size of a picture, but for the stride.
func conv(in, out, kernel, stride int64) *nn.ConvModule {
	o := nn.ConvDefaults()
	o.Stride, o.Padding, o.Bias = []int64{stride}, []int64{kernel / 2}, false
	c := nn.Conv2d(in, out, []int64{kernel}, o)
	nn.KaimingNormal_(c.Weight, 0)
	return c
}

// A ResNet has three stages of blocks, each with twice the channels of the one before and half its size (He et
// al. 2015, section 4.2).
type ResNet struct {
	Conv1                  *nn.ConvModule
	Bn1                    *nn.BatchNormModule
	Layer1, Layer2, Layer3 []*Block
	Fc                     *nn.LinearModule
}

// NewResNet returns a network with so many blocks in a stage, and width channels in the first one.
func NewResNet(blocks int, width, classes int64) *ResNet {
	stage := func(in, out, stride int64) (list []*Block) {
		for range blocks {
			list = append(list, NewBlock(in, out, stride))
			in, stride = out, 1
		}
		return list
	}
	return &ResNet{
		Conv1: conv(3, width, 3, 1), Bn1: nn.BatchNorm2d(width, nn.BatchNormDefaults()),
		Layer1: stage(width, width, 1), Layer2: stage(width, 2*width, 2), Layer3: stage(2*width, 4*width, 2),
		Fc: nn.Linear(4*width, classes, true),
	}
}

// Forward returns the scores [n, classes] of pictures [n, 3, h, w].
func (r *ResNet) Forward(x torch.Tensor) torch.Tensor {
	x = r.Bn1.Forward(r.Conv1.Forward(x)).Relu()
	for _, b := range slices.Concat(r.Layer1, r.Layer2, r.Layer3) {
		x = b.Forward(x)
	}
	return r.Fc.Forward(x.MeanDim([]int64{2, 3}))
}

// A Training has all that its next step depends on.
type Training struct {
	Net      *ResNet
	Opt      *optim.Of[optim.SGDOptions]
	Schedule optim.Scheduler
	Loader   *data.Loader[sample]
	Step     int
}

// NewTraining returns the training of a network at its beginning, or where the checkpoint in a folder is; folder
// may be "". It must be called in a scope.
func NewTraining(folder string, steps int) (t *Training, err error) {
	t = &Training{Net: NewResNet(1, 8, int64(len(shapes)))}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	last := ""
	if folder != "" {
		all, err := filepath.Glob(filepath.Join(folder, "step-??????"))
		if err != nil {
			return t, err
		}
		if len(all) > 0 {
			last = slices.Max(all)
		}
	}
	if last != "" {
		file, err := weights.Open(filepath.Join(last, "model.pt"))
		if err != nil {
			return t, err
		}
		sd, err := file.Load()
		if err != nil {
			return t, err
		}
		if err := nn.LoadStateDict(t.Net, sd); err != nil {
			sd.Close()
			return t, err
		}
		nn.SetRequiresGrad(t.Net, true)
	}
	// The optimizer comes after the weights: LoadStateDict replaces the tensors.
	o := optim.SGDDefaults()
	o.LR, o.Momentum, o.Nesterov, o.WeightDecay = 0.05, 0.9, true, 5e-4
	t.Opt = optim.SGD(nn.Parameters(t.Net), o)
	t.Schedule = optim.OneCycleLR(t.Opt, []float64{0.1}, optim.OneCycleDefaults(steps))
	t.Loader, err = data.NewLoader(Shapes{seed: 1, n: 1024}, data.Options{BatchSize: 32, Shuffle: true, Seed: 1, DropLast: true, Workers: 2})
	if err != nil || last == "" {
		return t, err
	}
	if err := weights.LoadOptimizer(filepath.Join(last, "optimizer.pt"), t.Opt); err != nil {
		return t, err
	}
	text, err := os.ReadFile(filepath.Join(last, "state.json"))
	if err != nil {
		return t, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return t, fmt.Errorf("%s: %w", last, err)
	}
	t.Step = s.Step
	if err := t.Schedule.LoadStateDict(s.Schedule); err != nil {
		return t, err
	}
	if err := torch.DefaultGenerator(torch.CPU).SetState(s.Random); err != nil {
		return t, err
	}
	fmt.Printf("continuing after step %d\n", t.Step)
	return t, t.Loader.SetState(s.Loader)
}

// state is what a checkpoint has besides weights and optimizer.
type state struct {
	Step     int
	Loader   data.State
	Schedule map[string]any
	Random   []byte // the state of the random generator, for networks with dropout
}

// Save writes a checkpoint to a folder of its own, which has its name only once it is complete, and removes the
// one before.
func (t *Training) Save(ctx context.Context, folder string) error {
	path := filepath.Join(folder, fmt.Sprintf("step-%06d", t.Step))
	if err := os.MkdirAll(path+".tmp", 0o777); err != nil {
		return err
	}
	if err := weights.Save(ctx, filepath.Join(path+".tmp", "model.pt"), nn.StateDictOf(t.Net), nil); err != nil {
		return err
	}
	if err := weights.SaveOptimizer(ctx, filepath.Join(path+".tmp", "optimizer.pt"), t.Opt); err != nil {
		return err
	}
	text, err := json.Marshal(state{t.Step, t.Loader.State(), t.Schedule.StateDict(), torch.DefaultGenerator(torch.CPU).State()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path+".tmp", "state.json"), text, 0o666); err != nil {
		return err
	}
	all, err := filepath.Glob(filepath.Join(folder, "step-??????"))
	if err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	for _, old := range all {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the tensors.
func (t *Training) Close() {
	nn.Close(t.Net)
	if t.Opt != nil {
		t.Opt.Close()
	}
}

// accuracy returns the share of pictures whose shape the network finds.
func accuracy(ctx context.Context, net *ResNet, set data.Dataset[sample]) (float64, error) {
	nn.SetTraining(net, false)
	defer nn.SetTraining(net, true)
	loader, err := data.NewLoader(set, data.Options{BatchSize: 100})
	if err != nil {
		return 0, err
	}
	right := 0.0
	for batch, err := range loader.Epoch(ctx) {
		if err != nil {
			return 0, err
		}
		torch.Tidy(func() torch.Tensor {
			torch.InferenceMode(func() {
				x, y := collate(batch)
				right += net.Forward(x).Argmax(torch.WithDim(1)).Eq(y).Sum().Item()
			})
			return torch.Tensor{}
		})
	}
	return right / float64(set.Len()), nil
}

func main() {
	steps := flag.Int("steps", 100, "training steps")
	folder := flag.String("checkpoint", "", "write checkpoints to this folder, and continue from the one there")
	stop := flag.Int("stop", 0, "end in the middle, after this step, as a program that is killed does")
	out := flag.String("o", "", "write the weights to this file")
	flag.Parse()
	ctx, done := signal.NotifyContext(context.Background(), os.Interrupt)
	defer done()
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		t, err := NewTraining(*folder, *steps)
		if err != nil {
			return err
		}
		defer t.Close()
		for t.Step < *steps {
			for batch, err := range t.Loader.Epoch(ctx) {
				if err != nil {
					return err
				}
				torch.Tidy(func() torch.Tensor { // frees the tensors of a step
					x, y := collate(batch)
					t.Opt.ZeroGrad()
					loss := F.CrossEntropy(t.Net.Forward(x), y, F.CrossEntropyDefaults())
					loss.Backward()
					t.Opt.Step()
					if t.Step%20 == 0 {
						fmt.Printf("step %d: loss %.3f, learning rate %.4f\n", t.Step, loss.Item(), t.Opt.LR())
					}
					return torch.Tensor{}
				})
				t.Schedule.Step()
				if t.Step++; t.Step == *stop {
					os.Exit(3)
				}
				if *folder != "" && t.Step%20 == 0 {
					if err := t.Save(ctx, *folder); err != nil {
						return err
					}
				}
				if t.Step == *steps {
					break
				}
			}
		}
		share, err := accuracy(ctx, t.Net, Shapes{seed: 2, n: 500})
		if err != nil {
			return err
		}
		fmt.Printf("%.1f %% of 500 new shapes are right\n", 100*share)
		if *out == "" {
			return nil
		}
		return weights.Save(ctx, *out, nn.StateDictOf(t.Net), nil)
	})
	if err != nil {
		log.Fatal(err)
	}
}
