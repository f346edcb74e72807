"""Writes indexing.json.gz: what Python's x[...] and x[...] = value give for random indices. All numbers
are integers, so no processor computes others. The tests of Tensor.At and SetAt use it.

    python torch/testdata/make_index_fixtures.py
"""

import gzip
import json
import pathlib
import random

import torch

r = random.Random(3)


def tensor(t):
    return {"tensor": t.flatten().tolist(), "shape": list(t.shape), "bool": t.dtype == torch.bool}


def index(sizes):
    """A random index: Python's, as JSON, and the number of dimensions that it takes."""
    n = sizes[0] if sizes else None
    kind = r.choice(["int", "all", "slice", "slice", "none", "bool", "list", "list2", "mask", "mask2", "zero"])
    if kind == "none":
        return None, "None", 0
    if kind == "bool":
        v = r.random() < 0.7
        return v, v, 0
    if n is None:
        return None
    if kind == "mask2" and len(sizes) > 1:
        t = torch.tensor([[r.random() < 0.5 for _ in range(sizes[1])] for _ in range(n)])
        return t, tensor(t), 2
    if kind == "mask":
        t = torch.tensor([r.random() < 0.5 for _ in range(n)])
        return t, tensor(t), 1
    if kind in ("list", "list2", "zero"):
        shape = {"list": [3], "list2": [2, 3], "zero": []}[kind]
        t = torch.tensor([r.randrange(-n, n) for _ in range(torch.Size(shape).numel())]).view(shape)
        return t, tensor(t), 1
    if kind == "int":
        i = r.randrange(-n - 1, n + 1)  # out of range at times
        return i, i, 1
    if kind == "slice":
        start, end, step = r.choice([None, r.randrange(-n - 1, n + 2)]), r.choice([None, r.randrange(-n - 1, n + 2)]), r.randrange(1, 3)
        return slice(start, end, step), {"start": start or 0, "end": end, "step": step}, 1
    return slice(None), ":", 1


cases = []
while len(cases) < 400:
    shape = [r.randrange(1, 5) for _ in range(r.randrange(0, 5))]
    x = torch.arange(torch.Size(shape).numel()).view(shape)
    python, spec, at = [], [], 0
    for _ in range(r.randrange(1, 5)):
        found = index(shape[at:])
        if found is None:
            break
        python.append(found[0])
        spec.append(found[1])
        at += found[2]
    if r.random() < 0.3:  # an ellipsis at the end, which stands for what is left
        python.append(...)
        spec.append("...")
    if not spec:
        continue
    case = {"shape": shape, "index": spec}
    try:
        y = x[tuple(python)]
    except (IndexError, RuntimeError, ValueError):
        case["error"] = True
    else:
        case["result"] = tensor(y)
        z = x.clone()
        z[tuple(python)] = -1
        case["number"] = z.flatten().tolist()
        # Without elements twice, where the order of assignments is not defined.
        if len(set(y.flatten().tolist())) == y.numel():
            z = x.clone()
            z[tuple(python)] = -100 - torch.arange(y.numel()).view(y.shape)
            case["tensor"] = z.flatten().tolist()
    cases.append(case)

path = pathlib.Path(__file__).with_name("indexing.json.gz")
path.write_bytes(gzip.compress(json.dumps({"cases": cases}, separators=(",", ":")).encode(), 9, mtime=0))
print(len(cases), "cases,", sum("error" in c for c in cases), "errors,", sum("tensor" in c for c in cases), "assignments,", path.stat().st_size, "bytes")
