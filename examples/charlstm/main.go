// Charlstm trains an LSTM to continue text, letter by letter, and lets it write.
//
//	go run ./examples/charlstm
package main

import (
	"fmt"
	"log"
	"math/rand/v2"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
)

const letters = " abcdefghijklmnopqrstuvwxyz."

// sentences returns a text of simple sentences.
func sentences(r *rand.Rand, n int) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "the %s %s sees a %s. ", pick("red", "blue", "small"), pick("dog", "bird", "cat"), pick("house", "tree", "boat"))
	}
	return b.String()
}

// encode returns the numbers of the letters of a text.
func encode(text string) []int64 {
	ids := make([]int64, len(text))
	for i, c := range text {
		ids[i] = int64(strings.IndexRune(letters, c))
	}
	return ids
}

// A Model predicts the next letter.
type Model struct {
	Embedding *nn.EmbeddingModule
	Lstm      *nn.LSTMModule
	Head      *nn.LinearModule
}

// NewModel returns a model with PyTorch's initialization.
func NewModel() *Model {
	o := nn.RNNDefaults()
	o.BatchFirst = true
	n := int64(len(letters))
	return &Model{nn.Embedding(n, 32), nn.LSTM(32, 128, o), nn.Linear(128, n, true)}
}

// Forward returns the scores [n, t, letters] of the letters after ids [n, t], and the states,
// with which the next call continues.
func (m *Model) Forward(ids, h, c torch.Tensor) (scores, hn, cn torch.Tensor) {
	x, hn, cn := m.Lstm.Forward(m.Embedding.Forward(ids), h, c)
	return m.Head.Forward(x), hn, cn
}

func main() {
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		r := rand.New(rand.NewPCG(1, 2))
		text := encode(sentences(r, 500))
		m := NewModel()
		defer nn.Close(m)
		o := optim.AdamDefaults()
		o.LR = 5e-3
		opt := optim.Adam(nn.Parameters(m), o)
		defer opt.Close()
		const batch, length = 16, 48
		for step := range 150 {
			torch.Tidy(func() torch.Tensor { // frees the tensors of a step
				var in, next []int64
				for range batch {
					at := r.IntN(len(text) - length - 1)
					in, next = append(in, text[at:at+length]...), append(next, text[at+1:at+length+1]...)
				}
				opt.ZeroGrad()
				scores, _, _ := m.Forward(torch.FromSlice(in, batch, length), torch.Tensor{}, torch.Tensor{})
				loss := F.CrossEntropy(scores.Flatten(torch.WithEndDim(1)), torch.FromSlice(next), F.CrossEntropyDefaults())
				loss.Backward()
				optim.ClipGradNorm(nn.Parameters(m), 1)
				opt.Step()
				if step%50 == 0 {
					fmt.Printf("step %d: loss %.3f\n", step, loss.Item())
				}
				return torch.Tensor{}
			})
		}
		torch.NoGrad(func() {
			var h, c, scores torch.Tensor
			written := "the "
			ids := encode(written)
			for range 60 {
				scores, h, c = m.Forward(torch.FromSlice(ids, 1, int64(len(ids))), h, c)
				p := scores.At(0, -1).DivScalar(0.3).Softmax(-1)
				id := torch.ItemOf[int64](p.Multinomial(1))
				written += letters[id : id+1]
				ids = []int64{id}
			}
			fmt.Println(written)
		})
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
