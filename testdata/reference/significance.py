"""Intervals, p-values and Holm's correction in Python, for eval/testdata/significance.json.

    python testdata/reference/significance.py eval/testdata/significance.json

It needs numpy, scipy and statsmodels.
"""

import json
import sys

import numpy as np
import scipy
import statsmodels
from scipy.stats import bootstrap
from statsmodels.stats.multitest import multipletests


def holm(rng):
    """p-values and statsmodels' correction; some are equal, some are 1."""
    for n in (1, 2, 7, 40, 252):
        p = np.round(rng.uniform(0, 1, n) ** 4, 3)
        p[p == 0] = 0.001
        yield {"p": p.tolist(), "corrected": multipletests(p, method="holm")[1].tolist()}


def nested(rng, samples=400):
    """Two methods in worlds with seeds and images, resampled one by one."""
    shape = [(3, 6), (3, 5)]  # seeds and images of each world
    level = rng.normal(0, 0.02, len(shape))
    methods = [
        [(level[w] + gain + rng.normal(0, 0.02, (s, 1)) + rng.normal(0, 0.1, (s, n))).tolist() for w, (s, n) in enumerate(shape)]
        for gain in (0.05, 0)
    ]
    draws, values = [], []
    for _ in range(samples):
        sample = []
        for w in rng.integers(0, len(shape), len(shape)):
            s, n = shape[w]
            sample.append((int(w), rng.integers(0, s, s).tolist(), rng.integers(0, n, n).tolist()))
        draws.append([{"world": w, "seeds": np.bincount(s, minlength=shape[w][0]).tolist(), "images": np.bincount(i, minlength=shape[w][1]).tolist()} for w, s, i in sample])
        values.append([np.mean([np.array(m[w])[np.ix_(s, i)].mean() for w, s, i in sample]) for m in methods])
    values = np.array(values)
    differences = np.sort(values[:, 0] - values[:, 1])
    cut = samples // 40
    p = min(1, 2 * (min((differences >= 0).sum(), (differences <= 0).sum()) + 1) / (samples + 1))
    first = np.sort(values[:, 0])
    return {
        "methods": methods,
        "draws": draws,
        "values": values.tolist(),
        "interval": [first[cut], first[-1 - cut]],
        "difference": [differences[cut], differences[-1 - cut]],
        "p": float(p),
    }


def paired(rng, n=80):
    """scipy's paired percentile bootstrap of a mean difference over images."""
    a = rng.normal(0.5, 0.2, n)
    b = a - 0.03 + rng.normal(0, 0.12, n)
    r = bootstrap((a, b), lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis), paired=True, vectorized=True,
                  n_resamples=200_000, method="percentile", rng=np.random.default_rng(1))
    d = r.bootstrap_distribution
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "low": float(r.confidence_interval.low),
        "high": float(r.confidence_interval.high),
        "p": float(2 * (min((d >= 0).sum(), (d <= 0).sum()) + 1) / (len(d) + 1)),
    }


def main():
    rng = np.random.default_rng(20261127)
    out = {
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "holm": list(holm(rng)),
        "nested": nested(rng),
        "paired": paired(rng),
    }
    with open(sys.argv[1], "w") as f:
        json.dump(out, f)
        f.write("\n")


if __name__ == "__main__":
    main()
