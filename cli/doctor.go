package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"cyclecap/internal/processor"
	"cyclecap/internal/selftest"
	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// report is the result of doctor, in the form that --json prints.
type report struct {
	Cyclecap     string            `json:"cyclecap"`
	Go           string            `json:"go"`
	Platform     string            `json:"platform"`
	Libtorch     string            `json:"libtorch"`
	BuiltFor     string            `json:"built_for"`
	LibtorchPath string            `json:"libtorch_path"`
	ShimPath     string            `json:"shim_path"`
	Devices      []string          `json:"devices"`
	CUDA         string            `json:"cuda"` // "ok", or why CUDA cannot be used
	Threads      int               `json:"threads"`
	Cores        int               `json:"cores"`
	Instructions string            `json:"instruction_set"`
	BF16         bool              `json:"bf16"` // the processor has bf16 instructions
	Int8         bool              `json:"int8"` // and those for --dtype int8
	MKL          bool              `json:"mkl"`
	OneDNN       bool              `json:"onednn"`
	OpenMP       bool              `json:"openmp"`
	Gloo         bool              `json:"gloo"`
	NCCL         bool              `json:"nccl"`
	Images       map[string]string `json:"image_libraries"`
	References   string            `json:"python_references"` // their Python interpreter, "" if they are not installed
	Problems     []string          `json:"problems"`
	Hints        []string          `json:"hints"`
	SelfTest     *selfTestReport   `json:"self_test,omitempty"`
}

// selfTestReport is the result of doctor --self-test.
type selfTestReport struct {
	Device  string            `json:"device"`
	Seconds float64           `json:"seconds"`
	Checks  []selftest.Result `json:"checks"`
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "describe the installation, what is missing and how to get it; test a device",
		UsageText: "[--self-test [--device DEVICE]] [--json]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "self-test", Usage: "run every kind of network, training step and decoding on a device, and check the results", DisableDefaultText: true},
			&cli.StringFlag{Name: "device", Usage: "test `DEVICE`: cpu or cuda:N", DefaultText: "cuda:0 if there is a GPU, otherwise cpu"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true},
		},
		Description: `The exit code is 1 if there is a problem or a check of the self-test fails.
Optional parts that are missing (CUDA, the Python references) are not problems.

--self-test takes less than half a minute. It builds small networks with random
weights, computes with them on the device in f32 and bf16, and compares the results
with those of the CPU in f64. It prints the largest difference of each check and the
bound that it must not exceed.

EXAMPLES:
   cyclecap doctor
   cyclecap doctor --self-test
   cyclecap doctor --self-test --device cuda:1
   cyclecap doctor --json | jq .devices
   cyclecap doctor --self-test --json | jq '.self_test.checks[] | select(.ok | not)'`,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("doctor takes no arguments, got %q", c.Args().First())
			}
			if c.IsSet("device") && !c.Bool("self-test") {
				return usagef("--device requires --self-test")
			}
			r := examine()
			test := c.Bool("self-test") && r.Libtorch != ""
			var device torch.Device
			if test {
				var err error
				if device, err = selfTestDevice(c); err != nil {
					return err
				}
			}
			if !c.Bool("json") {
				r.print(c)
			}
			if test {
				if err := r.selfTest(c, device); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				e.SetEscapeHTML(false)
				if err := e.Encode(r); err != nil {
					return err
				}
			} else {
				r.conclude(c)
			}
			if len(r.Problems) > 0 {
				return errReported
			}
			return nil
		},
	}
}

// selfTestDevice returns the device that --device names, or the default.
func selfTestDevice(c *cli.Context) (torch.Device, error) {
	if c.IsSet("device") {
		return deviceOf(c.String("device"))
	}
	if n, _ := torch.CUDADevices(); n > 0 {
		return torch.CUDA(0), nil
	}
	return torch.CPU, nil
}

// selfTest runs the self-test and adds its result to the report. Without --json, it
// prints each check as soon as it is done.
func (r *report) selfTest(c *cli.Context, d torch.Device) error {
	checks := selftest.Checks()
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "\nself-test on %v, compared with f64 on the CPU\n", d)
	}
	t := &selfTestReport{Device: d.String(), Checks: []selftest.Result{}}
	begin := time.Now()
	bar := newProgress(c.App.ErrWriter, "checks", len(checks))
	failed := 0
	err := selftest.Run(c.Context, d, checks, func(x selftest.Result) {
		t.Checks = append(t.Checks, x)
		if !x.OK {
			failed++
		}
		if !c.Bool("json") {
			bar.hide()
			fmt.Fprintf(c.App.Writer, "%-44s %s\n", x.Name, verdict(x))
		}
		bar.add(1)
	})
	bar.finish()
	if err != nil {
		return err
	}
	t.Seconds = time.Since(begin).Seconds()
	r.SelfTest = t
	if failed > 0 {
		what := fmt.Sprintf("%d of %d checks of the self-test failed on %v: do not trust results computed there; ", failed, len(checks), d)
		if d == torch.CPU {
			what += "reinstall libtorch, and if the self-test still fails, report it with the output of `cyclecap doctor --self-test --json`"
		} else {
			what += "if `cyclecap doctor --self-test --device cpu` passes, update the GPU's driver or install a libtorch that was built for this GPU; until then, use --device cpu"
		}
		r.Problems = append(r.Problems, what)
	}
	return nil
}

