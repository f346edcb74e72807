"""Writes fixtures.json: the results of PyTorch for the same seeds and inputs as the
tests in torch/, torch/nn and torch/optim use.

    python torch/testdata/make_fixtures.py
"""

import base64
import json
import math
import pathlib
import random

import torch
from torch import nn
from torch.nn import functional as F
from versions import versions

torch.set_num_threads(1)

out = {
    "versions": versions(),
    "tensors": {},
    "repr": {},
}


def put(name, t):
    t = t.detach().contiguous()
    raw = t.view(torch.uint8) if t.dtype == torch.bool else t
    out["tensors"][name] = {
        "dtype": str(t.dtype).removeprefix("torch."),
        "shape": list(t.shape),
        "data": base64.b64encode(raw.numpy().tobytes()).decode(),
    }


# Initial weights, forward and backward of every module.
MODULES = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
    "linear_nobias": (lambda: nn.Linear(6, 2, bias=False), (3, 6)),
    "layer_norm": (lambda: nn.LayerNorm(8), (2, 3, 8)),
    "conv2d": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 9)),
    "conv2d_nobias": (lambda: nn.Conv2d(3, 4, 4, stride=4, bias=False), (2, 3, 8, 8)),
    "attention": (lambda: nn.MultiheadAttention(16, 4, batch_first=True), (2, 5, 16)),
    "sequential": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.Tanh()), (6, 7)),
    "relu": (nn.ReLU, (3, 4)),
    "leaky_relu": (lambda: nn.LeakyReLU(0.2), (3, 4)),
    "tanh": (nn.Tanh, (3, 4)),
    "sigmoid": (nn.Sigmoid, (3, 4)),
    "silu": (nn.SiLU, (3, 4)),
    "gelu": (nn.GELU, (3, 4)),
    "gelu_tanh": (lambda: nn.GELU(approximate="tanh"), (3, 4)),
    "dropout": (lambda: nn.Dropout(0.3), (5, 6)),
}
for i, (name, (make, shape)) in enumerate(MODULES.items()):
    torch.manual_seed(100 + i)
    m = make()
    for key, p in m.state_dict().items():
        put(f"{name}/init/{key}", p)
    x = torch.randn(shape, requires_grad=True)
    y = m(x, x, x, need_weights=False)[0] if name == "attention" else m(x)
    # A loss that is not symmetric in the outputs.
    (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    put(f"{name}/x", x)
    put(f"{name}/y", y)
    put(f"{name}/grad/x", x.grad)
    for key, p in m.named_parameters():
        put(f"{name}/grad/{key}", p.grad)
torch.manual_seed(99)
e = nn.Embedding(10, 6)
put("embedding/init/weight", e.weight)
ids = torch.tensor([[1, 2], [9, 1]])
y = e(ids)
(y * torch.arange(y.numel()).view_as(y)).sum().backward()
put("embedding/y", y)
put("embedding/grad/weight", e.weight.grad)

# torch.nn.init.
INITS = {
    "kaiming_uniform": lambda t: nn.init.kaiming_uniform_(t, a=0.3),
    "kaiming_normal": lambda t: nn.init.kaiming_normal_(t, a=0.3),
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "normal": lambda t: nn.init.normal_(t, 0.1, 0.02),
    "uniform": lambda t: nn.init.uniform_(t, -0.25, 3),
    "constant": lambda t: nn.init.constant_(t, 0.3),
}
for name, init in INITS.items():
    torch.manual_seed(16)
    put(f"init/{name}", init(torch.empty(5, 4, 3, 3)))

# Losses and functions.
torch.manual_seed(7)
a, b = torch.randn(6, 5), torch.randn(6, 5)
target = torch.tensor([0, 4, 2, 0, 1, 3])
put("loss/a", a)
put("loss/b", b)
out["losses"] = {}
LOSSES = {
    "cross_entropy": lambda a: F.cross_entropy(a, target),
    "cross_entropy_ignore_0": lambda a: F.cross_entropy(a, target, ignore_index=0),
    "cross_entropy_sum": lambda a: F.cross_entropy(a, target, reduction="sum"),
    "cross_entropy_smooth": lambda a: F.cross_entropy(a, target, label_smoothing=0.1),
    "nll": lambda a: F.nll_loss(F.log_softmax(a, -1), target),
    "mse": lambda a: F.mse_loss(a, b),
    "l1": lambda a: F.l1_loss(a, b),
    "l1_sum": lambda a: F.l1_loss(a, b, reduction="sum"),
    "bce_with_logits": lambda a: F.binary_cross_entropy_with_logits(a, (b > 0).float()),
    "normalize": lambda a: (F.normalize(a, dim=-1) * b).sum(),
    "cosine_similarity": lambda a: (F.cosine_similarity(a, b, dim=-1)).sum(),
    "softmax": lambda a: (F.softmax(a, -1) * b).sum(),
    "attention": lambda a: (F.scaled_dot_product_attention(a[None, None], b[None, None], b[None, None], is_causal=True) * b).sum(),
}
for name, f in LOSSES.items():
    x = a.clone().requires_grad_()
    loss = f(x)
    loss.backward()
    put(f"loss/{name}", loss)
    put(f"loss/{name}/grad", x.grad)


# Optimizers: 25 steps of a small regression.
class TransformersAdamW(torch.optim.Optimizer):
    """transformers' AdamW until version 4, from its formula."""

    def __init__(self, params, lr, weight_decay=0.0, eps=1e-6):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "eps": eps})

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            for p in g["params"]:
                s = self.state[p]
                if not s:
                    s.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                s["step"] += 1
                s["m"].mul_(0.9).add_(p.grad, alpha=1 - 0.9)
                s["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=1 - 0.999)
                size = g["lr"] * math.sqrt(1 - 0.999 ** s["step"]) / (1 - 0.9 ** s["step"])
                p.addcdiv_(s["m"], s["v"].sqrt().add_(g["eps"]), value=-size)
                if g["weight_decay"] > 0:
                    p.add_(p, alpha=-g["lr"] * g["weight_decay"])


def warmup(step, warm, total):
    return step / max(1, warm) if step < warm else max(0.0, (total - step) / max(1, total - warm))


O = torch.optim
OPTIMIZERS = {
    "sgd": lambda p: O.SGD(p, lr=0.1),
    "sgd_momentum": lambda p: O.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": lambda p: O.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "sgd_dampening": lambda p: O.SGD(p, lr=0.05, momentum=0.8, dampening=0.3),
    "adam": lambda p: O.Adam(p, lr=0.01),
    "adam_defaults": lambda p: O.Adam(p),
    "adamw_defaults": lambda p: O.AdamW(p),
    "transformers_adamw_defaults": lambda p: TransformersAdamW(p, lr=1e-3),
    "adam_gan": lambda p: O.Adam(p, lr=2e-4, betas=(0.5, 0.999)),
    "adam_decay": lambda p: O.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: O.AdamW(p, lr=0.01, weight_decay=0.05),
    "adam_fused": lambda p: O.Adam(p, lr=0.01, fused=True),
    "adamw_fused": lambda p: O.AdamW(p, lr=0.01, weight_decay=0.05, fused=True),
    "transformers_adamw": lambda p: TransformersAdamW(p, lr=0.01),
    "transformers_adamw_decay": lambda p: TransformersAdamW(p, lr=0.01, weight_decay=0.1),
}
STEPS, LONG = 25, 1300
torch.manual_seed(5)
xs, ys = torch.randn(STEPS, 16, 8), torch.randn(STEPS, 16, 4)
put("optim/x", xs)
put("optim/y", ys)
for name, make in OPTIMIZERS.items():
    for variant in ("", "_clipped"):
        torch.manual_seed(6)
        m = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))
        opt = make(m.parameters())
        base = opt.param_groups[0]["lr"]
        norms = []
        for step in range(STEPS):
            if variant:
                opt.param_groups[0]["lr"] = base * warmup(step, 5, STEPS)
            opt.zero_grad()
            F.mse_loss(m(xs[step]), ys[step]).backward()
            if variant:
                norms.append(nn.utils.clip_grad_norm_(m.parameters(), 0.3).item())
                nn.utils.clip_grad_value_(m.parameters(), 0.1)
            opt.step()
        for key, p in m.state_dict().items():
            put(f"optim/{name}{variant}/{key}", p)
        if variant:
            put(f"optim/{name}{variant}/norms", torch.tensor(norms, dtype=torch.float64))

