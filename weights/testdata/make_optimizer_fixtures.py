"""Writes optimizer.pt, the state dict of an optimizer after 20 steps as torch.save writes it, and
optimizer.json, the weights after 20 and after 50 steps. The tests go on from step 20. Then it goes on itself
from optimizer_go.pt, which is what SaveOptimizer makes of optimizer.pt, and compares. sparse_adam.pt and
sparse_adam_go.pt are the same for SparseAdam.

    python weights/testdata/make_optimizer_fixtures.py
"""

import json
import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent.parent / "torch" / "testdata"))
from versions import cpu  # noqa: E402

torch.set_num_threads(1)


def make():
    torch.manual_seed(6)
    m = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    p = list(m.parameters())
    return m, torch.optim.NAdam([{"params": p[:2]}, {"params": p[2:], "lr": 0.03, "weight_decay": 0.1, "decoupled_weight_decay": True}])


def train(m, opt, steps):
    torch.manual_seed(5)
    xs, ys = torch.randn(50, 4, 5), torch.randn(50, 4, 3)
    for step in steps:
        opt.zero_grad()
        F.mse_loss(m(xs[step]), ys[step]).backward()
        opt.step()
    return {k: p.flatten().tolist() for k, p in m.state_dict().items()}


m, opt = make()
out = {"cpu": cpu(), "20": train(m, opt, range(20))}
at20 = {k: p.clone() for k, p in m.state_dict().items()}
torch.save(opt.state_dict(), HERE / "optimizer.pt")
out["50"] = train(m, opt, range(20, 50))
(HERE / "optimizer.json").write_text(json.dumps(out, indent=0) + "\n")

m, opt = make()
m.load_state_dict(at20)
opt.load_state_dict(torch.load(HERE / "optimizer_go.pt", weights_only=True))
assert train(m, opt, range(20, 50)) == out["50"], "from optimizer_go.pt, the weights are different"

# SparseAdam, whose step is an int. sparse_adam_go.pt is what SaveOptimizer makes of sparse_adam.pt.
torch.manual_seed(6)
m = nn.Embedding(9, 4, sparse=True)
opt = torch.optim.SparseAdam(m.parameters(), lr=0.1)
for step in range(20):
    opt.zero_grad()
    m(torch.tensor([step % 9, 3, 3])).square().sum().backward()
    opt.step()
torch.save(opt.state_dict(), HERE / "sparse_adam.pt")
want, got = opt.state_dict()["state"][0], torch.load(HERE / "sparse_adam_go.pt", weights_only=True)["state"][0]
assert got["step"] == want["step"] and type(got["step"]) is int, "the step in sparse_adam_go.pt is different"
assert all(torch.equal(got[k], want[k]) for k in ("exp_avg", "exp_avg_sq")), "the moments in sparse_adam_go.pt are different"
