package nn

import (
	"fmt"
	"math"

	"cyclecap/torch"
)

// RNNOptions configures RNN, GRU and LSTM.
type RNNOptions struct {
	NumLayers     int64
	Nonlinearity  string // of RNN: "tanh" (or "") or "relu"
	Bias          bool
	BatchFirst    bool    // inputs and outputs are [n, t, ...] instead of [t, n, ...]
	Dropout       float64 // the probability to drop an output of each layer but the last, in training
	Bidirectional bool
	ProjSize      int64 // of LSTM: the size to which outputs are projected, or 0
}

// RNNDefaults returns PyTorch's defaults: one layer with biases in one direction, tanh.
func RNNDefaults() RNNOptions { return RNNOptions{NumLayers: 1, Nonlinearity: "tanh", Bias: true} }

// A NamedTensors is a part of a module whose tensors have names that no field could have, because
// their number depends on options: weight_ih_l0, weight_hh_l0 and so on.
type NamedTensors []NamedTensor

// NamedTensor is a parameter and its name.
type NamedTensor struct {
	Name   string
	Tensor torch.Tensor
}

// tensors returns the tensors of w, in order.
func (w NamedTensors) tensors() (out []torch.Tensor) {
	for _, n := range w {
		out = append(out, n.Tensor)
	}
	return out
}

// recurrent is the common part of RNN, GRU and LSTM.
type recurrent struct {
	Hook
	NamedTensors
	Training       bool
	op             string
	hidden, output int64 // output is the projection's size, or hidden
	o              RNNOptions
}

// newRecurrent creates the weights of a module with the given number of gates.
func newRecurrent(op string, gates, input, hidden int64, o RNNOptions) recurrent {
	within := func(name string, v int64) {
		if v < 1 {
			torch.Throw(op, "%s must be at least 1, got %d", name, v)
		}
	}
	within("the size of the input", input)
	within("the hidden size", hidden)
	within("NumLayers", o.NumLayers)
	if !(o.Dropout >= 0 && o.Dropout <= 1) {
		torch.Throw(op, "Dropout must be between 0 and 1, got %v", o.Dropout)
	}
	if o.ProjSize < 0 || o.ProjSize >= hidden || o.ProjSize > 0 && op != "nn.LSTM" {
		torch.Throw(op, "ProjSize is for LSTM and must be less than the hidden size, %d, got %d", hidden, o.ProjSize)
	}
	r := recurrent{Training: true, op: op, hidden: hidden, output: hidden, o: o}
	if o.ProjSize > 0 {
		r.output = o.ProjSize
	}
	suffixes := []string{"", "_reverse"}[:r.directions()]
	for layer := range o.NumLayers {
		in := input
		if layer > 0 {
			in = r.output * r.directions()
		}
		for _, suffix := range suffixes {
			add := func(name string, shape ...int64) {
				r.NamedTensors = append(r.NamedTensors, NamedTensor{fmt.Sprintf("%s_l%d%s", name, layer, suffix), parameter(torch.Empty(shape))})
			}
			add("weight_ih", gates*hidden, in)
			add("weight_hh", gates*hidden, r.output)
			if o.Bias {
				add("bias_ih", gates*hidden)
				add("bias_hh", gates*hidden)
			}
			if o.ProjSize > 0 {
				add("weight_hr", o.ProjSize, hidden)
			}
		}
	}
	uniformHidden_(r.tensors(), hidden)
	return r
}

// uniformHidden_ initializes weights as the recurrent modules do.
func uniformHidden_(weights []torch.Tensor, hidden int64) {
	bound := 1 / math.Sqrt(float64(hidden))
	for _, w := range weights {
		Uniform_(w, -bound, bound)
	}
}

func (r *recurrent) directions() int64 {
	if r.o.Bidirectional {
		return 2
	}
	return 1
}

// batched returns x as a batch, and whether it was one.
func (r *recurrent) batched(x torch.Tensor) (torch.Tensor, bool) {
	switch x.Dim() {
	case 3:
		return x, true
	case 2:
		return x.Unsqueeze(r.batchDim()), false
	}
	torch.Throw(r.op, "expected an input of two or three dimensions, got %v", x.Shape())
	panic("not reached")
}

// batchDim is the dimension of a batch in inputs and outputs.
func (r *recurrent) batchDim() int64 {
	if r.o.BatchFirst {
		return 0
	}
	return 1
}

