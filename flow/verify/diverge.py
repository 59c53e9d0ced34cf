"""The first divergence: at which operation an execution leaves the golden simulator, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.probe import sightings
from bittrue.flow.run.result import RtlRun
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.exchanges import Exchanges, unwritten
from bittrue.rtl.design import Sighting
from bittrue.sim.groups import walk
from bittrue.sim.held import Sets
from bittrue.sim.program import Node, Program, Trace


@dataclass(frozen=True)
class Divergence:
    """Where an execution first differs from the golden one.

    operation   the first operation, in program order, whose result is wrong while its operands are right
    frame       index of the sample in the batch;  index: place of the code in the tensor
    expected, got   codes; got is None where nothing came out
    cycle       cycle in which the wrong code left the stage (RTL)
    what        `value`, `missing` (the code never came), `unknown` (an X)
    waves       the waveform to open
    held        number of the set that the frame met, where weights were written: 0 is the initial one
    together    where frames go in groups, the first of its group and how many that has; of a tensor of groups `frame`
                is the first, too
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
    held: int | None = None
    together: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"index": list(self.index), "text": str(self)}

    def __str__(self) -> str:
        image = f"image {self.frame}" + (f" with set {self.held} of its weights" if self.held is not None else "")
        if self.together is not None:
            first, size = self.together
            image += f" (slot {self.frame - first}, images {first} to {first + size - 1} together)"
        place = f"{self.operation} ({self.kind}), {image}, [{', '.join(map(str, self.index))}]"
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


def in_sightings(program: Program, golden: Trace, seen: Mapping[str, Sequence[Sighting]]) -> Divergence | None:
    """The first operation of which a wrong code was seen; failing that, the first of which one was not seen at all.

    Operations of which nothing was seen are passed over.
    """
    for look in (_wrong, _silent):
        for node in program.nodes:
            if node.name in seen:
                divergence = look(node, golden.tensors[node.name], seen[node.name])
                if divergence:
                    return divergence
    return None


def _wrong(node: Node, expected: np.ndarray, seen: Sequence[Sighting]) -> Divergence | None:
    kind = type(node.operation).__name__.lower()
    for sighting in seen:
        if sighting.frame >= len(expected):
            continue
        right = expected[sighting.frame].reshape(-1)[sighting.places]
        differs = right != sighting.codes
        if sighting.known and not differs.any():
            continue
        at = int(differs.argmax())
        index = tuple(int(k) for k in np.unravel_index(int(sighting.places[at]), expected.shape[1:]))
        what, got = ("value", int(sighting.codes[at])) if sighting.known else ("unknown", None)
        return Divergence(node.name, kind, sighting.frame, index, int(right[at]), got, sighting.cycle, what)
    return None


def _silent(node: Node, expected: np.ndarray, seen: Sequence[Sighting]) -> Divergence | None:
    missing = np.ones((len(expected), expected[0].size), bool)
    for sighting in seen:
        if sighting.frame < len(expected):
            missing[sighting.frame, sighting.places] = False
    if not missing.any():
        return None
    frame, flat = divmod(int(missing.argmax()), expected[0].size)
    index = tuple(int(k) for k in np.unravel_index(flat, expected.shape[1:]))
    kind, value = type(node.operation).__name__.lower(), int(expected[frame].reshape(-1)[flat])
    return Divergence(node.name, kind, frame, index, value, None, None, "missing")


def at_the_output(program: Program, run: RtlRun, expected: Sequence[np.ndarray]) -> Divergence | None:
    """The first wrong code of a result, when nothing within the design tells more."""
    seen = run.first_divergence(expected)
    if seen is None:
        return None
    result, what = program.results[seen.output], "missing" if seen.got is None else "value"
    kind = type(program[result]).__name__.lower()
    return Divergence(result, kind, seen.frame, seen.index, seen.expected, seen.got, seen.cycle, what)


