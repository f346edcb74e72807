package nn_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"

	"github.com/google/go-cmp/cmp"
)

// A moduleCase is one call of a module, as make_module_fixtures.py records it: arguments of the
// constructor and of forward by name, and the names of tensors.
type moduleCase struct {
	Module                string
	Seed                  uint64
	Training              bool
	DType                 string
	Args, Inputs          map[string]any
	Initial, State, After map[string]string
	Outputs               []string
	Grads                 map[string]string
}

// arguments are those of one call.
type arguments struct {
	t      *testing.T
	s      *fixture.Set
	values map[string]any
	used   map[string]bool
	leaves map[int]torch.Tensor
}

func newArguments(t *testing.T, s *fixture.Set, values map[string]any) *arguments {
	return &arguments{t, s, values, map[string]bool{}, map[int]torch.Tensor{}}
}

// get returns an argument, or nil for None or if there is none of this name.
func (a *arguments) get(name string) any {
	a.used[name] = true
	return a.values[name]
}

func (a *arguments) has(name string) bool { return a.get(name) != nil }

func (a *arguments) float(name string) float64 {
	v, ok := a.get(name).(float64)
	if !ok {
		a.t.Fatalf("%s is no number: %v", name, a.values[name])
	}
	return v
}

func (a *arguments) int(name string) int64   { return int64(a.float(name)) }
func (a *arguments) bool(name string) bool   { return a.get(name) == true }
func (a *arguments) text(name string) string { return a.get(name).(string) }

// ints returns a list or one number as a list, and nil for None.
func (a *arguments) ints(name string) (out []int64) {
	switch v := a.get(name).(type) {
	case float64:
		out = []int64{int64(v)}
	case []any:
		for _, x := range v {
			if x == nil {
				x = float64(nn.KeepSize)
			}
			out = append(out, int64(x.(float64)))
		}
	}
	return out
}

// tensor returns a tensor argument, or none.
func (a *arguments) tensor(name string) torch.Tensor { return a.value(a.get(name)) }

// tensors returns the elements of a list of tensors, or n times none.
func (a *arguments) tensors(name string, n int) []torch.Tensor {
	out := make([]torch.Tensor, n)
	if list, ok := a.get(name).([]any); ok {
		for i := range out {
			out[i] = a.value(list[i])
		}
	}
	return out
}

func (a *arguments) value(v any) torch.Tensor {
	if v == nil {
		return torch.Tensor{}
	}
	at := v.(map[string]any)
	i := int(at["leaf"].(float64))
	if _, ok := a.leaves[i]; !ok {
		x := a.s.Tensor(at["tensor"].(string))
		if at["grad"] == true {
			x.SetRequiresGrad(true)
		}
		a.leaves[i] = x
	}
	return a.leaves[i]
}

// reduction returns the reduction of a loss.
func (a *arguments) reduction() F.Reduction {
	return map[string]F.Reduction{"none": F.None, "mean": F.Mean, "sum": F.Sum, "batchmean": F.BatchMean}[a.text("reduction")]
}

