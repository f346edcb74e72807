"""What the bits of fixtures depend on."""

import pathlib
import platform

import torch


def cpu():
    """What the low-order bits of matrix products depend on."""
    text = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    facts = {k.strip(): v.strip() for k, v in (line.split(":", 1) for line in text.splitlines() if ":" in line)}
    ident = [facts.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping")]
    return "/".join([torch.backends.cpu.get_cpu_capability(), *ident])


def versions():
    return {"torch": torch.__version__, "python": platform.python_version(), "cpu": cpu()}
