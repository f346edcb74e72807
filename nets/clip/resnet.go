package clip

import (
	"fmt"
	"math"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// ResNet is OpenAI's ModifiedResNet as image encoder: three convolutions at the start
// instead of one, average pooling in place of strided convolutions, and attention in
// place of the last pooling.
type ResNet struct {
	Conv1    *nn.ConvModule `name:"conv1"`
	BN1      *BatchNorm     `name:"bn1"`
	Conv2    *nn.ConvModule `name:"conv2"`
	BN2      *BatchNorm     `name:"bn2"`
	Conv3    *nn.ConvModule `name:"conv3"`
	BN3      *BatchNorm     `name:"bn3"`
	Layer1   []*Bottleneck  `name:"layer1"`
	Layer2   []*Bottleneck  `name:"layer2"`
	Layer3   []*Bottleneck  `name:"layer3"`
	Layer4   []*Bottleneck  `name:"layer4"`
	AttnPool *AttentionPool `name:"attnpool"`
}

// Bottleneck is a residual block. The one that begins a stage halves the image, except
// in the first stage.
type Bottleneck struct {
	nn.Hook
	Conv1      *nn.ConvModule `name:"conv1"`
	BN1        *BatchNorm     `name:"bn1"`
	Conv2      *nn.ConvModule `name:"conv2"`
	BN2        *BatchNorm     `name:"bn2"`
	Conv3      *nn.ConvModule `name:"conv3"`
	BN3        *BatchNorm     `name:"bn3"`
	Downsample *Downsample    // nil where the input has the shape of the output
	stride     int64
}

// Downsample brings the input of a Bottleneck to the shape of its output.
type Downsample struct {
	Conv *nn.ConvModule `name:"0"`
	BN   *BatchNorm     `name:"1"`
}

// BatchNorm is torch.nn.BatchNorm2d. It normalizes with the running statistics of
// training, or while it is trained (Model.Train) with those of the batch, which it adds
// to the running ones. Files also count the batches of training in num_batches_tracked,
// which is not needed here.
type BatchNorm struct {
	nn.Hook
	Weight, Bias torch.Tensor
	RunningMean  torch.Tensor `buffer:"true"`
	RunningVar   torch.Tensor `buffer:"true"`
	// Packed is the convolution before it, with this folded into its weights; set by nn.Pack.
	Packed   *nn.PackedConv `name:"-"`
	training bool
}

// AttentionPool returns the attention of the mean of all positions to them.
type AttentionPool struct {
	nn.Hook
	PositionalEmbedding torch.Tensor
	KProj               *nn.LinearModule
	QProj               *nn.LinearModule
	VProj               *nn.LinearModule
	CProj               *nn.LinearModule
	heads               int64
}

// newResNet returns a ResNet of the right shapes with the initial weights of PyTorch's
// modules, but without a positional embedding.
func newResNet(c Config) *ResNet {
	w := c.VisionWidth
	r := &ResNet{
		Conv1: nn.Conv2d(3, w/2, []int64{3}, nn.ConvOptions{Stride: []int64{2}, Padding: []int64{1}}), BN1: newBatchNorm(w / 2),
		Conv2: nn.Conv2d(w/2, w/2, []int64{3}, nn.ConvOptions{Padding: []int64{1}}), BN2: newBatchNorm(w / 2),
		Conv3: nn.Conv2d(w/2, w, []int64{3}, nn.ConvOptions{Padding: []int64{1}}), BN3: newBatchNorm(w),
	}
	in := w
	stage := func(planes, blocks, stride int64) (list []*Bottleneck) {
		for range blocks {
			list = append(list, newBottleneck(in, planes, stride))
			in, stride = 4*planes, 1
		}
		return list
	}
	r.Layer1 = stage(w, c.ResNet[0], 1)
	r.Layer2 = stage(2*w, c.ResNet[1], 2)
	r.Layer3 = stage(4*w, c.ResNet[2], 2)
	r.Layer4 = stage(8*w, c.ResNet[3], 2)
	d, grid := c.attended(), c.ImageSize/reduction
	r.AttnPool = &AttentionPool{
		PositionalEmbedding: param(grid*grid+1, d),
		KProj:               nn.Linear(d, d, true), QProj: nn.Linear(d, d, true), VProj: nn.Linear(d, d, true),
		CProj: nn.Linear(d, c.EmbedDim, true),
		heads: c.visionHeads(),
	}
	return r
}

// epsilon is added to the variances.
const epsilon = 1e-5

// reduction is the number of pixels of an image to a position of its last stage, along
// each side.
const reduction = 32

func newBottleneck(in, planes, stride int64) *Bottleneck {
	b := &Bottleneck{
		Conv1: nn.Conv2d(in, planes, []int64{1}, nn.ConvOptions{}), BN1: newBatchNorm(planes),
		Conv2: nn.Conv2d(planes, planes, []int64{3}, nn.ConvOptions{Padding: []int64{1}}), BN2: newBatchNorm(planes),
		Conv3: nn.Conv2d(planes, 4*planes, []int64{1}, nn.ConvOptions{}), BN3: newBatchNorm(4 * planes),
		stride: stride,
	}
	if stride > 1 || in != 4*planes {
		b.Downsample = &Downsample{Conv: nn.Conv2d(in, 4*planes, []int64{1}, nn.ConvOptions{}), BN: newBatchNorm(4 * planes)}
	}
	return b
}

func newBatchNorm(n int64) *BatchNorm {
	shape := []int64{n}
	return &BatchNorm{
		Weight: torch.Ones(shape).Keep().SetRequiresGrad(true), Bias: torch.Zeros(shape).Keep().SetRequiresGrad(true),
		RunningMean: torch.Zeros(shape).Keep(), RunningVar: torch.Ones(shape).Keep(),
	}
}

// initialize sets the weights as OpenAI's initialize_parameters does.
func (r *ResNet) initialize() {
	p := r.AttnPool
	std := math.Pow(float64(p.PositionalEmbedding.Size(1)), -0.5)
	for _, t := range []torch.Tensor{p.PositionalEmbedding, p.QProj.Weight, p.KProj.Weight, p.VProj.Weight, p.CProj.Weight} {
		normal(t, std)
	}
	for _, b := range r.blocks() {
		b.BN3.Weight.Zero_() // each block begins as the identity
	}
}

// blocks lists the blocks of all stages.
func (r *ResNet) blocks() []*Bottleneck {
	return slices.Concat(r.Layer1, r.Layer2, r.Layer3, r.Layer4)
}

// train sets whether each batch is normalized with its own statistics.
func (r *ResNet) train(on bool) {
	norms := []*BatchNorm{r.BN1, r.BN2, r.BN3}
	for _, b := range r.blocks() {
		norms = append(norms, b.BN1, b.BN2, b.BN3)
		if b.Downsample != nil {
			norms = append(norms, b.Downsample.BN)
		}
	}
	for _, n := range norms {
		n.training = on
	}
}

// resNetSizes infers the fields of a ResNet.
func (c *Config) resNetSizes(n *needed) error {
	conv, pos := n.sizes("visual.layer1.0.conv1.weight", 4), n.sizes("visual.attnpool.positional_embedding", 2)
	proj := n.sizes("visual.attnpool.c_proj.weight", 2)
	if n.err != nil {
		return n.err
	}
	c.VisionWidth, c.EmbedDim = conv[0], proj[0]
	if c.VisionWidth%2 != 0 {
		return fmt.Errorf("visual.layer1.0.conv1.weight has shape %v: its first size must be even", conv)
	}
	grid, err := square(pos[0], "visual.attnpool.positional_embedding")
	if err != nil {
		return err
	}
	c.ImageSize = grid * reduction
	if c.ImageSize > maxImageSize {
		return fmt.Errorf("images of %d pixels; at most %d pixels are supported", c.ImageSize, maxImageSize)
	}
	for i := range c.ResNet {
		c.ResNet[i] = count(n.sd, fmt.Sprintf("visual.layer%d.", i+1), ".conv1.weight")
	}
	c.VisionHeads = c.attended() / headDim
	return nil
}

// Forward maps photos [n, 3, size, size] to features [n, embed].
func (r *ResNet) Forward(x torch.Tensor) torch.Tensor {
	x = torch.Tidy(func() torch.Tensor {
		y := r.BN1.after(r.Conv1, x, torch.ReLU)
		y = r.BN2.after(r.Conv2, y, torch.ReLU)
		return pool(r.BN3.after(r.Conv3, y, torch.ReLU), 2)
	})
	for _, b := range r.blocks() {
		x = torch.Tidy(func() torch.Tensor { return b.Forward(x) })
	}
	return r.AttnPool.Forward(x)
}

// Forward maps [n, in, h, w] to [n, 4 planes, h/stride, w/stride]. Without Downsample, and after
// nn.Pack, the result is in the place of x.
func (b *Bottleneck) Forward(x torch.Tensor) torch.Tensor {
	y := b.BN1.after(b.Conv1, x, torch.ReLU)
	y = pool(b.BN2.after(b.Conv2, y, torch.ReLU), b.stride)
	if d := b.Downsample; d != nil {
		x = d.BN.after(d.Conv, pool(x, b.stride), torch.NoActivation)
	}
	return b.Output(b.BN3.add(b.Conv3, y, x))
}

// pool averages squares of n pixels.
func pool(x torch.Tensor, n int64) torch.Tensor {
	if n == 1 {
		return x
	}
	return x.AvgPool2d([]int64{n, n}, torch.WithStride([]int64{n, n}))
}

// Forward normalizes each channel of x [n, channels, h, w].
func (b *BatchNorm) Forward(x torch.Tensor) torch.Tensor {
	return b.Output(torch.BatchNorm(x, b.Weight, b.Bias, b.RunningMean, b.RunningVar, b.training, 0.1, epsilon, true))
}

// packed returns c with b folded into it, or nil without nn.Pack, and where somebody sees the
// outputs of c or b.
func (b *BatchNorm) packed(c *nn.ConvModule) *nn.PackedConv {
	if b.Observed() || c.Observed() {
		return nil
	}
	return b.Packed
}

// after returns f(b(c(x))). f is ReLU or NoActivation.
func (b *BatchNorm) after(c *nn.ConvModule, x torch.Tensor, f torch.Activation) torch.Tensor {
	if p := b.packed(c); p != nil {
		return p.Forward(x, f)
	}
	if x = b.Forward(c.Forward(x)); f == torch.ReLU {
		x = x.Relu_()
	}
	return x
}

// add returns the ReLU of b(c(x)) + y. A packed convolution writes it into y.
func (b *BatchNorm) add(c *nn.ConvModule, x, y torch.Tensor) torch.Tensor {
	if p := b.packed(c); p != nil {
		return p.ForwardAdd_(x, y)
	}
	return b.Forward(c.Forward(x)).Add_(y).Relu_()
}

// pack folds b into c, whose inputs have size x size pixels.
func (b *BatchNorm) pack(c *nn.ConvModule, size int64) {
	torch.Tidy(func() torch.Tensor {
		f64 := torch.WithDType(torch.Float64)
		scale := b.Weight.To(f64).Div(b.RunningVar.To(f64).AddScalar(epsilon).Sqrt())
		b.Packed = nn.NewPackedConv(c, scale, b.Bias.To(f64).Sub(b.RunningMean.To(f64).Mul(scale)), []int64{size, size})
		return torch.Tensor{}
	})
}

// Pack packs the convolutions; nn.Pack calls it. They keep their own weights too, with which they
// compute where somebody sees the outputs of the modules inside.
func (r *ResNet) Pack(nn.Packing) {
	if r.BN1.Packed != nil {
		return
	}
	grid, err := square(r.AttnPool.PositionalEmbedding.Size(0), "visual.attnpool.positional_embedding")
	if err != nil {
		torch.Throw("clip.pack", "%v", err)
	}
	size := grid * reduction
	r.BN1.pack(r.Conv1, size)
	r.BN2.pack(r.Conv2, size/2)
	r.BN3.pack(r.Conv3, size/2)
	size /= 4
	for _, b := range r.blocks() {
		b.BN1.pack(b.Conv1, size)
		b.BN2.pack(b.Conv2, size)
		size /= b.stride
		b.BN3.pack(b.Conv3, size)
		if d := b.Downsample; d != nil {
			d.BN.pack(d.Conv, size)
		}
	}
}

// Forward maps [n, width, h, w] to [n, embed]. The order of the dimensions is that of
// F.multi_head_attention_forward, on which low-order bits depend; like OpenAI's code,
// it attends from every position and keeps the first. With packed weights, only the first attends,
// unless somebody sees the outputs of the modules inside.
func (p *AttentionPool) Forward(x torch.Tensor) torch.Tensor {
	n, width := x.Size(0), x.Size(1)
	x = x.Reshape([]int64{n, width, -1}).Permute([]int64{2, 0, 1}) // [positions, n, width]
	x = torch.Cat([]torch.Tensor{x.MeanDim([]int64{0}, torch.WithKeepdim(true)), x})
	x = x.Add(p.PositionalEmbedding.Unsqueeze(1))
	from := x
	if p.QProj.Packed != nil && !p.QProj.Observed() && !p.CProj.Observed() {
		from = x.Narrow(0, 0, 1)
	}
	heads := func(l *nn.LinearModule, x torch.Tensor) torch.Tensor {
		t := x.Size(0)
		return l.Forward(x).View([]int64{t, n * p.heads, width / p.heads}).Transpose(0, 1).View([]int64{n, p.heads, t, width / p.heads})
	}
	y := torch.ScaledDotProductAttention(heads(p.QProj, from), heads(p.KProj, x), heads(p.VProj, x))
	t := from.Size(0)
	y = y.Permute([]int64{2, 0, 1, 3}).Contiguous().View([]int64{n * t, width})
	return p.Output(p.CProj.Forward(y).View([]int64{t, n, -1}).Select(0, 0))
}
