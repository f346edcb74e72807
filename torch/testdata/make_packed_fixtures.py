"""Writes packed.json.gz: what PyTorch's recurrent modules compute for packed sequences. The test in torch/nn does
the same.

    python torch/testdata/make_packed_fixtures.py
"""

import base64
import gzip
import itertools
import json
import pathlib

import torch
from torch import nn
from torch.nn.utils import rnn
from versions import versions

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent
out = {"versions": versions(), "tensors": {}, "cases": []}


def put(name, t):
    t = t.detach().contiguous()
    out["tensors"][name] = {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "data": base64.b64encode(t.numpy().tobytes()).decode()}


MODULES = {
    "rnn": lambda **o: nn.RNN(3, 4, **o),
    "relu": lambda **o: nn.RNN(3, 4, nonlinearity="relu", **o),
    "gru": lambda **o: nn.GRU(3, 4, **o),
    "lstm": lambda **o: nn.LSTM(3, 4, **o),
    "projection": lambda **o: nn.LSTM(3, 4, proj_size=2, **o),
}
for kind, first, two, is_sorted, states in itertools.product(MODULES, *[(False, True)] * 4):
    name = f"{kind}/{'batch_first' if first else 'time_first'}/{'bidirectional' if two else 'forward'}/{'sorted' if is_sorted else 'unsorted'}/{'states' if states else 'zeros'}"
    torch.manual_seed(3)
    m = MODULES[kind](num_layers=2, bidirectional=two, batch_first=first)
    lengths = [5, 3, 3, 1] if is_sorted else [2, 5, 1, 3]
    x = torch.randn(*((4, 6, 3) if first else (6, 4, 3)), requires_grad=True)
    hx = None
    if states:
        n = 4 if two else 2
        h = torch.randn(n, 4, 2 if kind == "projection" else 4, requires_grad=True)
        hx = h if kind in ("rnn", "relu", "gru") else (h, torch.randn(n, 4, 4, requires_grad=True))
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=is_sorted)
    y, hn = m(packed, hx)
    padded, back = rnn.pad_packed_sequence(y, batch_first=first, padding_value=-1.5, total_length=7 if is_sorted else None)
    assert back.tolist() == lengths
    loss = padded.square().sum()
    for s in hn if isinstance(hn, tuple) else (hn,):
        loss = loss + s.sin().sum()
    loss.backward()
    for key, t in [("packed", packed.data), ("batch_sizes", packed.batch_sizes), ("output", y.data), ("padded", padded), ("x.grad", x.grad)]:
        put(f"{name}/{key}", t)
    if not is_sorted:
        put(f"{name}/sorted_indices", packed.sorted_indices)
        put(f"{name}/unsorted_indices", packed.unsorted_indices)
    for i, s in enumerate(hn if isinstance(hn, tuple) else (hn,)):
        put(f"{name}/state{i}", s)
    for i, s in enumerate(() if hx is None else hx if isinstance(hx, tuple) else (hx,)):
        put(f"{name}/state{i}.grad", s.grad)
    for key, p in m.named_parameters():
        put(f"{name}/{key}.grad", p.grad)
    out["cases"].append({"name": name, "kind": kind, "batch_first": first, "bidirectional": two, "sorted": is_sorted, "states": states, "lengths": lengths})

# pack_sequence, of sequences with dimensions of their own.
torch.manual_seed(4)
parts = [torch.randn(n, 2, 3) for n in (2, 4, 1)]
packed = rnn.pack_sequence(parts, enforce_sorted=False)
for key in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
    put(f"pack_sequence/{key}", getattr(packed, key))

path = HERE / "packed.json.gz"
path.write_bytes(gzip.compress(json.dumps(out, separators=(",", ":"), sort_keys=True).encode(), 9, mtime=0))
print(len(out["cases"]), "cases,", len(out["tensors"]), "tensors,", path.stat().st_size, "bytes")
