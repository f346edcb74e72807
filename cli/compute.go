package cli

import (
	"fmt"
	"regexp"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/pipeline"
	"cyclecap/torch"

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

var devices = regexp.MustCompile(`^(cpu|cuda(:[0-9]{1,4})?)$`)

// computeOf reads computeFlags and sets the number of threads.
func computeOf(c *cli.Context) (pipeline.Options, error) {
	o := pipeline.Options{Pack: c.Bool("fast")}
	n := c.Int("threads")
	if n < 0 || n > 1024 {
		return o, usagef("--threads %d: 1 to 1024 are possible, or 0 for one for each core", n)
	}
	dtype, err := torch.ParseDType(c.String("dtype"))
	if err != nil || (dtype != torch.Float32 && dtype != torch.BFloat16) {
		return o, usagef("--dtype %s: f32 and bf16 are possible", c.String("dtype"))
	}
	o.BF16 = dtype == torch.BFloat16
	device := c.String("device")
	if !devices.MatchString(device) {
		return o, usagef("--device %s: cpu, cuda and cuda:N (a number) are possible", device)
	}
	if _, err := torch.BuildInfo(); err != nil {
		return o, err // the shim was built for another libtorch
	}
	if o.Device, err = torch.ParseDevice(device); err != nil {
		return o, fmt.Errorf("--device: %w", err)
	}
	if n > 0 {
		torch.SetNumThreads(n)
	}
	if c.Bool("fast") && o.Device != torch.CPU {
		note(c, "--fast is about the CPU and changes nothing on %v", o.Device)
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

// reportFailed names photos that could not be read, and counts them.
func reportFailed(bar *progress, failed []photo.Failure) int {
	for _, f := range failed {
		bar.line("cyclecap: %s", oneLine(strings.TrimPrefix(f.Error(), "photo: ")))
	}
	return len(failed)
}
