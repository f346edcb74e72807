package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"

	"cyclecap/eval/geometry"
	"cyclecap/internal/processor"
	"cyclecap/torch"
)

// A workload is something that both sides can do.
type workload struct {
	name  string
	rival []rival
	// check compares the outputs. It returns a text to print and, if they differ, what is wrong.
	check func(ours, python output) (text, wrong string)
}

// A rival is a way of doing the work in Python, identified by its name in bench.py.
type rival struct {
	python string
	label  string
	target float64
}

// workloads lists what is timed. Workloads called "packed" use packed float32 weights,
// and those called "bf16" use packed bfloat16 weights, which are not bit-identical; the
// others are. Those called "int8" have weights of 8 bits. bf16 and int8 are timed only where
// the processor has instructions for them: without, bf16 takes up to 40 times as long in
// some of the peers.
var workloads = func() (list []workload) {
	add := func(name string, check func(ours, python output) (text, wrong string), r ...rival) {
		list = append(list, workload{name, r, check})
	}
	both := func(name string, check func(ours, python output) (text, wrong string), r ...rival) {
		add(name, check, r...)
		add(name+"-packed", check, r...)
	}
	for _, name := range []string{"image-1", "image-32"} {
		add(name, closeFeatures, clipRivals(name, 1.1)...)
		add(name+"-packed", closeFeatures, append(clipRivals(name, 1.1), rival{name + "/openvino", "OpenVINO f32", 1.1}, rival{name + "/onnxruntime", "ONNX Runtime f32", 1.1})...)
	}
	for _, name := range []string{"rn50-1", "rn50-32"} {
		r := rival{name + "/open_clip", "open_clip", 1.1}
		add(name, closeFeatures, r)
		add(name+"-packed", closeFeatures, r, rival{name + "/openvino", "OpenVINO f32", 1.1}, rival{name + "/onnxruntime", "ONNX Runtime f32", 1.1})
	}
	both("text-64", closeFeatures, clipRivals("text-64", 1.1)...)
	decodings := []string{"greedy-1", "greedy-16", "beam-1", "beam-16"}
	for _, name := range decodings {
		both(name, sameTokens, rival{name, "transformers, cache", 1.1})
	}
	// GPT-2 alone, after a prompt of tokens, which is what CTranslate2 takes.
	for _, name := range decodings {
		name = "gpt2-" + name
		r := rival{name, "transformers, cache", 1.1}
		add(name, sameTokens, r)
		add(name+"-packed", countTokens, r, rival{name + "/ctranslate2", "CTranslate2 f32", 1.1})
	}
	if processor.HasBF16() {
		for _, name := range []string{"image-1", "image-32"} {
			add(name+"-bf16", roughFeatures, rival{name + "/transformers_bf16", "transformers, bf16", 1.1}, rival{name + "/openvino_bf16", "OpenVINO bf16", 1.1})
		}
		for _, name := range decodings {
			// The target is one for Python's f32.
			add(name+"-bf16", countTokens, rival{name, "transformers, cache, f32", 2}, rival{name + "-bf16", "transformers, cache, bf16", 1.1})
		}
		for _, name := range decodings {
			name = "gpt2-" + name
			add(name+"-bf16", countTokens, rival{name + "-bf16", "transformers, cache, bf16", 1.1}, rival{name + "/ctranslate2-int8", "CTranslate2 int8", 0})
		}
	}
	if torch.HasInt8() {
		for _, name := range []string{"image-1", "image-32"} {
			add(name+"-int8", similarFeatures, rival{name + "/openvino", "OpenVINO f32", 0}, rival{name + "/openvino_int8", "OpenVINO int8", 1.25})
		}
		for _, name := range decodings {
			add(name+"-int8", countTokens, rival{name, "transformers, cache, f32", 2})
		}
		for _, name := range decodings {
			name = "gpt2-" + name
			add(name+"-int8", countTokens, rival{name, "transformers, cache, f32", 0}, rival{name + "/ctranslate2-int8", "CTranslate2 int8", 1.25})
		}
	}
	for _, name := range []string{"clipcap-greedy", "clipcap-beam"} {
		both(name, sameTokens, rival{name, "ClipCap's loop", 4})
	}
	return list
}()

// clipRivals are the libraries that compute CLIP with PyTorch.
func clipRivals(name string, target float64) []rival {
	return []rival{{name + "/open_clip", "open_clip", target}, {name + "/transformers", "transformers", target}}
}

// An output is the result of a workload on one side: tokens, or a file of floats.
type output struct {
	Tokens [][]int64
	File   string
	Shape  []int64
}

func (o *output) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		return json.Unmarshal(text, &o.Tokens)
	}
	var f struct {
		File  string  `json:"file"`
		Shape []int64 `json:"shape"`
	}
	err := json.Unmarshal(text, &f)
	o.File, o.Shape = f.File, f.Shape
	return err
}

func sameTokens(ours, python output) (text, wrong string) {
	if len(ours.Tokens) == 0 {
		return "", "no tokens"
	}
	for i, row := range ours.Tokens {
		if i >= len(python.Tokens) || !slices.Equal(row, python.Tokens[i]) {
			return "differ", fmt.Sprintf("caption %d differs: got\n%v, want\n%v", i, row, python.Tokens[min(i, len(python.Tokens)-1)])
		}
	}
	return "same tokens", ""
}

