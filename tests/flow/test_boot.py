"""Booting systems in compiled and cocotb runs: whole verifications, boots in the middle of a run, files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.verify.backends import Stalls
from bittrue.flow.verify.verify import verify
from bittrue.hls.boot_host import BootedKernel
from bittrue.rtl import readback
from bittrue.rtl.boot.design import boot
from bittrue.rtl.design import load
from bittrue.sim.errors import BittrueError
from tests.helpers.booted import GENERATOR, NETWORK, system
from tests.helpers.lengths import long_but
from tests.helpers.sets import codes

#: Of random systems: seed, inputs of the generator, layers, intervals of both, banks. A generator that is slower than
#: its codes, and ones that are held up by them; foldings with and without a carry from slot to row.
CASES = [
    (0, 3, ((4, 2), (3, 4)), 400, 400, 2),
    (1, 1, ((3, 3), (5, 3)), 9, 3000, 1),
    (2, 3, ((6, 1), (4, 6)), 30, 700, 2),
]


@pytest.mark.slow
@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize(("seed", "inputs", "layers", "own", "interval", "banks"), long_but(CASES, CASES[2]))
def test_it_boots_and_runs(seed, inputs, layers, own, interval, banks):
    """From reset: every result is that of the system, every frame ends when it was to, the boot takes what was told."""
    s = system(seed, inputs, layers)
    design = boot(s, {"interval": own}, {"interval": interval}, banks)
    (x,) = codes(design.program, 7, np.random.default_rng(seed))
    rtl = CompiledRtl.of(design)
    run = rtl.run(x, accesses=design.accesses(7), watchdog=design.patience)
    assert run.errors == ()
    assert run.first_input_cycle == design.boot_cycles
    np.testing.assert_array_equal(run.results[0], s({NETWORK: [x]})[NETWORK])
    np.testing.assert_array_equal(run.results[0], design.program(x))
    stalled = rtl.run(
        x, accesses=design.accesses(7), stall_seed=3, idle=0.3, backpressure=0.3, watchdog=design.patience
    )
    assert stalled.errors == ()
    np.testing.assert_array_equal(stalled.results[0], run.results[0])


def again(design, s, rng):
    """Another set of the generator; results and accesses of a run that boots anew with it, and then with the first."""
    first = s.programs[GENERATOR].initial
    other = {name: rng.permutation(v.reshape(-1)).reshape(v.shape) for name, v in first.items()}
    (x,) = codes(design.program, 9, rng)
    accesses = (*design.boot_again(3, other), *design.boot_again(6), *design.boot_again(7, first))
    sets = {GENERATOR: [first, other, first]}
    return x, accesses, s({NETWORK: [x]}, at={GENERATOR: (0, 3, 7)}, held=sets)[NETWORK]


@pytest.mark.slow
@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize("banks", long_but([1, 2], 2))
def test_it_boots_again_with_another_generator(banks):
    s, rng = system(4, 1, ((2, 2), (3, 2)), held=True), np.random.default_rng(4)
    design = boot(s, {"interval": 60}, {"interval": 500}, banks)
    x, accesses, expected = again(design, s, rng)
    run = CompiledRtl.of(design).run(x, accesses=accesses, watchdog=design.patience)
    assert run.errors == ()
    np.testing.assert_array_equal(run.results[0], expected)
    assert not np.array_equal(expected, design.program(x))


@pytest.mark.slow
@pytest.mark.needs("verilator", "g++", "iverilog")
@pytest.mark.long
@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_it_boots_again_in_cocotb(simulator, tmp_path):
    s, rng = system(5, 1, ((2, 1), (2, 2)), side=3, held=True), np.random.default_rng(5)
    design = boot(s, {"interval": 60}, {"interval": 300})
    x, accesses, expected = again(design, s, rng)
    options = {"accesses": accesses, "watchdog": design.patience}
    run = cosim.of(design, [x], simulator=simulator, folder=tmp_path, **options)
    assert run.errors == ()
    np.testing.assert_array_equal(run.results[0], expected)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize("banks", long_but([1, 2], 2))
def test_it_is_verified_like_any_design(banks, tmp_path):
    """With two banks a set over the bus, too, in the middle of the run; the kernels of the network as well."""
    s = system(6, 1, ((2, 1), (2, 2)), side=3)
    design = boot(s, {"interval": 60}, {"interval": 300}, banks)
    (x,) = codes(design.program, 8, np.random.default_rng(6))
    counts = {"reference": 8, "compiled": None, "gxx": 8}
    found = verify(design, [x], counts, Stalls(0.3, 0.3, 2), folder=tmp_path, strict=True)
    assert found.problems == []
    readback.check(design, design.verilog())


@pytest.mark.needs("g++")
def test_kernels_that_put_codes_elsewhere_are_told(monkeypatch, tmp_path):
    """The checksum covers codes and not their places: two filters exchanged are wrong answers, and are named."""
    s = system(6, 1, ((2, 1), (2, 2)), side=3)
    design = boot(s, {"interval": 60}, {"interval": 300}, 1)
    (x,) = codes(design.program, 8, np.random.default_rng(6))
    right = BootedKernel.boot
    turned = {"conv1.weight": lambda values: values[::-1].copy()}
    monkeypatch.setattr(
        BootedKernel,
        "boot",
        lambda self, *given: {k: turned.get(k, np.asarray)(v) for k, v in right(self, *given).items()},
    )
    (problem,) = verify(design, [x], {"gxx": 8}, folder=tmp_path, strict=True).problems
    assert problem.startswith("hls/gxx: ")
    assert "first divergence: conv1" in problem


@pytest.mark.slow
@pytest.mark.needs("verilator", "g++")
def test_a_wrong_generator_is_told():
    """A weight of the generator that is another one in the Verilog: the checksum is wrong, no frame goes in."""
    s = system(6, 1, ((2, 1), (2, 2)), side=3)
    right, other = (boot(x, {"interval": 60}, {"interval": 300}) for x in (s, system(7, 1, ((2, 1), (2, 2)), side=3)))
    assert right.checksum != other.checksum
    other.system, other.checksum, other.map = right.system, right.checksum, right.map
    (x,) = codes(right.program, 2, np.random.default_rng(6))
    run = CompiledRtl.of(other).run(x, watchdog=4 * right.boot_cycles)
    assert run.produced == 0
    assert any("deadlock" in error for error in run.errors)


def test_files():
    design = boot(system(6, 1, ((2, 1), (2, 2)), side=3), {"interval": 60}, {"interval": 300}, 1, auto=False)
    value = json.loads(json.dumps(design.to_json()))
    loaded = load(design.program, value)
    assert loaded.verilog() == design.verilog()
    assert loaded.to_json() == design.to_json()
    other = boot(system(7, 1, ((2, 1), (2, 2)), side=3), {"interval": 60}, {"interval": 300}, 1)
    with pytest.raises(BittrueError, match="made for another program"):
        load(other.program, value)
    value["system"]["places"]["codes"] = "AAAA"
    with pytest.raises(BittrueError, match="make the design again"):
        load(design.program, value)
    with pytest.raises(BittrueError, match="the generator has constants only"):
        design.boot_again(0, {})
