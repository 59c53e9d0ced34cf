"""Rasters: which neuron spikes at which time step, in the golden simulator and in the RTL, side by side."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.flow.report import figures
from bittrue.flow.run import probe, waves
from bittrue.flow.run.compiled import CompiledRtl
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import Plan
from bittrue.rtl.design import Sighting
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.program import Program

#: Spike trains (tokens) of a layer that are drawn, those that differ first; all are compared.
TOKENS = 12


@dataclass(frozen=True, eq=False)
class Raster:
    """The spikes of one layer for one input, bool `[tokens, K, C]`: golden, and what the RTL made where it was asked.

    `missing` marks spikes of the RTL that never came or were neither 0 nor 1; they are 0 in `rtl`.
    """

    name: str
    kind: str
    golden: np.ndarray
    rtl: np.ndarray | None = None
    missing: np.ndarray | None = None

    @property
    def differs(self) -> np.ndarray:
        """Where the RTL is not as the golden simulator, bool `[tokens, K, C]`."""
        if self.rtl is None:
            return np.zeros_like(self.golden)
        return (self.rtl != self.golden) | self.missing

    def to_json(self) -> dict[str, Any]:
        """For `report.json`: shape and counts, and the spikes as bits, eight a byte, in hexadecimal."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.golden.shape),
            "spikes": int(self.golden.sum()),
            "differences": None if self.rtl is None else int(self.differs.sum()),
            "golden": _packed(self.golden),
            "rtl": None if self.rtl is None else _packed(self.rtl),
            "missing": None if self.missing is None else _packed(self.missing),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Raster:
        kept = (value[key] for key in ("golden", "rtl", "missing"))
        parts = (None if text is None else _unpacked(text, value["shape"]) for text in kept)
        return Raster(value["name"], value["kind"], *parts)


def _packed(bits: np.ndarray) -> str:
    return np.packbits(bits.reshape(-1)).tobytes().hex()


def _unpacked(text: str, shape: Sequence[int]) -> np.ndarray:
    size = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=size).reshape(shape).astype(bool)


def of_program(program: Program, x: Sequence[np.ndarray], image: int = 0) -> list[Raster]:
    """The rasters of one input in the golden simulator, in the program's order."""
    if not 0 <= image < len(x[0]):
        raise BittrueError(f"raster: there is no image {image}; the inputs hold images 0 to {len(x[0]) - 1}")
    nodes = [node for node in program.nodes if node.operation.output.format == SPIKE]
    if not nodes:
        raise BittrueError("raster: the program makes no spike trains, so there is nothing to draw")
    tensors = program.trace(*(v[image : image + 1] for v in x)).tensors
    return [Raster(node.name, type(node.operation).__name__.lower(), _trains(tensors[node.name][0])) for node in nodes]


def _trains(spikes: np.ndarray) -> np.ndarray:
    return spikes.reshape(-1, *spikes.shape[-2:]).astype(bool)


def of_rtl(
    plan: Plan, verilog: str, x: Sequence[np.ndarray], image: int = 0, file: Path | None = None, optimize: str = "-O0"
) -> list[Raster]:
    """The rasters of one input in golden simulator and compiled RTL, the latter read from its waveform.

    file      also leave the whole waveform of this input, VCD; without, only what the raster needs is kept meanwhile
    """
    golden = of_program(plan.program, x, image)
    design = PipelineDesign(plan)
    rtl = CompiledRtl.of(design, verilog, optimize=optimize, trace=True)
    one = [v[image : image + 1] for v in x]
    nets = {(*probe.ROOT, *path) for path in design.tap().signals.values()}
    nets |= {(*probe.ROOT, name) for name in ("aclk", "aresetn")}

    def wanted(scope: tuple[str, ...], name: str) -> bool:
        return (*scope, name) in nets

    with tempfile.TemporaryDirectory(prefix="bittrue-") as folder:
        sifted = Path(folder) / "spikes.vcd"
        sieve = waves.Sieve(sifted, wanted)
        if file is None:
            waves.piped(lambda pipe: rtl.run(*one, waves=pipe, watchdog=1 << 14), sieve)
        else:
            whole = Path(folder) / "waves.vcd"  # not there at once: a device or a pipe is not read back
            rtl.vcd(whole, *one, watchdog=1 << 14)
            waves.read(whole, sieve)
            with whole.open("rb") as stored, mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
                write_whole(file, content)
        seen = probe.sightings(design, sifted)
    return [_with_rtl(raster, seen.get(raster.name, [])) for raster in golden]


def _with_rtl(raster: Raster, seen: Sequence[Sighting]) -> Raster:
    size = raster.golden.size
    spikes, missing = np.zeros(size, bool), np.ones(size, bool)
    for sighting in seen:
        if sighting.frame == 0:
            spikes[sighting.places] = sighting.codes == 1
            missing[sighting.places] = not sighting.known
    shape = raster.golden.shape
    return Raster(raster.name, raster.kind, raster.golden, spikes.reshape(shape), missing.reshape(shape))