// python returns PyTorch's name of a field.
func python(field string) string {
	var b strings.Builder
	for i, r := range field {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// options returns o with the arguments that have the names of its fields.
func options[O any](a *arguments, o O) O {
	v := reflect.ValueOf(&o).Elem()
	for i := range v.NumField() {
		name := python(v.Type().Field(i).Name)
		if !a.has(name) {
			continue
		}
		switch f := v.Field(i).Addr().Interface().(type) {
		case *int64:
			*f = a.int(name)
		case *float64:
			*f = a.float(name)
		case *bool:
			*f = a.bool(name)
		case *string:
			*f = a.text(name)
		case *[]int64:
			*f = a.ints(name)
		case *torch.Tensor:
			*f = a.tensor(name)
		case *F.Reduction:
			*f = a.reduction()
		default:
			a.t.Fatalf("option %s has type %T", name, f)
		}
	}
	return o
}

// A call computes the outputs of a module.
type call func(in *arguments) []torch.Tensor

// of returns a module and its Forward, which has one input.
func of(m nn.Module) (any, call) {
	return m, func(in *arguments) []torch.Tensor { return []torch.Tensor{m.Forward(in.tensor("input"))} }
}

// maximum returns a maximum pooling, with the places of the maxima if PyTorch returns them.
func maximum(a *arguments, m interface {
	nn.Module
	ForwardIndices(x torch.Tensor) (y, indices torch.Tensor)
}) (any, call) {
	if !a.bool("return_indices") {
		return of(m)
	}
	return m, func(in *arguments) []torch.Tensor {
		y, indices := m.ForwardIndices(in.tensor("input"))
		return []torch.Tensor{y, indices}
	}
}

// loss returns a loss of an input and a target.
func loss(f func(x, target torch.Tensor) torch.Tensor) (any, call) {
	return &struct{}{}, func(in *arguments) []torch.Tensor {
		return []torch.Tensor{f(in.tensor("input"), in.tensor("target"))}
	}
}

// pair returns a loss of two inputs and a target.
func pair(f func(x1, x2, target torch.Tensor) torch.Tensor) (any, call) {
	return &struct{}{}, func(in *arguments) []torch.Tensor {
		return []torch.Tensor{f(in.tensor("input1"), in.tensor("input2"), in.tensor("target"))}
	}
}

// padding returns the paddings of a module for dims dimensions.
func padding(a *arguments, dims int) []int64 {
	p := a.ints("padding")
	for len(p) < 2*dims {
		p = append(p, p[0])
	}
	return p
}

func convOptions(a *arguments) nn.ConvOptions {
	if a.get("padding") == "same" || a.get("padding") == "valid" {
		same := a.values["padding"] == "same"
		a.values["padding"] = nil
		o := options(a, nn.ConvDefaults())
		o.Same = same
		return o
	}
	return options(a, nn.ConvDefaults())
}

func convTransposeOptions(a *arguments) nn.ConvTransposeOptions {
	if a.text("padding_mode") != "zeros" {
		a.t.Fatal("a transposed convolution has no padding mode")
	}
	return options(a, nn.ConvTransposeDefaults())
}

func batchNormOptions(a *arguments) nn.BatchNormOptions {
	o := options(a, nn.BatchNormDefaults())
	o.Cumulative = a.get("momentum") == nil
	return o
}

func encoderMasks(in *arguments, mask string) nn.EncoderMasks {
	return nn.EncoderMasks{SrcMask: in.tensor(mask), SrcKeyPaddingMask: in.tensor("src_key_padding_mask"), IsCausal: in.bool("is_causal") || in.bool("src_is_causal")}
}

// encoderLayer and decoderLayer return what creates a layer of a transformer.
func encoderLayer(a *arguments) func() *nn.TransformerEncoderLayerModule {
	return func() *nn.TransformerEncoderLayerModule {
		return nn.TransformerEncoderLayer(a.int("d_model"), a.int("nhead"), options(a, nn.TransformerDefaults()))
	}
}

func decoderLayer(a *arguments) func() *nn.TransformerDecoderLayerModule {
	return func() *nn.TransformerDecoderLayerModule {
		return nn.TransformerDecoderLayer(a.int("d_model"), a.int("nhead"), options(a, nn.TransformerDefaults()))
	}
}

// inner returns the arguments of the constructor of a layer that is an argument.
func (a *arguments) inner(name string) *arguments {
	return newArguments(a.t, a.s, a.get(name).(map[string]any))
}

// build has what creates each module of PyTorch from the arguments of its constructor.
var build = map[string]func(a *arguments) (any, call){
	"AdaptiveAvgPool1d": func(a *arguments) (any, call) { return of(nn.AdaptiveAvgPool1d(a.ints("output_size"))) },
	"AdaptiveAvgPool2d": func(a *arguments) (any, call) { return of(nn.AdaptiveAvgPool2d(a.ints("output_size"))) },
	"AdaptiveAvgPool3d": func(a *arguments) (any, call) { return of(nn.AdaptiveAvgPool3d(a.ints("output_size"))) },
	"AdaptiveMaxPool1d": func(a *arguments) (any, call) { return maximum(a, nn.AdaptiveMaxPool1d(a.ints("output_size"))) },
	"AdaptiveMaxPool2d": func(a *arguments) (any, call) { return maximum(a, nn.AdaptiveMaxPool2d(a.ints("output_size"))) },
	"AdaptiveMaxPool3d": func(a *arguments) (any, call) { return maximum(a, nn.AdaptiveMaxPool3d(a.ints("output_size"))) },
	"AvgPool1d": func(a *arguments) (any, call) {
		return of(nn.AvgPool1d(a.ints("kernel_size"), options(a, nn.AvgPoolDefaults())))
	},
	"AvgPool2d": func(a *arguments) (any, call) {
		return of(nn.AvgPool2d(a.ints("kernel_size"), options(a, nn.AvgPoolDefaults())))
	},
	"AvgPool3d": func(a *arguments) (any, call) {
		return of(nn.AvgPool3d(a.ints("kernel_size"), options(a, nn.AvgPoolDefaults())))
	},
	"MaxPool1d": func(a *arguments) (any, call) {
		return maximum(a, nn.MaxPool1d(a.ints("kernel_size"), options(a, nn.MaxPoolOptions{})))
	},
	"MaxPool2d": func(a *arguments) (any, call) {
		return maximum(a, nn.MaxPool2d(a.ints("kernel_size"), options(a, nn.MaxPoolOptions{})))
	},
	"MaxPool3d": func(a *arguments) (any, call) {
		return maximum(a, nn.MaxPool3d(a.ints("kernel_size"), options(a, nn.MaxPoolOptions{})))
	},
	"LPPool1d": func(a *arguments) (any, call) {
		return of(nn.LPPool1d(a.float("norm_type"), a.ints("kernel_size"), options(a, nn.LPPoolOptions{})))
	},
	"LPPool2d": func(a *arguments) (any, call) {
		return of(nn.LPPool2d(a.float("norm_type"), a.ints("kernel_size"), options(a, nn.LPPoolOptions{})))
	},
	"LPPool3d": func(a *arguments) (any, call) {
		return of(nn.LPPool3d(a.float("norm_type"), a.ints("kernel_size"), options(a, nn.LPPoolOptions{})))
	},

	"BatchNorm1d": func(a *arguments) (any, call) { return of(nn.BatchNorm1d(a.int("num_features"), batchNormOptions(a))) },
	"BatchNorm2d": func(a *arguments) (any, call) { return of(nn.BatchNorm2d(a.int("num_features"), batchNormOptions(a))) },
	"BatchNorm3d": func(a *arguments) (any, call) { return of(nn.BatchNorm3d(a.int("num_features"), batchNormOptions(a))) },
	"InstanceNorm1d": func(a *arguments) (any, call) {
		return of(nn.InstanceNorm1d(a.int("num_features"), options(a, nn.InstanceNormDefaults())))
	},
	"InstanceNorm2d": func(a *arguments) (any, call) {
		return of(nn.InstanceNorm2d(a.int("num_features"), options(a, nn.InstanceNormDefaults())))
	},
	"InstanceNorm3d": func(a *arguments) (any, call) {
		return of(nn.InstanceNorm3d(a.int("num_features"), options(a, nn.InstanceNormDefaults())))
	},
	"GroupNorm": func(a *arguments) (any, call) {
		return of(nn.GroupNorm(a.int("num_groups"), a.int("num_channels"), options(a, nn.GroupNormDefaults())))
	},
	"LayerNorm": func(a *arguments) (any, call) {
		return of(nn.LayerNormWith(a.ints("normalized_shape"), options(a, nn.LayerNormDefaults())))
	},
	"RMSNorm": func(a *arguments) (any, call) {
		m := nn.RMSNorm(a.ints("normalized_shape"), options(a, nn.RMSNormDefaults()))
		return m, func(in *arguments) []torch.Tensor { return []torch.Tensor{m.Forward(in.tensor("x"))} }
	},
	"LocalResponseNorm": func(a *arguments) (any, call) {
		return of(nn.LocalResponseNorm(a.int("size"), options(a, nn.LocalResponseNormDefaults())))
	},

	"Conv1d": func(a *arguments) (any, call) {
		return of(nn.Conv1d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convOptions(a)))
	},
	"Conv2d": func(a *arguments) (any, call) {
		return of(nn.Conv2d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convOptions(a)))
	},
	"Conv3d": func(a *arguments) (any, call) {
		return of(nn.Conv3d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convOptions(a)))
	},
	"ConvTranspose1d": func(a *arguments) (any, call) {
		return of(nn.ConvTranspose1d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convTransposeOptions(a)))
	},
	"ConvTranspose2d": func(a *arguments) (any, call) {
		return of(nn.ConvTranspose2d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convTransposeOptions(a)))
	},
	"ConvTranspose3d": func(a *arguments) (any, call) {
		return of(nn.ConvTranspose3d(a.int("in_channels"), a.int("out_channels"), a.ints("kernel_size"), convTransposeOptions(a)))
	},

	"Linear": func(a *arguments) (any, call) {
		return of(nn.Linear(a.int("in_features"), a.int("out_features"), a.bool("bias")))
	},
	"Bilinear": func(a *arguments) (any, call) {
		m := nn.Bilinear(a.int("in1_features"), a.int("in2_features"), a.int("out_features"), a.bool("bias"))
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("input1"), in.tensor("input2"))}
		}
	},
	"Embedding": func(a *arguments) (any, call) {
		for _, name := range []string{"padding_idx", "max_norm", "_weight"} {
			if a.has(name) {
				a.t.Fatalf("Embedding has no option %s", name)
			}
		}
		for _, name := range []string{"norm_type", "scale_grad_by_freq", "sparse", "_freeze"} {
			a.used[name] = true // their defaults
		}
		return of(nn.Embedding(a.int("num_embeddings"), a.int("embedding_dim")))
	},

	"CELU":         func(a *arguments) (any, call) { return of(nn.CELU(a.float("alpha"))) },
	"ELU":          func(a *arguments) (any, call) { return of(nn.ELU(a.float("alpha"))) },
	"GELU":         func(a *arguments) (any, call) { return of(nn.GELU(a.text("approximate"))) },
	"GLU":          func(a *arguments) (any, call) { return of(nn.GLU(a.int("dim"))) },
	"Hardshrink":   func(a *arguments) (any, call) { return of(nn.Hardshrink(a.float("lambd"))) },
	"Hardsigmoid":  func(*arguments) (any, call) { return of(nn.Hardsigmoid()) },
	"Hardswish":    func(*arguments) (any, call) { return of(nn.Hardswish()) },
	"Hardtanh":     func(a *arguments) (any, call) { return of(nn.Hardtanh(a.float("min_val"), a.float("max_val"))) },
	"LeakyReLU":    func(a *arguments) (any, call) { return of(nn.LeakyReLU(a.float("negative_slope"))) },
	"LogSigmoid":   func(*arguments) (any, call) { return of(nn.LogSigmoid()) },
	"LogSoftmax":   func(a *arguments) (any, call) { return of(nn.LogSoftmax(a.int("dim"))) },
	"Mish":         func(*arguments) (any, call) { return of(nn.Mish()) },
	"PReLU":        func(a *arguments) (any, call) { return of(nn.PReLU(a.int("num_parameters"), a.float("init"))) },
	"RReLU":        func(a *arguments) (any, call) { return of(nn.RReLU(a.float("lower"), a.float("upper"))) },
	"ReLU":         func(*arguments) (any, call) { return of(nn.ReLU()) },
	"ReLU6":        func(*arguments) (any, call) { return of(nn.ReLU6()) },
	"SELU":         func(*arguments) (any, call) { return of(nn.SELU()) },
	"Sigmoid":      func(*arguments) (any, call) { return of(nn.Sigmoid()) },
	"SiLU":         func(*arguments) (any, call) { return of(nn.SiLU()) },
	"Softmax":      func(a *arguments) (any, call) { return of(nn.Softmax(a.int("dim"))) },
	"Softmax2d":    func(*arguments) (any, call) { return of(nn.Softmax2d()) },
	"Softmin":      func(a *arguments) (any, call) { return of(nn.Softmin(a.int("dim"))) },
	"Softplus":     func(a *arguments) (any, call) { return of(nn.Softplus(a.float("beta"), a.float("threshold"))) },
	"Softshrink":   func(a *arguments) (any, call) { return of(nn.Softshrink(a.float("lambd"))) },
	"Softsign":     func(*arguments) (any, call) { return of(nn.Softsign()) },
	"Tanh":         func(*arguments) (any, call) { return of(nn.Tanh()) },
	"Tanhshrink":   func(*arguments) (any, call) { return of(nn.Tanhshrink()) },
	"Threshold":    func(a *arguments) (any, call) { return of(nn.Threshold(a.float("threshold"), a.float("value"))) },
	"Dropout2d":    func(a *arguments) (any, call) { return of(nn.Dropout2d(a.float("p"))) },
	"AlphaDropout": func(a *arguments) (any, call) { return of(nn.AlphaDropout(a.float("p"))) },

	"Identity":       func(*arguments) (any, call) { return of(nn.Identity()) },
	"Flatten":        func(a *arguments) (any, call) { return of(nn.Flatten(a.int("start_dim"), a.int("end_dim"))) },
	"Unflatten":      func(a *arguments) (any, call) { return of(nn.Unflatten(a.int("dim"), a.ints("unflattened_size"))) },
	"PixelShuffle":   func(a *arguments) (any, call) { return of(nn.PixelShuffle(a.int("upscale_factor"))) },
	"PixelUnshuffle": func(a *arguments) (any, call) { return of(nn.PixelUnshuffle(a.int("downscale_factor"))) },

	"RNN": func(a *arguments) (any, call) {
		m := nn.RNN(a.int("input_size"), a.int("hidden_size"), options(a, nn.RNNDefaults()))
		return m, recurrent(m.Forward)
	},
	"GRU": func(a *arguments) (any, call) {
		m := nn.GRU(a.int("input_size"), a.int("hidden_size"), options(a, nn.RNNDefaults()))
		return m, recurrent(m.Forward)
	},
	"LSTM": func(a *arguments) (any, call) {
		m := nn.LSTM(a.int("input_size"), a.int("hidden_size"), options(a, nn.RNNDefaults()))
		return m, func(in *arguments) []torch.Tensor {
			hx := in.tensors("hx", 2)
			out, h, c := m.Forward(in.tensor("input"), hx[0], hx[1])
			return []torch.Tensor{out, h, c}
		}
	},
	"RNNCell": func(a *arguments) (any, call) {
		m := nn.RNNCell(a.int("input_size"), a.int("hidden_size"), a.bool("bias"), a.text("nonlinearity"))
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("input"), in.tensor("hx"))}
		}
	},
	"GRUCell": func(a *arguments) (any, call) {
		m := nn.GRUCell(a.int("input_size"), a.int("hidden_size"), a.bool("bias"))
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("input"), in.tensor("hx"))}
		}
	},
	"LSTMCell": func(a *arguments) (any, call) {
		m := nn.LSTMCell(a.int("input_size"), a.int("hidden_size"), a.bool("bias"))
		return m, func(in *arguments) []torch.Tensor {
			hx := in.tensors("hx", 2)
			h, c := m.Forward(in.tensor("input"), hx[0], hx[1])
			return []torch.Tensor{h, c}
		}
	},

	"MultiheadAttention": func(a *arguments) (any, call) {
		m := nn.MultiheadAttention(a.int("embed_dim"), a.int("num_heads"), options(a, nn.MultiheadAttentionDefaults()))
		return m, func(in *arguments) []torch.Tensor {
			out, weights := m.Forward(in.tensor("query"), in.tensor("key"), in.tensor("value"), options(in, nn.AttentionDefaults()))
			if !weights.Defined() {
				return []torch.Tensor{out}
			}
			return []torch.Tensor{out, weights}
		}
	},
	"TransformerEncoderLayer": func(a *arguments) (any, call) {
		m := encoderLayer(a)()
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("src"), encoderMasks(in, "src_mask"))}
		}
	},
	"TransformerDecoderLayer": func(a *arguments) (any, call) {
		m := decoderLayer(a)()
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("tgt"), in.tensor("memory"), options(in, nn.DecoderMasks{}))}
		}
	},
	"TransformerEncoder": func(a *arguments) (any, call) {
		a.used["enable_nested_tensor"], a.used["mask_check"] = true, true // for the fast path
		if a.has("norm") {
			a.t.Fatal("no case has a norm")
		}
		m := nn.TransformerEncoder(encoderLayer(a.inner("encoder_layer")), int(a.int("num_layers")), nil)
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("src"), encoderMasks(in, "mask"))}
		}
	},
	"TransformerDecoder": func(a *arguments) (any, call) {
		if a.has("norm") {
			a.t.Fatal("no case has a norm")
		}
		m := nn.TransformerDecoder(decoderLayer(a.inner("decoder_layer")), int(a.int("num_layers")), nil)
		return m, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{m.Forward(in.tensor("tgt"), in.tensor("memory"), options(in, nn.DecoderMasks{}))}
		}
	},
	"Transformer": func(a *arguments) (any, call) {
		a.used["custom_encoder"], a.used["custom_decoder"] = true, true // none
		m := nn.Transformer(a.int("d_model"), a.int("nhead"), int(a.int("num_encoder_layers")), int(a.int("num_decoder_layers")), options(a, nn.TransformerDefaults()))
		return m, func(in *arguments) []torch.Tensor {
			enc, dec := encoderMasks(in, "src_mask"), options(in, nn.DecoderMasks{})
			return []torch.Tensor{m.Forward(in.tensor("src"), in.tensor("tgt"), enc, dec)}
		}
	},

	"BCELoss": func(a *arguments) (any, call) {
		w, r := a.tensor("weight"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.BCE(x, y, w, r) })
	},
	"BCEWithLogitsLoss": func(a *arguments) (any, call) {
		w, p, r := a.tensor("weight"), a.tensor("pos_weight"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.BCEWithLogitsWeighted(x, y, w, p, r) })
	},
	"CTCLoss": func(a *arguments) (any, call) {
		o := options(a, F.CTCLossDefaults())
		return &struct{}{}, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{F.CTCLoss(in.tensor("log_probs"), in.tensor("targets"), lengths(in, "input_lengths"), lengths(in, "target_lengths"), o)}
		}
	},
	"CosineEmbeddingLoss": func(a *arguments) (any, call) {
		m, r := a.float("margin"), a.reduction()
		return pair(func(x1, x2, y torch.Tensor) torch.Tensor { return F.CosineEmbeddingLoss(x1, x2, y, m, r) })
	},
	"CrossEntropyLoss": func(a *arguments) (any, call) {
		o := options(a, F.CrossEntropyDefaults())
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.CrossEntropy(x, y, o) })
	},
	"GaussianNLLLoss": func(a *arguments) (any, call) {
		o := options(a, F.GaussianNLLLossDefaults())
		return &struct{}{}, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{F.GaussianNLLLoss(in.tensor("input"), in.tensor("target"), in.tensor("var"), o)}
		}
	},
	"HingeEmbeddingLoss": func(a *arguments) (any, call) {
		m, r := a.float("margin"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.HingeEmbeddingLoss(x, y, m, r) })
	},
	"HuberLoss": func(a *arguments) (any, call) {
		d, r := a.float("delta"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.HuberLoss(x, y, d, r) })
	},
	"KLDivLoss": func(a *arguments) (any, call) {
		l, r := a.bool("log_target"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.KLDiv(x, y, l, r) })
	},
	"L1Loss": func(a *arguments) (any, call) {
		r := a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.L1Loss(x, y, r) })
	},
	"MSELoss": func(a *arguments) (any, call) {
		r := a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.MSELoss(x, y, r) })
	},
	"MarginRankingLoss": func(a *arguments) (any, call) {
		m, r := a.float("margin"), a.reduction()
		return pair(func(x1, x2, y torch.Tensor) torch.Tensor { return F.MarginRankingLoss(x1, x2, y, m, r) })
	},
	"MultiLabelMarginLoss": func(a *arguments) (any, call) {
		r := a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.MultiLabelMarginLoss(x, y, r) })
	},
	"MultiLabelSoftMarginLoss": func(a *arguments) (any, call) {
		w, r := a.tensor("weight"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.MultiLabelSoftMarginLoss(x, y, w, r) })
	},
	"MultiMarginLoss": func(a *arguments) (any, call) {
		o := options(a, F.MultiMarginLossDefaults())
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.MultiMarginLoss(x, y, o) })
	},
	"NLLLoss": func(a *arguments) (any, call) {
		o := options(a, F.NLLLossDefaults())
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.NLLLossWith(x, y, o) })
	},
	"PoissonNLLLoss": func(a *arguments) (any, call) {
		o := options(a, F.PoissonNLLLossDefaults())
		return &struct{}{}, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{F.PoissonNLLLoss(in.tensor("log_input"), in.tensor("target"), o)}
		}
	},
	"SmoothL1Loss": func(a *arguments) (any, call) {
		b, r := a.float("beta"), a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.SmoothL1Loss(x, y, b, r) })
	},
	"SoftMarginLoss": func(a *arguments) (any, call) {
		r := a.reduction()
		return loss(func(x, y torch.Tensor) torch.Tensor { return F.SoftMarginLoss(x, y, r) })
	},
	"TripletMarginLoss": func(a *arguments) (any, call) {
		o := options(a, F.TripletMarginLossDefaults())
		return &struct{}{}, func(in *arguments) []torch.Tensor {
			return []torch.Tensor{F.TripletMarginLoss(in.tensor("anchor"), in.tensor("positive"), in.tensor("negative"), o)}
		}
	},
}

