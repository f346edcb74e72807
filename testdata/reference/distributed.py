"""distributed.py: rank 0 of a group whose rank 1 is not Python (it is
internal/parity/distributed.go). The variables of torchrun say where they meet.

Both run the same collectives. Prints, as one line of JSON, what they must give:
computed here alone, without the other process.
"""

import json

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
dist.init_process_group("gloo")
assert dist.get_rank() == 0 and dist.get_world_size() == 2

torch.manual_seed(1)
a, b = nn.Linear(5, 7), nn.Linear(7, 3)
params = [a.weight, a.bias, b.weight, b.bias]
torch.manual_seed(2)
x, y = torch.randn(8, 5), torch.randn(8, 3)


def values(rank):
    return torch.arange(1000, dtype=torch.float32) / (3 + 4 * rank)


def pair(rank):
    return torch.tensor([rank + 0.5, -rank], dtype=torch.float64)


def gradients(rank):
    share = slice(4 * rank, 4 * rank + 4)
    loss = F.mse_loss(b(torch.tanh(a(x[share]))), y[share])
    return [g.contiguous() for g in torch.autograd.grad(loss, params)]


mine = {"sum": [values(0)], "broadcast": [torch.zeros(3, dtype=torch.int64)], "gradients": gradients(0)}
gathered = [torch.empty(2, dtype=torch.float64) for _ in range(2)]
dist.all_reduce(mine["sum"][0])
dist.broadcast(mine["broadcast"][0], 1)
dist.all_gather(gathered, pair(0))
dist.barrier()
for g in mine["gradients"]:
    dist.all_reduce(g)
    g /= 2
mine["gathered"] = gathered

expected = {
    "sum": [values(0) + values(1)],
    "broadcast": [torch.ones(3, dtype=torch.int64)],
    "gathered": [pair(0), pair(1)],
    "gradients": [(g + h) / 2 for g, h in zip(gradients(0), gradients(1))],
}
for name, tensors in expected.items():
    assert all(torch.equal(t, u) for t, u in zip(tensors, mine[name], strict=True)), name
print(json.dumps({name: [t.flatten().tolist() for t in tensors] for name, tensors in expected.items()}))
dist.destroy_process_group()
