"""Frames at the ports: whatever a source does with TLAST, whole frames go in, right ones come out, and errors count."""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from amaranth.sim import Simulator

from bittrue.flow.run import cosim
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.result import Beats, check_beats
from bittrue.rtl.bus import framing
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow import top
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import beat
from bittrue.rtl.light import system
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from tests.helpers import programs
from tests.helpers.axis_bench import AxisBench, Seen
from tests.helpers.framing import CASES, flags
from tests.helpers.lengths import long_but
from tests.helpers.photonic_bench import ARRAY
from tests.helpers.photonic_programs import photonic_network


# -- designs -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Framed:
    """A top, its ports, what it computes, and its latency where that is known.

    `bad` is the input whose TLAST is wrong; the others are framed well.
    """

    build: Callable[[], object]
    inputs: tuple[StreamPort, ...]
    outputs: tuple[StreamPort, ...]
    program: Program
    latency: int | None
    bad: int = 0

    def bench(self) -> AxisBench:
        made = self.build()
        slaves = getattr(made, "slaves", None) or [made.slave]
        return AxisBench(made, slaves, getattr(made, "masters", None) or [made.master])


def planned(found: Plan, bad: int = 0) -> Framed:
    latency = None if found.dynamic else found.estimated_latency
    return Framed(lambda: top.Accelerator(found), found.inputs, found.outputs, found.program, latency, bad)


def alone(operation: Operation) -> Program:
    build = Builder({"x": operation.inputs[0]})
    return build.program(build.add("y", operation, "x"))


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def requantize(channels: int) -> Requantize:
    return Requantize(channels, 7, np.arange(channels) - 2)


TOKENS = TensorType((3, 4), INT8)


def controller() -> Framed:
    program = photonic_network()
    make = lambda: system.PhotonicSystem(program, ARRAY, images=2)  # noqa: E731
    ports = make()
    return Framed(make, (ports.input,), (ports.output,), program, None)


DESIGNS: dict[str, Callable[[], Framed]] = {
    "direct": lambda: planned(plan(alone(Affine(TOKENS, rng().integers(-128, 128, 4), requantize(4))), interval=6)),
    "buffered": lambda: planned(plan(alone(Linear(TOKENS, rng().integers(-128, 128, (5, 4)), requantize(5))))),
    "one beat": lambda: planned(
        plan(alone(Linear(TensorType((4,), INT8), rng().integers(-128, 128, (3, 4)), requantize(3))), interval=1)
    ),
    "mean": lambda: planned(plan(alone(Mean(TOKENS, Requantize(4, 1))))),
    "transpose": lambda: planned(plan(alone(Transpose(TOKENS)))),
    "gathering": lambda: planned(plan(programs.spiking(halving=True, steps=3))),
    "spiking with tokens": lambda: planned(plan(programs.spiking(shape=(2, 3), halving=False, steps=3))),
    "events": lambda: planned(plan(programs.spiking(halving=True, steps=3), interval=100, architecture="events")),
    "photonic": lambda: planned(plan(programs.photonic(noisy=True))),
    "first of two": lambda: planned(plan(programs.two_inputs())),
    "second of two": lambda: planned(plan(programs.two_inputs()), bad=1),
    "several results": lambda: planned(plan(programs.several()), bad=1),
    "controller": controller,
}


# -- what is sent and what must come ---------------------------------------------------------------------------
STALLS = ((0.0, 0.0), (0.3, 0.4))