func init() {
	for dims := range 3 {
		name := fmt.Sprintf("%dd", dims+1)
		build["ZeroPad"+name] = func(a *arguments) (any, call) { return of(nn.ZeroPad(padding(a, dims+1))) }
		build["ConstantPad"+name] = func(a *arguments) (any, call) { return of(nn.ConstantPad(padding(a, dims+1), a.float("value"))) }
		build["ReflectionPad"+name] = func(a *arguments) (any, call) { return of(nn.ReflectionPad(padding(a, dims+1))) }
		build["ReplicationPad"+name] = func(a *arguments) (any, call) { return of(nn.ReplicationPad(padding(a, dims+1))) }
		build["CircularPad"+name] = func(a *arguments) (any, call) { return of(nn.CircularPad(padding(a, dims+1))) }
	}
}

// recurrent calls Forward of RNN or GRU.
func recurrent(forward func(x, h torch.Tensor) (out, hn torch.Tensor)) call {
	return func(in *arguments) []torch.Tensor {
		out, h := forward(in.tensor("input"), in.tensor("hx"))
		return []torch.Tensor{out, h}
	}
}

// lengths returns lengths, which Python also takes as a list.
func lengths(in *arguments, name string) torch.Tensor {
	if list, ok := in.get(name).([]any); ok && len(list) > 0 {
		if _, ok := list[0].(float64); ok {
			return torch.FromSlice(in.ints(name))
		}
	}
	return in.tensor(name)
}

