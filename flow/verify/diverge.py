"""The first divergence: at which operation an execution leaves the golden simulator, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.probe import Stream, streams
from bittrue.flow.run.result import RtlRun
from bittrue.flow.verify.backends import Design, Stalls
from bittrue.sim.program import Program, Trace


@dataclass(frozen=True)
class Divergence:
    """Where an execution first differs from the golden one.

    operation   the first operation, in program order, whose result is wrong while its operands are right
    frame       index of the sample in the batch;  index: place of the code in the tensor
    expected, got   codes; got is None where nothing came out
    cycle       cycle in which the wrong code left the stage (RTL)
    what        `value`, `missing` (a beat never came), `unknown` (an X)
    waves       the waveform to open
    """

    operation: str
    kind: str
    frame: int
    index: tuple[int, ...]
    expected: int | None
    got: int | None
    cycle: int | None = None
    what: str = "value"
    waves: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"index": list(self.index), "text": str(self)}

    def __str__(self) -> str:
        place = f"{self.operation} ({self.kind}), image {self.frame}, [{', '.join(map(str, self.index))}]"
        when = f" in cycle {self.cycle}" if self.cycle is not None else ""
        say = {
            "value": f"expected {self.expected}, got {self.got}{when}",
            "missing": "the code never came out",
            "unknown": f"expected {self.expected}, got an undefined value{when}",
        }[self.what]
        return f"{place}: {say}" + (f"; open {self.waves}" if self.waves else "")


def in_tensors(program: Program, golden: Trace, tensors: Mapping[str, np.ndarray]) -> Divergence | None:
    """The first operation whose traced tensor differs."""
    for node in program.nodes:
        if node.name not in tensors:
            continue
        expected, got = (
            golden.tensors[node.name],
            np.asarray(tensors[node.name]).reshape(golden.tensors[node.name].shape),
        )
        wrong = expected != got
        if wrong.any():
            frame, *index = (int(k) for k in np.unravel_index(int(wrong.argmax()), wrong.shape))
            kind = type(node.operation).__name__.lower()
            at = (frame, *index)
            return Divergence(node.name, kind, frame, tuple(index), int(expected[at]), int(got[at]))
    return None


def in_streams(program: Program, golden: Trace, found: Mapping[str, Stream]) -> Divergence | None:
    """The first operation whose stage hands on a wrong code; failing that, the first that falls silent."""
    for look in (_wrong, _silent):
        for node in program.nodes:
            divergence = look(node, golden.tensors[node.name], found[node.name])
            if divergence:
                return divergence
    return None


def _wrong(node, expected: np.ndarray, stream: Stream) -> Divergence | None:
    lanes = stream.codes.shape[1]
    kind, per_frame = type(node.operation).__name__.lower(), expected[0].size // lanes
    beats = expected.reshape(-1, lanes)[: len(stream.codes)].astype(np.int64)
    got, unknown = stream.codes[: len(beats)], stream.unknown[: len(beats)]
    bad = (got != beats).any(axis=1) | unknown
    if not bad.any():
        return None
    beat = int(bad.argmax())
    lane = int((got[beat] != beats[beat]).argmax())
    frame, within = divmod(beat, per_frame)
    index = tuple(int(k) for k in np.unravel_index(within * lanes + lane, expected.shape[1:]))
    cycle = int(stream.cycles[beat])
    what = "unknown" if unknown[beat] else "value"
    seen = None if unknown[beat] else int(got[beat, lane])
    return Divergence(node.name, kind, frame, index, int(beats[beat, lane]), seen, cycle, what)


def _silent(node, expected: np.ndarray, stream: Stream) -> Divergence | None:
    lanes = stream.codes.shape[1]
    count = expected.size // lanes
    if len(stream.codes) >= count:
        return None
    per_frame = expected[0].size // lanes
    frame, within = divmod(len(stream.codes), per_frame)
    index = tuple(int(k) for k in np.unravel_index(within * lanes, expected.shape[1:]))
    value = int(expected.reshape(-1, lanes)[len(stream.codes), 0])
    return Divergence(node.name, type(node.operation).__name__.lower(), frame, index, value, None, None, "missing")


def in_rtl(
    design: Design, x: Sequence[np.ndarray], run: RtlRun, expected: np.ndarray, stalls: Stalls, folder: Path
) -> Divergence | None:
    """Probe the RTL where a run went wrong: a waveform of the compiled RTL, read stage by stage.

    The wrong image alone is tried first, then with its predecessors, so that the waveform is as short as can be.
    Returns None when the compiled RTL does not go wrong at all.
    """
    rtl = CompiledRtl(design.verilog, design.plan.inputs, design.plan.output, trace=True)
    first = run.first_divergence(expected)
    frame = first.frame if first else len(expected) - 1
    waves = Path(folder) / "divergence.vcd"
    waves.parent.mkdir(parents=True, exist_ok=True)
    # Every run of the RTL begins at index 0, so that a program that counts its images must begin at the first.
    starts = (0,) if design.program.counts_frames else (frame, max(0, frame - 3), 0)
    for start in dict.fromkeys(starts):
        part = slice(start, frame + 1)
        again = rtl.run(
            *(v[part] for v in x),
            stall_seed=stalls.seed,
            idle=stalls.idle,
            backpressure=stalls.backpressure,
            waves=waves,
            watchdog=1 << 14 if len(expected[part]) < 8 else 1 << 20,
        )
        if again.mismatches(expected[part]) or again.errors:
            break
    else:
        waves.unlink(missing_ok=True)
        return None
    golden = design.program.trace(*(v[part] for v in x))
    found = in_streams(design.program, golden, streams(design.plan, waves))
    if found is None:
        return None
    return Divergence(**(asdict(found) | {"frame": found.frame + start, "waves": str(waves)}))
