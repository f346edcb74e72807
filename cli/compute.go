package cli

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/sets"
	"cyclecap/pipeline"
	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// computeFlags returns the flags that all commands that run a network share.
func computeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Value: "cpu", Usage: "compute on `DEVICE`: cpu or cuda:N"},
		&cli.StringFlag{Name: "dtype", Value: "f32", Usage: "compute with `TYPE` weights: f32 (the same bits as PyTorch), bf16 (half the memory, faster) or int8 (linear layers in 8 bits, for the CPU: fastest, and less precise)"},
		&cli.BoolFlag{Name: "fast", Usage: "pack f32 weights for the CPU: up to twice as fast, with different low-order bits (bf16 and int8 are always packed)", DisableDefaultText: true},
		&cli.IntFlag{Name: "threads", Value: 0, Usage: "use `N` threads per operator", DefaultText: "one per core"},
	}
}

var devices = regexp.MustCompile(`^(cpu|cuda(:[0-9]{1,4})?)$`)

// computeOf parses computeFlags and sets the number of threads.
func computeOf(c *cli.Context) (pipeline.Options, error) {
	o := pipeline.Options{Pack: c.Bool("fast")}
	n := c.Int("threads")
	if most := pipeline.MaxThreads(); n < 0 || n > most {
		return o, usagef("--threads %d: must be between 1 and %d on this machine, or 0 for one per core", n, most)
	}
	if o.Int8 = c.String("dtype") == "int8"; !o.Int8 {
		dtype, err := torch.ParseDType(c.String("dtype"))
		if err != nil || (dtype != torch.Float32 && dtype != torch.BFloat16) {
			return o, usagef("--dtype %s: must be f32 or bf16, or int8 on the CPU", c.String("dtype"))
		}
		o.BF16 = dtype == torch.BFloat16
	}
	if name := c.String("device"); o.Int8 && devices.MatchString(name) && name != "cpu" {
		return o, usagef("--dtype int8 is for the CPU, not for --device %s: use --dtype bf16 or f32 there", name)
	}
	var err error
	if o.Device, err = deviceOf(c.String("device")); err != nil {
		return o, err
	}
	o, said := o.Usable()
	if said != "" {
		note(c, "--dtype int8: %s", said)
	}
	if n > 0 {
		torch.SetNumThreads(n)
	}
	if cores := runtime.NumCPU(); n > cores {
		note(c, "--threads %d: more threads than the %d cores slow each other down", n, cores)
	}
	if c.Bool("fast") && o.Device != torch.CPU {
		note(c, "--fast applies to the CPU and has no effect on %v", o.Device)
	}
	return o, nil
}

// deviceOf parses the value of --device.
func deviceOf(name string) (torch.Device, error) {
	if !devices.MatchString(name) {
		return torch.CPU, usagef("--device %s: must be cpu, cuda or cuda:N, where N is a number", name)
	}
	if _, err := torch.BuildInfo(); err != nil {
		return torch.CPU, err // for example a shim built for another libtorch
	}
	d, err := torch.ParseDevice(name)
	if err != nil {
		return d, fmt.Errorf("--device: %w", err)
	}
	return d, nil
}

// checkBatch checks --batch.
func checkBatch(c *cli.Context) error {
	if n := c.Int("batch"); n < 1 || n > 4096 {
		return usagef("--batch %d: must be between 1 and 4096", n)
	}
	return nil
}

// tally counts photos that were read and those that could not be.
type tally struct {
	seen, failed int // photos
	tars         int // tars and tables that could not be read to their end
}

// count adds other counts.
func (t *tally) count(seen, failed, tars int) {
	t.seen, t.failed, t.tars = t.seen+seen, t.failed+failed, t.tars+tars
}

// add counts the photos of a batch and prints what could not be read.
func (t *tally) add(bar *progress, read int, failed []photo.Failure) {
	t.seen += read
	for _, f := range failed {
		bar.line("cyclecap: %s", oneLine(strings.TrimPrefix(f.Error(), "photo: ")))
		if of := (*sets.ArchiveError)(nil); errors.As(f, &of) {
			t.tars++
			continue
		}
		t.seen++
		t.failed++
	}
}

// bad reports whether something could not be read.
func (t *tally) bad() bool { return t.failed+t.tars > 0 }

// say says what could not be read, or be captioned.
func (t *tally) say(done string) string {
	var list []string
	if t.failed > 0 {
		list = append(list, fmt.Sprintf("%d of %d photos could not be %s", t.failed, t.seen, done))
	}
	if t.tars > 0 {
		list = append(list, fmt.Sprintf("%d %s not read to the end", t.tars, map[bool]string{true: "file was", false: "files were"}[t.tars == 1]))
	}
	return strings.Join(list, ", and ")
}
