// Digits trains a convolutional network on drawn digits of 28 x 28 pixels, in the shape of
// MNIST, and writes its weights as a .pt file that torch.load reads.
//
//	go run ./examples/digits
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
	"cyclecap/weights"
)

// glyphs are the digits, 5 x 7.
var glyphs = [10]string{
	" ### #   ##  ### # ###  ##   # ### ", "  #   ##    #    #    #    #   ### ", " ### #   #    #   #   #   #   #####", "#####   #   #     #    ##   # ### ", "   #   ##  # # #  # #####   #    # ",
	"######    ####     #    ##   # ### ", "  ##  #   #    #### #   ##   # ### ", "#####    #   #   #   #    #    #   ", " ### #   ##   # ### #   ##   # ### ", " ### #   ##   # ####    #   #  ##  ",
}

// draw returns n digits [n, 1, 28, 28] at random places with noise, and their classes [n].
func draw(r *rand.Rand, n int) (x, y torch.Tensor) {
	pixels, classes := make([]float32, n*28*28), make([]int64, n)
	for i := range n {
		digit := r.IntN(10)
		classes[i] = int64(digit)
		image := pixels[i*28*28 : (i+1)*28*28]
		for p := range image {
			image[p] = float32(r.NormFloat64()) * 0.3
		}
		left, top := r.IntN(28-3*5), r.IntN(28-3*7)
		for p, c := range glyphs[digit] {
			if c != '#' {
				continue
			}
			for dy := range 3 {
				for dx := range 3 {
					image[(top+p/5*3+dy)*28+left+p%5*3+dx]++
				}
			}
		}
	}
	return torch.FromSlice(pixels, int64(n), 1, 28, 28), torch.FromSlice(classes)
}

// A Net is a network: its fields are the parameters, with Python's names.
type Net struct {
	Conv1, Conv2 *nn.ConvModule
	Pool         *nn.MaxPoolModule
	Fc           *nn.LinearModule
}

// NewNet returns a network with PyTorch's initialization.
func NewNet() *Net {
	o := nn.ConvDefaults()
	o.Padding = []int64{1}
	return &Net{
		Conv1: nn.Conv2d(1, 8, []int64{3}, o),
		Conv2: nn.Conv2d(8, 16, []int64{3}, o),
		Pool:  nn.MaxPool2d([]int64{2}, nn.MaxPoolOptions{}),
		Fc:    nn.Linear(16*7*7, 10, true),
	}
}

// Forward returns the scores [n, 10] of images [n, 1, 28, 28].
func (n *Net) Forward(x torch.Tensor) torch.Tensor {
	x = n.Pool.Forward(n.Conv1.Forward(x).Relu())
	x = n.Pool.Forward(n.Conv2.Forward(x).Relu())
	return n.Fc.Forward(x.Flatten(torch.WithStartDim(1)))
}

func main() {
	steps := flag.Int("steps", 200, "training steps")
	out := flag.String("o", "", "write the weights to this file")
	flag.Parse()
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		r := rand.New(rand.NewPCG(1, 2))
		net := NewNet()
		defer nn.Close(net)
		o := optim.AdamDefaults()
		o.LR = 2e-3
		opt := optim.Adam(nn.Parameters(net), o)
		defer opt.Close()
		for step := range *steps {
			torch.Tidy(func() torch.Tensor { // frees the tensors of a step
				x, y := draw(r, 64)
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
			x, y := draw(r, 1000)
			right := net.Forward(x).Argmax(torch.WithDim(1)).Eq(y).To(torch.WithDType(torch.Float32)).Mean()
			fmt.Printf("%.1f %% of 1000 new digits are right\n", 100*right.Item())
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
