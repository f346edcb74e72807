package torch_test

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// linear is x W^T + b.
type linear struct{}

func (linear) Forward(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
	ctx.SaveForBackward(in[0], in[1])
	return []torch.Tensor{in[0].MM(in[1].T()).Add(in[2])}
}

func (linear) Backward(ctx *torch.FunctionContext, grads []torch.Tensor) []torch.Tensor {
	x, w, g := ctx.Saved()[0], ctx.Saved()[1], grads[0]
	out := make([]torch.Tensor, 3)
	if ctx.NeedsInputGrad(0) {
		out[0] = g.MM(w)
	}
	if ctx.NeedsInputGrad(1) {
		out[1] = g.T().MM(x)
	}
	if ctx.NeedsInputGrad(2) {
		out[2] = g.SumDim([]int64{0})
	}
	return out
}

// cube is x^3 times a factor, with a Value and a second output without a gradient.
type cube struct{ factor float64 }

func (f cube) Forward(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
	ctx.SaveForBackward(in[0])
	ctx.Value = 3 * f.factor
	sign := in[0].Sign()
	ctx.MarkNonDifferentiable(sign)
	return []torch.Tensor{in[0].Mul(in[0]).Mul(in[0]).MulScalar(f.factor), sign}
}

func (f cube) Backward(ctx *torch.FunctionContext, grads []torch.Tensor) []torch.Tensor {
	x := ctx.Saved()[0]
	return []torch.Tensor{x.Mul(x).MulScalar(ctx.Value.(float64)).Mul(grads[0])}
}

// function is a Function of two Go functions, for single tests.
type function struct {
	forward, backward func(ctx *torch.FunctionContext, t []torch.Tensor) []torch.Tensor
}

func (f function) Forward(ctx *torch.FunctionContext, t []torch.Tensor) []torch.Tensor {
	return f.forward(ctx, t)
}

func (f function) Backward(ctx *torch.FunctionContext, t []torch.Tensor) []torch.Tensor {
	return f.backward(ctx, t)
}

// double is 2 x, with another backward pass.
func double(backward func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor) torch.Function {
	return function{func(_ *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
		return []torch.Tensor{in[0].MulScalar(2)}
	}, backward}
}

// checkGradient holds the gradients of f, a scalar of float64 inputs, to central differences.
func checkGradient(t *testing.T, name string, f func(x []torch.Tensor) torch.Tensor, x ...torch.Tensor) {
	t.Helper()
	const step = 1e-6
	for _, x := range x {
		x.SetRequiresGrad(true)
	}
	for i, g := range torch.GradOf([]torch.Tensor{f(x)}, x, false) {
		got := torch.ToSlice[float64](g)
		torch.NoGrad(func() {
			torch.Data(x[i].Detach(), func(data []float64) {
				for k, v := range data {
					data[k] = v + step
					above := f(x).Item()
					data[k] = v - step
					want := (above - f(x).Item()) / (2 * step)
					data[k] = v
					if math.Abs(got[k]-want) > 1e-5+1e-3*math.Abs(want) { // gradcheck's
						t.Errorf("%s: gradient of input %d, element %d: %v, want %v", name, i, k, got[k], want)
					}
				}
			})
		})
	}
}

func TestFunctionGradients(t *testing.T) {
	run(t, func() {
		torch.ManualSeed(1)
		rand := func(shape ...int64) torch.Tensor { return torch.Randn(shape, torch.WithDType(torch.Float64)) }
		checkGradient(t, "linear", func(x []torch.Tensor) torch.Tensor {
			return torch.Apply(linear{}, x...)[0].Sin().Sum()
		}, rand(3, 4), rand(5, 4), rand(5))
		checkGradient(t, "cube", func(x []torch.Tensor) torch.Tensor {
			return torch.Apply(cube{0.7}, x[0])[0].Mul(x[1]).Sum()
		}, rand(6), rand(6))
		torch.EnableGrad(func() {
			checkGradient(t, "gradient of cube", func(x []torch.Tensor) (y torch.Tensor) {
				torch.EnableGrad(func() {
					y = torch.GradOf([]torch.Tensor{torch.Apply(cube{0.7}, x[0])[0].Sum()}, x, true)[0].Cos().Sum()
				})
				return y
			}, rand(6))
		})
	})
}

