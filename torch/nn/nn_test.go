package nn_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/torchtest"

	"github.com/google/go-cmp/cmp"
)

// modules restates MODULES of make_fixtures.py, in its order.
var modules = []struct {
	name string
	make func() nn.Module
}{
	{"linear", func() nn.Module { return nn.Linear(5, 3, true) }},
	{"linear_nobias", func() nn.Module { return nn.Linear(6, 2, false) }},
	{"layer_norm", func() nn.Module { return nn.LayerNorm([]int64{8}, 1e-5) }},
	{"conv2d", func() nn.Module {
		return nn.Conv2d(3, 8, []int64{3}, nn.ConvOptions{Stride: []int64{2}, Padding: []int64{1}, Bias: true})
	}},
	{"conv2d_nobias", func() nn.Module { return nn.Conv2d(3, 4, []int64{4}, nn.ConvOptions{Stride: []int64{4}}) }},
	{"attention", func() nn.Module { return attention{nn.MultiheadAttention(16, 4, nn.MultiheadAttentionDefaults())} }},
	{"sequential", func() nn.Module {
		return nn.Sequential(nn.Linear(7, 9, true), nn.LeakyReLU(0.2), nn.Linear(9, 4, true), nn.Tanh())
	}},
	{"relu", func() nn.Module { return nn.ReLU() }},
	{"leaky_relu", func() nn.Module { return nn.LeakyReLU(0.2) }},
	{"tanh", func() nn.Module { return nn.Tanh() }},
	{"sigmoid", func() nn.Module { return nn.Sigmoid() }},
	{"silu", func() nn.Module { return nn.SiLU() }},
	{"gelu", func() nn.Module { return nn.GELU("none") }},
	{"gelu_tanh", func() nn.Module { return nn.GELU("tanh") }},
	{"dropout", func() nn.Module { return nn.Dropout(0.3) }},
}

// attention is self-attention that sees everything, as a module.
type attention struct{ *nn.MultiheadAttentionModule }

func (a attention) Forward(x torch.Tensor) torch.Tensor {
	return a.SelfAttention(x, false)
}

