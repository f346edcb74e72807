"""Writes the batches of PyTorch's DataLoader, for the test of this package.

    .venv/bin/python torch/data/testdata/make.py
"""
import json
import os

import torch
from torch.utils.data import DataLoader

cases = []
for n, batch, drop, seed in [(23, 4, False, 5), (23, 4, True, 5), (8, 4, False, 0), (3, 10, False, 7), (100, 1, False, 123456789)]:
    g = torch.Generator().manual_seed(seed)
    loader = DataLoader(range(n), batch_size=batch, shuffle=True, drop_last=drop, generator=g)
    cases.append({"n": n, "batch_size": batch, "drop_last": drop, "seed": seed, "batches": len(loader),
                  "epochs": [[b.tolist() for b in loader] for _ in range(3)]})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "loader.json"), "w") as f:
    json.dump({"torch": torch.__version__, "cases": cases}, f)
    f.write("\n")
