"""Writes modules.json.gz: what PyTorch's modules compute for the constructors and inputs of its own
tests (torch.testing._internal.common_modules.module_db, which needs the package expecttest), and for
the cases in EXTRA: options that those do not have. The tests in torch/nn build the same modules.

    python torch/testdata/make_module_fixtures.py
"""

import base64
import gzip
import hashlib
import inspect
import json
import math
import pathlib
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.testing._internal.common_modules import module_db
from versions import versions

warnings.simplefilter("ignore")
torch.set_num_threads(1)

# What package nn does not have.
MISSING = {
    "FractionalMaxPool2d", "FractionalMaxPool3d",  # random regions, an input in the tests
    "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
}  # fmt: skip

out = {"versions": versions(), "tensors": {}, "cases": [], "defaults": {}}
names = {}  # of tensors, by content


def put(t):
    """Adds a tensor and returns its name; equal tensors are stored once."""
    t = t.detach().contiguous()
    raw = (t.view(torch.uint8) if t.dtype == torch.bool else t).numpy().tobytes()
    entry = {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "data": base64.b64encode(raw).decode()}
    key = hashlib.sha256(json.dumps(entry).encode()).hexdigest()
    if key not in names:
        names[key] = str(len(names))
        out["tensors"][names[key]] = entry
    return names[key]


