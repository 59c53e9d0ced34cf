"""The first divergence of a photonic controller, read between controller and array.

What passes the analogue front end (`rtl.light.ports.FrontEnd`) are tensors of the program: the codes of the rows are
a layer's input, the codes of the converter its `PhotonicMac`. A waveform of the compiled RTL gives both for every
measurement, so the layer that is wrong first is found without looking inside the controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.probe import edges
from bittrue.flow.run.result import RtlRun
from bittrue.flow.verify import diverge
from bittrue.flow.verify.backends import Stalls
from bittrue.flow.verify.diverge import Divergence
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.system import PhotonicSystem
from bittrue.sim.contract import Format

#: Where the front end is in the waveform: between controller and twin.
PLACE = ("TOP", "bittrue_top", "system")
STROBES, WORDS = ("input_valid", "sample", "adc_valid"), ("input_data", "adc_data", "job", "image")
#: Most images of a waveform: of an array of 64x64 it has some 50 MB an image.
MOST = 8


@dataclass(frozen=True, eq=False)
class Measurement:
    """One measurement: which job of which image, the codes of the rows, the codes of the columns (-1: none came)."""

    job: int
    image: int
    inputs: np.ndarray
    codes: np.ndarray


def first(
    system: PhotonicSystem, verilog: str, x: np.ndarray, run: RtlRun, expected: np.ndarray, stalls: Stalls, folder: Path
) -> Divergence | None:
    """Where the compiled RTL first leaves the program: operation (a layer's), image, index; with the waveform to open.

    verilog   without registers, as `rtl.light.system.emit` makes it, perhaps altered since
    x         all images of the run, uint8 `[n, features]`; `run` and `expected` are theirs

    None if all results are right. Where the waveform would be too long, or none of the images that it would show comes
    out wrong again, the divergence is that of the results.
    """
    program = system.jobs.program
    seen = run.first_divergence(expected)
    if seen is None:
        return None
    kind = type(program[program.result]).__name__.lower()
    what = "value" if seen.got is not None else "missing"
    late = Divergence(program.result, kind, seen.frame, seen.index, seen.expected, seen.got, seen.cycle, what)
    # The wrong image alone, then with those before it; a program that counts its images begins at the first.
    starts = (0,) if program.counts_frames else (seen.frame, max(0, seen.frame - MOST + 1))
    if seen.frame - starts[0] >= MOST:
        return late
    waves = Path(folder) / "divergence.vcd"
    waves.parent.mkdir(parents=True, exist_ok=True)
    compiled = CompiledRtl(verilog, [system.input], system.output, trace=True)
    options = {"stall_seed": stalls.seed, "idle": stalls.idle, "backpressure": stalls.backpressure}
    for start in dict.fromkeys(starts):
        part = slice(start, seen.frame + 1)
        again = compiled.run(x[part], waves=waves, watchdog=1 << 20, **options)
        if again.mismatches(expected[part]):
            break
    else:
        waves.unlink(missing_ok=True)
        return late
    frame = again.first_divergence(expected[part]).frame
    golden = program.trace(x[part])
    right = {name: codes[frame : frame + 1] for name, codes in golden.tensors.items()}
    found = tensors(system.jobs, [m for m in measurements(system.jobs, waves) if m.image == frame], right)
    found[program.result] = again.outputs[frame : frame + 1]
    place = diverge.in_tensors(program, replace(golden, tensors=right), found)
    if place is None:
        return replace(late, waves=str(waves))
    missing = place.got == -1 and place.operation != program.result
    changes = {"got": None, "what": "missing"} if missing else {}
    return replace(place, frame=start + frame, waves=str(waves), **changes)


def measurements(jobs: Jobs, waves: Path) -> list[Measurement]:
    """Every measurement in a waveform of the compiled RTL without registers, in the order in which they were made."""
    wanted = {("aclk",): (*PLACE[:2], "aclk"), ("aresetn",): (*PLACE[:2], "aresetn")}
    wanted |= {(name,): (*PLACE, f"front__{name}") for name in (*STROBES, *WORDS)}
    made: list[Measurement] = []
    g = jobs.geometry
    inputs, group = np.zeros(g.rows, np.int64), 0
    for value in edges(waves, wanted):
        if value("input_valid") == "1":
            inputs = _codes(value("input_data"), jobs.codes, g.rows)
        if value("sample") == "1":  # by now the numbers of the measurement are there
            job, image = (int(value(name), 2) for name in ("job", "image"))
            made.append(Measurement(job, image, inputs, np.full(g.columns, -1)))
            group = 0
        if value("adc_valid") == "1" and made and group < g.groups:
            made[-1].codes[group * g.lanes : (group + 1) * g.lanes] = _codes(value("adc_data"), jobs.adc, g.lanes)
            group += 1
    return made


def tensors(jobs: Jobs, measured: list[Measurement], golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of one image `[1, ...]` that its measurements show, by node: array codes, and inputs of later layers.

    What was measured more than once shows its wrong value, if there is one; what was not measured is -1.
    """
    nodes = list(jobs.program.nodes)
    operands = {node.name: node.operands[0] for node in nodes}
    found: dict[str, np.ndarray] = {}
    for layer in jobs.layers:
        for name in (operands[layer.name], layer.name):
            if name not in jobs.program.inputs:
                found[name] = np.full_like(golden[name], -1, dtype=np.int64)

    def enter(name: str, place: tuple, codes: np.ndarray) -> None:
        there, right = found[name][place], golden[name][place]
        found[name][place] = np.where((there == -1) | (codes != right), codes, there)

    for one in measured:
        work = jobs.work[one.job]
        layer = jobs.layers[work.layer]
        top, left = work.row_tile * jobs.geometry.rows, work.column_tile * jobs.geometry.columns
        if operands[layer.name] in found:
            enter(operands[layer.name], (0, slice(top, top + work.rows)), one.inputs[: work.rows])
        place = (0, work.row_tile, slice(left, left + work.columns))
        enter(layer.name, place, one.codes[: work.columns])
    return found


def _codes(bits: str, fmt: Format, count: int) -> np.ndarray:
    """Unsigned codes of a word of the waveform, lane 0 lowest; a bit that is not known counts as 0."""
    word = int("".join(bit if bit in "01" else "0" for bit in bits), 2)
    return np.array([word >> fmt.bits * k & fmt.high for k in range(count)], np.int64)