// state returns a state of the given size for x, a batch: h, or zeros if it is none.
func (r *recurrent) state(h, x torch.Tensor, batched bool, size int64) torch.Tensor {
	if !h.Defined() {
		return torch.Zeros([]int64{r.o.NumLayers * r.directions(), x.Size(int(r.batchDim())), size},
			torch.WithDType(x.DType()), torch.WithDevice(x.Device()))
	}
	if !batched && h.Dim() == 2 {
		h = h.Unsqueeze(1)
	}
	want := []int64{r.o.NumLayers * r.directions(), x.Size(int(r.batchDim())), size}
	if got := h.Shape(); fmt.Sprint(got) != fmt.Sprint(want) {
		torch.Throw(r.op, "the state has shape %v, want %v", got, want)
	}
	return h
}

// unbatched removes the dimension of the batch from an output and states.
func (r *recurrent) unbatched(batched bool, out *torch.Tensor, states ...*torch.Tensor) {
	if batched {
		return
	}
	*out = out.SqueezeDim(r.batchDim())
	for _, s := range states {
		*s = s.SqueezeDim(1)
	}
}

// RNNModule is torch.nn.RNN.
type RNNModule struct{ recurrent }

// RNN returns a recurrent network with PyTorch's initialization.
func RNN(input, hidden int64, o RNNOptions) *RNNModule {
	if o.Nonlinearity != "" && o.Nonlinearity != "tanh" && o.Nonlinearity != "relu" {
		torch.Throw("nn.RNN", "Nonlinearity must be tanh or relu, not %q", o.Nonlinearity)
	}
	return &RNNModule{newRecurrent("nn.RNN", 1, input, hidden, o)}
}

// Forward maps x [t, n, input], or [n, t, input] with BatchFirst, to the outputs of the last layer
// [t, n, directions*hidden] (or [n, t, …]) and the final states [layers*directions, n, hidden]. h
// is the initial state, of the shape of the final one, or none for zeros. n may be missing.
func (m *RNNModule) Forward(x, h torch.Tensor) (out, hn torch.Tensor) {
	call := torch.RnnTanh
	if m.o.Nonlinearity == "relu" {
		call = torch.RnnRelu
	}
	return m.run(x, h, call)
}

// run is Forward of RNN and GRU.
func (r *recurrent) run(x, h torch.Tensor, call func(x, h torch.Tensor, params []torch.Tensor, biases bool, layers int64, dropout float64, train, bidirectional, batchFirst bool) (out, hn torch.Tensor)) (out, hn torch.Tensor) {
	x, batched := r.batched(x)
	out, hn = call(x, r.state(h, x, batched, r.hidden), r.tensors(), r.o.Bias, r.o.NumLayers, r.o.Dropout, r.Training, r.o.Bidirectional, r.o.BatchFirst)
	r.unbatched(batched, &out, &hn)
	return r.Output(out), hn
}

// GRUModule is torch.nn.GRU.
type GRUModule struct{ recurrent }

// GRU returns a network of gated recurrent units with PyTorch's initialization.
func GRU(input, hidden int64, o RNNOptions) *GRUModule {
	return &GRUModule{newRecurrent("nn.GRU", 3, input, hidden, o)}
}

// Forward is like that of [RNNModule].
func (m *GRUModule) Forward(x, h torch.Tensor) (out, hn torch.Tensor) { return m.run(x, h, torch.Gru) }

// LSTMModule is torch.nn.LSTM.
type LSTMModule struct{ recurrent }

// LSTM returns a network of long short-term memory with PyTorch's initialization.
func LSTM(input, hidden int64, o RNNOptions) *LSTMModule {
	return &LSTMModule{newRecurrent("nn.LSTM", 4, input, hidden, o)}
}

// Forward maps x [t, n, input], or [n, t, input] with BatchFirst, to the outputs of the last layer
// [t, n, directions*size] (or [n, t, …]), where size is ProjSize or the hidden size, and the final
// states hn [layers*directions, n, size] and cn [layers*directions, n, hidden]. h and c are the
// initial states, of the shapes of the final ones, or both none for zeros. n may be missing.
func (m *LSTMModule) Forward(x, h, c torch.Tensor) (out, hn, cn torch.Tensor) {
	m.together(h, c)
	x, batched := m.batched(x)
	states := []torch.Tensor{m.state(h, x, batched, m.output), m.state(c, x, batched, m.hidden)}
	out, hn, cn = torch.Lstm(x, states, m.tensors(), m.o.Bias, m.o.NumLayers, m.o.Dropout, m.Training, m.o.Bidirectional, m.o.BatchFirst)
	m.unbatched(batched, &out, &hn, &cn)
	return m.Output(out), hn, cn
}

// together throws unless both initial states are given, or none.
func (m *LSTMModule) together(h, c torch.Tensor) {
	if h.Defined() != c.Defined() {
		torch.Throw(m.op, "the initial states h and c must be given together")
	}
}