// TestFunctionBits compares with libtorch's own operator.
func TestFunctionBits(t *testing.T) {
	run(t, func() {
		torch.ManualSeed(2)
		x, w, b := torch.Randn([]int64{7, 33}), torch.Randn([]int64{9, 33}), torch.Randn([]int64{9})
		in := []torch.Tensor{x, w, b}
		for _, v := range in {
			v.SetRequiresGrad(true)
		}
		var sets [2][]torch.Tensor
		for i, y := range []torch.Tensor{torch.Apply(linear{}, in...)[0], torch.Linear(x, w, torch.WithBias(b))} {
			sets[i] = append(torch.GradOf([]torch.Tensor{y.Tanh().Sum()}, in, false), y)
		}
		for i := range sets[0] {
			if !sets[0][i].Equal(sets[1][i]) {
				t.Errorf("gradient %d differs from linear's", i)
			}
		}
	})
}

func TestFunctionContext(t *testing.T) {
	run(t, func() {
		x := torch.FromSlice([]float32{-2, 3}).SetRequiresGrad(true)
		y := torch.Apply(cube{1}, x)
		if !y[0].RequiresGrad() || y[1].RequiresGrad() {
			t.Error("MarkNonDifferentiable has no effect")
		}
		// Zeros stand for the gradient of an output that was not used.
		two := function{
			func(_ *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
				return []torch.Tensor{in[0].MulScalar(2), in[0].MulScalar(3)}
			},
			func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
				return []torch.Tensor{g[0].MulScalar(2).Add(g[1].MulScalar(3))}
			},
		}
		torch.Apply(two, x)[1].Sum().Backward()
		if diff := cmp.Diff([]float32{3, 3}, torch.ToSlice[float32](x.Grad())); diff != "" {
			t.Error(diff)
		}

		// An input that is modified in place.
		add := function{
			func(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
				ctx.MarkDirty(in[0])
				return []torch.Tensor{in[0].AddScalar_(1)}
			},
			func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor { return g },
		}
		z := x.Square()
		if out := torch.Apply(add, z)[0]; out.DataPtr() != z.DataPtr() || !z.RequiresGrad() {
			t.Error("a dirty input is not its output")
		}
		if g := torch.GradOf([]torch.Tensor{z.Sum()}, []torch.Tensor{x}, false)[0]; !g.Equal(x.Detach().MulScalar(2)) {
			t.Errorf("gradient of a dirty input: %v", g)
		}

		// NeedsInputGrad in both passes.
		var needs [][]bool
		ask := func(ctx *torch.FunctionContext) {
			needs = append(needs, []bool{ctx.NeedsInputGrad(0), ctx.NeedsInputGrad(1)})
		}
		mul := function{
			func(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
				ask(ctx)
				return []torch.Tensor{in[0].Mul(in[1])}
			},
			func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
				ask(ctx)
				return []torch.Tensor{g[0], {}}
			},
		}
		torch.Apply(mul, x, x.Detach())[0].Sum().Backward()
		a, b := torch.Ones([]int64{2}).SetRequiresGrad(true), torch.Ones([]int64{2}).SetRequiresGrad(true)
		torch.GradOf([]torch.Tensor{torch.Apply(mul, a, b)[0].Sum()}, []torch.Tensor{a}, false)
		if diff := cmp.Diff([][]bool{{true, false}, {true, false}, {true, true}, {true, false}}, needs); diff != "" {
			t.Error(diff)
		}

		// Without a gradient, Backward is not needed.
		torch.NoGrad(func() {
			if torch.Apply(linear{}, torch.Ones([]int64{1, 1}).SetRequiresGrad(true), torch.Ones([]int64{1, 1}), torch.Ones([]int64{1}))[0].RequiresGrad() {
				t.Error("NoGrad has no effect")
			}
		})
	})
}

