package optim_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"

	"github.com/google/go-cmp/cmp"
)

// An optimCase is 50 steps of an optimizer, as make_optim_fixtures.py records them.
type optimCase struct {
	Name, Optimizer string
	Groups          []map[string]any // options of the constructor
	Bias            bool
	Sparse          bool // gradients are
	DType           string
	State           map[string][]string
	Options         []map[string]any // of the state dict

	Schedules map[string][][]float64
	Scales    []float64

	Losses      []float64 // of LBFGS
	Evaluations []int64   // func_evals, n_iter and the length of the history
}

// database reads the fixtures.
func database(t *testing.T) (*fixture.Set, []optimCase) {
	s := fixture.Open(t, "../testdata/optim.json.gz")
	var cases []optimCase
	s.Cases(&cases)
	return s, cases
}

// set sets the options in o from those of Python's constructor.
func set(t *testing.T, o any, given map[string]any) {
	v := reflect.ValueOf(o).Elem()
	names := map[string]string{"lr": "LR", "lr_decay": "LRDecay", "beta2_decay": "Beta2Decay", "adjust_lr_fn": "AdjustLrFn", "t0": "T0"}
	tuples := map[string][]string{"betas": {"Beta1", "Beta2"}, "etas": {"EtaMinus", "EtaPlus"}, "step_sizes": {"StepSizeMin", "StepSizeMax"}, "eps": {"Eps1", "Eps2"}, "ns_coefficients": {"NsA", "NsB", "NsC"}}
	for name, value := range given {
		fields, values := []string{names[name]}, []any{value}
		if list, ok := value.([]any); ok {
			fields, values = tuples[name], list
		} else if fields[0] == "" {
			for _, word := range strings.Split(name, "_") {
				fields[0] += strings.ToUpper(word[:1]) + word[1:]
			}
		}
		for i, f := range fields {
			at := v.FieldByName(f)
			switch x := values[i].(type) {
			case nil:
			case float64:
				if at.CanInt() {
					at.SetInt(int64(x))
				} else {
					at.SetFloat(x)
				}
			case bool:
				at.SetBool(x)
			case string:
				at.SetString(x)
			default:
				t.Fatalf("option %s is %v", name, value)
			}
		}
	}
}

// adder is what all optimizers have besides [optim.Optimizer].
type adder[O any] interface {
	optim.Optimizer
	AddGroup(params []torch.Tensor, o O)
}

// grouped returns an optimizer whose second group, if there is one, begins with the second parameter.
func grouped[O any, A adder[O]](t *testing.T, create func([]torch.Tensor, O) A, o O, params []torch.Tensor, groups []map[string]any) optim.Optimizer {
	first := params
	if len(groups) > 1 {
		first = params[:1]
	}
	own := o
	set(t, &own, groups[0])
	opt := create(first, own)
	if len(groups) > 1 {
		set(t, &o, groups[1])
		opt.AddGroup(params[1:], o)
	}
	return opt
}

// constructors has the optimizers by PyTorch's names.
var constructors = map[string]func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer{
	"Adadelta": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Adadelta, optim.AdadeltaDefaults(), p, g)
	},
	"Adafactor": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Adafactor, optim.AdafactorDefaults(), p, g)
	},
	"Adagrad": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Adagrad, optim.AdagradDefaults(), p, g)
	},
	"Adam": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Adam, optim.AdamDefaults(), p, g)
	},
	"AdamW": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.AdamW, optim.AdamWDefaults(), p, g)
	},
	"Adamax": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Adamax, optim.AdamaxDefaults(), p, g)
	},
	"ASGD": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.ASGD, optim.ASGDDefaults(), p, g)
	},
	"Muon": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Muon, optim.MuonDefaults(), p, g)
	},
	"NAdam": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.NAdam, optim.NAdamDefaults(), p, g)
	},
	"RAdam": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.RAdam, optim.RAdamDefaults(), p, g)
	},
	"RMSprop": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.RMSprop, optim.RMSpropDefaults(), p, g)
	},
	"Rprop": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.Rprop, optim.RpropDefaults(), p, g)
	},
	"SparseAdam": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.SparseAdam, optim.SparseAdamDefaults(), p, g)
	},
	"SGD": func(t *testing.T, p []torch.Tensor, g []map[string]any) optim.Optimizer {
		return grouped(t, optim.SGD, optim.SGDDefaults(), p, g)
	},
}