func scoped(t *testing.T, f func()) {
	t.Helper()
	before := torch.Alive()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

// weighted is the loss of the fixtures.
func weighted(y torch.Tensor) torch.Tensor {
	n := y.Numel()
	return y.Mul(torch.Arange(0, int(n)).View(y.Shape()).To(torch.WithDevice(y.Device()))).Sum()
}

// TestModules compares initial weights by seed, outputs and gradients.
func TestModules(t *testing.T) {
	for i, c := range modules {
		t.Run(c.name, func(t *testing.T) {
			s := fixture.Open(t, "../testdata/fixtures.json")
			scoped(t, func() {
				torch.ManualSeed(uint64(100 + i))
				m := c.make()
				module := any(m)
				if a, ok := m.(attention); ok {
					module = a.MultiheadAttentionModule
				}
				defer nn.Close(module)
				params := nn.NamedParameters(module)
				if want := len(s.Names(c.name + "/init/")); len(params) != want {
					t.Errorf("%d parameters, PyTorch has %d", len(params), want)
				}
				for _, p := range params {
					s.Equal("initial "+p.Name, *p.Tensor, c.name+"/init/"+p.Name)
				}
				shape := s.Tensor(c.name + "/x").Shape()
				x := torch.Randn(shape).SetRequiresGrad(true)
				s.Equal("input", x, c.name+"/x")
				y := m.Forward(x)
				weighted(y).Backward()
				s.Equal("output", y, c.name+"/y")
				s.Equal("gradient of the input", x.Grad(), c.name+"/grad/x")
				for _, p := range params {
					// PyTorch's attention lays positions before batches, so its
					// weights' gradients sum the same rows in another order.
					bound := 0.0
					if c.name == "attention" {
						bound = 1e-6
					}
					s.Near("gradient of "+p.Name, p.Tensor.Grad(), c.name+"/grad/"+p.Name, bound)
				}
			})
		})
	}
}

func TestEmbedding(t *testing.T) {
	s := fixture.Open(t, "../testdata/fixtures.json")
	scoped(t, func() {
		torch.ManualSeed(99)
		m := nn.Embedding(10, 6)
		defer nn.Close(m)
		s.Equal("initial weight", m.Weight, "embedding/init/weight")
		y := m.Forward(torch.FromSlice([]int64{1, 2, 9, 1}, 2, 2))
		weighted(y).Backward()
		s.Equal("output", y, "embedding/y")
		s.Equal("gradient", m.Weight.Grad(), "embedding/grad/weight")
	})
}

// TestMeta runs every module forward and backward without data: a tensor left
// on the CPU would not mix with the others.
func TestMeta(t *testing.T) {
	for _, c := range modules {
		t.Run(c.name, func(t *testing.T) {
			s := fixture.Open(t, "../testdata/fixtures.json")
			scoped(t, func() {
				torch.OnDevice(torch.Meta, func() {
					m := c.make()
					module := any(m)
					if a, ok := m.(attention); ok {
						module = a.MultiheadAttentionModule
					}
					defer nn.Close(module)
					for _, p := range nn.NamedParameters(module) {
						if d := p.Tensor.Device(); d != torch.Meta {
							t.Errorf("%s is on %v", p.Name, d)
						}
					}
					x := torch.Randn(s.Tensor(c.name + "/x").Shape()).SetRequiresGrad(true)
					weighted(m.Forward(x)).Backward()
					if d := x.Grad().Device(); d != torch.Meta {
						t.Errorf("the gradient is on %v", d)
					}
				})
			})
		})
	}
}

func TestInit(t *testing.T) {
	s := fixture.Open(t, "../testdata/fixtures.json")
	for name, f := range map[string]func(torch.Tensor){
		"kaiming_uniform": func(x torch.Tensor) { nn.KaimingUniform_(x, 0.3) },
		"kaiming_normal":  func(x torch.Tensor) { nn.KaimingNormal_(x, 0.3) },
		"xavier_uniform":  nn.XavierUniform_,
		"xavier_normal":   nn.XavierNormal_,
		"normal":          func(x torch.Tensor) { nn.Normal_(x, 0.1, 0.02) },
		"uniform":         func(x torch.Tensor) { nn.Uniform_(x, -0.25, 3) },
		"constant":        func(x torch.Tensor) { nn.Constant_(x, 0.3) },
	} {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				torch.ManualSeed(16)
				x := torch.Empty([]int64{5, 4, 3, 3}).SetRequiresGrad(true)
				f(x)
				s.Equal(name, x, "init/"+name)
			})
		})
	}
	scoped(t, func() {
		m := nn.Linear(0, 3, true) // PyTorch's bias is then 0
		defer nn.Close(m)
		if diff := cmp.Diff([]float32{0, 0, 0}, torch.ToSlice[float32](m.Bias)); diff != "" {
			t.Error(diff)
		}
	})
	err := torch.Scope(func() error { nn.XavierUniform_(torch.Empty([]int64{3})); return nil })
	if err == nil || !strings.Contains(err.Error(), "[3]") {
		t.Errorf("a vector has no fans: %v", err)
	}
}

