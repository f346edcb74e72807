package verify

import (
	"fmt"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
)

// layers compares the outputs of a net's modules with those of the reference, if they
// are asked for. compute runs the net on the first photo, text or caption.
func (v *Verifier) layers(net string, module any, compute func()) {
	if !v.Bisect || len(v.ref.Facts.Layers[net]) == 0 {
		return
	}
	seen := map[string]Row{}
	nn.OnOutput(module, func(name string, out torch.Tensor) {
		key := "layers." + net + "." + name
		if _, again := seen[name]; again || !v.ref.Has(key) {
			return
		}
		shape, own := v.ref.shape(key), out.Shape()
		if slices.Equal(shape, own) {
			seen[name] = v.row(net, name, key, v.tolerances.outputs, out)
		} else if len(shape) == 3 && shape[0] == 1 && slices.Equal(own, []int64{1, shape[2]}) {
			seen[name] = Row{Part: net, What: name, Difference: v.first(key, out), Tolerance: v.tolerances.outputs}
		}
	})
	defer nn.OnOutput(module, nil)
	v.run(net, "outputs of modules", func() error {
		compute()
		return nil
	})
	for _, name := range v.ref.Facts.Layers[net] {
		if row, ok := seen[name]; ok {
			v.Modules = append(v.Modules, Module{net, name, row})
		}
	}
}

// first compares a tensor [1, width] with the first position of one [1, positions, width]:
// open_clip's ln_post normalizes all positions, and ours only the class token, which is the
// first.
func (v *Verifier) first(name string, got torch.Tensor) compare.Difference {
	f32 := torch.WithDType(torch.Float32)
	part := v.ref.sample(name, got).Reshape([]int64{-1})
	want := v.ref.tensor(name).Reshape([]int64{-1}).Narrow(0, 0, part.Numel())
	d := compare.Tensors(part.To(f32, torch.WithDevice(torch.CPU)), want.To(f32))
	step := max(1, v.ref.Facts.Sampled[name].Step)
	d.Shape = got.Shape()
	for _, e := range []*compare.Element{d.First, d.Worst} {
		if e != nil {
			e.Index = unflatten(e.Index[0]*step, d.Shape)
		}
	}
	return d
}

// Nets returns the nets of Modules, in their order.
func (r *Report) Nets() (nets []string) {
	for _, m := range r.Modules {
		if !slices.Contains(nets, m.Net) {
			nets = append(nets, m.Net)
		}
	}
	return nets
}

// First returns the first module of a net whose output is out of the tolerance, and the one
// before it; ok is false if there is none.
func (r *Report) First(net string) (bad, before Module, ok bool) {
	for _, m := range r.Modules {
		if m.Net != net {
			continue
		}
		if !m.Row.OK() {
			return m, before, true
		}
		before = m
	}
	return bad, before, false
}

// bisected says in a sentence where a net begins to differ.
func (r *Report) bisected(net string) string {
	count, bits := 0, ""
	for _, m := range r.Modules {
		if m.Net == net {
			count++
			if bits == "" && !m.Row.Difference.Equal() {
				bits = m.Name
			}
		}
	}
	bad, before, ok := r.First(net)
	switch {
	case !ok && bits == "":
		return fmt.Sprintf("%s: the outputs of all %d modules have the same bits", net, count)
	case !ok:
		return fmt.Sprintf("%s: the outputs of all %d modules are within the tolerance; bits differ from %s on", net, count, bits)
	case before.Name == "":
		return fmt.Sprintf("%s: already the first module, %s, differs (%s): its weights or its input are others", net, bad.Name, size(bad.Row.Difference))
	}
	return fmt.Sprintf("%s: the first module that differs is %s (%s); the one before it, %s, agrees (%s)", net, bad.Name, size(bad.Row.Difference), before.Name, size(before.Row.Difference))
}
