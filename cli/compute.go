package cli

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/torch"
	"cyclecap/torch/nn"

	"github.com/urfave/cli/v2"
)

// computeFlags are of every command that computes.
func computeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Value: "cpu", Usage: "`DEVICE` to compute on: cpu or cuda:N"},
		&cli.StringFlag{Name: "dtype", Value: "f32", Usage: "`TYPE` of the weights: f32 (PyTorch's bits) or bf16 (half the memory, faster)"},
		&cli.BoolFlag{Name: "fast", Usage: "f32 with weights packed for the processor: about twice as fast, other last bits (bf16 is always packed)"},
		&cli.IntFlag{Name: "threads", Value: 0, Usage: "`N` threads for one operator", DefaultText: "one for each core"},
	}
}

// compute is what computeFlags say.
type compute struct {
	device torch.Device
	dtype  torch.DType
	packed bool // linear layers compute from packed weights
}

var devices = regexp.MustCompile(`^(cpu|cuda(:[0-9]{1,4})?)$`)

// computeOf reads computeFlags and sets the number of threads.
func computeOf(c *cli.Context) (compute, error) {
	var o compute
	var err error
	n := c.Int("threads")
	if n < 0 || n > 1024 {
		return o, usagef("--threads %d: 1 to 1024 are possible, or 0 for one for each core", n)
	}
	if o.dtype, err = torch.ParseDType(c.String("dtype")); err != nil || (o.dtype != torch.Float32 && o.dtype != torch.BFloat16) {
		return o, usagef("--dtype %s: f32 and bf16 are possible", c.String("dtype"))
	}
	device := c.String("device")
	if !devices.MatchString(device) {
		return o, usagef("--device %s: cpu, cuda and cuda:N (a number) are possible", device)
	}
	if _, err := torch.BuildInfo(); err != nil {
		return o, err // the shim was built for another libtorch
	}
	if o.device, err = torch.ParseDevice(device); err != nil {
		return o, fmt.Errorf("--device: %w", err)
	}
	if n > 0 {
		torch.SetNumThreads(n)
	}
	// bf16 has no bits of PyTorch's to keep; in f32 they are the default.
	o.packed = o.device == torch.CPU && (c.Bool("fast") || o.dtype == torch.BFloat16)
	if c.Bool("fast") && o.device != torch.CPU {
		note(c, "--fast is about the CPU and changes nothing on %v", o.device)
	}
	return o, nil
}

// checkBatch checks --batch.
func checkBatch(c *cli.Context) error {
	if n := c.Int("batch"); n < 1 || n > 4096 {
		return usagef("--batch %d: 1 to 4096 are possible", n)
	}
	return nil
}

// options gives o for a tensor or a module that moves there.
func (o compute) options() []torch.Option {
	return []torch.Option{torch.WithDevice(o.device), torch.WithDType(o.dtype)}
}

// convert brings modules to the device and the precision, and packs them.
// Archives in half precision become f32: the CPU computes in that or in bf16.
func (o compute) convert(modules ...any) {
	for _, m := range modules {
		nn.To(m, o.options()...)
		if o.packed {
			nn.Pack(m)
		}
	}
}

// decoders is how many photos are decoded at once, beside the computation.
func decoders() int { return max(1, runtime.NumCPU()/2) }

// reportFailed names the photos of a batch that could not be read, and counts
// them.
func reportFailed(bar *progress, b *photo.Batch) int {
	for _, f := range b.Failed {
		bar.line("cyclecap: %s", oneLine(strings.TrimPrefix(f.Error(), "photo: ")))
	}
	return len(b.Failed)
}
