package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"

	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// report is what doctor finds, in the form of --json.
type report struct {
	Cyclecap     string   `json:"cyclecap"`
	Go           string   `json:"go"`
	Libtorch     string   `json:"libtorch"`
	BuiltFor     string   `json:"built_for"`
	LibtorchPath string   `json:"libtorch_path"`
	Devices      []string `json:"devices"`
	CUDA         string   `json:"cuda"` // why there is none, or "ok"
	Threads      int      `json:"threads"`
	Cores        int      `json:"cores"`
	InstructionS string   `json:"instruction_set"`
	BF16         bool     `json:"bf16"` // the processor multiplies bf16 itself
	MKL          bool     `json:"mkl"`
	OneDNN       bool     `json:"onednn"`
	OpenMP       bool     `json:"openmp"`
	Gloo         bool     `json:"gloo"`
	NCCL         bool     `json:"nccl"`
	Problems     []string `json:"problems"`
	Hints        []string `json:"hints"`
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "say what this installation is made of, what is missing and how to get it",
		UsageText: "[--json]",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print one JSON object"}},
		Description: `EXAMPLES:
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
	b, err := torch.BuildInfo()
	r := report{
		Cyclecap: version(), Go: runtime.Version(), Libtorch: b.Version, BuiltFor: b.Compiled, LibtorchPath: b.Path,
		Devices: []string{"cpu"}, CUDA: "ok", Threads: torch.NumThreads(), Cores: runtime.NumCPU(),
		InstructionS: b.Capability, BF16: bf16InHardware(), MKL: b.MKL, OneDNN: b.MKLDNN, OpenMP: b.OpenMP,
		Problems: []string{}, Hints: []string{},
	}
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	n, why := torch.CUDADevices()
	for i := range n {
		r.Devices = append(r.Devices, torch.CUDA(i).String())
	}
	if why != nil {
		r.CUDA = why.Error()
	}
	r.Devices = append(r.Devices, "meta")
	// NCCL is in the CUDA part, which the question above has opened.
	if b, err := torch.BuildInfo(); err == nil {
		r.Gloo, r.NCCL = b.Gloo, b.NCCL
	}
	if !r.BF16 {
		r.Hints = append(r.Hints, "this processor has no bf16 arithmetic: --dtype bf16 saves memory here, not time")
	}
	if os.Getenv("OMP_WAIT_POLICY") == "" && r.Threads >= r.Cores {
		r.Hints = append(r.Hints, "if other programs compute on these cores at the same time, set OMP_WAIT_POLICY=PASSIVE: threads that spin slow each other down")
	}
	return r
}

// bf16InHardware reads the processor's flags, where the system tells them.
func bf16InHardware() bool {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for _, flag := range []string{"avx512_bf16", "amx_bf16", " bf16"} {
		if strings.Contains(string(text), flag) {
			return true
		}
	}
	return false
}

func (r report) print(c *cli.Context) {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	w := c.App.Writer
	row := func(name, value string) { fmt.Fprintf(w, "%-16s %s\n", name, value) }
	row("cyclecap", r.Cyclecap)
	row("Go", r.Go)
	row("libtorch", fmt.Sprintf("%s (the shim was built for %s)", r.Libtorch, r.BuiltFor))
	row("", r.LibtorchPath)
	row("devices", strings.Join(r.Devices, ", "))
	row("CUDA", r.CUDA)
	row("threads", fmt.Sprintf("%d of %d cores", r.Threads, r.Cores))
	row("instructions", r.InstructionS)
	row("bf16 hardware", yes(r.BF16))
	row("MKL, oneDNN", yes(r.MKL)+", "+yes(r.OneDNN))
	row("OpenMP", yes(r.OpenMP))
	row("Gloo, NCCL", yes(r.Gloo)+", "+yes(r.NCCL))
	for _, p := range r.Problems {
		fmt.Fprintf(c.App.ErrWriter, "problem: %s\n", p)
	}
	for _, h := range r.Hints {
		fmt.Fprintf(c.App.ErrWriter, "hint: %s\n", h)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "all that is needed is here")
	}
}
