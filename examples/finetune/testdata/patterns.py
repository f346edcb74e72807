"""The Python side of the example: pretrains the network, and checks what the example writes.

    .venv/bin/python examples/finetune/testdata/patterns.py make
    .venv/bin/python examples/finetune/testdata/patterns.py check FILE

make writes pretrained.pt, a state dict of a network that tells the directions of stripes apart. check prints the
share of 500 pictures whose pattern the network in FILE finds, a state dict with a head for three patterns.
"""
import os
import sys

import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def waves(n):
    """Returns places along and across a random direction, times a random frequency, plus random phases."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    angle, frequency = torch.rand(n, 1, 1) * torch.pi, 0.9 + 0.4 * torch.rand(n, 1, 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    phase = lambda: torch.rand(n, 1, 1) * 2 * torch.pi
    return angle.flatten(), frequency * along + phase(), frequency * across + phase()


def picture(x):
    return (x.sin() + 0.2 * torch.randn(x.shape)).unsqueeze(1)


def stripes(n):
    """Returns pictures [n, 1, 16, 16] of stripes, and which of 4 directions they have [n]."""
    angle, along, _ = waves(n)
    return picture(along), (angle / torch.pi * 4).round().long() % 4


def patterns(n):
    """Returns pictures [n, 1, 16, 16] of stripes, checks and rings, and which they are [n]."""
    _, along, across = waves(n)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    middle = lambda: 5 + 5 * torch.rand(n, 1, 1)
    rings = ((x - middle()) ** 2 + (y - middle()) ** 2).sqrt() * (0.9 + 0.4 * torch.rand(n, 1, 1))
    kind = torch.randint(3, (n,))
    checks = (along.sin() * across.sin()).asin()
    x = torch.stack([along, checks, rings], 1)[torch.arange(n), kind]
    return picture(x), kind


torch.manual_seed(1)
if sys.argv[1] == "make":
    net = Net(4)
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(300):
        x, y = stripes(64)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    net.eval()
    x, y = stripes(500)
    print("%.1f %% of 500 directions are right" % (100 * (net(x).argmax(1) == y).float().mean().item()))
    torch.save(net.state_dict(), os.path.join(os.path.dirname(os.path.abspath(__file__)), "pretrained.pt"))
else:
    net = Net(3)
    net.load_state_dict(torch.load(sys.argv[2], weights_only=True))
    net.eval()
    x, y = patterns(500)
    print("%.1f" % (100 * (net(x).argmax(1) == y).float().mean().item()))
