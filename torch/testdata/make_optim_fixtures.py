"""Writes optim.json.gz: 50 steps of PyTorch's optimizers with the options of its own tests
(torch.testing._internal.common_optimizers.optim_db, which needs the package expecttest), with groups of
parameters, with sparse gradients, and of its learning rate schedulers and gradient scaler. The tests in torch/optim take the
same steps.

    python torch/testdata/make_optim_fixtures.py
"""

import base64
import gzip
import inspect
import json
import math
import pathlib
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as L
from torch.testing._internal.common_optimizers import optim_db
from versions import versions

warnings.simplefilter("ignore")
torch.set_num_threads(1)
O = torch.optim
HERE = pathlib.Path(__file__).parent

# What is recorded below.
LATER = {"LBFGS", "SparseAdam"}
# Options that choose an implementation, of which there is one.
SKIP = {"foreach", "capturable", "differentiable", "fused"}

out = {"versions": versions(), "tensors": {}, "cases": [], "defaults": {}}


def put(name, t):
    t = (t.to_dense() if t.is_sparse else t).detach().contiguous()
    raw = t.view(torch.uint8) if t.dtype in (torch.bool, torch.bfloat16) else t
    out["tensors"][name] = {
        "dtype": str(t.dtype).removeprefix("torch."),
        "shape": list(t.shape),
        "data": base64.b64encode(raw.numpy().tobytes()).decode(),
    }


def net(bias, dtype):
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(5, 7, bias=bias), nn.Tanh(), nn.Linear(7, 3, bias=bias)).to(dtype)


def data(dtype):
    torch.manual_seed(5)
    return torch.randn(50, 4, 5).to(dtype), torch.randn(50, 4, 3).to(dtype)


def train(m, opt, steps, dtype, after=lambda: None):
    xs, ys = data(dtype)
    for step in steps:
        opt.zero_grad()
        F.mse_loss(m(xs[step]), ys[step]).backward()
        opt.step()
        after()


def plain(v):
    """An option as JSON."""
    if isinstance(v, (tuple, list)):
        return [plain(x) for x in v]
    return v


def record(name, optimizer, m, groups):
    """Records the weights and the state of an optimizer."""
    for key, p in m.state_dict().items():
        put(f"{name}/{key}", p)
    state = optimizer.state_dict()
    for i, s in state["state"].items():
        for key, v in s.items():
            if v is not None:
                put(f"{name}/state/{i}.{key}", torch.as_tensor(v))
    out["cases"].append({
        "name": name, "optimizer": type(optimizer).__name__, "groups": groups, "bias": len(m.state_dict()) == 4,
        "dtype": str(next(m.parameters()).dtype).removeprefix("torch."),
        "state": {str(i): sorted(k for k, v in s.items() if v is not None) for i, s in state["state"].items()},
        "options": [{k: plain(v) for k, v in g.items() if k not in SKIP | {"params"}} for g in state["param_groups"]],
    })  # fmt: skip


for info in optim_db:
    cls = info.optim_cls
    if cls.__name__ in LATER:
        continue
    signature = inspect.signature(cls)
    out["defaults"][cls.__name__] = {p.name: plain(p.default) for p in signature.parameters.values() if p.name not in SKIP | {"params"}}
    single = {"foreach": False} if "foreach" in signature.parameters else {}
    for i, sample in enumerate(info.optim_inputs_func(device="cpu")):
        if isinstance(sample.kwargs.get("lr"), torch.Tensor):
            continue
        for dtype in (torch.float32, torch.float64):
            m = net(cls is not O.Muon, dtype)
            opt = cls(m.parameters(), **sample.kwargs, **single)
            train(m, opt, range(50), dtype)
            kwargs = {k: plain(v) for k, v in sample.kwargs.items() if k not in SKIP}
            record(f"{cls.__name__}/{i}/{str(dtype).removeprefix('torch.')}", opt, m, [kwargs])
    # Two groups, the second with other options.
    m = net(cls is not O.Muon, torch.float32)
    params = list(m.parameters())
    second = {"lr": 0.03} | ({"weight_decay": 0.2} if "weight_decay" in signature.parameters else {})
    opt = cls([{"params": params[:1]}, {"params": params[1:]} | second], **single)
    train(m, opt, range(50), torch.float32)
    record(f"{cls.__name__}/groups", opt, m, [{}, second])

# Options that optim_db does not have.
for name, cls, kwargs in [
    ("adam_amsgrad_maximize", O.Adam, {"amsgrad": True, "maximize": True, "lr": 0.01}),
    ("adamw_amsgrad_fused", O.AdamW, {"amsgrad": True, "fused": True, "lr": 0.01}),
    ("adam_maximize_fused", O.Adam, {"maximize": True, "fused": True, "lr": 0.01}),
    ("rmsprop_all", O.RMSprop, {"momentum": 0.9, "centered": True, "maximize": True, "weight_decay": 0.1, "lr": 1e-3}),
    ("asgd_averaging", O.ASGD, {"t0": 10, "lr": 0.1, "lambd": 0.01}),
    ("adafactor_eps", O.Adafactor, {"eps": (1e-4, 1e-2)}),
]:
    m = net(True, torch.float32)
    opt = cls(m.parameters(), **kwargs)
    train(m, opt, range(50), torch.float32)
    record(name, opt, m, [{k: plain(v) for k, v in kwargs.items()}])