// TestModuleDB builds the modules of PyTorch's own tests, with the seed of PyTorch's, and compares the
// initial weights; loads PyTorch's weights, and compares outputs, gradients and the state afterwards.
func TestModuleDB(t *testing.T) {
	s := fixture.Open(t, "../testdata/modules.json.gz")
	var cases []moduleCase
	s.Cases(&cases)
	var seen = map[string]bool{}
	for i, c := range cases {
		seen[c.Module] = true
		t.Run(fmt.Sprintf("%s/%d", c.Module, i), func(t *testing.T) {
			scoped(t, func() { c.run(t, s.For(t)) })
		})
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(build)), slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("modules without a case (-) or an implementation (+):\n%s", diff)
	}
}

func (c *moduleCase) run(t *testing.T, s *fixture.Set) {
	make, ok := build[c.Module]
	if !ok {
		t.Fatal("package nn does not have this module")
	}
	a := newArguments(t, s, c.Args)
	torch.ManualSeed(c.Seed)
	m, forward := make(a)
	defer nn.Close(m)
	for name := range c.Args {
		if !a.used[name] {
			t.Errorf("the argument %s = %v is not used", name, c.Args[name])
		}
	}
	if reflect.TypeOf(m) != reflect.TypeFor[*struct{}]() { // losses are functions, whose weights are arguments
		own := nn.StateDictOf(m)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(c.State)), slices.Sorted(slices.Values(own.Names()))); diff != "" {
			t.Fatalf("names of the state dict, PyTorch's (-) and ours (+):\n%s", diff)
		}
		for name, of := range c.Initial {
			w, _ := own.Get(name)
			s.Equal("initial "+name, w, of)
		}
		state := nn.NewStateDict()
		for name, of := range c.State {
			state.Add(name, s.Tensor(of).Keep())
		}
		if err := nn.LoadStateDict(m, state); err != nil {
			t.Fatal(err)
		}
		nn.SetRequiresGrad(m, true)
	}
	nn.SetTraining(m, c.Training)

	in := newArguments(t, s, c.Inputs)
	torch.ManualSeed(c.Seed + 2)
	ys := forward(in)
	for name, v := range c.Inputs {
		if !in.used[name] && v != nil && v != false {
			t.Errorf("the input %s = %v is not used", name, v)
		}
	}
	if len(ys) != len(c.Outputs) {
		t.Fatalf("%d outputs, PyTorch has %d", len(ys), len(c.Outputs))
	}
	var sum torch.Tensor
	for i, y := range ys {
		s.Equal(fmt.Sprintf("output %d", i), y, c.Outputs[i])
		if y.DType().IsFloat() && y.RequiresGrad() {
			part := y.Mul(torch.Arange(1, int(y.Numel())+1).View(y.Shape())).Sum()
			if sum.Defined() {
				part = sum.Add(part)
			}
			sum = part
		}
	}
	if sum.Defined() {
		sum.Backward()
	}
	grads := map[string]torch.Tensor{}
	for i, x := range in.leaves {
		if g := x.Grad(); g.Defined() {
			grads[fmt.Sprint(i)] = g
		}
	}
	for _, p := range nn.NamedParameters(m) {
		if g := p.Tensor.Grad(); g.Defined() {
			grads[p.Name] = g
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(c.Grads)), slices.Sorted(maps.Keys(grads))); diff != "" {
		t.Errorf("gradients that PyTorch has (-) and we have (+):\n%s", diff)
	}
	for name, of := range c.Grads {
		if g, ok := grads[name]; ok {
			s.Equal("gradient of "+name, g, of)
		}
	}
	after := nn.StateDictOf(m)
	for name, of := range c.State {
		if w, ok := after.Get(name); ok {
			if changed, ok := c.After[name]; ok {
				of = changed
			}
			s.Equal(name+" afterwards", w, of)
		}
	}
}

