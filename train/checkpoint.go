package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"cyclecap/internal/jsonerror"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/weights"
)

// Parts is the state that training changes, which a checkpoint contains.
type Parts struct {
	// Modules maps prefixes of tensor names to modules.
	Modules map[string]any
	// Optimizers maps names to optimizers.
	Optimizers map[string]optim.Optimizer
	// Tensors and Counters are any further state, by name.
	Tensors  map[string]torch.Tensor
	Counters map[string]*int
}

// checkpoint is the metadata of a checkpoint, which is a safetensors file. The tensors
// of the file are those of Parts and the state of the random generator.
type checkpoint struct {
	Kind     string
	Config   string
	Step     int
	Best     float64        // lowest validation loss; +Inf before the first validation
	Counters map[string]int // Parts.Counters
	// Steps maps optimizers to the step counts of their parameters.
	Steps map[string][]int64
}

const checkpointKey = "cyclecap.checkpoint"

// MarshalJSON writes Best as a string, because JSON has no infinity.
func (c checkpoint) MarshalJSON() ([]byte, error) {
	type plain checkpoint
	best := strconv.FormatFloat(c.Best, 'g', -1, 64)
	c.Best = 0
	return json.Marshal(struct {
		plain
		Best string
	}{plain(c), best})
}

// UnmarshalJSON reads the output of MarshalJSON.
func (c *checkpoint) UnmarshalJSON(b []byte) error {
	type plain checkpoint
	in := struct {
		*plain
		Best string
	}{plain: (*plain)(c)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	var err error
	c.Best, err = strconv.ParseFloat(in.Best, 64)
	return err
}

// each calls f with all tensors of a checkpoint but the state of the random generator.
func (p Parts) each(f func(name string, t torch.Tensor)) {
	for _, name := range slices.Sorted(maps.Keys(p.Modules)) {
		m := nn.StateDictOf(p.Modules[name])
		for _, n := range m.Names() {
			t, _ := m.Get(n)
			f(name+"."+n, t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Optimizers)) {
		o := p.Optimizers[name]
		for i, s := range o.State() {
			for k, t := range s.Tensors {
				f(fmt.Sprintf("optimizer.%s.%d.%s", name, i, o.StateNames()[k]), t)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Tensors)) {
		f(name, p.Tensors[name])
	}
}

// notFinite returns the name of a tensor with an element that is not finite, or "". It
// reads from the device once.
func notFinite(p Parts) (name string, err error) {
	err = torch.Scope(func() error {
		var names []string
		var sums []torch.Tensor
		torch.NoGrad(func() {
			p.each(func(n string, t torch.Tensor) {
				if t.DType().IsFloat() && t.Device() != torch.Meta && t.Numel() > 0 {
					// 0 times what is not finite is NaN, also in the sum.
					sums = append(sums, torch.Tidy(func() torch.Tensor { return t.MulScalar(0).Sum(torch.WithDType(torch.Float32)) }))
					names = append(names, n)
				}
			})
			if len(sums) == 0 {
				return
			}
			for i, v := range torch.ToSlice[float32](torch.Stack(sums)) {
				if v != 0 {
					name = names[i]
					return
				}
			}
		})
		return nil
	})
	return name, err
}

// unreadable is the error of a checkpoint that is damaged.
type unreadable struct{ err error }

func (u *unreadable) Error() string { return u.err.Error() }
func (u *unreadable) Unwrap() error { return u.err }

// saveCheckpoint writes a checkpoint atomically: the previous file remains until the new
// one is complete and on disk.
func saveCheckpoint(ctx context.Context, path string, c checkpoint, p Parts) error {
	return torch.Scope(func() error {
		sd := nn.NewStateDict()
		p.each(func(name string, t torch.Tensor) { sd.Add(name, t) })
		c.Steps = map[string][]int64{}
		for name, o := range p.Optimizers {
			for _, s := range o.State() {
				c.Steps[name] = append(c.Steps[name], s.Step)
			}
		}
		c.Counters = map[string]int{}
		for name, v := range p.Counters {
			c.Counters[name] = *v
		}
		sd.Add("random", torch.FromSlice(torch.DefaultGenerator(torch.CPU).State()))
		meta, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return weights.SaveSafetensors(ctx, path, sd, map[string]string{checkpointKey: string(meta)})
	})
}

// openCheckpoint opens a checkpoint, checks its checksums and reads its metadata. It returns
// an unreadable error if the file is damaged.
func openCheckpoint(path string) (f *weights.File, c checkpoint, err error) {
	if f, err = weights.Open(path); err == nil {
		err = f.Check()
	}
	if err != nil {
		return nil, c, &unreadable{fmt.Errorf("%s: %w", path, err)}
	}
	meta, ok := f.Meta[checkpointKey]
	if !ok {
		return nil, c, fmt.Errorf("%s: not a training checkpoint: the file contains only weights", path)
	}
	if err := json.Unmarshal([]byte(meta), &c); err != nil {
		return nil, c, fmt.Errorf("%s: cannot read the checkpoint's metadata: %w", path, jsonerror.Words(err))
	}
	return f, c, nil
}

// Resumable reports whether dir has a checkpoint from which a Loop with this Config can
// continue: the last one, or the one before if the last one is damaged or missing. It reads
// the file and checks its checksums.
func Resumable(dir, config string) bool {
	for _, name := range []string{LastCheckpoint, PreviousCheckpoint} {
		_, c, err := openCheckpoint(filepath.Join(dir, name))
		if bad := (*unreadable)(nil); errors.As(err, &bad) {
			continue
		}
		return err == nil && c.Config == config
	}
	return false
}

// loadCheckpoint restores parts from a checkpoint.
func loadCheckpoint(path, kind, config string, p Parts) (c checkpoint, err error) {
	f, c, err := openCheckpoint(path)
	if err != nil {
		return c, err
	}
	if c.Kind != kind {
		return c, fmt.Errorf("%s: checkpoint of a %s training, want %s", path, c.Kind, kind)
	}
	if c.Config != config {
		return c, fmt.Errorf("%s: checkpoint was trained with other settings or data; restore them to resume it, or remove its folder to start over", path)
	}
	sd, err := f.Load()
	if err != nil {
		return c, err
	}
	defer sd.Close()
	err = torch.Scope(func() error {
		for name, m := range p.Modules {
			own := nn.StateDictOf(m)
			for _, n := range own.Names() {
				t, _ := own.Get(n)
				if err := restore(sd, name+"."+n, t); err != nil {
					return err
				}
			}
		}
		for name, t := range p.Tensors {
			if err := restore(sd, name, t); err != nil {
				return err
			}
		}
		for name, o := range p.Optimizers {
			states := make([]optim.ParamState, len(c.Steps[name]))
			for i := range states {
				states[i].Step = c.Steps[name][i]
				for _, n := range o.StateNames() {
					t, ok := sd.Get(fmt.Sprintf("optimizer.%s.%d.%s", name, i, n))
					if !ok {
						if states[i].Step == 0 {
							break // no state before the first step
						}
						return fmt.Errorf("optimizer %s: the state %s of parameter %d is missing", name, n, i)
					}
					states[i].Tensors = append(states[i].Tensors, t.Clone().Keep())
				}
			}
			if err := o.SetState(states); err != nil {
				return err
			}
		}
		random, ok := sd.Get("random")
		if !ok {
			return fmt.Errorf("the state of the random number generator is missing")
		}
		for name, v := range p.Counters {
			*v = c.Counters[name]
		}
		return torch.DefaultGenerator(torch.CPU).SetState(torch.ToSlice[uint8](random))
	})
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if c.Step < 0 || math.IsNaN(c.Best) {
		return c, fmt.Errorf("%s: invalid step %d or validation loss %g", path, c.Step, c.Best)
	}
	return c, nil
}

// restore copies a tensor of a file into a tensor of the same shape and dtype.
func restore(sd *nn.StateDict, name string, to torch.Tensor) error {
	from, ok := sd.Get(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	if !slices.Equal(from.Shape(), to.Shape()) || from.DType() != to.DType() {
		return fmt.Errorf("tensor %s is %v %v, want %v %v", name, from.DType(), from.Shape(), to.DType(), to.Shape())
	}
	torch.NoGrad(func() { to.Copy_(from) })
	return nil
}
