// Dcgan trains a DCGAN: a generator draws pictures from noise, and a discriminator learns to tell them from
// real ones, which are discs of random colours, places and sizes. It writes 64 drawn pictures as a PNG file.
//
//	go run ./examples/dcgan -o samples.png
package main

import (
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"math/rand/v2"
	"os"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
)

const (
	size  = 16 // of a picture
	noise = 32 // numbers from which the generator draws a picture
	batch = 32
)

// discs returns n pictures [n, 3, size, size], from -1 to 1, of a disc on a dark ground.
func discs(r *rand.Rand, n int64) torch.Tensor {
	pixels := make([]float32, n*3*size*size)
	for i := range pixels {
		pixels[i] = -0.9
	}
	for i := range int(n) {
		radius := 3 + 2*r.Float64()
		x0, y0 := 7.5+3*(r.Float64()-0.5), 7.5+3*(r.Float64()-0.5)
		bright := r.IntN(3) // the channel that is bright
		for y := range size {
			for x := range size {
				if dx, dy := float64(x)-x0, float64(y)-y0; dx*dx+dy*dy < radius*radius {
					pixels[((i*3+bright)*size+y)*size+x] = 0.9
				}
			}
		}
	}
	return torch.FromSlice(pixels, n, 3, size, size)
}

// generator maps noise [n, noise, 1, 1] to pictures [n, 3, size, size]. Its initial weights are DCGAN's.
func generator() *nn.SequentialModule {
	const width = 24
	up := func(in, out, stride, padding int64) *nn.ConvTransposeModule {
		o := nn.ConvTransposeDefaults()
		o.Stride, o.Padding, o.Bias = []int64{stride}, []int64{padding}, false
		return nn.ConvTranspose2d(in, out, []int64{4}, o)
	}
	return initialize(nn.Sequential(
		up(noise, 2*width, 1, 0), nn.BatchNorm2d(2*width, nn.BatchNormDefaults()), nn.ReLU(), // 4 x 4
		up(2*width, width, 2, 1), nn.BatchNorm2d(width, nn.BatchNormDefaults()), nn.ReLU(), // 8 x 8
		up(width, 3, 2, 1), nn.Tanh(), // 16 x 16
	))
}

// discriminator maps pictures [n, 3, size, size] to logits [n]: positive for those that it takes for real.
func discriminator() *nn.SequentialModule {
	const width = 24
	down := func(in, out, stride, padding int64) *nn.ConvModule {
		o := nn.ConvDefaults()
		o.Stride, o.Padding, o.Bias = []int64{stride}, []int64{padding}, false
		return nn.Conv2d(in, out, []int64{4}, o)
	}
	return initialize(nn.Sequential(
		down(3, width, 2, 1), nn.LeakyReLU(0.2), // 8 x 8
		down(width, 2*width, 2, 1), nn.BatchNorm2d(2*width, nn.BatchNormDefaults()), nn.LeakyReLU(0.2), // 4 x 4
		down(2*width, 1, 1, 0), nn.Flatten(0, -1),
	))
}

// initialize is PyTorch's net.apply(weights_init).
func initialize(net *nn.SequentialModule) *nn.SequentialModule {
	for _, m := range net.Modules {
		switch m := m.(type) {
		case *nn.ConvModule:
			nn.Normal_(m.Weight, 0, 0.02)
		case *nn.ConvTransposeModule:
			nn.Normal_(m.Weight, 0, 0.02)
		case *nn.BatchNormModule:
			nn.Normal_(m.Weight, 1, 0.02)
			nn.Constant_(m.Bias, 0)
		}
	}
	return net
}

// adam returns DCGAN's optimizer of a network.
func adam(net any) optim.Optimizer {
	o := optim.AdamDefaults()
	o.LR, o.Beta1 = 2e-3, 0.5
	return optim.Adam(nn.Parameters(net), o)
}

func main() {
	steps := flag.Int("steps", 200, "training steps")
	out := flag.String("o", "", "write 64 drawn pictures to this PNG file")
	flag.Parse()
	if err := torch.Scope(func() error { return train(*steps, *out) }); err != nil {
		log.Fatal(err)
	}
}

// train must be called in a scope.
func train(steps int, out string) error {
	torch.ManualSeed(0)
	r := rand.New(rand.NewPCG(1, 2))
	g, d := generator(), discriminator()
	defer nn.Close(g)
	defer nn.Close(d)
	optG, optD := adam(g), adam(d)
	defer optG.Close()
	defer optD.Close()
	fixed := torch.Randn([]int64{64, noise, 1, 1})
	real, fake := torch.Ones([]int64{batch}), torch.Zeros([]int64{batch}) // the labels
	fmt.Printf("before: the mean picture is %.2f from the real one\n", distance(r, g, fixed))
	for step := range steps {
		torch.Tidy(func() torch.Tensor { // frees the tensors of a step
			// The discriminator learns from real pictures, and from drawn ones without a gradient for
			// the generator.
			optD.ZeroGrad()
			lossReal := F.BCEWithLogits(d.Forward(discs(r, batch)), real, F.Mean)
			lossReal.Backward()
			drawn := g.Forward(torch.Randn([]int64{batch, noise, 1, 1}))
			lossFake := F.BCEWithLogits(d.Forward(drawn.Detach()), fake, F.Mean)
			lossFake.Backward()
			optD.Step()
			// The generator learns what the discriminator takes for real.
			optG.ZeroGrad()
			lossG := F.BCEWithLogits(d.Forward(drawn), real, F.Mean)
			lossG.Backward()
			optG.Step()
			if step%100 == 0 {
				fmt.Printf("step %d: discriminator %.3f, generator %.3f\n", step, lossReal.Item()+lossFake.Item(), lossG.Item())
			}
			return torch.Tensor{}
		})
	}
	fmt.Printf("after: the mean picture is %.2f from the real one\n", distance(r, g, fixed))
	if out == "" {
		return nil
	}
	return save(out, g, fixed)
}

// distance returns the mean absolute difference between the means of drawn and of real pictures.
func distance(r *rand.Rand, g *nn.SequentialModule, z torch.Tensor) (d float64) {
	torch.NoGrad(func() {
		mean := func(x torch.Tensor) torch.Tensor { return x.MeanDim([]int64{0}) }
		d = mean(g.Forward(z)).Sub(mean(discs(r, 512))).Abs().Mean().Item()
	})
	return d
}

// save writes 8 x 8 drawn pictures to a PNG file.
func save(path string, g *nn.SequentialModule, z torch.Tensor) error {
	picture := image.NewNRGBA(image.Rect(0, 0, 8*size, 8*size))
	nn.SetTraining(g, false)
	torch.NoGrad(func() {
		// [8*8, 3, h, w] becomes [8*h, 8*w, 3], with values from 0 to 255.
		x := g.Forward(z).View([]int64{8, 8, 3, size, size}).Permute([]int64{0, 3, 1, 4, 2})
		values := torch.ToSlice[uint8](x.AddScalar(1).MulScalar(127.5).Clamp(torch.WithMin(0), torch.WithMax(255)))
		for i := range 8 * size * 8 * size {
			picture.Set(i%(8*size), i/(8*size), color.NRGBA{values[3*i], values[3*i+1], values[3*i+2], 255})
		}
	})
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := png.Encode(file, picture); err != nil {
		return err
	}
	return file.Close()
}
