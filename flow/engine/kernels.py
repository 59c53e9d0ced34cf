"""Which float kernels torch takes: the same on every x86 CPU with AVX2, so that trainings end the same on all of them.

torch, its MKL and its oneDNN choose their kernels by the CPU that they find, and each kernel adds in an order of its
own. The environment can hold them to one choice, as long as torch has computed nothing yet:

    ATEN_CPU_CAPABILITY=avx2    element-wise functions and reductions of torch
    MKL_CBWR=COMPATIBLE         matrix products; any other choice is free to differ between Intel and AMD
    ONEDNN_MAX_CPU_ISA=AVX2     convolutions

With them, one thread (`models.training.precision.threads`) and the same version of torch, trainings on emulated Intel
and AMD CPUs without AVX512 and on one with it ended with the same weights, bit for bit, those of networks without
convolutions; a ResNet-8 had the same 91.19 % on a CPU with AVX2 and on one with AVX512 (by oneDNN's own choice 91.10).
The price: nothing for small networks and that ResNet, a step of 1.5 to 1.8 times the time for MLPs of Fashion-MNIST.
Whoever sets a variable otherwise keeps it.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

CHOICE = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}
_CPU = Path("/proc/cpuinfo")


def hold() -> None:
    """Hold the float kernels of this process, and of those it starts, to the common ones, if this CPU has them.

    Where torch is loaded already nothing is changed: it may have chosen.
    """
    if has_avx2() and "torch" not in sys.modules:
        for name, value in CHOICE.items():
            os.environ.setdefault(name, value)


def has_avx2() -> bool:
    """Whether this is an x86 CPU with AVX2: kernels that a CPU lacks must not be asked for, torch would run them."""
    try:
        return platform.machine() in ("x86_64", "AMD64") and " avx2 " in _CPU.read_text()
    except OSError:
        return False


def described() -> str:
    """What float training depends on besides recipe and versions, for reports: the kernels in use, and the device."""
    import torch

    where = "GPU" if torch.cuda.is_available() else "CPU"
    mkl, onednn = (os.environ.get(name, "by CPU") for name in ("MKL_CBWR", "ONEDNN_MAX_CPU_ISA"))
    return f"{where}, torch {torch.backends.cpu.get_cpu_capability()}, MKL {mkl}, oneDNN {onednn}"
