"""check_written.py ORIGINAL WRITTEN: fails unless both files hold the same
tensors. WRITTEN is read as users read it: weights_only, or safetensors."""

import sys

import torch
from safetensors.torch import load_file

original = torch.load(sys.argv[1], weights_only=True)
path = sys.argv[2]
written = load_file(path) if path.endswith(".safetensors") else torch.load(path, weights_only=True)
assert set(original) == set(written), set(original) ^ set(written)
for name, tensor in original.items():
    other = written[name]
    assert tensor.dtype == other.dtype and torch.equal(tensor, other), name
if path.endswith(".pt"):
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert all(torch.equal(mapped[k], v) for k, v in written.items())
print(len(written), "tensors are equal")