// losses restates LOSSES of make_fixtures.py.
func losses() map[string]func(a, b torch.Tensor) torch.Tensor {
	target := func(a torch.Tensor) torch.Tensor {
		return torch.FromSlice([]int64{0, 4, 2, 0, 1, 3}).To(torch.WithDevice(a.Device()))
	}
	entropy := func(change func(*F.CrossEntropyOptions)) func(a, b torch.Tensor) torch.Tensor {
		return func(a, _ torch.Tensor) torch.Tensor {
			o := F.CrossEntropyDefaults()
			change(&o)
			return F.CrossEntropy(a, target(a), o)
		}
	}
	return map[string]func(a, b torch.Tensor) torch.Tensor{
		"cross_entropy":          entropy(func(*F.CrossEntropyOptions) {}),
		"cross_entropy_ignore_0": entropy(func(o *F.CrossEntropyOptions) { o.IgnoreIndex = 0 }),
		"cross_entropy_sum":      entropy(func(o *F.CrossEntropyOptions) { o.Reduction = F.Sum }),
		"cross_entropy_smooth":   entropy(func(o *F.CrossEntropyOptions) { o.LabelSmoothing = 0.1 }),
		"nll": func(a, _ torch.Tensor) torch.Tensor {
			return F.NLLLoss(a.LogSoftmax(-1), target(a))
		},
		"mse":    func(a, b torch.Tensor) torch.Tensor { return F.MSELoss(a, b, F.Mean) },
		"l1":     func(a, b torch.Tensor) torch.Tensor { return F.L1Loss(a, b, F.Mean) },
		"l1_sum": func(a, b torch.Tensor) torch.Tensor { return F.L1Loss(a, b, F.Sum) },
		"bce_with_logits": func(a, b torch.Tensor) torch.Tensor {
			return F.BCEWithLogits(a, b.GtScalar(0).To(torch.WithDType(torch.Float32)), F.Mean)
		},
		"normalize": func(a, b torch.Tensor) torch.Tensor { return F.Normalize(a, -1).Mul(b).Sum() },
		"cosine_similarity": func(a, b torch.Tensor) torch.Tensor {
			return torch.CosineSimilarity(a, b, torch.WithDim(int64(-1))).Sum()
		},
		"softmax": func(a, b torch.Tensor) torch.Tensor { return a.Softmax(-1).Mul(b).Sum() },
		"attention": func(a, b torch.Tensor) torch.Tensor {
			four := func(t torch.Tensor) torch.Tensor { return t.Unsqueeze(0).Unsqueeze(0) }
			return torch.ScaledDotProductAttention(four(a), four(b), four(b), torch.WithIsCausal(true)).Mul(b).Sum()
		},
	}
}

func TestLosses(t *testing.T) {
	s := fixture.Open(t, "../testdata/fixtures.json")
	for name, f := range losses() {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				a, b := s.Tensor("loss/a").SetRequiresGrad(true), s.Tensor("loss/b")
				loss := f(a, b)
				loss.Backward()
				s.Equal("loss", loss, "loss/"+name)
				s.Equal("gradient", a.Grad(), "loss/"+name+"/grad")
			})
		})
	}
}

// TestLossesOnMeta leaves nothing behind on the CPU.
func TestLossesOnMeta(t *testing.T) {
	all := losses()
	for name, f := range all {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				torch.OnDevice(torch.Meta, func() {
					a, b := torch.Empty([]int64{6, 5}).SetRequiresGrad(true), torch.Empty([]int64{6, 5})
					f(a, b).Backward()
					if d := a.Grad().Device(); d != torch.Meta {
						t.Errorf("the gradient is on %v", d)
					}
				})
			})
		})
	}
}

type block struct {
	CAttn   *nn.LinearModule
	LnF     *nn.LayerNormModule
	Layers  []*nn.LinearModule
	Mask    torch.Tensor `buffer:"true"`
	Other   torch.Tensor `name:"weird"`
	Skipped torch.Tensor `name:"-"`
	hidden  *nn.LinearModule
	inner
}

type inner struct{ Scale torch.Tensor }

func newBlock() *block {
	ones := func() torch.Tensor { return torch.Ones([]int64{2}).Keep() }
	return &block{CAttn: nn.Linear(2, 2, true), LnF: nn.LayerNorm([]int64{2}, 1e-5),
		Layers: []*nn.LinearModule{nn.Linear(2, 2, false), nn.Linear(2, 2, false)},
		Mask:   ones(), Other: ones(), Skipped: ones(), hidden: nn.Linear(1, 1, false), inner: inner{ones()}}
}

func (b *block) close() {
	nn.Close(b)
	b.Skipped.Close()
	nn.Close(b.hidden)
}