// small is the net of the cases.
func small(bias bool, dtype torch.DType) *nn.SequentialModule {
	torch.ManualSeed(6)
	m := nn.Sequential(nn.Linear(5, 7, bias), nn.Tanh(), nn.Linear(7, 3, bias))
	nn.To(m, torch.WithDType(dtype))
	return m
}

// batches are the inputs and outputs of the cases.
func batches(dtype torch.DType) (xs, ys torch.Tensor) {
	torch.ManualSeed(5)
	to := torch.WithDType(dtype)
	return torch.Randn([]int64{50, 4, 5}).To(to), torch.Randn([]int64{50, 4, 3}).To(to)
}

// A product is the net of the cases with sparse gradients.
type product struct{ A, B *nn.EmbeddingModule }

// embeddings returns a product, and its loss at each step.
func embeddings(dtype torch.DType) (*product, func(step int) torch.Tensor) {
	torch.ManualSeed(6)
	m := &product{nn.Embedding(9, 4), nn.Embedding(5, 4)}
	m.A.Sparse, m.B.Sparse = true, true
	nn.To(m, torch.WithDType(dtype))
	torch.ManualSeed(5)
	i, j := torch.RandintHigh(9, []int64{50, 6}), torch.RandintHigh(5, []int64{50, 6})
	y := torch.Randn([]int64{50, 6, 4}).To(torch.WithDType(dtype))
	return m, func(step int) torch.Tensor {
		at := func(t torch.Tensor) torch.Tensor { return t.Select(0, int64(step)) }
		return m.A.Forward(at(i)).Mul(m.B.Forward(at(j))).MseLoss(at(y))
	}
}

// weightsOf compares the weights of a net with those of a case.
func weightsOf(s *fixture.Set, m any, name string) {
	for _, p := range nn.NamedParameters(m) {
		s.Equal(p.Name, *p.Tensor, name+"/"+p.Name)
	}
}

// TestOptimDB takes the steps of PyTorch's own tests, and compares weights, state and options. It
// repeats the last 20 from a state dict. With -short it takes a third of the cases.
func TestOptimDB(t *testing.T) {
	all, cases := database(t)
	seen := map[string]bool{}
	for i, c := range cases {
		if c.Optimizer == "" {
			continue
		}
		seen[c.Optimizer] = true
		if testing.Short() && i%3 > 0 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			scoped(t, func() { c.run(t, all.For(t)) })
		})
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(constructors)), slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("optimizers without a case (-) or an implementation (+):\n%s", diff)
	}
}