// TestModuleDefaults compares the defaults of options with those of PyTorch's constructors.
func TestModuleDefaults(t *testing.T) {
	s := fixture.Open(t, "../testdata/modules.json.gz")
	var defaults map[string]map[string]any
	s.Defaults(&defaults)
	ours := map[string]any{
		"Conv2d": nn.ConvDefaults(), "ConvTranspose2d": nn.ConvTransposeDefaults(), "MaxPool2d": nn.MaxPoolOptions{},
		"AvgPool2d": nn.AvgPoolDefaults(), "LPPool2d": nn.LPPoolOptions{}, "BatchNorm2d": nn.BatchNormDefaults(),
		"InstanceNorm2d": nn.InstanceNormDefaults(), "GroupNorm": nn.GroupNormDefaults(), "LayerNorm": nn.LayerNormDefaults(),
		"RMSNorm": nn.RMSNormDefaults(), "LocalResponseNorm": nn.LocalResponseNormDefaults(), "LSTM": nn.RNNDefaults(),
		"MultiheadAttention": nn.MultiheadAttentionDefaults(), "Transformer": nn.TransformerDefaults(),
		"CrossEntropyLoss": F.CrossEntropyDefaults(), "CTCLoss": F.CTCLossDefaults(), "NLLLoss": F.NLLLossDefaults(),
		"GaussianNLLLoss": F.GaussianNLLLossDefaults(), "PoissonNLLLoss": F.PoissonNLLLossDefaults(),
		"MultiMarginLoss": F.MultiMarginLossDefaults(), "TripletMarginLoss": F.TripletMarginLossDefaults(),
	}
	for module, o := range ours {
		compared := 0
		v := reflect.ValueOf(o)
		for i := range v.NumField() {
			want, ok := defaults[module][python(v.Type().Field(i).Name)]
			if !ok {
				continue
			}
			compared++
			got := v.Field(i).Interface()
			switch x := got.(type) {
			case int64:
				got = float64(x)
			case F.Reduction:
				got = map[F.Reduction]string{F.None: "none", F.Mean: "mean", F.Sum: "sum"}[x]
			case torch.Tensor:
				if !x.Defined() {
					got = nil
				}
			case []int64: // nil stands for what the documentation says
				got = want
				if x != nil {
					t.Errorf("%s: %s is %v", module, v.Type().Field(i).Name, x)
				}
			}
			if want == nil && (got == 0.0 || got == "") { // None
				got = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s, PyTorch's (-) and ours (+):\n%s", module, v.Type().Field(i).Name, diff)
			}
		}
		if compared == 0 {
			t.Errorf("%s: no option has PyTorch's name", module)
		}
	}
}