def problems(rasters: Sequence[Raster]) -> list[str]:
    """One sentence for every layer whose spikes in the RTL are not the golden ones."""
    found = []
    for raster in rasters:
        if raster.differs.any():
            token, step, neuron = (int(k) for k in np.argwhere(raster.differs)[0])
            place = f"neuron {neuron}, step {step}" + (f", token {token}" if len(raster.golden) > 1 else "")
            count = int(raster.differs.sum())
            found.append(f"{raster.name}: {count} of {raster.golden.size} spikes differ in the RTL, first {place}")
    return found


# -- pictures ------------------------------------------------------------------------------------------
def drawn(raster: Raster) -> list[int]:
    """The tokens that are drawn."""
    wrong = np.flatnonzero(raster.differs.any(axis=(1, 2)))[:TOKENS].tolist()
    right = [k for k in range(len(raster.golden)) if k not in set(wrong)]
    return sorted(wrong + right[: TOKENS - len(wrong)])


def layer(raster: Raster, width: float = 1000) -> str:
    """One layer as SVG: golden and RTL side by side, neurons upward, time steps to the right, a panel for each token.

    What differs is red where there is a spike and pale red where there is none.
    """
    parts: list[str] = []
    height = _draw(parts, raster, 0, width)
    return figures.svg(width, height, parts, f"spikes of {raster.name}")


def page(rasters: Sequence[Raster], title: str, width: float = 1000) -> str:
    """All layers below each other as one SVG file."""
    parts: list[str] = [figures.text(0, 16, title, 14, figures.INK, "start", True)]
    y = 30.0
    for raster in rasters:
        y += _draw(parts, raster, y, width) + 14
    return figures.svg(width, y, parts, title)


def _draw(parts: list[str], raster: Raster, top: float, width: float) -> float:
    """Draw one layer from `top` on; the height it takes."""
    tokens, (_, steps, neurons) = drawn(raster), raster.golden.shape
    left, gap, head = 34, 40, 36
    half = (width - 2 * left - gap) / 2 if raster.rtl is not None else width - left
    apart = 5
    cell = min(40.0, (half - apart * (len(tokens) - 1)) / (steps * len(tokens)))
    tall = max(1.5, min(8.0, 190 / neurons))
    count, of = int(raster.golden.sum()), raster.golden.size
    words = f"{count:,} spikes, {count / (len(raster.golden) * neurons):.2f} a neuron, {100 * count / of:.1f} %"
    if len(tokens) < len(raster.golden):
        words += f"; {len(tokens)} of {len(raster.golden)} tokens drawn, all compared"
    parts.append(figures.text(0, top + 13, f"{raster.name} ({raster.kind})", 12, figures.INK, "start", True))
    parts.append(figures.text(width, top + 13, words, 11, figures.SOFT, "end"))
    sides = [("golden", raster.golden)] + ([("RTL", raster.rtl)] if raster.rtl is not None else [])
    bottom = top + head + neurons * tall
    for place, (name, spikes) in enumerate(sides):
        x0 = left + place * (half + left + gap)
        parts.append(figures.text(x0, top + 30, name, 11, figures.SOFT))
        if place:
            wrong = int(raster.differs.sum())
            verdict = f"{wrong:,} differ" if wrong else "equal"
            colour = figures.BAD if wrong else figures.GOOD
            parts.append(figures.text(x0 + 28, top + 30, verdict, 11, colour, "start", True))
        for y, label in ((bottom, 0), (top + head + 8, neurons - 1)):
            parts.append(figures.text(x0 - 5, y, label, 9, figures.SOFT, "end"))
        for k, token in enumerate(tokens):
            x = x0 + k * (steps * cell + apart)
            parts.append(figures.rect(x, top + head, steps * cell, neurons * tall, figures.PANEL, 0))
            wrong = raster.differs[token]
            fired = spikes[token]
            parts.append(_cells(fired & ~wrong, x, bottom, cell, tall, figures.INK))
            parts.append(_cells(fired & wrong, x, bottom, cell, tall, figures.BAD))
            parts.append(_cells(~fired & wrong, x, bottom, cell, tall, figures.BAD, 0.3))
            if len(tokens) > 1 and steps * cell > 14:
                parts.append(figures.text(x, bottom + 11, f"token {token}" if not k else token, 9, figures.SOFT))
        if len(tokens) == 1:
            parts.append(figures.text(x0, bottom + 11, f"time step 0 to {steps - 1}", 9, figures.SOFT))
    return bottom + 16 - top


def _cells(mask: np.ndarray, x: float, bottom: float, cell: float, tall: float, colour: str, opacity=1.0) -> str:
    """The spikes of a mask `[K, C]` as one path: a bar each, apart from its neighbours where there is room."""
    wide, high = cell * (0.86 if cell > 4 else 1), tall * (0.8 if tall > 2.5 else 1)
    path = []
    for step, neuron in np.argwhere(mask):
        path.append(f"M{x + step * cell:.5g} {bottom - (neuron + 1) * tall:.6g}h{wide:.4g}v{high:.3g}h{-wide:.4g}z")
    return f'<path d="{"".join(path)}" fill="{colour}" fill-opacity="{opacity:g}"/>' if path else ""