func TestNames(t *testing.T) {
	scoped(t, func() {
		b := newBlock()
		defer b.close()
		var params, buffers []string
		for _, p := range nn.NamedParameters(b) {
			params = append(params, p.Name)
		}
		for _, p := range nn.NamedBuffers(b) {
			buffers = append(buffers, p.Name)
		}
		want := []string{"c_attn.weight", "c_attn.bias", "ln_f.weight", "ln_f.bias", "layers.0.weight", "layers.1.weight", "weird", "scale"}
		if diff := cmp.Diff(want, params); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"mask"}, buffers); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLoadStateDict(t *testing.T) {
	scoped(t, func() {
		m := nn.Sequential(nn.Linear(3, 2, true), nn.Tanh(), nn.Linear(2, 2, true))
		defer nn.Close(m)
		sd := nn.NewStateDict()
		sd.Add("0.weight", torch.Ones([]int64{2, 3}))
		sd.Add("0.bias", torch.Ones([]int64{3}))
		sd.Add("2.weight", torch.Ones([]int64{2, 2}))
		sd.Add("extra", torch.Ones([]int64{1}))
		before := m.Modules[0].(*nn.LinearModule).Weight
		err := nn.LoadStateDict(m, sd)
		var e *nn.MismatchError
		if !errors.As(err, &e) {
			t.Fatalf("got %v, want a *MismatchError", err)
		}
		want := &nn.MismatchError{Missing: []string{"2.bias"}, Unexpected: []string{"extra"},
			WrongShape: []nn.WrongShape{{Name: "0.bias", Got: []int64{3}, Want: []int64{2}}}}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Error(diff)
		}
		for _, name := range []string{"2.bias", "extra", "0.bias"} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
		if m.Modules[0].(*nn.LinearModule).Weight != before {
			t.Error("a failed load changed the module")
		}
		sd.Add("0.bias", torch.Ones([]int64{2}))
		sd.Add("2.bias", torch.Ones([]int64{2}))
		if err := nn.LoadStateDict(m, sd, "extra"); err != nil {
			t.Error(err)
		}
	})
}

func TestSetTraining(t *testing.T) {
	scoped(t, func() {
		d := nn.Dropout(0.5)
		m := nn.Sequential(nn.ReLU(), d)
		x := torch.Ones([]int64{1000})
		nn.SetTraining(m, false)
		torchtest.Bits(t, m.Forward(x), x, "dropout in evaluation")
		nn.SetTraining(m, true)
		if zeros := m.Forward(x).EqScalar(0).Sum().Item(); zeros < 400 || zeros > 600 {
			t.Errorf("%v of 1000 dropped with probability 0.5", zeros)
		}
	})
}

func TestTo(t *testing.T) {
	type net struct {
		Wte, LmHead torch.Tensor // tied
		Index       torch.Tensor `buffer:"true"`
	}
	for _, c := range []struct {
		name string
		opts []torch.Option
		want string
	}{
		{"dtype", []torch.Option{torch.WithDType(torch.BFloat16)}, "bfloat16 cpu true, int64 cpu"},
		{"device", []torch.Option{torch.WithDevice(torch.Meta)}, "float32 meta true, int64 meta"},
		{"both", []torch.Option{torch.WithDevice(torch.Meta), torch.WithDType(torch.Float16)}, "float16 meta true, int64 meta"},
		{"neither", nil, "float32 cpu true, int64 cpu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			scoped(t, func() {
				w := torch.Ones([]int64{2, 2}).Keep().SetRequiresGrad(true)
				m := &net{w, w, torch.Arange(0, 3).Keep()}
				defer nn.Close(m)
				nn.To(m, c.opts...)
				got := fmt.Sprint(m.Wte.DType(), " ", m.Wte.Device(), " ", m.Wte.RequiresGrad(), ", ", m.Index.DType(), " ", m.Index.Device())
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if m.Wte != m.LmHead {
					t.Error("tied weights came apart")
				}
			})
		})
	}
}

