"""What floats are within a training or an evaluation: true float32, no denormal numbers, sums in a known order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from bittrue.models.training import memory


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, float32 is float32: no TF32, no bfloat16, no autocast. Afterwards all is as it was.

    A non-negative layer subtracts a pedestal that is many times larger than its result, and the sums of integer
    layers are exact only with every bit of a float32.
    """
    backends = torch.backends
    switches = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    switches += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    before = [switch.fp32_precision for switch in switches]
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            yield
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.fp32_precision = value


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal floats as 0: gradients of images that are classified surely are such, and slow a CPU down."""
    before = float(torch.tensor([1e-40]) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within, torch uses so many threads of the CPU, afterwards as many as before: the order of its sums depends on it.

    With one thread a training ends with the same weights whatever the number of cores and their load; it is also the
    fastest for small networks, whose steps are shorter than it takes to wake another thread on a busy machine. Memory
    that is freed is kept from here on (`models.training.memory`).
    """
    memory.keep()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