// TestFunctionRecomputes runs a backward pass inside of one, as checkpointing does.
func TestFunctionRecomputes(t *testing.T) {
	block := func(x torch.Tensor) torch.Tensor { return x.Sin().Mul(x).Tanh() }
	checkpoint := function{
		func(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
			ctx.SaveForBackward(in[0])
			return []torch.Tensor{block(in[0])}
		},
		func(ctx *torch.FunctionContext, g []torch.Tensor) (out []torch.Tensor) {
			x := ctx.Saved()[0].Detach().SetRequiresGrad(true)
			torch.EnableGrad(func() {
				torch.Backward([]torch.Tensor{block(x)}, g, false)
			})
			return []torch.Tensor{x.Grad()}
		},
	}
	run(t, func() {
		torch.ManualSeed(3)
		x := torch.Randn([]int64{50}).SetRequiresGrad(true)
		y, z := x, x
		for range 100 { // more than libtorch nests on one thread
			y, z = torch.Apply(checkpoint, y)[0], block(z)
		}
		got, want := torch.GradOf([]torch.Tensor{y.Sum()}, []torch.Tensor{x}, false), torch.GradOf([]torch.Tensor{z.Sum()}, []torch.Tensor{x}, false)
		if !got[0].Equal(want[0]) {
			t.Error("the gradient differs")
		}
		// Each inside of another: libtorch goes on in other threads.
		var nest func(depth int) torch.Function
		nest = func(depth int) torch.Function {
			return double(func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
				if depth == 0 {
					return []torch.Tensor{g[0].MulScalar(2)}
				}
				var out []torch.Tensor
				torch.EnableGrad(func() {
					x := torch.Ones([]int64{}).SetRequiresGrad(true)
					out = torch.GradOf([]torch.Tensor{torch.Apply(nest(depth-1), x)[0]}, []torch.Tensor{x}, false)
				})
				return out
			})
		}
		w := torch.Ones([]int64{}).SetRequiresGrad(true)
		if g := torch.GradOf(torch.Apply(nest(100), w), []torch.Tensor{w}, false)[0].Item(); g != 2 {
			t.Errorf("gradient %v, want 2", g)
		}
	})
}

