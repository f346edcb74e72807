"""Writes whitening.json: samples of two Gaussians and the optimal transport between
them by POT (Python Optimal Transport), which package bridge is held to.

    pip install pot numpy scipy
    python train/bridge/testdata/make_whitening.py
"""

import json
import pathlib

import numpy as np
import ot

rng = np.random.default_rng(5)
width = 6


def sample(n):
    mix = rng.normal(size=(width, width))
    return (rng.normal(size=(n, width)) @ mix + rng.normal(size=width)).astype(np.float32)


source, target = sample(40), sample(50)
a, b = ot.gaussian.empirical_bures_wasserstein_mapping(
    source.astype(np.float64), target.astype(np.float64), reg=0, bias=True
)
query = sample(5)
out = query.astype(np.float64) @ a + b
pathlib.Path(__file__).with_name("whitening.json").write_text(
    json.dumps(
        {
            "versions": {"POT": ot.__version__, "numpy": np.__version__},
            "width": width,
            "source": source.ravel().tolist(),
            "target": target.ravel().tolist(),
            "query": query.ravel().tolist(),
            "a": np.asarray(a).ravel().tolist(),
            "mapped": out.ravel().tolist(),
        },
        indent=None,
    )
    + "\n"
)
