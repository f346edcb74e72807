// Package pickle reads Python pickles as data. It executes no code: a pickle can
// only refer to classes and functions by name, and the caller defines what the
// few that it accepts mean.
package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Values are nil, bool, int64, *big.Int (beyond 64 bits), float64, string,
// []byte, Tuple, *List, *Dict, Global, *Object, and what the Machine's
// functions return.
type (
	// Tuple is a Python tuple.
	Tuple []any
	// List is a Python list.
	List struct{ Items []any }
	// Dict is a Python dict in insertion order: Values[i] is the value of
	// Keys[i]. Use Set to add items.
	Dict struct {
		Keys, Values []any
		at           map[any]int
	}
	// Global is the name of a class or function that the pickle refers to, such
	// as torch.FloatStorage.
	Global struct{ Module, Name string }
	// Object is an instance of a class and its state.
	Object struct {
		Class Global
		State any
	}
)

func (g Global) String() string { return g.Module + "." + g.Name }

// Get returns the value of a string key.
func (d *Dict) Get(key string) (any, bool) {
	if i := d.find(key); i >= 0 {
		return d.Values[i], true
	}
	return nil, false
}

// few is the number of keys up to which they are compared one by one. An index
// would take more memory than such a dict itself, and a list of captions has a
// small dict for each caption.
const few = 8

func (d *Dict) find(key any) int {
	if d.at != nil {
		if i, ok := d.at[key]; ok {
			return i
		}
		return -1
	}
	return slices.Index(d.Keys, key)
}

// Put is Set at the expense of a budget.
func (d *Dict) Put(key, value any, b *Budget) error {
	if err := b.Spend(2*itemCost+keyCost(key), "dict items"); err != nil {
		return err
	}
	return d.Set(key, value)
}

// Set appends an item, or replaces the value if the key exists. Keys must be
// plain values, as they are in all checkpoints; tuples are not allowed, because
// comparing nested ones could take forever.
func (d *Dict) Set(key, value any) error {
	switch key.(type) {
	case nil, bool, int64, float64, string, Global:
	default:
		return fmt.Errorf("unsupported dict key of type %s", TypeName(key))
	}
	if i := d.find(key); i >= 0 {
		d.Values[i] = value
		return nil
	}
	if d.at == nil && len(d.Keys) == few {
		d.at = make(map[any]int, 2*few)
		for i, k := range d.Keys {
			d.at[k] = i
		}
	}
	if d.at != nil {
		d.at[key] = len(d.Keys)
	}
	d.Keys, d.Values = append(d.Keys, key), append(d.Values, value)
	return nil
}

// Builder is a value returned by Call or New that accepts the state set by the
// opcode BUILD.
type Builder interface{ Build(state any) error }

// TypeName returns the name of a value's type for messages: Python's name if it
// has one.
func TypeName(v any) string {
	switch v := v.(type) {
	case *Object:
		return v.Class.String()
	case *List:
		return "list"
	case *Dict:
		return "dict"
	case Tuple:
		return "tuple"
	case string:
		return "str"
	case int64:
		return "int"
	case float64:
		return "float"
	case nil:
		return "None"
	}
	return fmt.Sprintf("%T", v)
}

// Machine defines what a pickle may use.
type Machine struct {
	// Find is called for every class or function that the pickle refers to; an
	// error rejects it.
	Find func(Global) error
	// Call returns f(args...). New returns class(args...) without calling
	// __init__.
	Call func(f Global, args Tuple) (any, error)
	New  func(class Global, args Tuple) (any, error)
	// Persistent returns the value of a persistent id: a storage in PyTorch's
	// files.
	Persistent func(id any) (any, error)
	// Bytes returns the value of a bytes object, which begins at offset at of
	// the pickle. If Bytes is nil, the value is a copy, as []byte. The bytes do
	// not count as read from the Budget.
	Bytes func(b []byte, at int) (any, error)
	// Budget is required. Several pickles of one file share it.
	Budget *Budget
}

type mark struct{}

type state struct {
	m     *Machine
	in    []byte
	pos   int
	stack []any
	memo  []any         // memo entries 0, 1, 2, …, as Python numbers them
	far   map[int64]any // memo entries with other numbers
	apart int           // bytes handed to m.Bytes so far
	// known is how much of the pickle the budget knows to have been read.
	known int
}

// Load reads one pickle at the start of in and returns its value and length in
// bytes. A pickle that exceeds the budget is an error. The value shares no memory
// with in.
func (m *Machine) Load(in []byte) (value any, n int, err error) {
	s := &state{m: m, in: in}
	value, err = s.run()
	if err != nil {
		return nil, s.pos, fmt.Errorf("pickle, offset %d: %w", s.pos, err)
	}
	return value, s.pos, nil
}

