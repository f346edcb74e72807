package weights

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/pickle"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// SaveOptimizer writes the state dict of an optimizer as torch.save(optimizer.state_dict(), path)
// does, so that optimizer.load_state_dict(torch.load(path)) continues in Python. path ends in .pt,
// .pth or .bin. An existing file is replaced only once the new one is complete.
func SaveOptimizer(ctx context.Context, path string, opt optim.Optimizer) error {
	if format, err := formatOf(path); err != nil || format != Zip {
		return fmt.Errorf("%s: the state of an optimizer is written in PyTorch's format; use .pt", path)
	}
	return torch.Scope(func() error {
		d := opt.StateDict()
		sd := nn.NewStateDict()
		for i, own := range d.State {
			for _, name := range slices.Sorted(maps.Keys(own)) {
				if !isInt(name, own[name]) {
					sd.Add(fmt.Sprintf("%d.%s", i, name), own[name])
				}
			}
		}
		storages, views, err := storagesOf(path, sd)
		if err != nil {
			return err
		}
		var p pickler
		p.op(0x80, 2)
		p.op('}', '(')
		p.text("state")
		p.op('}', '(')
		for i, own := range d.State {
			if len(own) == 0 {
				continue // as in PyTorch
			}
			p.int(int64(i))
			p.op('}', '(')
			for _, name := range slices.Sorted(maps.Keys(own)) {
				p.text(name)
				if isInt(name, own[name]) {
					p.int(torch.ItemOf[int64](own[name]))
					continue
				}
				p.tensor(views[0])
				views = views[1:]
			}
			p.op('u')
		}
		p.op('u')
		p.text("param_groups")
		p.op(']', '(')
		for i, options := range d.ParamGroups {
			p.op('}', '(')
			for _, name := range slices.Sorted(maps.Keys(options)) {
				p.text(name)
				if err := p.plain(options[name]); err != nil {
					return fmt.Errorf("%s: the option %s: %w", path, name, err)
				}
			}
			p.text("params")
			p.op(']', '(')
			for _, k := range d.Params[i] {
				p.int(int64(k))
			}
			p.op('e', 'u')
		}
		p.op('e', 'u', '.')
		return writeZip(ctx, path, p.Bytes(), storages, nil)
	})
}

// isInt reports whether a part of a state is an int in PyTorch: the step of SparseAdam.
func isInt(name string, t torch.Tensor) bool { return name == "step" && t.DType() == torch.Int64 }

// plain writes an option: nil, a bool, a number, a string, or a list of them as a tuple.
func (p *pickler) plain(v any) error {
	switch v := v.(type) {
	case nil:
		p.op('N')
	case bool:
		if v {
			p.op(0x88)
		} else {
			p.op(0x89)
		}
	case int64:
		p.int(v)
	case float64:
		p.op('G')
		binary.Write(p, binary.BigEndian, math.Float64bits(v))
	case string:
		p.text(v)
	case []any:
		p.op('(')
		for _, x := range v {
			if err := p.plain(x); err != nil {
				return err
			}
		}
		p.op('t')
	default:
		return fmt.Errorf("a %T cannot be written", v)
	}
	return nil
}

// LoadOptimizer restores an optimizer from a file that SaveOptimizer, or in Python
// torch.save(optimizer.state_dict(), path), wrote. Groups and shapes must match. If it fails, the
// optimizer is unchanged.
func LoadOptimizer(path string, opt optim.Optimizer) error {
	err := torch.Scope(func() error {
		d, sd, err := readOptimizer(path)
		if err != nil {
			return err
		}
		defer sd.Close()
		return opt.LoadStateDict(d)
	})
	if err != nil {
		return &Error{path, atomicfile.Plain(err)}
	}
	return nil
}

// readOptimizer reads a state dict. Its tensors are views of the file that belong to sd, apart from
// numbers, which belong to the scope.
func readOptimizer(path string) (d optim.StateDict, sd *nn.StateDict, err error) {
	var s storedOptimizer
	err = mapped(path, func(in []byte) error {
		s, err = parseOptimizer(path, in)
		return err
	})
	if err != nil {
		return d, nil, err
	}
	if sd, err = s.file.Load(); err != nil {
		return d, nil, err
	}
	for _, full := range sd.Names() {
		_, name, _ := strings.Cut(full, ".")
		s.places[full][name], _ = sd.Get(full)
	}
	return s.dict, sd, nil
}

// A storedOptimizer is what a file contains.
type storedOptimizer struct {
	dict   optim.StateDict // without the tensors of file
	file   *File
	places map[string]map[string]torch.Tensor // in dict, of the tensors by their names in file
}

// parseOptimizer reads the contents of a file, apart from the elements of tensors. It must be called
// in a scope.
func parseOptimizer(path string, in []byte) (s storedOptimizer, err error) {
	if !bytes.HasPrefix(in, []byte("PK\x03\x04")) {
		return s, fmt.Errorf("not a file in the format of torch.save since PyTorch 1.6")
	}
	a, err := openArchive(in)
	if err != nil {
		return s, err
	}
	u := newUnpickler(newBudget())
	value, err := a.value(u)
	if err != nil {
		return s, err
	}
	s.file, s.places = a.file(path, u), map[string]map[string]torch.Tensor{}
	s.file.Path = path
	if err := checkSmall(s.file, in); err != nil {
		return s, err
	}
	s.dict, err = optimizerState(value, u.budget, func(name string, t *tensor, to map[string]torch.Tensor) error {
		s.places[name] = to
		return s.file.add(path, name, t, u.budget)
	})
	return s, err
}