// countTokens compares at lower precision, where one token may differ, and with it all
// tokens after it.
func countTokens(ours, python output) (text, wrong string) {
	same, total := 0, 0
	for i, row := range ours.Tokens {
		total++
		if i < len(python.Tokens) && slices.Equal(row, python.Tokens[i]) {
			same++
		}
	}
	if total == 0 || total != len(python.Tokens) {
		return "", "the number of captions differs"
	}
	return fmt.Sprintf("%d of %d captions the same", same, total), ""
}

// closeFeatures computes the largest difference relative to the largest value.
func closeFeatures(ours, python output) (text, wrong string) {
	return featuresWithin(ours, python, 1e-5)
}

// roughFeatures is closeFeatures for bf16.
func roughFeatures(ours, python output) (text, wrong string) {
	return featuresWithin(ours, python, 5e-2)
}

// similarFeatures compares at 8 bits, where single numbers differ by several percent, and gives
// the least cosine.
func similarFeatures(ours, python output) (text, wrong string) {
	a, b, err := bothFeatures(ours, python)
	if err != nil {
		return "", err.Error()
	}
	width := int(ours.Shape[len(ours.Shape)-1])
	rows := func(v []float32) [][]float32 { return slices.Collect(slices.Chunk(v, width)) }
	least := slices.Min(geometry.Cosines(rows(a), rows(b), 0))
	text = fmt.Sprintf("cosine at least %.5f", least)
	if !(least >= 0.99) {
		wrong = text
	}
	return text, wrong
}

func featuresWithin(ours, python output, most float64) (text, wrong string) {
	a, b, err := bothFeatures(ours, python)
	if err != nil {
		return "", err.Error()
	}
	var difference, largest float64
	for i := range a {
		difference = max(difference, math.Abs(float64(a[i])-float64(b[i])))
		largest = max(largest, math.Abs(float64(b[i])))
	}
	if difference == 0 {
		return "bit-equal", ""
	}
	text = fmt.Sprintf("differ by %.1e of the largest", difference/largest)
	if !(difference/largest <= most) {
		wrong = text
	}
	return text, wrong
}

// bothFeatures reads the features of both sides, which must have the same shape.
func bothFeatures(ours, python output) (a, b []float32, err error) {
	if a, err = floats(ours); err != nil {
		return nil, nil, err
	}
	if b, err = floats(python); err != nil {
		return nil, nil, err
	}
	if !slices.Equal(ours.Shape, python.Shape) || len(a) != len(b) || len(a) == 0 {
		return nil, nil, fmt.Errorf("the features have shape %v, want %v", ours.Shape, python.Shape)
	}
	return a, b, nil
}

func floats(o output) ([]float32, error) {
	bytes, err := os.ReadFile(o.File)
	if err != nil {
		return nil, err
	}
	v := make([]float32, len(bytes)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	return v, nil
}

// compare runs the workloads in pairs.
func compare(s settings) ([]result, error) {
	var chosen []workload
	for _, w := range workloads {
		if s.only.MatchString(w.name) {
			chosen = append(chosen, w)
		}
	}
	if len(chosen) == 0 {
		return nil, nil
	}
	ours, python, err := startPeers(s)
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	defer python.stop()

	var results []result
	for _, w := range chosen {
		lines := make([]result, len(w.rival))
		for i, r := range w.rival {
			lines[i] = result{Name: w.name, Against: r.label, Unit: "s", Target: r.target}
		}
		// Round 0 warms up both sides and checks their outputs.
		for round := 0; round <= s.rounds; round++ {
			for i, r := range w.rival {
				first, second := turn{ours, w.name}, turn{python, r.python}
				if (round+i)%2 == 1 {
					first, second = second, first
				}
				answers := map[*peer]answer{}
				for _, t := range []turn{first, second} {
					if answers[t.peer], err = t.peer.ask(t.workload); err != nil {
						return nil, fmt.Errorf("%s: %w", t.workload, err)
					}
				}
				if round > 0 {
					lines[i].add(answers[ours].Seconds, answers[python].Seconds)
					progress("%s, %d of %d: %.3f s, %s %.3f s", w.name, round, s.rounds, answers[ours].Seconds, r.label, answers[python].Seconds)
				}
				text, wrong := w.check(answers[ours].Result, answers[python].Result)
				lines[i].Output = text
				if wrong != "" {
					lines[i].Wrong = wrong
				}
			}
		}
		results = append(results, lines...)
	}
	return results, nil
}

// startPeers starts both sides.
func startPeers(s settings) (ours, python *peer, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	if ours, err = startPeer(self, "-worker", "-dir", s.dir, "-threads", fmt.Sprint(s.threads)); err != nil {
		return nil, nil, err
	}
	python, err = startPeer(s.python, append([]string{s.script, "worker", "--threads", fmt.Sprint(s.threads), s.dir}, s.photos...)...)
	if err == nil && ours.hello.Threads != python.hello.Threads {
		python.stop()
		err = fmt.Errorf("this side has %d threads, but Python has %d", ours.hello.Threads, python.hello.Threads)
	}
	if err != nil {
		ours.stop()
		return nil, nil, err
	}
	return ours, python, nil
}

type turn struct {
	peer     *peer
	workload string
}
