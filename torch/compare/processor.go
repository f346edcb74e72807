package compare

import (
	"os"
	"runtime"
	"strings"

	"cyclecap/torch"
)

// Processor describes this machine's processor, as the references that Python writes do:
// the instruction set that libtorch uses, vendor, family, model and stepping. Low-order
// bits depend on it. The instruction set alone is not enough, because MKL has separate
// kernels for Intel's processors.
func Processor() (string, error) {
	b, err := torch.BuildInfo()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return b.Capability + "/" + runtime.GOARCH, nil
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	values := map[string]string{}
	for line := range strings.Lines(first) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			values[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return strings.Join([]string{b.Capability, values["vendor_id"], values["cpu family"], values["model"], values["stepping"]}, "/"), nil
}