def in_kernels(
    build: Build, x: Sequence[np.ndarray], differ: Sequence[np.ndarray], sets: Exchanges | None = None
) -> Divergence | None:
    """The first divergence of the HLS kernels on the images `x`, given which codes of every result `differ`; `sets` of
    weights were written meanwhile."""
    program, frames = build.program, len(differ[0])
    frame = int(np.any([one.reshape(frames, -1).any(axis=1) for one in differ], axis=0).argmax())
    held = sets.held(frames) if sets else None
    for start in dict.fromkeys((frame, max(0, frame - 3), 0)):  # it may need those before to go wrong
        part = [v[start : frame + 1] for v in x]
        golden, kernels = (run.trace(*part, first=start, held=held) for run in (program, build.host))
        found = in_tensors(program, golden, kernels)
        if found is not None:
            at = found.frame + start
            number = sets.number([(0, sets.contents[0]), *held], at) if sets and held else None
            return replace(found, frame=at, held=number)
    return None


def in_rtl(
    build: Build,
    x: Sequence[np.ndarray],
    run: RtlRun,
    expected: Sequence[np.ndarray],
    stalls: Stalls,
    folder: Path,
    sets: Exchanges | None = None,
) -> Divergence | None:
    """Probe the RTL where a run went wrong: a waveform of the compiled RTL, in which the design's tap sees tensors.

    The wrong image alone is tried first, then with its predecessors, so that the waveform is as short as can be; no
    waveform has more frames than the design wants `shown`. Where none shows more, the divergence is that of the
    results; it is None when the compiled RTL does not go wrong at all and the results are right.

    sets   those that were written in the course of the run: the frames meet the same ones again
    """
    program, design = build.program, build.design
    late = at_the_output(program, run, expected)
    if late and sets:
        late = replace(late, held=sets.number(sets.met(design, run), late.frame, design))
    frame = late.frame if late else len(expected[0]) - 1
    # Every run of the RTL begins at index 0, so that a program that counts its images must begin at the first.
    around = sets or unwritten(program)
    starts = (0,) if program.counts_frames else around.starts(frame, run)
    stop = around.stop(frame, run)
    if design.shown is not None:
        starts = tuple(k for k in starts if frame - k < design.shown)
    if not starts:
        return late
    rtl = CompiledRtl.of(design, build.verilog, optimize="-O0", trace=True)  # for a frame or a few
    waves = Path(folder) / "divergence.vcd"
    waves.parent.mkdir(parents=True, exist_ok=True)
    for start in dict.fromkeys(starts):
        part = slice(start, stop)
        written = sets.replay(design, run, start, stop - 1) if sets else {}
        again = rtl.run(
            *(v[part] for v in x),
            stall_seed=stalls.seed,
            idle=stalls.idle,
            backpressure=stalls.backpressure,
            waves=waves,
            watchdog=design.patience,
            **written,
        )
        held = sets.met(design, again, start, len(expected[0])) if sets else None
        right = program.run(*(v[part] for v in x), held=held) if sets else [codes[part] for codes in expected]
        if again.mismatches(right) or again.errors:
            break
    else:
        waves.unlink(missing_ok=True)
        return late
    golden, seen = program.trace(*(v[part] for v in x), held=held), dict(sightings(design, waves))
    found = in_sightings(program, golden, seen) or at_the_output(program, again, right)
    if found is None:
        return None
    if program.grouping is not None:
        return replace(in_group(program, found, start, part.stop - start, held), waves=str(waves))
    number = sets.number(held, found.frame, design) if sets else None
    return replace(found, frame=found.frame + start, waves=str(waves), held=number)


def in_group(program: Program, found: Divergence, start: int, frames: int, held: Sets | None) -> Divergence:
    """The same in a run that began at frame `start`, where frames go in groups: a tensor of groups counts these, and
    its `frame` becomes the first of the group's."""
    assert program.grouping is not None
    groups = list(walk(program.grouping, frames, 0, held))
    of_groups = found.operation in program.grouping.tensors
    if of_groups:
        group = groups[min(found.frame, len(groups) - 1)]
    else:
        group = next(g for g in reversed(groups) if g.start <= found.frame)
    frame = group.start if of_groups else found.frame
    return replace(found, frame=frame + start, together=(start + group.start, group.size))