func (c *optimCase) run(t *testing.T, s *fixture.Set) {
	dtype, err := torch.ParseDType(c.DType)
	if err != nil {
		t.Fatal(err)
	}
	var m any
	var take func(opt optim.Optimizer, from, to int)
	if c.Sparse {
		net, loss := embeddings(dtype)
		m, take = net, func(opt optim.Optimizer, from, to int) { trainOn(loss, opt, from, to, func(int) {}) }
	} else {
		xs, ys := batches(dtype)
		net := small(c.Bias, dtype)
		m, take = net, func(opt optim.Optimizer, from, to int) { train(net, opt, xs, ys, from, to, func(int) {}) }
	}
	defer nn.Close(m)
	params := nn.Parameters(m)
	opt := constructors[c.Optimizer](t, params, c.Groups)
	defer func() { opt.Close() }()
	take(opt, 0, 30)
	half := opt.StateDict()
	other := constructors[c.Optimizer](t, params, make([]map[string]any, len(c.Groups)))
	if err := other.LoadStateDict(half); err != nil {
		t.Fatal(err)
	}
	opt.Close()
	opt = other
	// The fused kernel is no part of PyTorch's options.
	if a, ok := opt.(*optim.Of[optim.AdamOptions]); ok {
		a.Options(0).Fused = c.Groups[0]["fused"] == true
	}
	take(opt, 30, 50)
	equal := s.Equal
	if c.Optimizer == "Muon" { // its updates are computed in bfloat16
		equal = s.EqualBFloat16
	}
	for _, p := range nn.NamedParameters(m) {
		equal(p.Name, *p.Tensor, c.Name+"/"+p.Name)
	}

	d := opt.StateDict()
	for i, own := range d.State {
		if diff := cmp.Diff(c.State[fmt.Sprint(i)], slices.Sorted(maps.Keys(own))); diff != "" {
			t.Errorf("the state of parameter %d, PyTorch's (-) and ours (+):\n%s", i, diff)
		}
		for name, x := range own {
			if x.Layout() == torch.SparseCOO {
				x = x.ToDense()
			}
			if of := fmt.Sprintf("%s/state/%d.%s", c.Name, i, name); s.Has(of) {
				equal(fmt.Sprintf("%s of parameter %d", name, i), x, of)
			}
		}
	}
	for i, want := range c.Options {
		got := d.ParamGroups[i]
		for name, w := range want {
			if diff := cmp.Diff(w, number(got[name])); diff != "" {
				t.Errorf("the option %s of group %d, PyTorch's (-) and ours (+):\n%s", name, i, diff)
			}
		}
		for _, name := range []string{"foreach", "capturable", "differentiable", "fused"} {
			delete(got, name)
		}
		if len(got) != len(want) {
			t.Errorf("group %d has the options %v, PyTorch has %v", i, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// number returns integers as JSON has them.
func number(v any) any {
	switch x := v.(type) {
	case int64:
		return float64(x)
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = number(x[i])
		}
		return out
	}
	return v
}

// TestOptimDefaults compares the defaults of options with those of PyTorch's constructors.
func TestOptimDefaults(t *testing.T) {
	s, _ := database(t)
	var defaults map[string]map[string]any
	s.Defaults(&defaults)
	given := maps.Clone(defaults["LBFGS"])
	if given["max_eval"] != nil || given["line_search_fn"] != nil {
		t.Errorf("LBFGS has other defaults: %v", given)
	}
	lbfgs := optim.LBFGSOptions{}
	set(t, &lbfgs, given)
	if diff := cmp.Diff(lbfgs, optim.LBFGSDefaults()); diff != "" {
		t.Errorf("LBFGS, PyTorch's (-) and ours (+):\n%s", diff)
	}
	scoped(t, func() {
		for name, create := range constructors {
			p := torch.Ones([]int64{2, 2}).SetRequiresGrad(true)
			opt := create(t, []torch.Tensor{p}, []map[string]any{{}})
			got := opt.StateDict().ParamGroups[0]
			for option, want := range defaults[name] {
				if option == "decoupled_weight_decay" && strings.HasPrefix(name, "Adam") {
					continue // no argument there
				}
				if diff := cmp.Diff(want, number(got[option])); diff != "" {
					t.Errorf("%s: %s, PyTorch's (-) and ours (+):\n%s", name, option, diff)
				}
			}
		}
	})
}

// schedulers restates SCHEDULERS of make_optim_fixtures.py. Each returns a function that counts an epoch.
func schedulers(o optim.Optimizer) map[string]func() (step func(loss float64), state interface {
	StateDict() map[string]any
	LoadStateDict(map[string]any) error
}) {
	type state = interface {
		StateDict() map[string]any
		LoadStateDict(map[string]any) error
	}
	of := func(make func() optim.Scheduler) func() (func(float64), state) {
		return func() (func(float64), state) {
			s := make()
			return func(float64) { s.Step() }, s
		}
	}
	plateau := func(change func(*optim.PlateauOptions)) func() (func(float64), state) {
		return func() (func(float64), state) {
			options := optim.PlateauDefaults()
			change(&options)
			s := optim.ReduceLROnPlateau(o, options)
			return s.Step, s
		}
	}
	return map[string]func() (func(float64), state){
		"step":            of(func() optim.Scheduler { return optim.StepLR(o, 7, 0.3) }),
		"multistep":       of(func() optim.Scheduler { return optim.MultiStepLR(o, []int{3, 3, 11}, 0.7) }),
		"constant":        of(func() optim.Scheduler { return optim.ConstantLR(o, 0.3, 6) }),
		"linear":          of(func() optim.Scheduler { return optim.LinearLR(o, 0.1, 0.9, 13) }),
		"linear_defaults": of(func() optim.Scheduler { return optim.LinearLR(o, 1.0/3, 1, 5) }),
		"exponential":     of(func() optim.Scheduler { return optim.ExponentialLR(o, 0.93) }),
		"cosine":          of(func() optim.Scheduler { return optim.CosineAnnealingLR(o, 9, 0.003) }),
		"restarts":        of(func() optim.Scheduler { return optim.CosineAnnealingWarmRestarts(o, 4, 2, 0.001) }),
		"one_cycle":       of(func() optim.Scheduler { return optim.OneCycleLR(o, []float64{0.5}, optim.OneCycleDefaults(52)) }),
		"one_cycle_three": of(func() optim.Scheduler {
			return optim.OneCycleLR(o, []float64{0.5, 0.2}, optim.OneCycleOptions{TotalSteps: 60, PctStart: 0.2, AnnealStrategy: "linear",
				CycleMomentum: true, ThreePhase: true, DivFactor: 10, FinalDivFactor: 100, BaseMomentum: 0.8, MaxMomentum: 0.9})
		}),
		"cyclic": of(func() optim.Scheduler {
			c := optim.CyclicDefaults()
			c.StepSizeUp = 7
			return optim.CyclicLR(o, []float64{0.01}, []float64{0.3}, c)
		}),
		"cyclic_two": of(func() optim.Scheduler {
			return optim.CyclicLR(o, []float64{0.01, 0.02}, []float64{0.3, 0.1}, optim.CyclicOptions{StepSizeUp: 5, StepSizeDown: 3,
				Mode: "triangular2", CycleMomentum: true, BaseMomentum: 0.7, MaxMomentum: 0.95})
		}),
		"cyclic_exp": of(func() optim.Scheduler {
			return optim.CyclicLR(o, []float64{0.01}, []float64{0.3}, optim.CyclicOptions{StepSizeUp: 6, StepSizeDown: 11, Mode: "exp_range", Gamma: 0.97})
		}),
		"lambda": of(func() optim.Scheduler {
			return optim.LambdaLR(o, func(e int) float64 { return optim.Power(0.95, float64(e)) }, func(e int) float64 { return 1 / float64(1+e) })
		}),
		"multiplicative": of(func() optim.Scheduler {
			return optim.MultiplicativeLR(o, func(e int) float64 { return 1 - 0.01*float64(e) })
		}),
		"polynomial": of(func() optim.Scheduler { return optim.PolynomialLR(o, 30, 1.7) }),
		"plateau": plateau(func(p *optim.PlateauOptions) {
			p.Factor, p.Patience, p.Cooldown, p.MinLR = 0.5, 2, 1, 0.002
		}),
		"plateau_max": plateau(func(p *optim.PlateauOptions) {
			p.Mode, p.Factor, p.Patience, p.Threshold, p.ThresholdMode = "max", 0.3, 1, 0.01, "abs"
		}),
		"sequential": of(func() optim.Scheduler {
			return optim.SequentialLR(o, []*optim.Schedule{optim.LinearLR(o, 0.2, 1, 5), optim.CosineAnnealingLR(o, 20, 0), optim.ExponentialLR(o, 0.9)}, []int{5, 25})
		}),
		"chained": of(func() optim.Scheduler {
			return optim.ChainedScheduler(optim.ConstantLR(o, 0.1, 4), optim.ExponentialLR(o, 0.9))
		}),
	}
}

// losses are those of make_optim_fixtures.py, twice.
var losses = []float64{1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.5, 0.5, 0.5, 0.5, 0.49999, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37, 0.38, 0.39}

// TestSchedulers compares learning rates and momenta of all epochs with PyTorch's. From the middle on, it
// goes on with a new optimizer and scheduler, from their states.
func TestSchedulers(t *testing.T) {
	_, cases := database(t)
	at := slices.IndexFunc(cases, func(c optimCase) bool { return c.Name == "schedules" })
	for name, want := range cases[at].Schedules {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				name, kind, _ := strings.Cut(name, "/")
				create := func() optim.Optimizer {
					w := []torch.Tensor{torch.Ones([]int64{1}).SetRequiresGrad(true), torch.Ones([]int64{1}).SetRequiresGrad(true)}
					if kind == "Adam" {
						o := optim.AdamDefaults()
						o.LR = 0.1
						a := optim.Adam(w[:1], o)
						o.LR = 0.02
						a.AddGroup(w[1:], o)
						return a
					}
					a := optim.SGD(w[:1], optim.SGDOptions{LR: 0.1, Momentum: 0.9})
					a.AddGroup(w[1:], optim.SGDOptions{LR: 0.02, Momentum: 0.9})
					return a
				}
				opt := create()
				make, ok := schedulers(opt)[name]
				if !ok {
					t.Fatal("not implemented")
				}
				step, state := make()
				var got [][]float64
				for epoch := range want {
					if epoch == len(want)/2 {
						weights, schedule := opt.StateDict(), state.StateDict()
						opt = create()
						step, state = schedulers(opt)[name]()
						if err := opt.LoadStateDict(weights); err != nil {
							t.Fatal(err)
						}
						if err := state.LoadStateDict(throughJSON(t, schedule)); err != nil {
							t.Fatal(err)
						}
					}
					row := []float64{}
					for _, g := range opt.StateDict().ParamGroups {
						momentum, ok := g["momentum"].(float64)
						if betas, has := g["betas"].([]any); !ok && has {
							momentum = betas[0].(float64)
						}
						row = append(row, g["lr"].(float64), momentum)
					}
					got = append(got, row)
					step(losses[epoch%len(losses)])
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("PyTorch's (-) and ours (+), lr and momentum of two groups:\n%s", diff)
				}
			})
		})
	}
}

