package weights

import (
	"encoding/json"
	"fmt"
	"math"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/pickle"
)

// decapConfig is the file from which DeCap's code reads the settings of its decoder: a
// pickled GPT2Config of transformers.
const decapConfig = "decoder_config.pkl"

// maxConfig bounds the size of a pickled configuration. DeCap's has 1,753 bytes.
const maxConfig = 1 << 20

// DeCapConfig returns the settings of the decoder in DeCap's decoder_config.pkl beside
// the weights, in the form of a config.json, and the path of the file. It returns nil if
// there is no such file. No code of the pickle is executed.
func DeCapConfig(f *File) (data []byte, path string, err error) {
	in, path, err := f.beside(decapConfig, maxConfig)
	if in == nil || err != nil {
		return nil, path, err
	}
	data, err = configJSON(in)
	if err != nil {
		return nil, path, &Error{path, atomicfile.Plain(err)}
	}
	return data, path, nil
}

// configJSON converts a pickled GPT2Config.
func configJSON(in []byte) ([]byte, error) {
	if len(in) < 2 || in[0] != 0x80 {
		return nil, fmt.Errorf("%s, not a pickled GPT2Config", looksLike(in))
	}
	u := newUnpickler(pickle.NewBudget(128, 64<<20))
	m := u.machine()
	m.Find = func(g pickle.Global) error {
		if g.Name == "GPT2Config" && (g.Module == "transformers.models.gpt2.configuration_gpt2" || g.Module == "transformers.configuration_gpt2") {
			return nil
		}
		return u.find(g)
	}
	m.New = func(class pickle.Global, args pickle.Tuple) (any, error) {
		if class.Name == "GPT2Config" && len(args) == 0 {
			return &pickle.Object{Class: class}, nil
		}
		return u.newObject(class, args)
	}
	m.Call = func(g pickle.Global, args pickle.Tuple) (any, error) {
		if g.Name == "GPT2Config" {
			return nil, fmt.Errorf("%v is called with arguments", g)
		}
		return u.call(g, args)
	}
	value, _, err := m.Load(in)
	if err != nil {
		return nil, err
	}
	o, ok := value.(*pickle.Object)
	if !ok {
		return nil, fmt.Errorf("expected a pickled GPT2Config, got a %s", pickle.TypeName(value))
	}
	state, ok := o.State.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("expected the settings of a GPT2Config, got a %s", pickle.TypeName(o.State))
	}
	// Settings that change numbers are plain values. Those that are not, such as
	// id2label, are for other tasks.
	keys := map[string]any{}
	for i, k := range state.Keys {
		name, ok := k.(string)
		if !ok {
			continue
		}
		switch v := state.Values[i].(type) {
		case nil, bool, string, int64:
			keys[name] = v
		case float64:
			if math.IsInf(v, 0) || math.IsNaN(v) {
				return nil, fmt.Errorf("%s is %g", name, v)
			}
			keys[name] = v
		}
	}
	return json.Marshal(keys)
}
