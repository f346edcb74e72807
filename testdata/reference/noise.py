"""Writes what CapDec and C3 do to text features while a decoder learns, by their formulas
in PyTorch, for the tests of package train.

    noise.py OUT     writes the fixture (train/testdata/noise.json)

CapDec (Nukrai et al. 2022) trains on u(u(x) + s n), and C3 (Zhang et al. 2024) on
u(u(x) - m + s n), where u scales to length 1, n is standard normal noise, s^2 is the
variance and m is the mean of u(x) over all texts. Both use a variance of 0.016.
"""

import json
import math
import pathlib
import platform
import sys

import torch
from torch.nn.functional import normalize

torch.set_num_threads(1)
torch.manual_seed(7)

width, variance = 32, 0.016
x = 3 * torch.randn(6, width) + 1
noise = torch.randn(6, width)
mean = normalize(3 * torch.randn(40, width) + 1, dim=1).mean(0)
s = math.sqrt(variance)

pathlib.Path(sys.argv[1]).write_text(
    json.dumps(
        {
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "width": width,
            "variance": variance,
            "x": x.flatten().tolist(),
            "noise": noise.flatten().tolist(),
            "mean": mean.tolist(),
            "capdec": normalize(normalize(x, dim=1) + noise * s, dim=1).flatten().tolist(),
            "c3": normalize(normalize(x, dim=1) - mean + noise * s, dim=1).flatten().tolist(),
            "c3_validation": normalize(normalize(x, dim=1) - mean, dim=1).flatten().tolist(),
            "capdec_validation": normalize(x, dim=1).flatten().tolist(),
        }
    )
    + "\n"
)
