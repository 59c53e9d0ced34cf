"""Float kernels are held to those of every CPU with AVX2, where that can still be done."""

import os
import subprocess
import sys

import pytest

from bittrue.flow.engine import kernels

HELD = "PU, torch AVX2, MKL COMPATIBLE, oneDNN AVX2"


def said(script, **environment):
    """The last line that a new Python says, with none of the variables set but those given."""
    kept = {name: value for name, value in os.environ.items() if name not in kernels.CHOICE}
    command = [sys.executable, "-c", "from bittrue.flow.engine import kernels\n" + script]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_torch_takes_the_common_kernels():
    assert said("kernels.hold(); print(kernels.described())").endswith(HELD)
    command = "from bittrue.flow.cli.main import main\ntry: main(['--help'])\nfinally: print(kernels.described())"
    assert said(command).endswith(HELD)


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_what_is_set_stays_and_a_torch_that_is_loaded_is_not_spoken_of():
    found = said("kernels.hold(); print(kernels.described())", MKL_CBWR="AVX2", ATEN_CPU_CAPABILITY="default")
    assert found.endswith("torch DEFAULT, MKL AVX2, oneDNN AVX2")
    assert said("import torch; kernels.hold(); print(kernels.described())").endswith("MKL by CPU, oneDNN by CPU")


def test_a_cpu_without_avx2_is_not_asked_for_it(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : sse2 avx avx2_of_another_name\n")
    monkeypatch.setattr(kernels, "_CPU", tmp_path / "cpuinfo")
    for name in kernels.CHOICE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    kernels.hold()
    assert not set(kernels.CHOICE) & set(os.environ)


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_a_worker_of_a_sweep_takes_the_common_kernels_when_it_is_asked_what_it_has():
    """It began without them: on another machine, by a command that is not ours."""
    asked = "from bittrue.flow.engine import grid\none = next(iter(grid.sweepers().values()))\n"
    assert said(asked + "grid.sources(one); print(kernels.described())").endswith(HELD)
    assert said(asked + "print(kernels.described())").endswith("MKL by CPU, oneDNN by CPU")


#: The gradients of a small network, told by their bytes: convolutions, normalisation, matrix.
STEP = """
import hashlib
kernels.hold()
import torch
from bittrue.models.training.precision import full_precision, threads
torch.manual_seed(1)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
    torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.Flatten(), torch.nn.Linear(32 * 49, 10),
)
with full_precision(), threads(1):
    loss = net(torch.randn(64, 3, 16, 16)).square().mean()
    loss.backward()
told = hashlib.sha256()
for parameter in net.parameters():
    told.update(parameter.grad.numpy().tobytes())
print(told.hexdigest())
"""


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_gradients_of_convolutions_are_those_of_a_cpu_that_has_no_more():
    """Convolutions are oneDNN's, which has kernels of its own for AVX512: trainings of convolutional networks ended
    otherwise there (91.10 instead of 91.19 % of the recipe nern-resnet8-fashion-mnist)."""
    held = said(STEP)
    assert held == said(STEP, ONEDNN_MAX_CPU_ISA="AVX2")
    assert held != said(STEP, ONEDNN_MAX_CPU_ISA="SSE41"), "the variable is not heard"
    if "avx512" in kernels._CPU.read_text():
        assert held != said(STEP, ONEDNN_MAX_CPU_ISA="ALL"), "this step does not tell kernels apart"
