// Package selftest checks that a machine computes what it should: it runs every
// network, a few steps of every training and optimizer, and every way of decoding,
// in f32 and bf16, and compares the results with the same computation in f64 on the
// CPU. The networks are small and their weights random, so that all checks together
// take seconds.
//
// f64 on the CPU is the reference for every device, the CPU included: libtorch
// computes it with other routines than f32 and bf16 (dgemm instead of sgemm or
// oneDNN), and its own rounding, 1e-16, does not count.
package selftest

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/cuda"
)

// A Result is the outcome of a check.
type Result struct {
	Name string `json:"name"`
	// Difference is the largest difference from f64, relative to the largest value
	// of what is compared. It is 0 if the check could not be completed.
	Difference float64 `json:"difference"`
	Bound      float64 `json:"bound"` // the largest difference that passes
	OK         bool    `json:"ok"`
	Error      string  `json:"error,omitempty"` // why the check could not be completed
	Seconds    float64 `json:"seconds"`
}

// A Check compares one computation with its reference.
type Check struct {
	Name  string
	Bound float64
	run   func(ctx context.Context, d torch.Device) (float64, error)
}

// Bounds lie between the rounding of the type, which a correct machine shows, and the
// error that a lower precision or a wrong operator would cause. The figures are those
// of a CPU.
const (
	// f32 rounds to 6e-8, which these networks amplify to at most 1.2e-6. With the 10
	// bits of TF32, which a GPU can use instead of f32, the difference is 2e-4 or more.
	boundF32 = 2e-5
	// Gradients add the rounding of the backward pass and of the steps before: at most
	// 1.6e-5.
	boundTrainF32 = 1e-4
	// bf16 rounds to 4e-3, and that in every layer: at most 1.3e-2, and 5.6e-2 in
	// gradients. Wrong results differ by about 1.
	boundBF16      = 5e-2
	boundTrainBF16 = 0.2
)

// Checks returns all checks, in the order in which Run runs them.
func Checks() []Check {
	var all []Check
	all = append(all, nets()...)
	all = append(all, decodings()...)
	all = append(all, optimizers()...)
	return append(all, trainings()...)
}

// Run runs the checks on a device and calls done after each. A check that fails does
// not stop the others; the error is ctx's.
//
// TF32 is off during the checks: cuDNN's default would round the factors of
// convolutions to 10 bits, which is no fault of the device.
func Run(ctx context.Context, d torch.Device, checks []Check, done func(Result)) error {
	matmul, cudnn := cuda.TF32Allowed()
	cuda.AllowTF32(false, false)
	defer cuda.AllowTF32(matmul, cudnn)
	for _, c := range checks {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := c.result(ctx, d)
		if err := ctx.Err(); err != nil {
			return err // interrupted, which is no failure
		}
		done(r)
	}
	return nil
}

func (c Check) result(ctx context.Context, d torch.Device) Result {
	begin := time.Now()
	r := Result{Name: c.Name, Bound: c.Bound}
	var err error
	r.Difference, err = c.guarded(ctx, d)
	r.Seconds = time.Since(begin).Seconds()
	switch {
	case err != nil:
		r.Error = firstLine(err)
	case math.IsNaN(r.Difference) || math.IsInf(r.Difference, 0):
		r.Difference, r.Error = 0, "the result has values that are NaN or infinite"
	default:
		r.OK = r.Difference <= r.Bound
	}
	if r.Error != "" {
		r.Difference = 0
	}
	return r
}

// guarded runs the check in a scope. Any panic becomes an error, because a check that
// cannot run on this machine is a result like any other.
func (c Check) guarded(ctx context.Context, d torch.Device) (diff float64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	err = torch.Scope(func() error {
		diff, err = c.run(ctx, d)
		return err
	})
	return diff, err
}

// firstLine leaves out the stack trace that libtorch adds to some messages.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// difference returns the largest difference between got and want, relative to want's
// largest value.
func difference(got, want torch.Tensor) (float64, error) {
	if g, w := fmt.Sprint(got.Shape()), fmt.Sprint(want.Shape()); g != w {
		return 0, fmt.Errorf("the result has shape %s, want %s", g, w)
	}
	got = toF64(got.Detach())
	largest := want.Detach().Abs().Max().Item()
	return got.Sub(want.Detach()).Abs().Max().Item() / largest, nil
}

// toF64 returns a tensor in f64 on the CPU.
func toF64(t torch.Tensor) torch.Tensor {
	return t.To(torch.WithDevice(torch.CPU)).To(torch.WithDType(torch.Float64))
}
