"""Writes ddp.json: the results of DistributedDataParallel for known gradients, over
two processes; TestDistributedDataParallel has the same ones.

    python torch/distributed/testdata/make_fixtures.py
"""

import itertools
import json
import os
import pathlib
import socket
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


SHAPES = [(7, 5), (7,), (3, 7), (3,)]


class Net(nn.Module):
    """Its gradients are given: element i is (i + 1) / (3 + 4 rank), which every
    processor rounds alike."""

    def __init__(self):
        super().__init__()
        self.params = nn.ParameterList(nn.Parameter(torch.ones(s)) for s in SHAPES)

    def forward(self, rank):
        count = itertools.count(1)
        loss = 0
        for p in self.params:
            grad = torch.tensor([next(count) for _ in range(p.numel())], dtype=torch.float32) / (3 + 4 * rank)
            loss = loss + (p.flatten() * grad).sum()
        return loss


def worker(rank, size, results):
    dist.init_process_group("gloo", rank=rank, world_size=size)
    net = nn.parallel.DistributedDataParallel(Net())
    net(rank).backward()
    results.put((rank, [p.grad.flatten().tolist() for p in net.module.params]))
    dist.destroy_process_group()


def main():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])}
    results = mp.get_context("spawn").Queue()
    processes = mp.spawn(worker, (2, results), 2, join=False)
    grads = dict(results.get() for _ in range(2))
    processes.join()
    if grads[0] != grads[1]:
        sys.exit("the two processes differ")
    out = {"versions": {"torch": torch.__version__}, "gradients": grads[0]}
    path = pathlib.Path(__file__).with_name("ddp.json")
    path.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
