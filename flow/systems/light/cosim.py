"""The photonic system in cocotb, under Icarus Verilog or Verilator: AXI4-Stream and AXI4-Lite driven by cocotbext-axi.

As `flow.run.cosim`, with an AXI4-Lite master beside the streams, and a source of weights where they are streamed. The
testbench is `flow/systems/light/testbench.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bittrue.flow.run.cosim import (
    WATCHDOG,
    _build,
    _folder,
    _simulate,
    check_simulator,
    describe_job,
    describe_sources,
)
from bittrue.flow.run.result import RtlRun, check_batch, check_limits
from bittrue.flow.run.verilate import default_cache
from bittrue.rtl.light.system import PhotonicSystem, emit
from bittrue.rtl.light.weights import stream_words
from bittrue.sim.errors import BittrueError

TESTBENCH = "bittrue.flow.systems.light.testbench"


@dataclass(frozen=True)
class Access:
    """One AXI4-Lite access: a write of `value`, or a read if it is None."""

    address: int
    value: int | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: the response (0 OKAY, 2 SLVERR) and, for a read, the word."""

    response: int
    value: int | None = None


@dataclass(frozen=True)
class SignalGroup:
    """Signals of the top beside the images' and the results', with their widths, as `flow.run.cosim` asks for them."""

    signals: dict[str, int]


@dataclass(frozen=True)
class SystemRun:
    """The batch (`run`), and the answers to the accesses before, during and after it."""

    run: RtlRun
    before: tuple[Answer, ...]
    during: tuple[Answer, ...]
    after: tuple[Answer, ...]


def run(
    system: PhotonicSystem,
    x: np.ndarray,
    expected: np.ndarray | None = None,
    simulator: str = "icarus",
    idle: float = 0.0,
    backpressure: float = 0.0,
    seed: int = 0,
    folder: Path | None = None,
    waves: bool = False,
    max_cycles: int | None = None,
    watchdog: int = WATCHDOG,
    cache: Path | None = None,
    before: Sequence[Access] = (),
    during: Sequence[Access] = (),
    after: Sequence[Access] = (),
) -> SystemRun:
    """Run images through controller and twin in a simulator; the parameters are those of `flow.run.cosim.run`.

    Streamed weights are offered again and again, with the pauses of the images, for as many batches as there are.

    before, during, after   register accesses in this order: before the first image is offered, while the images go
                            through (again and again until they are through), and when all results are there

    BittrueError for a system without twin, and as in `flow.run.cosim.run`.
    """
    check_simulator(simulator, waves, folder)
    if system.twin is None:
        raise BittrueError("photonic system: cocotb drives a controller with its twin; build it with twin=True")
    check_limits(watchdog, max_cycles)
    sources = check_batch((system.input,), [x])
    job = describe_job((system.input,), system.output, len(x), idle, backpressure, seed, watchdog, max_cycles)
    for name, accesses in (("before", before), ("during", during), ("after", after)):
        job[name] = [asdict(access) for access in accesses]
    arrays = describe_sources(sources)
    if expected is not None:
        arrays["expected"] = system.output.pack(expected).reshape(-1, system.output.beat_bytes)
    if system.streamed:
        arrays["weights"] = stream_words(system.jobs)
    others = SignalGroup({signal.name: len(signal) for signal in (*system.registers.values(), *system.weights)})
    streams = (system.input, system.output)
    build = _build(emit(system), (*streams, others), simulator, waves, Path(cache or default_cache()))
    with _folder(folder) as place:
        ports = (system.input,)
        done = _simulate(build, place, job, arrays, ports, sources, system.output, simulator, waves, TESTBENCH)
        answers = json.loads((place / "answers.json").read_text())
    return SystemRun(done, *(tuple(Answer(*a) for a in answers[name]) for name in ("before", "during", "after")))