# Many steps in double precision, where the last bit of every factor shows.
for name, make in OPTIMIZERS.items():
    torch.manual_seed(8)
    p = torch.randn(8, dtype=torch.float64, requires_grad=True)
    put(f"optim_long/{name}/start", p)
    opt = make([p])
    for step in range(LONG):
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()
    put(f"optim_long/{name}/end", p)
    for i, s in opt.state_dict()["state"].items():
        for key, value in s.items():
            if key in ("exp_avg", "exp_avg_sq", "momentum_buffer") and value is not None:
                put(f"optim_long/{name}/{i}.{key}", value)

# Autocast, generators.
torch.manual_seed(11)
x, w = torch.randn(4, 8), torch.randn(8, 8)
put("autocast/x", x)
put("autocast/w", w)
with torch.autocast("cpu", dtype=torch.bfloat16):
    y = x @ w
    assert y.dtype == torch.bfloat16
    put("autocast/y", y.float())
    put("autocast/softmax", y.softmax(-1).float())
# Training under autocast: the cast weights of one step must not serve the next.
torch.manual_seed(15)
m = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
opt = O.SGD(m.parameters(), lr=0.1)
for step in range(3):
    opt.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.mse_loss(m(x), m(x * 2).detach())
    loss.backward()
    opt.step()
put("autocast/loss", loss)
for key, p in m.named_parameters():
    put(f"autocast/train/{key}", p)
    put(f"autocast/train/grad/{key}", p.grad)
torch.manual_seed(12)
put("random/rand", torch.rand(20))
put("random/randn", torch.randn(20))
put("random/randint", torch.randint(0, 1000, (20,)))
put("random/randperm", torch.randperm(20))
put("random/state", torch.get_rng_state())
g = torch.Generator().manual_seed(13)
put("random/own", torch.randn(5, generator=g))
put("random/own_state", g.get_state())