// TestOddModules has what modules may and may not be.
func TestOddModules(t *testing.T) {
	names := func(m any) (out []string, err error) {
		err = torch.Scope(func() error {
			for _, p := range nn.NamedParameters(m) {
				out = append(out, p.Name)
			}
			return nil
		})
		return out, err
	}
	scoped(t, func() {
		a, b := nn.Linear(2, 2, false), nn.Linear(2, 2, false)
		defer nn.Close(a)
		defer nn.Close(b)
		for _, c := range []struct {
			name string
			m    any
			want []string
			err  string
		}{
			{"array", &struct{ L [2]*nn.LinearModule }{[2]*nn.LinearModule{a, b}}, []string{"l.0.weight", "l.1.weight"}, ""},
			{"nil parts", &struct{ A, B *nn.LinearModule }{nil, b}, []string{"b.weight"}, ""},
			{"tied", &struct{ Wte, LmHead torch.Tensor }{a.Weight, a.Weight}, []string{"wte"}, ""},
			{"no module", &struct{ N map[string]int }{map[string]int{"x": 1}}, nil, ""},
			{"value", *a, nil, "pointer"},
			{"map", &struct{ Heads map[string]*nn.LinearModule }{map[string]*nn.LinearModule{"x": a}}, nil, "heads is a map"},
			{"map of tensors", &struct{ Heads map[string]torch.Tensor }{map[string]torch.Tensor{"x": a.Weight}}, nil, "heads is a map"},
			{"part by value", nn.Sequential(byValue{a.Weight}), nil, "0.w is in a module that is stored by value"},
		} {
			got, err := names(c.m)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
		}
	})
}

type byValue struct{ W torch.Tensor }

func (b byValue) Forward(x torch.Tensor) torch.Tensor { return x.Matmul(b.W) }

