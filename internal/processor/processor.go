// Package processor tells what the CPU of this machine is.
package processor

import (
	"os"
	"regexp"
	"runtime"
	"strings"
)

// Name returns the name of the CPU, or its architecture where the system does not tell.
func Name() string {
	for line := range strings.Lines(info()) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

var bf16Flag = regexp.MustCompile(`\b(avx512_bf16|amx_bf16|bf16)\b`)

// HasBF16 reports whether the CPU has bf16 instructions, if the system lists its flags.
// Without them, bf16 is slower than f32.
func HasBF16() bool { return bf16Flag.MatchString(info()) }

// info returns what Linux says about its CPUs, or "".
func info() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	return string(text)
}