func verdict(x selftest.Result) string {
	switch {
	case x.Error != "":
		return "FAILED: " + oneLine(x.Error)
	case !x.OK:
		return fmt.Sprintf("difference %.1e, bound %.0e: FAILED", x.Difference, x.Bound)
	}
	return fmt.Sprintf("difference %.1e, bound %.0e: ok", x.Difference, x.Bound)
}

func examine() report {
	n, why := torch.CUDADevices()
	b, err := torch.BuildInfo()
	loaded := mappedLibraries()
	r := report{
		Cyclecap: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Libtorch: b.Version, BuiltFor: b.Compiled, LibtorchPath: b.Path, ShimPath: loaded["libcyclecap_torch"],
		Devices: []string{"cpu"}, CUDA: "ok", Threads: torch.NumThreads(), Cores: runtime.NumCPU(),
		Instructions: b.Capability, BF16: processor.HasBF16(), Int8: torch.HasInt8(), MKL: b.MKL, OneDNN: b.MKLDNN, OpenMP: b.OpenMP,
		Gloo: b.Gloo, NCCL: b.NCCL, Images: map[string]string{}, References: references(),
		Problems: []string{}, Hints: []string{},
	}
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	for i := range n {
		r.Devices = append(r.Devices, torch.CUDA(i).String())
	}
	r.Devices = append(r.Devices, "meta")
	if why != nil {
		r.CUDA = why.Error()
	}
	if r.Libtorch == "" {
		r.Devices, r.CUDA = []string{}, "no libtorch"
	}
	for _, name := range []string{"libjpeg", "libwebp"} {
		if loaded[name] != "" {
			r.Images[name] = loaded[name]
		}
	}
	if r.References == "" && release == "" {
		r.Hints = append(r.Hints, "the Python references are not installed; only `make parity` and `make bench` need them, and `make references` gets them (5 GB)")
	}
	if !r.BF16 {
		r.Hints = append(r.Hints, "this processor has no bf16 instructions: --dtype bf16 saves memory here, but no time")
	}
	if err == nil && !r.Int8 {
		r.Hints = append(r.Hints, "this processor has no AVX-512 VNNI: --dtype int8 computes with packed f32 weights here, as --fast does")
	}
	return r
}

var libraryName = regexp.MustCompile(`^(lib[A-Za-z_]+?)[-0-9.]*\.so[.0-9]*$`)

// mappedLibraries returns the files of the shared libraries in use, keyed by name
// without version, if the system lists them.
func mappedLibraries() map[string]string {
	found := map[string]string{}
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return found
	}
	for line := range strings.Lines(string(text)) {
		_, path, ok := strings.Cut(line, "/")
		if path = "/" + strings.TrimSpace(path); !ok {
			continue
		}
		if m := libraryName.FindStringSubmatch(filepath.Base(path)); m != nil {
			found[m[1]] = path
		}
	}
	return found
}

// references returns the Python interpreter of the checkout that this binary was
// built in, if `make references` has run there.
func references() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	venv := filepath.Join(filepath.Dir(exe), "..", ".venv")
	if _, err := os.Stat(filepath.Join(venv, "references")); err != nil {
		return ""
	}
	return filepath.Join(venv, "bin", "python")
}

func (r report) print(c *cli.Context) {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	w := c.App.Writer
	row := func(name, value string) { fmt.Fprintf(w, "%-18s %s\n", name, value) }
	row("cyclecap", r.Cyclecap)
	row("Go", r.Go+" "+r.Platform)
	if r.Libtorch == "" {
		row("libtorch", "not usable: captions, features and training need it; eval, tokenize and world do not")
	} else {
		row("libtorch", fmt.Sprintf("%s (the shim was built for %s)", r.Libtorch, r.BuiltFor))
		row("", r.LibtorchPath)
		row("shim", r.ShimPath)
		row("devices", strings.Join(r.Devices, ", "))
		row("CUDA", r.CUDA)
		row("threads", fmt.Sprintf("%d of %d cores", r.Threads, r.Cores))
		row("instructions", r.Instructions)
		row("MKL, oneDNN", yes(r.MKL)+", "+yes(r.OneDNN))
		row("OpenMP", yes(r.OpenMP))
		row("Gloo, NCCL", yes(r.Gloo)+", "+yes(r.NCCL))
		row("int8 in hardware", yes(r.Int8))
	}
	row("bf16 in hardware", yes(r.BF16))
	for _, name := range []string{"libjpeg", "libwebp"} {
		row(name, r.Images[name])
	}
	if r.References != "" {
		row("Python references", r.References)
	} else {
		row("Python references", "no")
	}
	for _, h := range r.Hints {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}

// conclude prints the problems.
func (r report) conclude(c *cli.Context) {
	w := c.App.Writer
	if t := r.SelfTest; t != nil && len(r.Problems) == 0 {
		fmt.Fprintf(w, "all %d checks passed in %.1f s\n", len(t.Checks), t.Seconds)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: problem: %s\n", p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "no problems found")
	}
}