// TestBadModules has options and inputs that modules refuse.
func TestBadModules(t *testing.T) {
	x := func(shape ...int64) torch.Tensor { return torch.Ones(shape) }
	attention := func() *nn.MultiheadAttentionModule {
		return nn.MultiheadAttention(4, 2, nn.MultiheadAttentionDefaults())
	}
	for _, c := range []struct {
		name, want string
		f          func()
	}{
		{"groups", "must be divisible by the number of groups, 2", func() { nn.Conv2d(3, 4, []int64{3}, nn.ConvOptions{Groups: 2}) }},
		{"kernel", "kernel must have one or 2 numbers, got [3 3 3]", func() { nn.Conv2d(3, 4, []int64{3, 3, 3}, nn.ConvOptions{}) }},
		{"no kernel", "kernel must have one or 2 numbers, got []", func() { nn.MaxPool2d(nil, nn.MaxPoolOptions{}) }},
		{"padding mode", `not "mirror"`, func() { nn.Conv1d(3, 4, []int64{3}, nn.ConvOptions{PaddingMode: "mirror"}) }},
		{"same and stride", "Same requires a stride of 1", func() { nn.Conv1d(3, 4, []int64{3}, nn.ConvOptions{Same: true, Stride: []int64{2}}) }},
		{"one value", "more than one value for each channel", func() { nn.BatchNorm1d(3, nn.BatchNormOptions{}).Forward(x(1, 3)) }},
		{"dimensions of a norm", "expected an input of [4] dimensions", func() { nn.BatchNorm2d(3, nn.BatchNormOptions{}).Forward(x(1, 3)) }},
		{"projection", "ProjSize is for LSTM", func() { nn.GRU(3, 4, nn.RNNOptions{NumLayers: 1, ProjSize: 2}) }},
		{"no layers", "NumLayers must be at least 1, got 0", func() { nn.LSTM(3, 4, nn.RNNOptions{}) }},
		{"nonlinearity", `not "gelu"`, func() { nn.RNN(3, 4, nn.RNNOptions{NumLayers: 1, Nonlinearity: "gelu"}) }},
		{"shape of a state", "the state has shape [1 1 4], want [1 2 4]", func() {
			m := nn.GRU(3, 4, nn.RNNDefaults())
			defer nn.Close(m)
			m.Forward(x(5, 2, 3), x(1, 1, 4))
		}},
		{"one state", "must be given together", func() {
			m := nn.LSTM(3, 4, nn.RNNDefaults())
			defer nn.Close(m)
			m.Forward(x(5, 2, 3), x(1, 2, 4), torch.Tensor{})
		}},
		{"causal without a mask", "IsCausal requires the causal AttnMask", func() {
			m := attention()
			defer nn.Close(m)
			m.Forward(x(3, 2, 4), x(3, 2, 4), x(3, 2, 4), nn.AttentionOptions{IsCausal: true})
		}},
		{"shape of a mask", "AttnMask has shape [2 3], want [3 3]", func() {
			m := attention()
			defer nn.Close(m)
			m.Forward(x(3, 2, 4), x(3, 2, 4), x(3, 2, 4), nn.AttentionOptions{AttnMask: x(2, 3)})
		}},
		{"shape of a padding mask", "KeyPaddingMask has shape [3 2], want [2 3]", func() {
			m := attention()
			defer nn.Close(m)
			m.Forward(x(3, 2, 4), x(3, 2, 4), x(3, 2, 4), nn.AttentionOptions{KeyPaddingMask: x(3, 2)})
		}},
		{"mask of integers", "a mask must be of bools or floats", func() {
			m := attention()
			defer nn.Close(m)
			m.Forward(x(3, 2, 4), x(3, 2, 4), x(3, 2, 4), nn.AttentionOptions{AttnMask: torch.FromSlice([]int64{1}, 1, 1)})
		}},
		{"size of keys", "of sizes 4, 4 and 4", func() {
			m := attention()
			defer nn.Close(m)
			m.Forward(x(3, 2, 4), x(3, 2, 5), x(3, 2, 4), nn.AttentionDefaults())
		}},
		{"activation", `Activation must be relu or gelu, not ""`, func() { nn.TransformerEncoderLayer(4, 2, nn.TransformerOptions{}) }},
	} {
		err := torch.Scope(func() error { c.f(); return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// TestHooksOfModules shows the outputs of modules inside of modules by their names.
func TestHooksOfModules(t *testing.T) {
	scoped(t, func() {
		o := nn.TransformerDefaults()
		o.DimFeedforward, o.Dropout = 8, 0
		m := nn.TransformerEncoder(func() *nn.TransformerEncoderLayerModule { return nn.TransformerEncoderLayer(4, 2, o) }, 2, nn.LayerNorm([]int64{4}, 1e-5))
		defer nn.Close(m)
		var got []string
		nn.OnOutput(m, func(name string, _ torch.Tensor) { got = append(got, name) })
		m.Forward(torch.Randn([]int64{3, 1, 4}), nn.EncoderMasks{})
		var want []string
		for i := range 2 {
			for _, name := range []string{".self_attn.out_proj", ".self_attn", ".dropout1", ".norm1", ".linear1", ".dropout", ".linear2", ".dropout2", ".norm2", ""} {
				want = append(want, fmt.Sprintf("layers.%d%s", i, name))
			}
		}
		want = append(want, "norm", "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	scoped(t, func() {
		m := nn.Sequential(nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.1), nn.Tanh()), nn.Sigmoid(), nn.SiLU(), nn.GELU("none"), nn.Dropout(0.5))
		var got []string
		nn.OnOutput(m, func(name string, _ torch.Tensor) { got = append(got, name) })
		m.Forward(torch.Randn([]int64{3}))
		if diff := cmp.Diff([]string{"0.0", "0.1", "0.2", "0", "1", "2", "3", "4", ""}, got); diff != "" {
			t.Error(diff)
		}
	})
}