// cell is the common part of RNNCell, GRUCell and LSTMCell.
type cell struct {
	Hook
	WeightIh torch.Tensor // [gates*hidden, input]
	WeightHh torch.Tensor // [gates*hidden, hidden]
	BiasIh   torch.Tensor // [gates*hidden], or none
	BiasHh   torch.Tensor // [gates*hidden], or none
	op       string
	hidden   int64
}

func newCell(op string, gates, input, hidden int64, bias bool) cell {
	c := cell{op: op, hidden: hidden}
	c.WeightIh = parameter(torch.Empty([]int64{gates * hidden, input}))
	c.WeightHh = parameter(torch.Empty([]int64{gates * hidden, hidden}))
	weights := []torch.Tensor{c.WeightIh, c.WeightHh}
	if bias {
		c.BiasIh, c.BiasHh = parameter(torch.Empty([]int64{gates * hidden})), parameter(torch.Empty([]int64{gates * hidden}))
		weights = append(weights, c.BiasIh, c.BiasHh)
	}
	uniformHidden_(weights, hidden)
	return c
}

// batched returns x and a state as batches, and whether x was one.
func (c *cell) batched(x, h torch.Tensor) (torch.Tensor, torch.Tensor, bool) {
	batched := x.Dim() == 2
	if !batched {
		if x.Dim() != 1 {
			torch.Throw(c.op, "expected an input of one or two dimensions, got %v", x.Shape())
		}
		x = x.Unsqueeze(0)
	}
	if !h.Defined() {
		h = torch.Zeros([]int64{x.Size(0), c.hidden}, torch.WithDType(x.DType()), torch.WithDevice(x.Device()))
	} else if !batched {
		h = h.Unsqueeze(0)
	}
	return x, h, batched
}

func (c *cell) biases() []torch.Option {
	return []torch.Option{torch.WithBIh(c.BiasIh), torch.WithBHh(c.BiasHh)}
}

// RNNCellModule is torch.nn.RNNCell.
type RNNCellModule struct {
	cell
	relu bool
}

// RNNCell returns a cell of a recurrent network with PyTorch's initialization. nonlinearity is
// "tanh", PyTorch's default, or "relu".
func RNNCell(input, hidden int64, bias bool, nonlinearity string) *RNNCellModule {
	if nonlinearity != "tanh" && nonlinearity != "relu" {
		torch.Throw("nn.RNNCell", "the nonlinearity must be tanh or relu, not %q", nonlinearity)
	}
	return &RNNCellModule{newCell("nn.RNNCell", 1, input, hidden, bias), nonlinearity == "relu"}
}

// Forward maps x [n, input] and the state h [n, hidden], or none for zeros, to the next state. n
// may be missing.
func (m *RNNCellModule) Forward(x, h torch.Tensor) torch.Tensor {
	call := torch.RnnTanhCell
	if m.relu {
		call = torch.RnnReluCell
	}
	return m.step(x, h, call)
}

// step is Forward of RNNCell and GRUCell.
func (c *cell) step(x, h torch.Tensor, call func(x, h, ih, hh torch.Tensor, opts ...torch.Option) torch.Tensor) torch.Tensor {
	x, h, batched := c.batched(x, h)
	y := call(x, h, c.WeightIh, c.WeightHh, c.biases()...)
	if !batched {
		y = y.SqueezeDim(0)
	}
	return c.Output(y)
}

// GRUCellModule is torch.nn.GRUCell.
type GRUCellModule struct{ cell }

// GRUCell returns a gated recurrent unit with PyTorch's initialization.
func GRUCell(input, hidden int64, bias bool) *GRUCellModule {
	return &GRUCellModule{newCell("nn.GRUCell", 3, input, hidden, bias)}
}

// Forward is like that of [RNNCellModule].
func (m *GRUCellModule) Forward(x, h torch.Tensor) torch.Tensor { return m.step(x, h, torch.GruCell) }

// LSTMCellModule is torch.nn.LSTMCell.
type LSTMCellModule struct{ cell }

// LSTMCell returns a cell of long short-term memory with PyTorch's initialization.
func LSTMCell(input, hidden int64, bias bool) *LSTMCellModule {
	return &LSTMCellModule{newCell("nn.LSTMCell", 4, input, hidden, bias)}
}

// Forward maps x [n, input] and the states h and c [n, hidden], or none for zeros, to the next
// states. n may be missing. OnOutput sees the first.
func (m *LSTMCellModule) Forward(x, h, c torch.Tensor) (hn, cn torch.Tensor) {
	_, c, _ = m.batched(x, c)
	x, h, batched := m.batched(x, h)
	hn, cn = torch.LstmCell(x, []torch.Tensor{h, c}, m.WeightIh, m.WeightHh, m.biases()...)
	if !batched {
		hn, cn = hn.SqueezeDim(0), cn.SqueezeDim(0)
	}
	return m.Output(hn), cn
}
