package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// report is what doctor finds, in the form of --json.
type report struct {
	Cyclecap     string            `json:"cyclecap"`
	Go           string            `json:"go"`
	Platform     string            `json:"platform"`
	Libtorch     string            `json:"libtorch"`
	BuiltFor     string            `json:"built_for"`
	LibtorchPath string            `json:"libtorch_path"`
	ShimPath     string            `json:"shim_path"`
	Devices      []string          `json:"devices"`
	CUDA         string            `json:"cuda"` // why there is none, or "ok"
	Threads      int               `json:"threads"`
	Cores        int               `json:"cores"`
	Instructions string            `json:"instruction_set"`
	BF16         bool              `json:"bf16"` // the processor multiplies bf16 itself
	MKL          bool              `json:"mkl"`
	OneDNN       bool              `json:"onednn"`
	OpenMP       bool              `json:"openmp"`
	Gloo         bool              `json:"gloo"`
	NCCL         bool              `json:"nccl"`
	Images       map[string]string `json:"image_libraries"`
	References   string            `json:"python_references"` // the interpreter, "" where there are none
	Problems     []string          `json:"problems"`
	Hints        []string          `json:"hints"`
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "say what this installation is made of, what is missing and how to get it",
		UsageText: "[--json]",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true}},
		Description: `The exit code is 1 where something is wrong; what is merely absent (CUDA, the
Python references) is a hint.

EXAMPLES:
   cyclecap doctor
   cyclecap doctor --json | jq .devices`,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("doctor takes no arguments, not %q", c.Args().First())
			}
			r := examine()
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				e.SetEscapeHTML(false)
				if err := e.Encode(r); err != nil {
					return err
				}
			} else {
				r.print(c)
			}
			if len(r.Problems) > 0 {
				return errReported
			}
			return nil
		},
	}
}

func examine() report {
	// CUDA's part brings NCCL: it is opened before the build is asked.
	n, why := torch.CUDADevices()
	b, err := torch.BuildInfo()
	loaded := mappedLibraries()
	r := report{
		Cyclecap: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Libtorch: b.Version, BuiltFor: b.Compiled, LibtorchPath: b.Path, ShimPath: loaded["libcyclecap_torch"],
		Devices: []string{"cpu"}, CUDA: "ok", Threads: torch.NumThreads(), Cores: runtime.NumCPU(),
		Instructions: b.Capability, BF16: bf16InHardware(), MKL: b.MKL, OneDNN: b.MKLDNN, OpenMP: b.OpenMP,
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
		r.Hints = append(r.Hints, "the Python references are not here; only `make parity` and `make bench` need them, and `make references` gets them (5 GB)")
	}
	if !r.BF16 {
		r.Hints = append(r.Hints, "this processor has no bf16 arithmetic: --dtype bf16 saves memory here, not time")
	}
	return r
}

var libraryName = regexp.MustCompile(`^(lib[A-Za-z_]+?)[-0-9.]*\.so[.0-9]*$`)

// mappedLibraries gives the files of the shared libraries in use by name
// without version, where the system tells them.
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

// references gives the Python of the checkout that this binary was built in,
// if `make references` has been there.
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

var bf16Flag = regexp.MustCompile(`\b(avx512_bf16|amx_bf16|bf16)\b`)

// bf16InHardware reads the processor's flags, where the system tells them.
func bf16InHardware() bool {
	text, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bf16Flag.Match(text)
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
		row("libtorch", "no: captions, features and trainings are not possible; eval, tokenize and world are")
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
	for _, p := range r.Problems {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: problem: %s\n", p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "all that is needed is here")
	}
}
