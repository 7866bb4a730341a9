"""How much of the hardware a training uses: operations a token, and what a GPU can do at most."""

from __future__ import annotations

import resource

import torch

PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}  # bf16, dense: NVIDIA's data sheets
GIB = 1024**3


def operations(parameters: int, trained: int) -> float:
    """Floating-point operations of one token, forward and backward; attention between tokens is left out.

    Two a parameter forward, two for the gradients of what it passes on, two for its own gradient where it is trained.
    """
    return 4.0 * parameters + 2.0 * trained


def peak() -> float | None:
    """Operations a second that this process's GPU could do in bf16; None where they are not known, as on a CPU."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((value for part, value in PEAKS.items() if part in name), None)


def memory_gb() -> float:
    """The most memory that this process has held: of the GPU, or resident without one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