func TestFunctionErrors(t *testing.T) {
	x := func() torch.Tensor { return torch.Ones([]int64{2}).SetRequiresGrad(true) }
	one := func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor { return g }
	backward := func(f func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor) func() {
		return func() { torch.Apply(double(f), x())[0].Sum().Backward() }
	}
	forward := func(f func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor) func() {
		return func() { torch.Apply(function{f, one}, x()) }
	}
	var outside *torch.FunctionContext
	var none []int
	for name, c := range map[string]struct {
		text string
		f    func()
	}{
		"an operator in Backward": {"in the backward pass of torch_test.function: mm(float32[2], float32[2]): ", backward(func(_ *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
			return []torch.Tensor{g[0].MM(g[0])}
		})},
		"Throw in Backward": {"custom(): 7 is wrong", backward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor {
			torch.Throw("custom", "%d is wrong", 7)
			return nil
		})},
		"a panic in Backward": {"the backward pass of torch_test.function panicked at function_test.go:", backward(func(_ *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
			return g[none[0]:]
		})},
		"a panic with a value": {": oh", backward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor { panic("oh") })},
		"too few gradients":    {"Backward returned 0 gradients for 1 inputs", backward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor { return nil })},
		"a gradient of another shape": {"invalid gradient at index 0", backward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor {
			return []torch.Tensor{torch.Ones([]int64{3})}
		})},
		"an index of an input": {"input 3 does not exist", backward(func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
			ctx.NeedsInputGrad(3)
			return g
		})},
		"saving in Backward": {"can only be called in Forward", backward(func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
			ctx.SaveForBackward(g[0])
			return g
		})},
		"Saved in Forward": {"can only be called in Backward", forward(func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor { return ctx.Saved() })},
		"outside of both": {"can only be called in Forward and Backward", func() {
			forward(func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor { outside = ctx; return g })()
			outside.NeedsInputGrad(0)
		}},
		"no output":   {"Forward returned no tensor", forward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor { return nil })},
		"none output": {"got none", forward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor { return make([]torch.Tensor, 1) })},
		"none input":  {"got none", func() { torch.Apply(linear{}, x(), torch.Tensor{}) }},
		"an operator in Forward": {"mm(float32[2], float32[2]): ", forward(func(_ *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
			return []torch.Tensor{in[0].MM(in[0])}
		})},
		"a second backward pass": {"a second time", func() {
			y := torch.Apply(cube{1}, x())[0].Sum()
			y.Backward()
			y.Backward()
		}},
		"a saved tensor that was modified": {"modified by an inplace operation", func() {
			z := x().MulScalar(1)
			y := torch.Apply(cube{1}, z)[0].Sum()
			torch.NoGrad(func() { z.Zero_() })
			y.Backward()
		}},
		"an operator that starts the backward pass": {"must be started by Backward or GradOf", func() {
			v := x()
			torch.Call("aten::_backward", torch.Apply(cube{1}, v)[0].Sum(), []torch.Tensor{v})
		}},
	} {
		fails(t, name, c.text, c.f)
	}

	// Another panic in Forward continues.
	func() {
		defer func() {
			if p := fmt.Sprint(recover()); !strings.Contains(p, "oh") {
				t.Errorf("a panic in Forward became %v", p)
			}
		}()
		run(t, forward(func(*torch.FunctionContext, []torch.Tensor) []torch.Tensor { panic("oh") }))
	}()
	run(t, func() {
		if torch.Apply(linear{}, torch.Ones([]int64{1, 1}), torch.Ones([]int64{1, 1}), torch.Ones([]int64{1}))[0].Item() != 2 {
			t.Error("a function fails after errors")
		}
	})
}

// TestFunctionsAreFreed: neither tensors nor Go objects remain.
func TestFunctionsAreFreed(t *testing.T) {
	before := torch.Alive()
	var mu sync.Mutex
	freed := 0
	const n = 200
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				torch.Scope(func() error {
					x := torch.Ones([]int64{10}).SetRequiresGrad(true)
					value := new([1 << 16]byte)
					runtime.AddCleanup(value, func(int) { mu.Lock(); freed++; mu.Unlock() }, 0)
					y := torch.Apply(function{
						func(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
							ctx.Value = value
							y := in[0].Exp()
							ctx.SaveForBackward(in[0], y, y.Neg())
							return []torch.Tensor{y}
						},
						func(ctx *torch.FunctionContext, g []torch.Tensor) []torch.Tensor {
							if i%5 == 3 {
								panic("oh")
							}
							return []torch.Tensor{g[0].Mul(ctx.Saved()[1])}
						},
					}, x)
					switch i % 5 {
					case 0: // the graph is freed without a backward pass
					case 1:
						y[0].Close()
					default:
						y[0].Sum().Backward()
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
	if now := torch.Alive(); now != before {
		t.Errorf("%d tensors remain", now-before)
	}
	for range 100 {
		runtime.GC()
		mu.Lock()
		done := freed == n
		mu.Unlock()
		if done {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d of %d Go objects remain", n-freed, n)
}

// TestFunctionsAtOnce runs one graph's backward passes from several goroutines.
func TestFunctionsAtOnce(t *testing.T) {
	w := torch.Tensor{}
	run(t, func() { w = torch.Full([]int64{8}, 2.0).SetRequiresGrad(true).Keep() })
	defer w.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				run(t, func() {
					g := torch.GradOf([]torch.Tensor{torch.Apply(cube{1}, w)[0].Sum()}, []torch.Tensor{w}, false)[0]
					if v := torch.ToSlice[float32](g); v[0] != 12 || v[7] != 12 {
						t.Errorf("gradient %v, want 12", v)
					}
				})
			}
		})
	}
	wg.Wait()
}