# LBFGS: steps that evaluate the loss several times, with a line search and without.
lbfgs = next(i for i in optim_db if i.optim_cls is O.LBFGS)
samples = [s.kwargs for s in lbfgs.optim_inputs_func(device="cpu") if not isinstance(s.kwargs.get("lr"), torch.Tensor)]
samples += [
    {"line_search_fn": "strong_wolfe", "history_size": 3, "max_iter": 9, "lr": 3.0},
    {"line_search_fn": "strong_wolfe", "max_eval": 1, "max_iter": 4},
    {"history_size": 2, "max_iter": 7, "tolerance_change": 1e-3, "lr": 0.1},
]
for i, kwargs in enumerate(samples):
    for dtype in (torch.float32, torch.float64):
        m = net(True, dtype)
        opt = O.LBFGS(m.parameters(), **kwargs)
        xs, ys = data(dtype)
        losses = []

        def closure():
            opt.zero_grad()
            loss = F.mse_loss(m(xs[:8]), ys[:8])
            loss.backward()
            return loss

        for step in range(10):
            losses.append(opt.step(closure).item())
        name = f"LBFGS/{i}/{str(dtype).removeprefix('torch.')}"
        for key, p in m.state_dict().items():
            put(f"{name}/{key}", p)
        state = opt.state_dict()["state"][0]
        for key in ("d", "prev_flat_grad", "H_diag", "t"):
            put(f"{name}/state/{key}", torch.as_tensor(state[key], dtype=dtype))
        out["cases"].append({
            "name": name, "dtype": str(dtype).removeprefix("torch."), "groups": [kwargs], "losses": losses,
            "evaluations": [state["func_evals"], state["n_iter"], len(state["ro"])],
        })  # fmt: skip
out["defaults"]["LBFGS"] = {p.name: p.default for p in inspect.signature(O.LBFGS).parameters.values() if p.name != "params"}

# The learning rates, and momenta, of schedulers.
loss = [1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.5, 0.5, 0.5, 0.5, 0.49999, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37, 0.38, 0.39] * 2
SCHEDULERS = {
    "step": lambda o: L.StepLR(o, 7, gamma=0.3),
    "multistep": lambda o: L.MultiStepLR(o, [3, 3, 11], gamma=0.7),
    "constant": lambda o: L.ConstantLR(o, factor=0.3, total_iters=6),
    "linear": lambda o: L.LinearLR(o, start_factor=0.1, end_factor=0.9, total_iters=13),
    "linear_defaults": lambda o: L.LinearLR(o),
    "exponential": lambda o: L.ExponentialLR(o, 0.93),
    "cosine": lambda o: L.CosineAnnealingLR(o, 9, eta_min=0.003),
    "restarts": lambda o: L.CosineAnnealingWarmRestarts(o, 4, T_mult=2, eta_min=0.001),
    "one_cycle": lambda o: L.OneCycleLR(o, 0.5, total_steps=52),
    "one_cycle_three": lambda o: L.OneCycleLR(o, [0.5, 0.2], total_steps=60, pct_start=0.2, anneal_strategy="linear", three_phase=True, div_factor=10.0, final_div_factor=100.0, base_momentum=0.8, max_momentum=0.9),
    "cyclic": lambda o: L.CyclicLR(o, 0.01, 0.3, step_size_up=7),
    "cyclic_two": lambda o: L.CyclicLR(o, [0.01, 0.02], [0.3, 0.1], step_size_up=5, step_size_down=3, mode="triangular2", base_momentum=0.7, max_momentum=0.95),
    "cyclic_exp": lambda o: L.CyclicLR(o, 0.01, 0.3, step_size_up=6, step_size_down=11, mode="exp_range", gamma=0.97, cycle_momentum=False),
    "lambda": lambda o: L.LambdaLR(o, [lambda e: 0.95**e, lambda e: 1 / (1 + e)]),
    "multiplicative": lambda o: L.MultiplicativeLR(o, lambda e: 1 - 0.01 * e),
    "polynomial": lambda o: L.PolynomialLR(o, total_iters=30, power=1.7),
    "plateau": lambda o: L.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=1, min_lr=0.002),
    "plateau_max": lambda o: L.ReduceLROnPlateau(o, mode="max", factor=0.3, patience=1, threshold=0.01, threshold_mode="abs"),
    "sequential": lambda o: L.SequentialLR(o, [L.LinearLR(o, 0.2, total_iters=5), L.CosineAnnealingLR(o, 20), L.ExponentialLR(o, 0.9)], [5, 25]),
    "chained": lambda o: L.ChainedScheduler([L.ConstantLR(o, 0.1, total_iters=4), L.ExponentialLR(o, 0.9)]),
}  # fmt: skip
schedules = {}
for name, make in SCHEDULERS.items():
    for kind in ("Adam", "SGD"):
        w = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
        groups = [{"params": [w[0]]}, {"params": [w[1]], "lr": 0.02}]
        opt = O.Adam(groups, lr=0.1) if kind == "Adam" else O.SGD(groups, lr=0.1, momentum=0.9)
        scheduler = make(opt)
        rows = []
        for step in range(52):
            rows.append([x for g in opt.param_groups for x in (g["lr"], g["betas"][0] if "betas" in g else g["momentum"])])
            if step < 51:
                scheduler.step(*([loss[step]] if name.startswith("plateau") else []))
        schedules[f"{name}/{kind}"] = rows
