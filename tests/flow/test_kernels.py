"""Float kernels are held to those of every CPU with AVX2, where that can still be done."""

import os
import subprocess
import sys

import pytest

from bittrue.flow.engine import kernels


def said(script, **environment):
    """The last line that a new Python says, with none of the variables set but those given."""
    kept = {name: value for name, value in os.environ.items() if name not in kernels.CHOICE}
    command = [sys.executable, "-c", "from bittrue.flow.engine import kernels\n" + script]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_torch_takes_the_common_kernels():
    assert said("kernels.hold(); print(kernels.described())").endswith("PU, torch AVX2, MKL COMPATIBLE")
    command = "from bittrue.flow.cli.main import main\ntry: main(['--help'])\nfinally: print(kernels.described())"
    assert said(command).endswith("PU, torch AVX2, MKL COMPATIBLE")


@pytest.mark.skipif(not kernels.has_avx2(), reason="a CPU without AVX2 keeps the kernels that it has")
def test_what_is_set_stays_and_a_torch_that_is_loaded_is_not_spoken_of():
    found = said("kernels.hold(); print(kernels.described())", MKL_CBWR="AVX2", ATEN_CPU_CAPABILITY="default")
    assert found.endswith("torch DEFAULT, MKL AVX2")
    assert said("import torch; kernels.hold(); print(kernels.described())").endswith("MKL by CPU")


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
    assert said(asked + "grid.sources(one); print(kernels.described())").endswith("PU, torch AVX2, MKL COMPATIBLE")
    assert said(asked + "print(kernels.described())").endswith("MKL by CPU")