// TestLoadOwn loads a module's own tensors, exchanged: none may be freed.
func TestLoadOwn(t *testing.T) {
	scoped(t, func() {
		m := nn.Sequential(nn.Linear(2, 2, false), nn.Linear(2, 2, false))
		defer nn.Close(m)
		own := nn.StateDictOf(m)
		first, _ := own.Get("0.weight")
		second, _ := own.Get("1.weight")
		want := torch.ToSlice[float32](second)
		swapped := nn.NewStateDict()
		swapped.Add("0.weight", second)
		swapped.Add("1.weight", first)
		for _, sd := range []*nn.StateDict{own, swapped} {
			if err := nn.LoadStateDict(m, sd); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, torch.ToSlice[float32](m.Modules[0].(*nn.LinearModule).Weight)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestLoadKeeps loads tensors of a scope: the module outlives it.
func TestLoadKeeps(t *testing.T) {
	before := torch.Alive()
	var m *nn.LinearModule
	err := torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { m = nn.Linear(2, 1, false) })
		sd := nn.NewStateDict()
		sd.Add("weight", torch.Ones([]int64{1, 2}))
		return nn.LoadStateDict(m, sd)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{1, 1}, torch.ToSlice[float32](m.Weight)); diff != "" {
		t.Error(diff)
	}
	nn.Close(m)
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

// TestBackPointer lists the parameters of a module that refers to the module around it.
func TestBackPointer(t *testing.T) {
	type inner struct {
		Parent any
		L      *nn.LinearModule
	}
	type outer struct {
		In *inner
		W  torch.Tensor
	}
	scoped(t, func() {
		m := &outer{In: &inner{L: nn.Linear(2, 2, true)}, W: torch.Ones([]int64{1}).Keep()}
		defer nn.Close(m)
		m.In.Parent = m
		var names []string
		for _, n := range nn.NamedParameters(m) {
			names = append(names, n.Name)
		}
		if diff := cmp.Diff([]string{"in.l.weight", "in.l.bias", "w"}, names); diff != "" {
			t.Error(diff)
		}
		nn.Pack(m)
	})
}

// OnOutput shows the outputs of all modules by name, in the order of the computation, and
// changes none.
func TestOnOutput(t *testing.T) {
	type block struct {
		nn.Hook
		Fc   []*nn.LinearModule
		Norm *nn.LayerNormModule `name:"ln"`
	}
	err := torch.Scope(func() error {
		b := &block{Fc: []*nn.LinearModule{nn.Linear(4, 8, true), nn.Linear(8, 4, false)}, Norm: nn.LayerNorm([]int64{4}, 1e-5)}
		defer nn.Close(b)
		forward := func(x torch.Tensor) torch.Tensor {
			for _, l := range b.Fc {
				x = l.Forward(x)
			}
			return b.Output(b.Norm.Forward(x))
		}
		x := torch.Randn([]int64{2, 4})
		want := forward(x)
		var names []string
		nn.OnOutput(b, func(name string, out torch.Tensor) { names = append(names, fmt.Sprint(name, out.Shape())) })
		if !forward(x).Equal(want) {
			t.Error("the output has changed")
		}
		nn.OnOutput(b, nil)
		forward(x)
		if got, want := strings.Join(names, " "), "fc.0[2 8] fc.1[2 4] ln[2 4] [2 4]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if n := len(nn.NamedParameters(b)); n != 5 {
			t.Errorf("%d parameters, want 5", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestForwardHook: as in PyTorch, hooks run in their order, each on the result of the one before, none leaves an
// output, and what follows computes with the result, also backwards.
func TestForwardHook(t *testing.T) {
	scoped(t, func() {
		first, second := nn.Linear(2, 2, false), nn.Linear(2, 2, false)
		m := nn.Sequential(first, second)
		defer nn.Close(m)
		nn.Constant_(first.Weight, 1)
		nn.Constant_(second.Weight, 1)
		x := torch.FromSlice([]float32{1, 2}, 1, 2)
		value := func() []float32 { return torch.ToSlice[float32](m.Forward(x)) }
		want := func(what string, a float32) {
			t.Helper()
			if diff := cmp.Diff([]float32{a, a}, value()); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		want("before", 6)
		var seen []float32
		triple := first.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { return y.MulScalar(3) })
		look := first.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { seen = torch.ToSlice[float32](y); return torch.Tensor{} })
		last := first.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { return y.AddScalar(1) })
		var out []float32
		nn.OnOutput(m, func(name string, y torch.Tensor) {
			if name == "0" {
				out = torch.ToSlice[float32](y)
			}
		})
		want("with hooks", 20)
		if diff := cmp.Diff([][]float32{{9, 9}, {10, 10}}, [][]float32{seen, out}); diff != "" {
			t.Errorf("what the second hook and OnOutput saw: %s", diff)
		}
		nn.OnOutput(m, nil)
		if !first.Observed() || second.Observed() {
			t.Errorf("observed: %v and %v, want only the module with hooks", first.Observed(), second.Observed())
		}
		m.Forward(x).Sum().Backward()
		if diff := cmp.Diff([]float32{6, 12, 6, 12}, torch.ToSlice[float32](first.Weight.Grad())); diff != "" {
			t.Errorf("the gradient through the hooks: %s", diff)
		}
		if names := nn.StateDictOf(m).Names(); len(names) != 2 {
			t.Errorf("the state dict has %v", names)
		}

		triple()
		triple()
		want("without the first", 8)
		look()
		last()
		want("after", 6)
		if first.Observed() {
			t.Error("a module whose hooks are removed is observed")
		}
		// One that removes itself, while the hooks run.
		var once func()
		once = first.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { once(); return y.ZerosLike() })
		first.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { return y.AddScalar(1) })
		want("once", 2)
		want("and not again", 8)
	})
}

// TestForwardHookOfState: of an LSTM, a hook sees the output and not the states.
func TestForwardHookOfState(t *testing.T) {
	scoped(t, func() {
		m := nn.LSTM(2, 3, nn.RNNDefaults())
		defer nn.Close(m)
		x := torch.Ones([]int64{4, 1, 2})
		_, wantH, _ := m.Forward(x, torch.Tensor{}, torch.Tensor{})
		m.RegisterForwardHook(func(y torch.Tensor) torch.Tensor { return y.ZerosLike() })
		y, h, _ := m.Forward(x, torch.Tensor{}, torch.Tensor{})
		if y.CountNonzero().Item() != 0 || !h.Equal(wantH) {
			t.Errorf("%v, %v", y, h)
		}
	})
}