# repr: tensors by expressions that the Go test restates.
torch.manual_seed(14)
big = torch.randn(40, 50)
wide = torch.randn(4, 30) * 100
put("repr/big", big)
put("repr/wide", wide)
f = torch.tensor
REPR = {
    "scalar": f(3.5), "scalar_int": f(7), "scalar_bool": f(True), "scalar_small": f(1e-6),
    "ints": f([1, -20, 300]), "ints2d": f([[1, 2], [-30, 4]]), "int32": f([1, 2], dtype=torch.int32), "uint8": f([1, 255], dtype=torch.uint8),
    "whole": f([1.0, 2.0, -3.0]), "fixed": f([0.5, 1.25, -100.0]), "science": f([1e-5, 1.0, 1000.0]), "huge": f([1e9, 2e9]),
    "special": f([float("inf"), float("-inf"), float("nan"), 1.5]), "special_whole": f([float("inf"), 2.0]), "only_nan": f([float("nan")]),
    "zeros": torch.zeros(2, 3), "bool": f([[True, False], [False, True]]), "half": f([0.1, 2.0]).half(), "bf16": f([0.1, 2.0]).bfloat16(),
    "double": f([0.1, 1 / 3], dtype=torch.float64), "complex": f([1 + 2j, -0.5 - 1j]),
    "empty": torch.empty(0), "empty2d": torch.empty(0, 3), "empty_int": torch.empty(0, dtype=torch.int64),
    "three": torch.arange(24).view(2, 3, 4), "three_float": torch.arange(24).view(2, 3, 4) / 7,
    "big": big, "big_vector": torch.arange(5000), "wide": wide, "long": torch.arange(100) / 3,
    "grad": f([1.0, 2.0], requires_grad=True), "grad_fn": f([1.0, 2.0], requires_grad=True).exp(),
    "meta": torch.empty(2, 3, device="meta"), "meta_int": torch.empty(2, dtype=torch.int64, device="meta"),
    "grad_int_none": torch.ones(3, dtype=torch.float64, requires_grad=True).sum(), "one_dim_one": f([5.0]), "nested_one": f([[[1.0]]]),
    "long_suffix": (torch.arange(12) / 3).double().requires_grad_(),
}  # fmt: skip
for name, t in REPR.items():
    out["repr"][name] = repr(t)



# repr of tensors by recipe, which the Go test follows: every number comes from
# randn and a seed, so that none has to be stored.
def drawn(recipe):
    torch.manual_seed(recipe["seed"])
    x = torch.randn(recipe["shape"], dtype=torch.float64) * recipe["scale"]
    if recipe["whole"]:
        x = x.round()
    flat = x.view(-1)
    for value, start, step in recipe["set"]:
        flat[start::step] = float(value)
    dtype = getattr(torch, recipe["dtype"])
    if dtype.is_complex:
        x = torch.complex(x, x.flip(0) * recipe["imag"] if x.dim() else x * recipe["imag"])
    elif dtype == torch.bool:
        x = x > 0
    elif dtype == torch.uint8:
        x = x.abs()
    x = x.to(dtype)
    return x.requires_grad_() if recipe["grad"] else x


def recipes(count):
    r = random.Random(1)
    floats = ["float32", "float32", "float32", "float64", "float16", "bfloat16"]
    ints = ["int64", "int64", "int32", "int16", "int8", "uint8", "bool"]
    complexes = ["complex64", "complex128"]
    found = []
    while len(found) < count:
        dtype = r.choice(r.choice([floats, floats, floats, ints, complexes]))
        is_int = dtype in ints
        shape = [r.choice([0, 1, 1, 2, 3, 5, 6, 7, 8, 20, 120]) for _ in range(r.choice([0, 1, 1, 2, 2, 3, 4]))]
        if r.random() < 0.1:
            shape = r.choice([[1001], [1500], [40, 50], [8, 8, 20], [2, 600], [5, 5, 5, 9]])
        scale = 10.0 ** r.uniform(-9, 9)
        if is_int or dtype == "float16":
            scale = 10.0 ** r.uniform(-1, 1.5)
        kinds = ["nan", "inf", "-inf", "0", "-0.0", "1", "1e-5", "12345.678"]
        recipe = {
            "seed": len(found), "shape": shape, "dtype": dtype, "scale": scale,
            "whole": is_int or r.random() < 0.3,
            "set": [] if is_int else [[r.choice(kinds), r.randrange(3), r.randrange(1, 9)] for _ in range(r.choice([0, 0, 1, 2]))],
            "imag": 10.0 ** r.uniform(-3, 3),
            "grad": not is_int and r.random() < 0.2,
        }  # fmt: skip
        if math.prod(shape) > 20000:
            continue
        text = repr(drawn(recipe))
        if len(text) <= (700 if len(found) % 20 else 4000):  # a few long ones
            found.append(recipe | {"repr": text})
    return found


out["recipes"] = recipes(300)
path = pathlib.Path(__file__).with_name("fixtures.json")
path.write_text(json.dumps(out, indent=0, sort_keys=True) + "\n")