def stimulus(design: Framed, case: str, seed: int = 0) -> list[Beats]:
    """The beats of every input, as many frames of each."""
    draw = np.random.default_rng([seed, CASES.index(case)])
    bad = design.inputs[design.bad]
    last = np.array(flags(case, bad.beats, draw))

    def codes(port: StreamPort, beats: int) -> np.ndarray:
        fmt = port.tensor.format
        frames = -(-beats // port.beats)
        drawn = draw.integers(fmt.low, fmt.high + 1, (frames, *port.tensor.shape))
        return port.pack(drawn).reshape(-1, port.beat_bytes)[:beats]

    words = codes(bad, len(last))
    frames = len(bad.frames(words, last)[0])
    found = []
    for k, port in enumerate(design.inputs):
        if k == design.bad:
            found.append(Beats(words, last))
        else:
            found.append(
                Beats(codes(port, frames * port.beats), np.tile(np.arange(port.beats) == port.beats - 1, frames))
            )
    return found


def results(design: Framed, x: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    codes = design.program.reference(*x)
    return codes if isinstance(codes, tuple) else (codes,)


def expected(design: Framed, beats: list[Beats]) -> tuple[list[np.ndarray], list[int]]:
    """Every output's frames as bytes, and what every input counts."""
    frames, errors = zip(*(port.frames(*b) for port, b in zip(design.inputs, beats, strict=True)), strict=True)
    x = [port.unpack(words) for port, words in zip(design.inputs, frames, strict=True)]
    return [port.pack(codes) for port, codes in zip(design.outputs, results(design, x), strict=True)], list(errors)


def codes_of(design: Framed, words: list[np.ndarray]) -> list[np.ndarray]:
    return [port.unpack(w) for port, w in zip(design.outputs, words, strict=True)]


def produced(design: Framed, beats: list[Beats]) -> list[int]:
    """Beats that must come out of every output."""
    return [len(design.inputs[0].frames(*beats[0])[0]) * port.beats for port in design.outputs]


def check(design: Framed, beats: list[Beats], seen: Seen, stalled: bool) -> None:
    """Right codes and TLASTs came out, no beat more; errors were counted."""
    wanted, errors = expected(design, beats)
    for port, words, got, last in zip(design.outputs, wanted, seen.words, seen.last, strict=True):
        assert len(got) == words.shape[0] * words.shape[1]
        np.testing.assert_array_equal(got.reshape(words.shape), words, err_msg=port.prefix)
        np.testing.assert_array_equal(last, np.arange(len(last)) % port.beats == port.beats - 1, err_msg=port.prefix)
    assert seen.errors == errors
    if design.latency is not None and not stalled:
        assert seen.latency == design.latency


@cache
def built(name: str) -> tuple[Framed, AxisBench]:
    """A design, elaborated once for all its runs."""
    design = DESIGNS[name]()
    return design, design.bench()


#: Every design with every case, with and without stalls; of six such pairs one run of two is short, by turns.
RUNS = [*itertools.product(DESIGNS, CASES, STALLS)]
TURNS = [run for k, run in enumerate(RUNS) if (k + k // 2) % 6 == 0]


@pytest.mark.parametrize(("name", "case", "stalls"), long_but(RUNS, *TURNS))
def test_every_frame_is_right(name, case, stalls):
    design, bench = built(name)
    beats = stimulus(design, case)
    check(design, beats, bench.run(beats, produced(design, beats), *stalls), stalls != STALLS[0])


def test_the_cases_are_what_they_are_called():
    """Errors and frames counted by hand, for a port of 4 beats."""
    design = planned(plan(alone(Transpose(TensorType((2, 2), INT8)))))
    (port,) = design.inputs
    assert port.beats == 4
    for case, frames, errors in [
        ("right", 3, 0),
        ("never", 3, 3),
        ("always", 5, 5),
        ("early", 4, 1),
        ("late", 5, 2),
        ("missing", 4, 1),
    ]:
        (beats,) = stimulus(design, case)
        words, count = port.frames(*beats)
        assert (len(words), count) == (frames, errors), case


# -- planted faults ------------------------------------------------------------------------------------------
#: What is changed in `rtl/bus/framing.py`, and a case that must show it.
FAULTS = {
    "TLAST out is never set": ("self.o.payload.last.eq(last)", "self.o.payload.last.eq(0)", "right"),
    "TLAST out is always set": ("self.o.payload.last.eq(last)", "self.o.payload.last.eq(1)", "right"),
    "a short frame is not filled": ("(filling | early) & ~last", "0", "early"),
    "filling never ends": ("(filling | early) & ~last", "filling | early", "early"),
    "filled with the codes that wait": ("Mux(filling, 0, self.i", "Mux(filling & 0, 0, self.i", "early"),
    "beats are taken while filling": ("self.o.ready & ~filling", "self.o.ready", "early"),
    "a missing TLAST does not count": ("taken & (self.i.payload.last ^ last)", "early", "missing"),
    "an early TLAST does not count": (
        "taken & (self.i.payload.last ^ last)",
        "taken & last & ~self.i.payload.last",
        "early",
    ),
    "every frame counts": ("taken & (self.i.payload.last ^ last)", "taken & last", "right"),
}


def spoil(monkeypatch, old: str, new: str) -> None:
    """Build tops with inlets and outlets of altered source."""
    source = inspect.getsource(framing)
    assert source.count(old) == 1
    altered = types.ModuleType("altered")
    exec(source.replace(old, new), altered.__dict__)  # noqa: S102
    for place in (top, system):
        for name in ("FrameInlet", "FrameOutlet"):
            monkeypatch.setattr(place, name, getattr(altered, name))


def seen_wrong(design: Framed, case: str) -> bool:
    beats = stimulus(design, case)
    try:
        check(design, beats, design.bench().run(beats, produced(design, beats)), False)
    except Exception:  # noqa: BLE001  (a combinational loop is seen as well)
        return True
    return False


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(monkeypatch, fault):
    old, new, case = FAULTS[fault]
    design = DESIGNS["direct"]()
    assert not seen_wrong(design, case)
    spoil(monkeypatch, old, new)
    assert seen_wrong(design, case)


@pytest.mark.parametrize(
    "fault", long_but(["TLAST out is never set", "a short frame is not filled"], "TLAST out is never set")
)
@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "one beat"])
def test_a_planted_fault_is_seen_on_every_kind(monkeypatch, name, fault):
    old, new, case = FAULTS[fault]
    design = DESIGNS[name]()
    spoil(monkeypatch, old, new)
    assert seen_wrong(design, case)


def test_the_count_stays_at_its_most(monkeypatch):
    monkeypatch.setattr(framing, "ERROR_BITS", 3)
    inlet = framing.FrameInlet(beat(INT8, 1), 1)
    counts = []

    async def bench(ctx):
        ctx.set(inlet.o.ready, 1)
        ctx.set(inlet.i.valid, 1)
        for _ in range(12):
            await ctx.tick()
            counts.append(ctx.get(inlet.errors))

    sim = Simulator(inlet)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert counts == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7]


# -- the other simulators ------------------------------------------------------------------------------------
@pytest.mark.needs("verilator", "g++")
@pytest.mark.parametrize("name", ["first of two", "several results"])
def test_compiled(name):
    design, _ = built(name)
    rtl = CompiledRtl(emit(plan(design.program)), design.inputs, design.outputs)
    for seed, case in enumerate(CASES):
        beats = stimulus(design, case, seed)
        words, _ = expected(design, beats)
        for stalls in ({}, {"idle": 0.3, "backpressure": 0.3, "stall_seed": seed}):
            rtl.run(beats=beats, watchdog=5000, **stalls).check(codes_of(design, words))


@pytest.mark.needs("iverilog")
@pytest.mark.parametrize(
    ("name", "case"), [("second of two", "early"), ("second of two", "late"), ("several results", "early")]
)
def test_cocotb(name, case):
    design, _ = built(name)
    beats = stimulus(design, case)
    words, _ = expected(design, beats)
    run = cosim.run(
        emit(plan(design.program)),
        design.inputs,
        design.outputs,
        beats=beats,
        idle=0.3,
        backpressure=0.3,
        watchdog=5000,
    )
    run.check(codes_of(design, words))


def test_beats_that_cannot_be_run():
    design, _ = built("first of two")
    good = stimulus(design, "right")
    with pytest.raises(BittrueError, match="has 2 inputs .*, got beats for 1"):
        check_beats(design.inputs, good[:1])
    with pytest.raises(BittrueError, match="the beats make 3, 4 frames"):
        check_beats(design.inputs, [good[0], stimulus(design, "missing")[1]])
    with pytest.raises(BittrueError, match=r"port s_axis_a: beats are bytes"):
        check_beats(design.inputs, [Beats(good[0].words, good[0].last[:-1]), good[1]])