out["cases"].append({"name": "schedules", "schedules": schedules})

# GradScaler: a gradient overflows in step 3, and the scale grows after two good steps.
def scaler_case(name, m, opt, loss, steps, clip):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_factor=2.0, backoff_factor=0.25, growth_interval=2)
    scales = []
    for step in range(steps):
        opt.zero_grad()
        l = loss(step)
        if step == 3:
            l = l * math.inf
        scaler.scale(l).backward()
        if clip and step % 2:
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(m.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
    for key, p in m.state_dict().items():
        put(f"{name}/{key}", p)
    out["cases"].append({"name": name, "scales": scales})


m = net(True, torch.float32)
xs, ys = data(torch.float32)
scaler_case("scaler", m, O.SGD(m.parameters(), lr=0.05, momentum=0.9), lambda step: F.mse_loss(m(xs[step]), ys[step]), 12, True)

# Sparse gradients: those of two embeddings, with ids that occur several times in a batch and rows that do not.
class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Embedding(9, 4, sparse=True), nn.Embedding(5, 4, sparse=True)

    def forward(self, i, j):
        return self.a(i) * self.b(j)


def product(dtype):
    """a net with its loss at each of 50 steps"""
    torch.manual_seed(6)
    m = Product().to(dtype)
    torch.manual_seed(5)
    i, j, y = torch.randint(0, 9, (50, 6)), torch.randint(0, 5, (50, 6)), torch.randn(50, 6, 4).to(dtype)
    return m, lambda step: F.mse_loss(m(i[step], j[step]), y[step])


def sparse_case(name, cls, groups, dtype):
    m, loss = product(dtype)
    params = list(m.parameters())
    if len(groups) == 1:
        opt = cls(params, **groups[0])
    else:
        opt = cls([{"params": params[:1]} | groups[0], {"params": params[1:]} | groups[1]])
    for step in range(50):
        opt.zero_grad()
        loss(step).backward()
        assert all(p.grad.is_sparse for p in params)
        opt.step()
    record(f"sparse/{name}/{str(dtype).removeprefix('torch.')}", opt, m, groups)
    out["cases"][-1]["sparse"] = True


m, loss = product(torch.float32)
scaler_case("scaler-sparse", m, O.SparseAdam(m.parameters(), lr=0.1), loss, 8, False)

sparse_adam = next(i for i in optim_db if i.optim_cls is O.SparseAdam)
kwargs = [s.kwargs for s in sparse_adam.optim_inputs_func(device="cpu") if not isinstance(s.kwargs.get("lr"), torch.Tensor)]
SPARSE = [(f"SparseAdam/{i}", O.SparseAdam, [{k: plain(v) for k, v in o.items()}]) for i, o in enumerate(kwargs)] + [
    ("SparseAdam/betas", O.SparseAdam, [{"lr": 0.1, "betas": [0.7, 0.99], "eps": 1e-5}]),
    ("SparseAdam/groups", O.SparseAdam, [{}, {"lr": 0.03, "betas": [0.5, 0.9], "maximize": True}]),
    ("SGD/plain", O.SGD, [{"lr": 0.3}]),
    ("SGD/maximize", O.SGD, [{"lr": 1e-3, "maximize": True}]),
    ("SGD/momentum", O.SGD, [{"lr": 0.1, "momentum": 0.9, "dampening": 0.5}]),
    ("SGD/nesterov", O.SGD, [{"lr": 0.1, "momentum": 0.9, "nesterov": True}]),
    ("Adagrad/groups", O.Adagrad, [{"lr": 0.1}, {"lr": 0.2, "lr_decay": 0.01, "eps": 1e-6, "maximize": True}]),
    ("Adagrad/initial", O.Adagrad, [{"lr": 0.1, "initial_accumulator_value": 0.1}]),
]  # fmt: skip
for name, cls, groups in SPARSE:
    for dtype in (torch.float32, torch.float64):
        sparse_case(name, cls, groups, dtype)
out["defaults"]["SparseAdam"] = {p.name: plain(p.default) for p in inspect.signature(O.SparseAdam).parameters.values() if p.name != "params"}

path = HERE / "optim.json.gz"
text = json.dumps(out, separators=(",", ":"), sort_keys=True)
path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
print(len(out["cases"]), "cases,", len(out["tensors"]), "tensors,", path.stat().st_size, "bytes")