def encode(v, leaves):
    """An argument as JSON. Tensors are added to leaves, and named by their contents and place there."""
    if isinstance(v, torch.Tensor):
        for i, known in enumerate(leaves):
            if known is v:
                return {"leaf": i}
        leaves.append(v)
        return {"leaf": len(leaves) - 1, "tensor": put(v), "grad": v.requires_grad}
    if isinstance(v, (tuple, list)):
        return [encode(x, leaves) for x in v]
    if isinstance(v, float) and not math.isfinite(v):
        return str(v)
    if v is F.relu or v is F.gelu:
        return v.__name__
    if v is None or isinstance(v, (bool, int, float, str)):
        return v
    if isinstance(v, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        return layer(v)
    raise TypeError(f"{type(v)}: {v}")


def layer(m):
    """The arguments of the constructor of a layer of a transformer."""
    return {
        "d_model": m.self_attn.embed_dim, "nhead": m.self_attn.num_heads, "dim_feedforward": m.linear1.out_features,
        "dropout": m.dropout.p, "activation": m.activation.__name__, "layer_norm_eps": m.norm1.eps,
        "batch_first": m.self_attn.batch_first, "norm_first": m.norm_first, "bias": m.linear1.bias is not None,
    }  # fmt: skip


def arguments(function, args, kwargs, skip, leaves):
    """All arguments of a call by name, with their defaults."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    given = {}
    for name, v in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind == inspect.Parameter.VAR_KEYWORD:
            given |= v
        elif kind == inspect.Parameter.VAR_POSITIONAL:
            given |= {f"{name}{i}": x for i, x in enumerate(v)}
        else:
            given[name] = v
    return {k: encode(v, leaves) for k, v in given.items() if k not in skip}


def rnn_arguments(cls, args, kwargs):
    """The modules of torch.nn.modules.rnn take any arguments."""
    names = ["input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional", "proj_size"]
    if cls is not nn.RNN:
        names.remove("nonlinearity")
    return dict(zip(names, args)) | kwargs


LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
SKIP = {"device", "dtype", "inplace", "size_average", "reduce", "min_value", "max_value"}


def flat(y):
    if isinstance(y, torch.Tensor):
        return [y]
    return [t for x in y for t in flat(x)] if isinstance(y, (tuple, list)) else []


def case(cls, seed, args, kwargs, fargs, fkwargs, training, dtype=torch.float32):
    """Records one call of a module and its gradients."""
    kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "dtype")}
    torch.manual_seed(seed)
    made = [type(a)(**layer(a)) if isinstance(a, LAYERS) else a for a in args]
    m = cls(*made, **kwargs)
    initial = {k: put(v) for k, v in m.state_dict().items()}  # of float32, also for float64
    m.to(dtype).train(training)
    # Numbers that the constructor does not give: zeros of biases and ones of norms hide mistakes.
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for k, v in m.state_dict().items():
            if v.is_floating_point() and (v == v.flatten()[0]).all():
                v.add_(torch.rand_like(v))
    c = {"module": cls.__name__, "seed": seed, "training": training, "dtype": str(dtype).removeprefix("torch."), "initial": initial}
    c["state"] = {k: put(v) for k, v in m.state_dict().items()}
    if issubclass(cls, nn.RNNBase):
        c["args"] = {k: encode(v, []) for k, v in rnn_arguments(cls, args, kwargs).items()}
    else:
        c["args"] = arguments(cls, args, kwargs, SKIP, [])
    leaves = []
    c["inputs"] = arguments(m.forward, fargs, fkwargs, set(), leaves)
    torch.manual_seed(seed + 2)
    ys = flat(m(*fargs, **fkwargs))
    c["outputs"] = [put(y) for y in ys]
    loss = 0
    for y in ys:
        if y.is_floating_point() and y.requires_grad:
            loss = loss + (y * torch.arange(1, y.numel() + 1).view_as(y)).sum()
    if isinstance(loss, torch.Tensor):
        loss.backward()
    c["grads"] = {str(i): put(x.grad) for i, x in enumerate(leaves) if x.requires_grad and x.grad is not None}
    c["grads"] |= {k: put(p.grad) for k, p in m.named_parameters() if p.grad is not None}
    c["after"] = {k: put(v) for k, v in m.state_dict().items() if c["state"][k] != put(v)}
    out["cases"].append(c)


def detached(v):
    """v with leaves of their own, so that gradients do not add up over the calls."""
    if isinstance(v, torch.Tensor):
        return v.detach().clone(memory_format=torch.contiguous_format).requires_grad_(v.requires_grad)
    if isinstance(v, (tuple, list)):
        return type(v)(detached(x) for x in v)
    return v


seed = 0
STEPS = {nn.CTCLoss: 8, nn.CrossEntropyLoss: 3, nn.TransformerEncoder: 3, nn.TransformerDecoderLayer: 3, nn.Transformer: 3}
for info in module_db:
    cls = info.module_cls
    if cls.__name__ in MISSING:
        continue
    for dtype in (torch.float32, torch.float64):
        first, last = seed, seed
        for training in (True, False) if info.train_and_eval_differ and dtype == torch.float32 else (True,):
            torch.manual_seed(len(cls.__name__))
            samples = list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training))
            # Of those that have many inputs of the same kind, some will do, and two of float64.
            step = STEPS.get(cls, 1) if dtype == torch.float32 else len(samples) // 2 + 1
            for i, s in enumerate(samples[::step]):
                a, f = s.constructor_input, s.forward_input
                if dtype == torch.float64 and sum(x.numel() for x in flat(list(f.args))) > 200:
                    continue
                memo = {}

                def own(v):
                    if isinstance(v, torch.Tensor):
                        return memo.setdefault(id(v), detached(v))
                    return type(v)(own(x) for x in v) if isinstance(v, (tuple, list)) else v

                # The same seed for both modes: what does not differ is stored once.
                last = first + 3 * i
                case(cls, last, a.args, a.kwargs, [own(x) for x in f.args], {k: own(v) for k, v in f.kwargs.items()}, training, dtype)
        seed = last + 3

x = lambda *shape: torch.randn(shape, requires_grad=True)  # noqa: E731
torch.manual_seed(1)
causal = nn.Transformer.generate_square_subsequent_mask
EXTRA = [
    (nn.Conv1d, (4, 6, 3), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, [x(2, 4, 9)], {}),
    (nn.Conv2d, (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "bias": False}, [x(2, 4, 7, 6)], {}),
    (nn.Conv3d, (2, 2, 2), {"padding": 1, "padding_mode": "circular"}, [x(1, 2, 3, 3, 3)], {}),
    *[(nn.Conv2d, (2, 3, 3), {"padding": (1, 2), "padding_mode": mode}, [x(2, 2, 5, 5)], {}) for mode in ("reflect", "replicate", "circular")],
    *[(nn.Conv2d, (2, 3, (4, 3)), {"padding": "same", "dilation": (1, 2), "padding_mode": mode}, [x(2, 2, 6, 5)], {}) for mode in ("zeros", "reflect")],
    (nn.ConvTranspose1d, (4, 6, 3), {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2}, [x(2, 4, 5)], {}),
    (nn.ConvTranspose2d, (3, 2, (2, 3)), {"stride": (2, 3), "output_padding": (1, 2), "bias": False}, [x(2, 3, 3, 4)], {}),
    (nn.MaxPool2d, ((3, 2),), {"stride": (2, 1), "padding": 1, "ceil_mode": True}, [x(2, 2, 6, 5)], {}),
    (nn.MaxPool1d, (3,), {"dilation": 2}, [x(2, 2, 8)], {}),
    (nn.AvgPool2d, (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, [x(2, 2, 6, 5)], {}),
    (nn.Linear, (3, 4), {"bias": False}, [x(2, 3)], {}),
    (nn.Dropout2d, (0.4,), {}, [x(3, 4, 2, 2)], {}),
    (nn.AlphaDropout, (0.4,), {}, [x(3, 8)], {}),
    (nn.PixelShuffle, (2,), {}, [x(2, 8, 2, 3)], {}),
    (nn.PixelUnshuffle, (2,), {}, [x(2, 2, 4, 6)], {}),
    (nn.Flatten, (), {}, [x(2, 3, 4)], {}),
    (nn.Flatten, (0, 1), {}, [x(2, 3, 4)], {}),
    (nn.Unflatten, (1, (2, 3)), {}, [x(2, 6)], {}),
    (nn.Identity, (), {}, [x(2, 6)], {}),
    (nn.Hardsigmoid, (), {}, [x(2, 6)], {}),
    (nn.TripletMarginLoss, (), {}, [x(4, 5), x(4, 5), x(4, 5)], {}),
    (nn.TripletMarginLoss, (), {"margin": 2.0, "p": 1.5, "swap": True, "reduction": "sum"}, [x(4, 5), x(4, 5), x(4, 5)], {}),
    (nn.LSTM, (3, 4), {"num_layers": 3, "dropout": 0.5, "bidirectional": True, "batch_first": True, "proj_size": 2}, [x(2, 5, 3)], {}),
    (nn.LSTM, (3, 4), {}, [x(5, 2, 3), (x(1, 2, 4), x(1, 2, 4))], {}),
    (nn.GRU, (3, 4), {"num_layers": 2, "dropout": 0.3}, [x(5, 2, 3), x(2, 2, 4)], {}),
    (nn.RNN, (3, 4), {"num_layers": 2, "dropout": 0.3, "nonlinearity": "relu"}, [x(5, 2, 3)], {}),
    (nn.LSTMCell, (3, 4), {"bias": False}, [x(2, 3)], {}),
    (nn.GRUCell, (3, 4), {}, [x(2, 3), x(2, 4)], {}),
    (nn.RNNCell, (3, 4), {"nonlinearity": "relu"}, [x(2, 3)], {}),
    (nn.MultiheadAttention, (8, 2), {"dropout": 0.3, "batch_first": True}, [y := x(2, 4, 8), y, y], {"need_weights": False}),
    (nn.MultiheadAttention, (8, 2), {"dropout": 0.3}, [y := x(4, 2, 8), y, y], {"average_attn_weights": False}),
    (nn.MultiheadAttention, (8, 2), {"kdim": 5, "vdim": 6, "bias": False}, [x(4, 2, 8), x(3, 2, 5), x(3, 2, 6)], {}),
    (nn.MultiheadAttention, (8, 2), {"batch_first": True}, [x(2, 4, 8), (y := x(2, 3, 8)), y], {"need_weights": False}),
    (nn.MultiheadAttention, (8, 2), {}, [y := x(4, 2, 8), y, y], {"attn_mask": causal(4), "is_causal": True, "need_weights": False}),
    (nn.MultiheadAttention, (8, 2), {}, [y := x(4, 2, 8), y, y], {"attn_mask": causal(4), "is_causal": True}),
    (nn.MultiheadAttention, (8, 2), {"add_bias_kv": True, "add_zero_attn": True}, [y := x(4, 2, 8), y, y],
     {"key_padding_mask": torch.tensor([[False, True, False, False], [False, False, False, True]]), "attn_mask": torch.rand(4, 4, 4) > 0.8}),
    (nn.TransformerEncoderLayer, (8, 2, 16, 0.4, "gelu"), {"batch_first": True}, [x(2, 4, 8)], {"src_mask": causal(4), "is_causal": True}),
    (nn.TransformerDecoderLayer, (8, 2, 16, 0.4), {"norm_first": True}, [x(4, 2, 8), x(3, 2, 8)], {"tgt_mask": causal(4), "tgt_is_causal": True}),
    (nn.TransformerEncoder, (nn.TransformerEncoderLayer(8, 2, 16, 0.2), 3, ), {}, [x(4, 2, 8)], {"mask": causal(4)}),
    (nn.TransformerDecoder, (nn.TransformerDecoderLayer(8, 2, 16, 0.0), 2), {}, [x(4, 2, 8), x(3, 2, 8)], {"tgt_mask": causal(4)}),
    (nn.Transformer, (8, 2, 2, 2, 16, 0.1, "gelu"), {"batch_first": True}, [x(2, 3, 8), x(2, 4, 8)], {"tgt_mask": causal(4)}),
    (nn.RReLU, (0.2, 0.6), {}, [x(3, 8)], {}),
    (nn.RReLU, (), {}, [x(3, 8)], {}),
]  # fmt: skip
for cls, args, kwargs, fargs, fkwargs in EXTRA:
    for training in (True, False):
        case(cls, seed, args, kwargs, fargs, fkwargs, training)
        for leaf in flat(fargs):
            leaf.grad = None
    seed += 3

for name in sorted({c["module"] for c in out["cases"]}):
    cls = getattr(nn, name)
    if issubclass(cls, nn.RNNBase):
        m = cls(2, 2)
        out["defaults"][name] = {k: getattr(m, k) for k in ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")}
        continue
    parameters = inspect.signature(cls).parameters.values()
    out["defaults"][name] = {p.name: encode(p.default, []) for p in parameters if p.default is not p.empty and p.name not in SKIP | {"custom_encoder", "custom_decoder"}}

path = pathlib.Path(__file__).with_name("modules.json.gz")
text = json.dumps(out, separators=(",", ":"), sort_keys=True)
path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
print(len(out["cases"]), "cases,", len(out["tensors"]), "tensors,", path.stat().st_size, "bytes")
