"""Writes small files of weights in every form, by the libraries that users
write them with, and what is in them (expected.json).

    python weights/testdata/make_fixtures.py
"""

import base64
import json
import pathlib
from collections import OrderedDict

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

here = pathlib.Path(__file__).parent
torch.manual_seed(1)
expected = {"versions": {"torch": torch.__version__, "safetensors": safetensors.__version__}, "files": {}}


def expect(name, tensors):
    entries = {}
    for key, t in tensors.items():
        t = t.detach().contiguous()
        raw = t.reshape(-1).view(torch.uint8) if t.numel() else torch.empty(0, dtype=torch.uint8)
        entries[key] = {
            "dtype": str(t.dtype).removeprefix("torch."),
            "shape": list(t.shape),
            "data": base64.b64encode(raw.numpy().tobytes()).decode(),
        }
    expected["files"][name] = entries


base = torch.randn(6, 8)
dtypes = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
every = OrderedDict((str(d).removeprefix("torch."), (torch.randn(2, 3) * 5).to(d)) for d in dtypes)
every["complex64"] = torch.randn(2, 2, dtype=torch.complex64)
every["scalar"] = torch.tensor(3.5)
every["empty"] = torch.empty(0, 4)
every["strided"] = base.t()
every["slice"] = base[1:5:2, 2:7]
every["expanded"] = torch.tensor([[1.0], [2.0]]).expand(2, 3)
every["tied"] = base
every["parameter"] = nn.Parameter(torch.randn(3))
for name, form in (("zip.pt", True), ("legacy.pt", False)):
    torch.save(every, here / name, _use_new_zipfile_serialization=form)
    expect(name, every)
torch.save(every, here / "protocol4.pt", pickle_protocol=4)
expect("protocol4.pt", every)

# A checkpoint as trainers write it.
net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
opt = torch.optim.Adam(net.parameters())
net(torch.randn(4, 3)).sum().backward()
opt.step()
torch.save({"epoch": 7, "state_dict": net.state_dict(), "optimizer": opt.state_dict(), "lr": 0.5, "note": "a checkpoint"}, here / "checkpoint.pt")
expect("checkpoint.pt", net.state_dict())


# TorchScript, scripted and traced, in half precision, with a buffer and a
# tensor that is neither parameter nor buffer.
class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("size", torch.tensor(7))
        self.plain = torch.ones(2)

    def forward(self, x):
        return self.fc(x) + self.plain.to(x.dtype)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.scale = nn.Parameter(torch.randn(2))

    def forward(self, x):
        x = self.part(x)
        for block in self.blocks:
            x = block(x)
        return x * self.scale


for name, make in (("script.pt", torch.jit.script), ("traced.pt", lambda m: torch.jit.trace(m, torch.randn(1, 3).half()))):
    archive = make(Whole().half().eval())
    torch.jit.save(archive, str(here / name))
    expect(name, torch.jit.load(str(here / name)).state_dict())

# safetensors, one file and shards.
plain = {k: v.contiguous().clone() for k, v in every.items()}
save_file(plain, here / "single.safetensors", metadata={"format": "pt", "made by": "a test"})
expect("single.safetensors", plain)
shards = {"model-00001-of-00002.safetensors": ["float32", "bool"], "model-00002-of-00002.safetensors": ["int64", "scalar"]}
folder = here / "sharded"
folder.mkdir(exist_ok=True)
for shard, names in shards.items():
    save_file({n: plain[n] for n in names}, folder / shard)
index = {"metadata": {"total_size": 1}, "weight_map": {n: s for s, names in shards.items() for n in names}}
(folder / "model.safetensors.index.json").write_text(json.dumps(index))
expect("sharded", {n: plain[n] for names in shards.values() for n in names})

# Things that are refused: a whole module, a sparse tensor, a quantised one.
torch.save(net, here / "refused-module.pt")
torch.save({"w": torch.eye(3).to_sparse()}, here / "refused-sparse.pt")
torch.save({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, here / "refused-quantised.pt")

(here / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")
