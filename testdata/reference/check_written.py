"""check_written.py ORIGINAL WRITTEN...: compares the tensors of files that
cyclecap wrote with those of the file that it read, which Python wrote. Each is
read as users read it: torch.load with weights_only, with and without mmap, or
safetensors. Prints one line of JSON: how many elements were compared, how many
are not the same bits, and the largest |difference|. Other names, shapes or types
are an error.
"""

import json
import sys

import torch
from safetensors.torch import load_file


def readings(path):
    if path.endswith(".safetensors"):
        return [load_file(path)]
    return [torch.load(path, weights_only=True, mmap=mmap) for mmap in (False, True)]


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).view(tensor.numel(), tensor.element_size())


original = torch.load(sys.argv[1], weights_only=True)
elements, differing, largest = 0, 0, 0.0
for path in sys.argv[2:]:
    for written in readings(path):
        if set(original) != set(written):
            sys.exit(f"{path}: these tensors are in one file only: {sorted(set(original) ^ set(written))}")
        for name, want in original.items():
            got = written[name]
            if (got.dtype, got.shape) != (want.dtype, want.shape):
                sys.exit(f"{path}: {name} is {got.dtype} {list(got.shape)}, not {want.dtype} {list(want.shape)}")
            elements += want.numel()
            unequal = int((bits(got) != bits(want)).any(1).sum())
            if unequal:
                differing += unequal
                largest = max(largest, (got.double() - want.double()).abs().max().item())
print(json.dumps({"elements": elements, "differing": differing, "max": largest}))