// throughJSON returns what a program reads that has written a state as JSON.
func throughJSON(t *testing.T, state map[string]any) (read map[string]any) {
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// TestLBFGS takes PyTorch's steps, the last five with a new optimizer from a state dict.
func TestLBFGS(t *testing.T) {
	all, cases := database(t)
	seen := 0
	for _, c := range cases {
		if c.Losses == nil {
			continue
		}
		seen++
		t.Run(c.Name, func(t *testing.T) {
			s := all.For(t)
			scoped(t, func() {
				dtype, err := torch.ParseDType(c.DType)
				if err != nil {
					t.Fatal(err)
				}
				xs, ys := batches(dtype)
				x, y := xs.Narrow(0, 0, 8), ys.Narrow(0, 0, 8)
				m := small(true, dtype)
				defer nn.Close(m)
				create := func() *optim.LBFGSOptimizer {
					o := optim.LBFGSDefaults()
					set(t, &o, c.Groups[0])
					return optim.LBFGS(nn.Parameters(m), o)
				}
				opt := create()
				defer func() { opt.Close() }()
				var losses []float64
				for step := range c.Losses {
					if step == len(c.Losses)/2 {
						state := opt.StateDict()
						before := opt
						opt = create()
						if err := opt.LoadStateDict(state); err != nil {
							t.Fatal(err)
						}
						before.Close()
					}
					losses = append(losses, opt.Step(func() torch.Tensor {
						opt.ZeroGrad()
						loss := m.Forward(x).MseLoss(y)
						loss.Backward()
						return loss
					}))
				}
				if diff := cmp.Diff(c.Losses, losses); diff != "" {
					t.Errorf("losses, PyTorch's (-) and ours (+):\n%s", diff)
				}
				weightsOf(s, m, c.Name)
				d := opt.StateDict()
				if diff := cmp.Diff(c.Evaluations, []int64{d["func_evals"].(int64), d["n_iter"].(int64), int64(len(d["ro"].([]torch.Tensor)))}); diff != "" {
					t.Errorf("evaluations, iterations and history, PyTorch's (-) and ours (+):\n%s", diff)
				}
				for _, name := range []string{"d", "prev_flat_grad", "H_diag", "t"} {
					v, ok := d[name].(torch.Tensor)
					if !ok {
						v = torch.Scalar0(d[name].(float64)).To(torch.WithDType(dtype))
					}
					s.Equal(name, v, c.Name+"/state/"+name)
				}
			})
		})
	}
	if seen == 0 {
		t.Error("no cases")
	}
}

func TestLBFGSFailures(t *testing.T) {
	scoped(t, func() {
		w := torch.Ones([]int64{3}).SetRequiresGrad(true)
		for name, c := range map[string]struct {
			text   string
			params []torch.Tensor
			change func(o *optim.LBFGSOptions)
		}{
			"no parameters": {"the list of parameters is empty", nil, func(*optim.LBFGSOptions) {}},
			"no leaf":       {"not a leaf", []torch.Tensor{w.MulScalar(2)}, func(*optim.LBFGSOptions) {}},
			"two dtypes":    {"all of one dtype", []torch.Tensor{w, w.Detach().To(torch.WithDType(torch.Float64))}, func(*optim.LBFGSOptions) {}},
			"bfloat16":      {"float32 or float64", []torch.Tensor{w.Detach().To(torch.WithDType(torch.BFloat16))}, func(*optim.LBFGSOptions) {}},
			"line search":   {"must be strong_wolfe or empty", []torch.Tensor{w}, func(o *optim.LBFGSOptions) { o.LineSearchFn = "wolfe" }},
			"iterations":    {"MaxIter must be at least 1", []torch.Tensor{w}, func(o *optim.LBFGSOptions) { o.MaxIter = 0 }},
		} {
			err := torch.Scope(func() error {
				o := optim.LBFGSDefaults()
				c.change(&o)
				optim.LBFGS(c.params, o)
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v", name, err)
			}
		}
		opt := optim.LBFGS([]torch.Tensor{w}, optim.LBFGSDefaults())
		loss := func() torch.Tensor {
			opt.ZeroGrad()
			l := w.Square().Sum()
			l.Backward()
			return l
		}
		before := torch.Alive()
		opt.Step(loss)
		opt.Close()
		if now := torch.Alive(); now != before {
			t.Errorf("%d tensors remain", now-before)
		}
		torch.NoGrad(func() { w.Fill_(3) })
		opt = optim.LBFGS([]torch.Tensor{w}, optim.LBFGSOptions{LR: 0.1, MaxIter: 3, HistorySize: 5})
		defer func() { opt.Close() }()
		opt.Step(loss)
		state := opt.StateDict()
		for name, v := range map[string]any{"func_evals": nil, "d": torch.Ones([]int64{4}), "ro": []torch.Tensor{torch.Ones([]int64{2}), torch.Ones([]int64{2})}, "old_dirs": []torch.Tensor{}} {
			bad := maps.Clone(state)
			bad[name] = v
			if err := opt.LoadStateDict(bad); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("a bad %s: %v", name, err)
			}
		}
	})
}

// scalerCase takes the steps of a case with a gradient scaler, and compares scales and weights with PyTorch's. The
// loss overflows in step 3. clip is called before each step of the optimizer, and after when it is done.
func scalerCase(t *testing.T, name string, m any, opt optim.Optimizer, loss func(step int) torch.Tensor, clip, after func(scaler *optim.GradScaler, step int)) {
	s, cases := database(t)
	want := cases[slices.IndexFunc(cases, func(c optimCase) bool { return c.Name == name })].Scales
	scaler := optim.NewGradScaler(optim.GradScalerOptions{InitScale: 1024, GrowthFactor: 2, BackoffFactor: 0.25, GrowthInterval: 2})
	defer scaler.Close()
	var scales []float64
	for step := range want {
		torch.Tidy(func() torch.Tensor {
			opt.ZeroGrad()
			l := loss(step)
			if step == 3 {
				l = l.MulScalar(math.Inf(1))
			}
			scaler.Scale(l).Backward()
			clip(scaler, step)
			if made := scaler.Step(opt); made == (step == 3) {
				t.Errorf("step %d: made %v", step, made)
			}
			scaler.Update()
			return torch.Tensor{}
		})
		scales = append(scales, scaler.Factor())
		after(scaler, step)
	}
	if diff := cmp.Diff(want, scales); diff != "" {
		t.Errorf("scales, PyTorch's (-) and ours (+):\n%s", diff)
	}
	weightsOf(s, m, name)
}

// TestGradScaler clips in every second step, and replaces the scaler by one with its state.
func TestGradScaler(t *testing.T) {
	scoped(t, func() {
		xs, ys := batches(torch.Float32)
		m := small(true, torch.Float32)
		defer nn.Close(m)
		params := nn.Parameters(m)
		opt := optim.SGD(params, optim.SGDOptions{LR: 0.05, Momentum: 0.9})
		defer opt.Close()
		loss := func(step int) torch.Tensor {
			return m.Forward(xs.Select(0, int64(step))).MseLoss(ys.Select(0, int64(step)))
		}
		clip := func(scaler *optim.GradScaler, step int) {
			if step%2 == 1 {
				scaler.Unscale(opt)
				optim.ClipGradNorm(params, 0.5)
			}
		}
		scalerCase(t, "scaler", m, opt, loss, clip, func(scaler *optim.GradScaler, step int) {
			if step != 4 { // after one good step since the overflow
				return
			}
			other := optim.NewGradScaler(optim.GradScalerDefaults())
			state := scaler.StateDict()
			if tracker := state["_growth_tracker"]; tracker != int64(1) {
				t.Errorf("_growth_tracker is %v, want 1", tracker)
			}
			if err := other.LoadStateDict(throughJSON(t, state)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(state, other.StateDict()); diff != "" {
				t.Errorf("state (-) and what was loaded (+):\n%s", diff)
			}
			delete(state, "_growth_tracker")
			if err := other.LoadStateDict(state); err == nil || !strings.Contains(err.Error(), "_growth_tracker") {
				t.Errorf("a state without _growth_tracker: %v", err)
			}
			scaler.Close()
			*scaler = *other
		})
	})
}

// TestGradScalerSparse has sparse gradients, whose indices occur several times.
func TestGradScalerSparse(t *testing.T) {
	scoped(t, func() {
		m, loss := embeddings(torch.Float32)
		defer nn.Close(m)
		o := optim.SparseAdamDefaults()
		o.LR = 0.1
		opt := optim.SparseAdam(nn.Parameters(m), o)
		defer opt.Close()
		nothing := func(*optim.GradScaler, int) {}
		scalerCase(t, "scaler-sparse", m, opt, loss, nothing, nothing)
	})
}
