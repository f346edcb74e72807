package weights

import (
	"bytes"
	"fmt"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/pickle"
)

// ReadPickle reads a file written by Python's pickle.dump. The value may consist
// of plain values (dicts are *pickle.Dict, lists are *pickle.List) and tensors,
// which become an Entry each; their elements are not read. No code is executed:
// a pickle may refer only to what a tensor needs. Walk the value at the expense
// of budget, because it may refer to one part of itself many times.
func ReadPickle(path string, budget *pickle.Budget) (value any, err error) {
	err = mapped(path, func(in []byte) error {
		value, err = parsePickle(path, in, budget)
		return err
	})
	if err != nil {
		return nil, &Error{path, atomicfile.Plain(err)}
	}
	return value, nil
}

// rawBytes is a bytes object in a pickle, at an offset in its file, and the
// storage that it contains once that has been read.
type rawBytes struct {
	b       []byte
	at      int
	storage *storage
}

func parsePickle(path string, in []byte, budget *pickle.Budget) (any, error) {
	if len(in) < 2 || in[0] != 0x80 || in[1] > 5 {
		what := looksLike(in)
		if bytes.HasPrefix(in, []byte("PK\x03\x04")) {
			what = "a zip file (written by torch.save?)"
		}
		return nil, fmt.Errorf("%s, not a file written by Python's pickle.dump", what)
	}
	u := newUnpickler(budget)
	m := u.machine()
	m.Bytes = func(b []byte, at int) (any, error) { return &rawBytes{b: b, at: at}, nil }
	m.Persistent = func(any) (any, error) { return nil, fmt.Errorf("unexpected persistent id in a plain pickle") }
	m.Find = func(g pickle.Global) error {
		if g == (pickle.Global{Module: "torch.storage", Name: "_load_from_bytes"}) {
			return nil
		}
		return u.find(g)
	}
	m.Call = func(g pickle.Global, args pickle.Tuple) (any, error) {
		if g.Name != "_load_from_bytes" {
			v, err := u.call(g, args)
			if t, ok := v.(*tensor); ok && err == nil {
				return t.entry(path, ""), nil
			}
			return v, err
		}
		// The bytes are a file in torch.save's older format that contains one
		// storage.
		var raw *rawBytes
		if len(args) == 1 {
			raw, _ = args[0].(*rawBytes)
		}
		if raw == nil {
			return nil, fmt.Errorf("%v: expected bytes as the only argument", g)
		}
		if raw.storage != nil {
			return raw.storage, nil
		}
		object, err := legacyObject(raw.b, budget)
		if err != nil {
			return nil, fmt.Errorf("tensor storage: %w", err)
		}
		s, ok := object.(*storage)
		if !ok {
			return nil, fmt.Errorf("tensor storage: expected a storage, got %s", typeName(object))
		}
		s.offset += int64(raw.at)
		raw.storage = s
		return s, nil
	}
	value, _, err := m.Load(in)
	return value, err
}
