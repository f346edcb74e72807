// Finetune teaches a network that PyTorch has pretrained a new task: it loads the state dict from a .pt file,
// replaces the head, freezes the rest, trains, and writes a .pt file that torch.load reads. The network tells the
// directions of stripes apart; it learns to tell stripes, checks and rings apart.
//
//	go run ./examples/finetune -o patterns.pt examples/finetune/testdata/pretrained.pt
//
// testdata/patterns.py is the Python side.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
	"cyclecap/weights"
)

const size = 16 // of a picture

// patterns returns n pictures [n, 1, size, size] of stripes, checks and rings, and which they are [n].
func patterns(r *rand.Rand, n int) (x, y torch.Tensor) {
	pixels, classes := make([]float32, n*size*size), make([]int64, n)
	for i := range n {
		sin, cos := math.Sincos(r.Float64() * math.Pi)
		frequency := 0.9 + 0.4*r.Float64()
		phase1, phase2 := r.Float64()*2*math.Pi, r.Float64()*2*math.Pi
		x0, y0 := 5+5*r.Float64(), 5+5*r.Float64()
		classes[i] = r.Int64N(3)
		for p := range size * size {
			x, y := float64(p%size), float64(p/size)
			along, across := frequency*(x*cos+y*sin)+phase1, frequency*(y*cos-x*sin)+phase2
			v := math.Sin(along)
			switch classes[i] {
			case 1:
				v *= math.Sin(across)
			case 2:
				v = math.Sin(frequency * math.Hypot(x-x0, y-y0))
			}
			pixels[i*size*size+p] = float32(v + 0.2*r.NormFloat64())
		}
	}
	return torch.FromSlice(pixels, int64(n), 1, size, size), torch.FromSlice(classes)
}

// A Net is the network of patterns.py. Its fields have the names of the Python attributes.
type Net struct {
	Conv1 *nn.ConvModule
	Bn1   *nn.BatchNormModule
	Conv2 *nn.ConvModule
	Bn2   *nn.BatchNormModule
	Fc    *nn.LinearModule
}

// NewNet returns a network for so many classes.
func NewNet(classes int64) *Net {
	conv := func(in, out, kernel int64) *nn.ConvModule {
		o := nn.ConvDefaults()
		o.Padding, o.Bias = []int64{kernel / 2}, false
		return nn.Conv2d(in, out, []int64{kernel}, o)
	}
	return &Net{
		Conv1: conv(1, 8, 5), Bn1: nn.BatchNorm2d(8, nn.BatchNormDefaults()),
		Conv2: conv(8, 32, 3), Bn2: nn.BatchNorm2d(32, nn.BatchNormDefaults()),
		Fc: nn.Linear(32, classes, true),
	}
}

// Forward returns the scores [n, classes] of pictures [n, 1, h, w].
func (n *Net) Forward(x torch.Tensor) torch.Tensor {
	x = n.Bn1.Forward(n.Conv1.Forward(x)).Relu().MaxPool2d([]int64{2})
	x = n.Bn2.Forward(n.Conv2.Forward(x)).Relu()
	return n.Fc.Forward(x.MeanDim([]int64{2, 3}))
}

// load returns the network in a state dict that PyTorch has written, with all parameters frozen.
func load(path string) (*Net, error) {
	file, err := weights.Open(path) // reads no code
	if err != nil {
		return nil, err
	}
	sd, err := file.Load()
	if err != nil {
		return nil, err
	}
	var net *Net
	torch.OnDevice(torch.Meta, func() { net = NewNet(4) }) // shapes only: no weights are drawn
	if err := nn.LoadStateDict(net, sd); err != nil {
		sd.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return net, nil
}

func main() {
	steps := flag.Int("steps", 200, "training steps")
	out := flag.String("o", "", "write the weights to this file")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: finetune [-o FILE] PRETRAINED.pt")
	}
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		net, err := load(flag.Arg(0))
		if err != nil {
			return err
		}
		defer func() { nn.Close(net) }()
		nn.Close(net.Fc)
		net.Fc = nn.Linear(32, 3, true)
		// The batch norms normalize by what PyTorch has seen, and do not learn from new pictures.
		nn.SetTraining(net, false)
		o := optim.AdamDefaults()
		o.LR = 0.05
		opt := optim.Adam(nn.Parameters(net.Fc), o)
		defer opt.Close()
		r := rand.New(rand.NewPCG(1, 2))
		for step := range *steps {
			torch.Tidy(func() torch.Tensor { // frees the tensors of a step
				x, y := patterns(r, 64)
				opt.ZeroGrad()
				loss := F.CrossEntropy(net.Forward(x), y, F.CrossEntropyDefaults())
				loss.Backward()
				opt.Step()
				if step%50 == 0 {
					fmt.Printf("step %d: loss %.3f\n", step, loss.Item())
				}
				return torch.Tensor{}
			})
		}
		torch.NoGrad(func() {
			x, y := patterns(r, 500)
			fmt.Printf("%.1f %% of 500 new pictures are right\n", net.Forward(x).Argmax(torch.WithDim(1)).Eq(y).Sum().Item()/5)
		})
		if *out == "" {
			return nil
		}
		return weights.Save(context.Background(), *out, nn.StateDictOf(net), nil)
	})
	if err != nil {
		log.Fatal(err)
	}
}
