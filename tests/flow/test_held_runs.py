"""Sets of weights in compiled RTL and in cocotb: written while frames run, in agreement with golden and HLS."""

from functools import cache

import numpy as np
import pytest

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.cosim import run as cosim
from bittrue.flow.run.sets import Write, met
from bittrue.hls import host, project
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.parts import rom
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from tests.helpers.sets import codes, drawn, network

FRAMES = 40


#: Seed, kinds of operations, architecture, interval: matrix products and affines; a photonic array with noise before a
#: spiking layer that is driven by events.
CASES = [(21, ("linear", "affine", "linear"), "parallel", 20), (1, ("noisy", "spiking"), "events", 200)]


@pytest.fixture(scope="module", params=CASES, ids=["matrix", "light and spikes"])
def case(request):
    """A design whose frames are short beside its sets, its simulator, inputs and sets."""
    return made(*request.param)


@pytest.fixture(scope="module")
def first():
    """The first of them."""
    return made(*CASES[0])


@cache
def made(seed: int, kinds: tuple[str, ...], architecture: str, interval: int):
    program = network(seed, most=6, kinds=kinds)
    p = plan(program, interval, weights="written", architecture=architecture)
    rng = np.random.default_rng(0)
    sets = [drawn(p.program, rng) for _ in range(3)]
    rtl = CompiledRtl(emit(p), p.inputs, p.outputs, weights=p.weights)
    return p, rtl, codes(p.program, FRAMES, rng), sets


def expected(p, x, run, sets) -> np.ndarray:
    return p.program(*x, held=met([p.program.initial, *sets], run.meets))


@pytest.mark.parametrize("stalls", [{}, {"idle": 0.3, "backpressure": 0.3, "stall_seed": 4}])
def test_compiled(case, stalls):
    p, rtl, x, sets = case
    words = [p.pack_set(s) for s in sets]
    run = rtl.run(*x, writes=[Write(words[0], 0), Write(words[1], 3), Write(words[2], 4)], **stalls)
    run.check(expected(p, x, run, sets))
    assert run.meets[0] == 0
    assert run.meets[-1] == 3
    assert (np.diff(run.meets) >= 0).all()
    with pytest.raises(BittrueError, match="codes differ"):
        run.check(p.program(*x))


@pytest.mark.parametrize("stalls", [{}, {"idle": 0.3, "backpressure": 0.3}])
def test_a_frame_waits_for_its_set(case, stalls):
    """`by` fixes the frame from which on a set holds, while the frames before it are still on their way."""
    p, rtl, x, sets = case
    writes = [Write(p.pack_set(sets[0]), 5, 9), Write(p.pack_set(sets[1]), 9, 30)]
    run = rtl.run(*x, writes=writes, **stalls)
    run.check(expected(p, x, run, sets))
    changes = np.flatnonzero(np.diff(run.meets)) + 1
    assert len(changes) == 2
    assert changes[0] <= 9
    assert changes[1] <= 30


def test_what_the_frames_are_told_apart_by(first):
    """Sets refused are counted, do not take effect, and a frame does not wait for them for ever."""
    p, rtl, x, sets = first
    good, bad = p.pack_set(sets[0]), p.pack_set(sets[1])
    bounds = {row["first"]: row["high"] for row in p.network.words.describe()}
    carried = p.weights.tensor.format.high
    place = next(first for first, high in bounds.items() if high < carried)
    bad[place] = bounds[place] + 1
    run = rtl.run(*x, writes=[Write(bad, 0, 6), Write(good, 6, 20)], backpressure=0.2)
    run.check(p.program(*x, held=met([p.program.initial, sets[0]], run.meets)))
    assert run.refused == 1
    assert run.meets[-1] == 1


@pytest.mark.long
@pytest.mark.parametrize("simulator", [pytest.param("icarus", marks=pytest.mark.needs("iverilog")), "verilator"])
def test_cocotb(case, simulator, tmp_path):
    """The other testbench, another simulator; and the HLS kernel with the same sets gives the same codes."""
    p, _, x, sets = case
    x = [v[:12] for v in x]
    writes = [Write(p.pack_set(sets[0]), 2, 6), Write(p.pack_set(sets[1]), 6, 9)]
    stalls = {"idle": 0.2, "backpressure": 0.2, "seed": 3}
    run = cosim(emit(p), p.inputs, p.outputs, list(x), simulator=simulator, weights=p.weights, writes=writes, **stalls)
    wanted = expected(p, x, run, sets)
    run.check(wanted)
    assert set(run.meets) == {0, 1, 2}
    kernel = host.build(project.write(p.program, tmp_path))
    held = met([p.program.initial, *sets], run.meets)
    np.testing.assert_array_equal(kernel.predict(*x, held=held), wanted)


def test_memory_files(first, monkeypatch):
    """What large written memories hold at first comes from files; they are written all the same."""
    p, _, x, sets = first
    monkeypatch.setattr(rom, "LARGE", 1)
    verilog = emit(p)
    assert len(verilog.files) > len(p.network.words.tables) // 2  # tables of the same contents share one
    rtl = CompiledRtl(verilog, p.inputs, p.outputs, weights=p.weights)
    run = rtl.run(*x, writes=[Write(p.pack_set(s), 0) for s in sets], idle=0.2)
    run.check(expected(p, x, run, sets))
    assert run.meets[0] == 0
    assert run.meets[-1] > 0


def test_what_cannot_be_written(first):
    p, rtl, x, sets = first
    words = p.pack_set(sets[0])
    with pytest.raises(BittrueError, match=r"after \[3, 1\] of 40 frames"):
        rtl.run(*x, writes=[Write(words, 3), Write(words, 1)])
    with pytest.raises(BittrueError, match="once 3 frames have begun, so frame 2 cannot wait"):
        rtl.run(*x, writes=[Write(words, 3, 2)])
    run = rtl.run(*(v[:2] for v in x), writes=[Write(words, 2)] * 5)
    with pytest.raises(BittrueError, match=r"the frames ended before \d+ words of the sets were written"):
        run.check()
    constant = plan(network(21, most=6, kinds=["linear", "affine", "linear"]), 20)
    plain = CompiledRtl(emit(constant), constant.inputs, constant.outputs)
    with pytest.raises(BittrueError, match="no port for weights; plan the program with weights='written'"):
        plain.run(*x, writes=[Write(words)])
    assert plain.run(*x).meets.size == 0
