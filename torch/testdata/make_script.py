"""Writes TorchScript modules with torch.jit.save, and what they return, for script_test.go.

    .venv/bin/python torch/testdata/make_script.py
"""
import os
import zipfile
from typing import Dict, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

here = os.path.dirname(os.path.abspath(__file__))


class Values(nn.Module):
    """Methods with arguments and results of all kinds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6, dtype=torch.float32).view(2, 3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return self.drop(x @ self.weight) * scale

    @torch.jit.export
    def parts(self, xs: List[Tensor], names: List[str], at: Tuple[int, float]) -> Tuple[Tensor, List[str], Dict[str, int], Optional[str]]:
        total = torch.zeros(1)
        for x in xs:
            total = total + x.sum()
        counts: Dict[str, int] = {}
        for name in names:
            counts[name] = len(name) + at[0]
        return total * at[1], names + ["end"], counts, None

    @torch.jit.export
    def lookup(self, d: Dict[str, Tensor], key: Optional[str] = None) -> Dict[str, Tensor]:
        out: Dict[str, Tensor] = {}
        for k, v in d.items():
            if key is None or k == key:
                out[k] = v + 1
        return out

    @torch.jit.export
    def numbers(self, i: int, b: bool, z: complex, l: List[int], f: List[List[float]]) -> Tuple[int, bool, complex, int, float, str]:
        total = 0.0
        for row in f:
            for v in row:
                total += v
        return i + 1, not b, z * 2, len(l), total, "ä" + "ö"

    @torch.jit.export
    def fails(self, x: Tensor) -> Tensor:
        if x.numel() > 1:
            raise ValueError("one number is enough")
        return x

    @torch.jit.export
    def device(self) -> torch.device:
        return self.weight.device


def save(module, name):
    """Saves a module without its debug files, which have the paths of this machine."""
    path = os.path.join(here, name)
    module.save(path)
    with zipfile.ZipFile(path) as z:
        members = [(m.filename, z.read(m)) for m in z.infolist() if not m.filename.endswith(".debug_pkl")]
    with zipfile.ZipFile(path, "w") as z:
        for member, data in members:
            z.writestr(zipfile.ZipInfo(member), data)


torch.manual_seed(3)
net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 5)).eval()
x = torch.randn(2, 3, 16, 16)
save(torch.jit.script(Values()), "values.pt")
with torch.no_grad():
    traced = torch.jit.trace(net, x)
    save(traced, "traced.pt")
    np.savez_compressed(os.path.join(here, "traced.npz"), x=x.numpy(), y=traced(x).numpy())