var errEnd = fmt.Errorf("unexpected end of data")

func (s *state) bytes(n uint64) ([]byte, error) {
	if n > uint64(len(s.in)-s.pos) {
		return nil, errEnd
	}
	b := s.in[s.pos : s.pos+int(n)]
	s.pos += int(n)
	return b, nil
}

func (s *state) uint(size int) (uint64, error) {
	b, err := s.bytes(uint64(size))
	if err != nil {
		return 0, err
	}
	var v [8]byte
	copy(v[:], b)
	return binary.LittleEndian.Uint64(v[:]), nil
}

// maxLine limits the length of a name or number that is written as text.
const maxLine = 4096

func (s *state) line() (string, error) {
	for i := s.pos; i < len(s.in); i++ {
		if i-s.pos > maxLine {
			return "", fmt.Errorf("line longer than %d bytes", maxLine)
		}
		if s.in[i] == '\n' {
			l := string(s.in[s.pos:i])
			s.pos = i + 1
			return strings.TrimSuffix(l, "\r"), nil
		}
	}
	return "", errEnd
}

func (s *state) push(v any) { s.stack = append(s.stack, v) }

func (s *state) pop() (any, error) {
	if len(s.stack) == 0 {
		return nil, fmt.Errorf("the stack is empty")
	}
	v := s.stack[len(s.stack)-1]
	if _, ok := v.(mark); ok {
		return nil, fmt.Errorf("expected a value on the stack, found a mark")
	}
	s.stack = s.stack[:len(s.stack)-1]
	return v, nil
}