// optimizerState reads a pickled state dict of an optimizer. add is called for each tensor, with a
// name for it and the map that it belongs to. What a pickle refers to several times counts each time.
func optimizerState(value any, budget *pickle.Budget, add func(name string, t *tensor, to map[string]torch.Tensor) error) (d optim.StateDict, err error) {
	root, _ := value.(*pickle.Dict)
	if root == nil {
		return d, fmt.Errorf("expected the state dict of an optimizer, but the file contains a %s", typeName(value))
	}
	stateValue, _ := root.Get("state")
	groupsValue, _ := root.Get("param_groups")
	state, ok := stateValue.(*pickle.Dict)
	groups, ok2 := groupsValue.(*pickle.List)
	if !ok || !ok2 {
		return d, fmt.Errorf("expected the state dict of an optimizer, but there is no state, or there are no param_groups")
	}
	n := 0
	for i, v := range groups.Items {
		g, ok := v.(*pickle.Dict)
		if !ok {
			return d, fmt.Errorf("group %d is a %s, not a dict", i, typeName(v))
		}
		options := map[string]any{}
		for k, key := range g.Keys {
			name, ok := key.(string)
			if !ok {
				return d, fmt.Errorf("group %d has a %s as the name of an option", i, typeName(key))
			}
			if name == "params" {
				indices, err := indices(g.Values[k], budget)
				if err != nil {
					return d, fmt.Errorf("group %d: %w", i, err)
				}
				d.Params = append(d.Params, indices)
				n += len(indices)
				continue
			}
			if err := budget.Spend(optionCost+len(name), "options"); err != nil {
				return d, err
			}
			if options[name], err = optionOf(g.Values[k], budget); err != nil {
				return d, fmt.Errorf("group %d: option %s: %w", i, name, err)
			}
		}
		if d.ParamGroups = append(d.ParamGroups, options); len(d.Params) != len(d.ParamGroups) {
			return d, fmt.Errorf("group %d has no params", i)
		}
	}
	d.State = make([]map[string]torch.Tensor, n)
	for i, key := range state.Keys {
		k, ok := key.(int64)
		own, ok2 := state.Values[i].(*pickle.Dict)
		if !ok || !ok2 || k < 0 || k >= int64(n) {
			return d, fmt.Errorf("the state of a parameter is a %s for %v, not a dict for one of %d parameters", typeName(state.Values[i]), key, n)
		}
		d.State[k] = map[string]torch.Tensor{}
		for x, key := range own.Keys {
			name, ok := key.(string)
			if !ok {
				return d, fmt.Errorf("the state of parameter %d has a %s as a name", k, typeName(key))
			}
			if err := budget.Spend(tensorCost, "numbers of parameters"); err != nil {
				return d, err
			}
			switch v := own.Values[x].(type) {
			case nil: // the momentum of SGD before its first step
			case *tensor:
				if err := add(fmt.Sprintf("%d.%s", k, name), v, d.State[k]); err != nil {
					return d, err
				}
			case int64: // the step of SparseAdam, and of others in PyTorch before 1.12
				d.State[k][name] = torch.Scalar0(v)
			case float64:
				d.State[k][name] = torch.Scalar0(float32(v))
			default:
				return d, fmt.Errorf("%s in the state of parameter %d is a %s", name, k, typeName(v))
			}
		}
	}
	return d, nil
}

// indices returns a list of indices of parameters.
func indices(v any, budget *pickle.Budget) (out []int, err error) {
	list, ok := v.(*pickle.List)
	if !ok {
		return nil, fmt.Errorf("params is a %s, not a list", typeName(v))
	}
	if err := budget.Spend(groupCost+paramCost*len(list.Items), "groups of parameters"); err != nil {
		return nil, err
	}
	for _, x := range list.Items {
		k, ok := x.(int64)
		if !ok {
			return nil, fmt.Errorf("params has a %s, not an index", typeName(x))
		}
		out = append(out, int(k))
	}
	return out, nil
}

// What the parts of an optimizer's state spend: a group, a parameter, and an option or one of the numbers
// of a tuple.
const (
	groupCost  = 256
	paramCost  = 32
	optionCost = 128
)

// maxTuple is the largest number of numbers in an option that is read.
const maxTuple = 64

// optionOf returns an option as [optim.StateDict] has it.
func optionOf(v any, budget *pickle.Budget) (any, error) {
	var items []any
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v, nil
	case pickle.Tuple:
		items = v
	case *pickle.List:
		items = v.Items
	default:
		return nil, fmt.Errorf("a %s is not supported", typeName(v))
	}
	if len(items) > maxTuple {
		return nil, fmt.Errorf("%d elements; at most %d are supported", len(items), maxTuple)
	}
	if err := budget.Spend(optionCost*len(items), "options"); err != nil {
		return nil, err
	}
	out := []any{}
	for _, x := range items {
		switch x.(type) {
		case nil, bool, int64, float64, string:
			out = append(out, x)
		default:
			return nil, fmt.Errorf("a %s in a tuple is not supported", typeName(x))
		}
	}
	return out, nil
}