func (s *state) popN(n int) ([]any, error) {
	out := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		v, err := s.pop()
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// popMark removes the topmost mark and all values above it, and returns the
// values.
func (s *state) popMark() ([]any, error) {
	for i := len(s.stack) - 1; i >= 0; i-- {
		if _, ok := s.stack[i].(mark); ok {
			if err := s.spend(itemCost*(len(s.stack)-i-1), "values"); err != nil {
				return nil, err
			}
			items := append([]any(nil), s.stack[i+1:]...)
			s.stack = s.stack[:i]
			return items, nil
		}
	}
	return nil, fmt.Errorf("no mark on the stack")
}

func (s *state) top() (any, error) {
	v, err := s.pop()
	if err == nil {
		s.push(v)
	}
	return v, err
}

// counted reads a length, which takes size bytes, and then that many bytes.
func (s *state) counted(size int) ([]byte, error) {
	n, err := s.uint(size)
	if err != nil {
		return nil, err
	}
	b, err := s.bytes(n)
	if err != nil {
		return nil, err
	}
	return b, s.spend(len(b), "strings")
}

func (s *state) text(size int) error {
	b, err := s.counted(size)
	if err == nil {
		s.push(string(b))
	}
	return err
}

func (s *state) raw(size int) error {
	if s.m.Bytes != nil {
		n, err := s.uint(size)
		if err != nil {
			return err
		}
		at := s.pos
		b, err := s.bytes(n)
		if err != nil {
			return err
		}
		s.apart += len(b)
		v, err := s.m.Bytes(b, at)
		if err == nil {
			s.push(v)
		}
		return err
	}
	b, err := s.counted(size)
	if err == nil {
		s.push(append([]byte{}, b...))
	}
	return err
}

// long pushes an n-byte little-endian two's complement integer.
func (s *state) long(n uint64) error {
	if n > 1024 {
		return fmt.Errorf("integer of %d bytes; at most 1024 are supported", n)
	}
	b, err := s.bytes(n)
	if err != nil {
		return err
	}
	be := make([]byte, len(b))
	for i, c := range b {
		be[len(b)-1-i] = c
	}
	v := new(big.Int).SetBytes(be)
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if v.IsInt64() {
		s.push(v.Int64())
	} else {
		s.push(v)
	}
	return nil
}

func (s *state) find(module, name string) error {
	if len(module) > maxLine || len(name) > maxLine {
		return fmt.Errorf("name longer than %d bytes", maxLine)
	}
	g := Global{module, name}
	if err := s.spend(keyCost(g), "names of classes"); err != nil {
		return err
	}
	if err := s.m.Find(g); err != nil {
		return err
	}
	s.push(g)
	return nil
}

func (s *state) call(f func(Global, Tuple) (any, error), callee, args any) error {
	g, ok := callee.(Global)
	if !ok {
		return fmt.Errorf("cannot call a %s: not a class or function", TypeName(callee))
	}
	t, ok := args.(Tuple)
	if !ok {
		return fmt.Errorf("arguments of %v: expected a tuple, got %s", g, TypeName(args))
	}
	v, err := f(g, t)
	if err != nil {
		return err
	}
	s.push(v)
	return nil
}

func (s *state) setItems(items []any) error {
	if len(items)%2 != 0 {
		return fmt.Errorf("dict key without a value")
	}
	v, err := s.top()
	if err != nil {
		return err
	}
	d, ok := v.(*Dict)
	if !ok {
		return fmt.Errorf("cannot set items of a %s", TypeName(v))
	}
	for i := 0; i < len(items); i += 2 {
		if err := d.Put(items[i], items[i+1], s.m.Budget); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) appendItems(items []any) error {
	v, err := s.top()
	if err != nil {
		return err
	}
	l, ok := v.(*List)
	if !ok {
		return fmt.Errorf("cannot append to a %s", TypeName(v))
	}
	if err := s.spend(itemCost*len(items), "list items"); err != nil {
		return err
	}
	l.Items = append(l.Items, items...)
	return nil
}

func (s *state) put(i int64) error {
	v, err := s.top()
	if err != nil {
		return err
	}
	switch n := int64(len(s.memo)); {
	case i >= 0 && i < n:
		s.memo[i] = v
	case i == n:
		s.memo = append(s.memo, v)
		delete(s.far, i)
	default:
		if s.far == nil {
			s.far = map[int64]any{}
		}
		s.far[i] = v
	}
	return nil
}

func (s *state) get(i int64) error {
	if i >= 0 && i < int64(len(s.memo)) {
		s.push(s.memo[i])
		return nil
	}
	v, ok := s.far[i]
	if !ok {
		return fmt.Errorf("memo entry %d does not exist", i)
	}
	s.push(v)
	return nil
}

// build sets the state of an object. The state of other values, such as an
// OrderedDict's _metadata, is not needed and dropped.
func (s *state) build() error {
	st, err := s.pop()
	if err != nil {
		return err
	}
	v, err := s.top()
	if err != nil {
		return err
	}
	switch o := v.(type) {
	case *Object:
		o.State = st
	case Builder:
		return o.Build(st)
	}
	return nil
}

func (s *state) run() (any, error) {
	for {
		if err := s.spend(stepCost, "opcodes"); err != nil {
			return nil, err
		}
		op, err := s.uint(1)
		if err != nil {
			return nil, err
		}
		switch byte(op) {
		case '.': // STOP
			return s.pop()
		case 0x80: // PROTO
			v, err := s.uint(1)
			if err != nil {
				return nil, err
			}
			if v > 5 {
				return nil, fmt.Errorf("unknown pickle protocol %d", v)
			}
		case 0x95: // FRAME
			if _, err := s.uint(8); err != nil {
				return nil, err
			}
		default:
			if err := s.step(byte(op)); err != nil {
				return nil, err
			}
		}
	}
}

// spend spends n bytes of the budget, which grows with what has been read.
func (s *state) spend(n int, what string) error {
	s.m.Budget.read += int64(s.pos - s.apart - s.known)
	s.known = s.pos - s.apart
	return s.m.Budget.Spend(n, what)
}

func sizeIf(short bool, a, b int) int {
	if short {
		return a
	}
	return b
}

func (s *state) step(op byte) error {
	switch op {
	case '(': // MARK
		s.push(mark{})
	case '0': // POP
		if len(s.stack) == 0 {
			return fmt.Errorf("the stack is empty")
		}
		s.stack = s.stack[:len(s.stack)-1]
	case '1': // POP_MARK
		_, err := s.popMark()
		return err
	case '2': // DUP
		v, err := s.top()
		if err != nil {
			return err
		}
		s.push(v)
	case 'N': // NONE
		s.push(nil)
	case 0x88: // NEWTRUE
		s.push(true)
	case 0x89: // NEWFALSE
		s.push(false)
	case 'I', 'L': // INT, LONG
		l, err := s.line()
		if err != nil {
			return err
		}
		if op == 'I' && (l == "00" || l == "01") {
			s.push(l == "01")
			return nil
		}
		v, err := strconv.ParseInt(strings.TrimSuffix(l, "L"), 10, 64)
		if err != nil {
			return fmt.Errorf("%.20q is not an integer", l)
		}
		s.push(v)
	case 'J': // BININT
		v, err := s.uint(4)
		if err != nil {
			return err
		}
		s.push(int64(int32(v)))
	case 'K', 'M': // BININT1, BININT2
		v, err := s.uint(sizeIf(op == 'K', 1, 2))
		if err != nil {
			return err
		}
		s.push(int64(v))
	case 0x8a, 0x8b: // LONG1, LONG4
		n, err := s.uint(sizeIf(op == 0x8a, 1, 4))
		if err != nil {
			return err
		}
		return s.long(n)
	case 'F': // FLOAT
		l, err := s.line()
		if err != nil {
			return err
		}
		v, err := strconv.ParseFloat(l, 64)
		if err != nil {
			return fmt.Errorf("%.20q is not a number", l)
		}
		s.push(v)
	case 'G': // BINFLOAT
		b, err := s.bytes(8)
		if err != nil {
			return err
		}
		s.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 'S', 'V': // STRING, UNICODE
		l, err := s.line()
		if err != nil {
			return err
		}
		if op == 'S' && len(l) >= 2 {
			l = l[1 : len(l)-1]
		}
		s.push(l)
	case 'U', 0x8c: // SHORT_BINSTRING, SHORT_BINUNICODE
		return s.text(1)
	case 'T', 'X': // BINSTRING, BINUNICODE
		return s.text(4)
	case 0x8d: // BINUNICODE8
		return s.text(8)
	case 'C': // SHORT_BINBYTES
		return s.raw(1)
	case 'B': // BINBYTES
		return s.raw(4)
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		return s.raw(8)
	case ')': // EMPTY_TUPLE
		s.push(Tuple{})
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		t, err := s.popN(int(op - 0x84))
		if err != nil {
			return err
		}
		s.push(Tuple(t))
	case 't': // TUPLE
		t, err := s.popMark()
		if err != nil {
			return err
		}
		s.push(Tuple(t))
	case ']', 0x8f: // EMPTY_LIST, EMPTY_SET
		s.push(&List{})
		return s.spend(listCost, "lists")
	case 'l', 0x91: // LIST, FROZENSET
		t, err := s.popMark()
		if err != nil {
			return err
		}
		s.push(&List{t})
		return s.spend(listCost, "lists")
	case 'a': // APPEND
		t, err := s.popN(1)
		if err != nil {
			return err
		}
		return s.appendItems(t)
	case 'e', 0x90: // APPENDS, ADDITEMS
		t, err := s.popMark()
		if err != nil {
			return err
		}
		return s.appendItems(t)
	case '}': // EMPTY_DICT
		s.push(&Dict{})
		return s.spend(dictCost, "dicts")
	case 'd': // DICT
		t, err := s.popMark()
		if err != nil {
			return err
		}
		s.push(&Dict{})
		if err := s.spend(dictCost, "dicts"); err != nil {
			return err
		}
		return s.setItems(t)
	case 's': // SETITEM
		t, err := s.popN(2)
		if err != nil {
			return err
		}
		return s.setItems(t)
	case 'u': // SETITEMS
		t, err := s.popMark()
		if err != nil {
			return err
		}
		return s.setItems(t)
	case 'q', 'r': // BINPUT, LONG_BINPUT
		i, err := s.uint(sizeIf(op == 'q', 1, 4))
		if err != nil {
			return err
		}
		return s.put(int64(i))
	case 0x94: // MEMOIZE
		return s.put(int64(len(s.memo) + len(s.far)))
	case 'h', 'j': // BINGET, LONG_BINGET
		i, err := s.uint(sizeIf(op == 'h', 1, 4))
		if err != nil {
			return err
		}
		return s.get(int64(i))
	case 'p', 'g': // PUT, GET
		l, err := s.line()
		if err != nil {
			return err
		}
		i, err := strconv.ParseInt(l, 10, 64)
		if err != nil {
			return fmt.Errorf("memo entry %.20q: not an integer", l)
		}
		if op == 'p' {
			return s.put(i)
		}
		return s.get(i)
	case 'c': // GLOBAL
		module, err := s.line()
		if err != nil {
			return err
		}
		name, err := s.line()
		if err != nil {
			return err
		}
		return s.find(module, name)
	case 0x93: // STACK_GLOBAL
		t, err := s.popN(2)
		if err != nil {
			return err
		}
		module, ok := t[0].(string)
		name, ok2 := t[1].(string)
		if !ok || !ok2 {
			return fmt.Errorf("module and name must be strings, got %s and %s", TypeName(t[0]), TypeName(t[1]))
		}
		return s.find(module, name)
	case 'R', 0x81: // REDUCE, NEWOBJ
		t, err := s.popN(2)
		if err != nil {
			return err
		}
		if op == 'R' {
			return s.call(s.m.Call, t[0], t[1])
		}
		return s.call(s.m.New, t[0], t[1])
	case 'b': // BUILD
		return s.build()
	case 'Q': // BINPERSID
		id, err := s.pop()
		if err != nil {
			return err
		}
		v, err := s.m.Persistent(id)
		if err != nil {
			return err
		}
		s.push(v)
	case 'i', 'o', 0x92: // INST, OBJ, NEWOBJ_EX
		return fmt.Errorf("opcode %#x, which creates objects, is not supported; weights files do not use it", op)
	default:
		return fmt.Errorf("opcode %#x is unknown or not supported", op)
	}
	return nil
}
