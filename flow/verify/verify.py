"""Verification: every back end against the golden simulator, with stalls, cycle counts and the first divergence.

A row of the result holds the keys of `report.json`. Stalls are seeded pauses at the input and at the output; the
cycle counts of a row come from a second run of the same simulator without any stall, long enough for a steady state.
A row passes when no code differs, the protocol was kept, the cycles are those that the design promised, registers
answered as they must, and every tensor of events has as many of them as in the golden simulator (counted in the
compiled RTL, see `flow.run.monitors`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.verify import backends, diverge
from bittrue.flow.verify.backends import Backend, Build, Progress, Run, Stalls
from bittrue.flow.verify.events import Events
from bittrue.flow.verify.exchanges import Exchanges, OneSize, told, whole
from bittrue.flow.verify.judged import mean_interval, problems, unverified
from bittrue.flow.verify.junit import JUnit
from bittrue.rtl.bus import access
from bittrue.sim.errors import BittrueError
from bittrue.sim.groups import walk
from bittrue.sim.locks import locked
from bittrue.sim.program import Program

if TYPE_CHECKING:
    from bittrue.rtl.dataflow.plan import Plan
    from bittrue.rtl.design import Design

#: What is verified by default, with the number of images; None means all that were given.
DEFAULT: dict[str, int | None] = {"reference": 16, "compiled": None, "gxx": None, "icarus": 8, "verilator": 32}
#: Images of the compiled RTL's run with stalls: protocol corners need hundreds of frames, not a whole test set.
STALLED_IMAGES = 256
#: Images without stalls in a slow simulator, once the compiled RTL has shown the steady state.
FIRST_FRAMES = 3
NO_STALLS = Stalls()


@dataclass
class Verification:
    """What was found.

    rows        one per back end and kind of run, with the keys of report.json and the details beside them
    golden      the golden simulator against the reference: images, values, mismatches
    skipped     back ends that this machine lacks: `backend` (its kind), `simulator` and `reason`
    outputs     what each back end made of the images without stalls, by name: the codes of every result
    """

    rows: list[dict[str, Any]]
    golden: dict[str, Any] | None = None
    skipped: list[dict[str, str]] = field(default_factory=list)
    outputs: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is not as it must be; empty when all is well."""
        return problems(self.rows, self.golden) + unverified(self.rows, self.skipped, self.golden)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, the outputs apart."""
        return {"rows": self.rows, "golden": self.golden, "skipped": self.skipped, "problems": self.problems}


def verify(
    subject: Build | Design | Plan | Program,
    x: Sequence[np.ndarray],
    counts: Mapping[str, int | None] | None = None,
    stalls: Stalls = Stalls(0.3, 0.3, 0),  # noqa: B008  (frozen)
    folder: str | Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> Verification:
    """Hold back ends to the golden simulator.

    Where weights are written, simulators, kernels and the RTL with stalls are given two more sets in the course of a
    run; where images go in groups of any size, the size is drawn anew for every group of these runs, which are as long
    as to meet every one (`flow.verify.exchanges`).

    subject   what is built from a program; or a design, a plan, or a program, whose pipeline is planned
    x         batches `[n, *shape]`, one per input
    counts    back end -> how many of the images it runs (None: all; 0: it is left out)
    folder    receives `junit.xml`, the simulators' logs and, where something diverges, the waveform
    strict    a back end that this machine lacks is an error, not an entry in `skipped`
    """
    counts = dict(DEFAULT if counts is None else counts)
    build = Build.of(subject)
    x = build.program.check(*x)
    if not len(x[0]):
        raise BittrueError("verify: no images were given; give at least one")
    chosen = {name: backends.find(name) for name, count in counts.items() if count != 0}
    result = Verification([])
    for name, backend in list(chosen.items()):
        reason = backend.missing()
        if reason and strict:
            raise BittrueError(f"verify: {reason}")
        if reason:
            result.skipped.append({"backend": backend.kind, "simulator": name, "reason": reason})
            del chosen[name]
    folder = Path(folder) if folder is not None else build.folder / "verify"
    junit, sets = JUnit(folder), Exchanges.of(build.program, stalls.seed)
    tell = progress or (lambda *_: None)
    session = _Session(build, x, build.program.run(*x), folder, tell, result, junit, sets)
    with locked(folder):
        for one in result.skipped:
            junit.skip(one)
        for name, backend in chosen.items():
            session.check(backend, len(x[0]) if counts[name] is None else min(counts[name], len(x[0])), stalls)
        junit.write()
    return result


@dataclass(frozen=True, eq=False)
class _Session:
    """One verification under way."""

    build: Build
    x: list[np.ndarray]
    expected: tuple[np.ndarray, ...]
    folder: Path
    progress: Progress
    result: Verification
    junit: JUnit
    sets: Exchanges

    def check(self, backend: Backend, images: int, stalls: Stalls) -> None:
        if backend.kind == "sim":
            self._simulator(backend, images)
        elif backend.kind == "hls":
            self._kernels(backend, images)
        else:
            self._rtl(backend, images, stalls)

    # -- kinds of back end -----------------------------------------------------------------------------
    def _simulator(self, backend: Backend, images: int) -> None:
        self.progress(f"{backend.name} on {images} images", 0, 1)
        x, expected = self._take(images)
        begin = time.perf_counter()
        wrong = _differ(backend.run(self.build, x).results, expected)
        wrong = [a + int(np.count_nonzero(b)) for a, b in zip(wrong, self._with_sets(backend, images), strict=True)]
        row = {"images": images, "values": sum(codes.size for codes in expected)}
        row |= {"mismatches": sum(wrong), "divergence": None} | self._results(wrong)
        if backend.name == "reference":
            self.result.golden = row
        row |= self._changes(images)
        self.junit.enter("sim", backend.name, time.perf_counter() - begin, problems([], row), row)

    def _kernels(self, backend: Backend, images: int) -> None:
        x, expected = self._take(images)
        begin = time.perf_counter()
        errors: list[str] = []
        try:
            run = backend.run(self.build, x, progress=self.progress)
            with_sets = self._with_sets(backend, images)
        except BittrueError as error:
            if "HLS kernel" not in str(error):  # it could not be built: nothing was verified
                raise
            run, errors = Run(tuple(np.zeros_like(codes) for codes in expected), 0.0), [str(error)]
            with_sets = [np.zeros(0, bool) for _ in expected]
        plain = [codes.size for codes in expected] if errors else _differ(run.results, expected)
        wrong = [a + int(np.count_nonzero(b)) for a, b in zip(plain, with_sets, strict=True)]
        row = self._row(backend, images, expected, wrong, errors, run, NO_STALLS)
        row |= self._changes(images)
        if any(plain) and not errors:
            differ = [a != b for a, b in zip(run.results, expected, strict=True)]
            row["divergence"] = _told(diverge.in_kernels(self.build, x, differ))
        elif any(wrong) and not errors:
            x = self._given(self._with_sets_on(images))
            row["divergence"] = _told(diverge.in_kernels(self.build, x, with_sets, self.sets))
        else:
            self.result.outputs[backend.name] = run.results
        self._enter(row, begin)

    def _rtl(self, backend: Backend, images: int, stalls: Stalls) -> None:
        """Without stalls on all images (compiled) or on enough of them for the cycle counts; then with stalls.

        A slow simulator need not reach the steady state again where the compiled RTL has shown it: of its first frames
        every one is held to the schedule.
        """
        design = self.build.design
        settled = design.latency // max(1, design.interval) + 6
        program = self.build.program
        if program.grouping is not None:
            settled *= program.grouping.size
        plain = whole(program, max(images, settled) if backend.name == "compiled" else settled)
        shown = not design.steady or any(row["simulator"] == "compiled" for row in self.result.rows)
        if backend.name != "compiled" and shown:
            plain = whole(program, min(settled, FIRST_FRAMES))
        begin = time.perf_counter()
        run = self._run(backend, plain, NO_STALLS)
        cycles = self._cycles(run, plain)
        if backend.name == "compiled":
            self.result.outputs[backend.name] = tuple(codes[:images] for codes in run.results)
        if backend.name == "compiled" or not stalls:
            self._judge(backend, plain, images if backend.name == "compiled" else plain, run, NO_STALLS, cycles, begin)
        elif run.errors or run.rtl.mismatches(self._take(plain)[1]):
            self._judge(backend, plain, plain, run, NO_STALLS, cycles, begin)
        if backend.name == "compiled" and program.grouping is not None:
            for size in set(program.grouping.modes) - {program.grouping.size}:
                self._of_size(backend, size)
        if stalls:
            begin = time.perf_counter()
            few = backend.name == "compiled" and not self.sets.all_images
            count = min(images, STALLED_IMAGES) if few else images
            count = max(count, self.sets.fewest) if self.sets else whole(program, count)
            self._judge(backend, count, count, self._run(backend, count, stalls), stalls, cycles, begin)

    def _of_size(self, backend: Backend, size: int) -> None:
        """Groups of another size than at first, unstalled, until the state is steady."""
        begin, sets = time.perf_counter(), OneSize(self.build.program, size)
        design = self.build.design
        count = size * (design.latency // max(1, design.interval) + 6)
        x, _ = self._take(count)
        place = self.folder / f"{backend.name}-{size}"
        run = backend.run(self.build, x, NO_STALLS, folder=place, progress=self.progress, sets=sets)
        self._judge(backend, count, count, run, NO_STALLS, self._cycles(run, count, sets), begin, sets)

    def _with_sets(self, backend: Backend, images: int) -> list[np.ndarray]:
        """By result, which codes differ when weights are written in the course of a run; none where none can be."""
        if not self.sets:
            return [np.zeros(0, bool) for _ in self.expected]
        x = self._given(self._with_sets_on(images))
        results = backend.run(self.build, x, sets=self.sets, progress=self.progress).results
        expected = self.build.program.run(*x, held=self.sets.held(len(x[0])))
        return [a != b for a, b in zip(results, expected, strict=True)]

    def _changes(self, images: int) -> dict[str, Any]:
        """For a row: how many images went together in a run in which that changed; nothing where it does not."""
        if self.build.program.grouping is None:
            return {}
        if not self.sets:
            return told(self._sizes(images, None))
        return told(self._sizes(self._with_sets_on(images), self.sets)) | {"seed": self.sets.seed}

    # -- details ---------------------------------------------------------------------------------------
    def _with_sets_on(self, images: int) -> int:
        """Of so many images those of a run without stalls in which weights are written, again where they are too few
        to meet all of these."""
        return max(images if self.sets.all_images else min(images, STALLED_IMAGES), self.sets.fewest)

    @property
    def images(self) -> int:
        """Images that were given."""
        return len(self.x[0])

    def _take(self, count: int) -> tuple[list[np.ndarray], tuple[np.ndarray, ...]]:
        """`count` images, from the beginning again where there are fewer, and every result of them."""
        x, program = self._given(count), self.build.program
        if (program.counts_frames and count > self.images) or (program.grouping is not None and count != self.images):
            return x, program.run(*x)  # an image that comes again is another one, and some have other companions
        return x, tuple(codes[np.arange(count) % self.images] for codes in self.expected)

    def _given(self, count: int) -> list[np.ndarray]:
        """`count` images, from the beginning again where there are fewer."""
        return [v[np.arange(count) % self.images] for v in self.x]

    def _run(self, backend: Backend, count: int, stalls: Stalls) -> Run:
        x, expected = self._take(count)
        place = self.folder / f"{backend.name}{'-stalls' if stalls else ''}"
        options: dict[str, Any] = {"expected": expected, "folder": place, "progress": self.progress}
        if stalls and self.sets:  # what frames meet is known afterwards
            options |= {"expected": None, "sets": self.sets}
        run = backend.run(self.build, x, stalls, **options)
        for name in ("job.npz", "result.npz", "job.json"):
            (place / name).unlink(missing_ok=True)
        return run

    def _cycles(self, run: Run, frames: int, sets: Exchanges | None = None) -> dict[str, Any]:
        """Interval and latency of a run without stalls, and what the design says of them.

        Where frames differ, or the run is too short for a steady state, the schedule is made for the
        very frames that ran: every one must end in its cycle, and the interval is the mean over the second half.
        """
        design = self.build.design
        cycles = {"interval": run.rtl.interval, "latency": run.rtl.latency}
        if design.steady and frames > FIRST_FRAMES:
            return cycles | {"estimated_interval": design.interval, "estimated_latency": design.latency}
        written = {"held": sets.held(frames)} if sets else {}  # which only a design of groups is asked for
        promised = design.expect(*self._take(frames)[0], **written)
        first = whole(self.build.program, FIRST_FRAMES)
        few = not design.steady and frames <= first  # what there is between so few of them says nothing
        if run.rtl.complete:
            ends = run.rtl.output_end_cycles - run.rtl.first_input_cycle
            cycles["interval"] = None if few else mean_interval(ends.max(axis=0))
            late = ends != promised.output_ends
            if late.any():
                k = int(late.any(axis=0).argmax())
                o = int(late[:, k].argmax())
                of = f" of {self.build.program.results[o]}" if len(ends) > 1 else ""
                said = f"frame {k}{of} ends in cycle {ends[o, k]} after the first input"
                said += f", the schedule says {promised.output_ends[o, k]}"
                cycles["schedule"] = f"{said} ({np.count_nonzero(late.any(axis=0))} of {frames} frames differ)"
        interval = None if few else mean_interval(promised.ends)
        return cycles | {"estimated_interval": interval, "estimated_latency": promised.latency}

    def _judge(
        self,
        backend,
        ran: int,
        images: int,
        run: Run,
        stalls: Stalls,
        cycles: dict,
        begin: float,
        sets: Exchanges | None = None,
    ) -> None:
        """Enter the row of an RTL run of `ran` frames, of which the first `images` are images of their own; `sets` were
        written without stalls."""
        x, expected = self._take(ran)
        sets = sets or (self.sets if stalls and self.sets else None)
        held = sets.met(self.build.design, run.rtl) if sets else []
        if held:
            expected = self.build.program.run(*x, held=held)
        wrong = run.rtl.wrong_codes(expected)
        row = self._row(backend, images, [codes[:images] for codes in expected], wrong, list(run.errors), run, stalls)
        row |= cycles
        row["images_per_second"] = round(run.rtl.images_per_second, 3)
        row["events"] = self.events.beside(run.rtl.ones, x, held)
        row["design"], row["streams"] = self.build.design.name, run.rtl.streams
        if run.rtl.answers:
            row["registers"] = access.shown([answer for answer in run.rtl.answers if answer.access.name != "WEIGHTS"])
        row["cycles_per_second"] = round(run.rtl.cycles / run.seconds) if run.seconds else None
        row["sets"] = len(held) or 1
        if self.build.program.grouping is not None:
            row |= told(self._sizes(ran, sets))
        if any(wrong) or run.errors:
            self.progress("looking for the first divergence", 0, 1)
            row["divergence"] = self._rtl_divergence(backend, x, expected, run, stalls, sets if held else None)
        self._enter(row, begin)

    def _sizes(self, frames: int, sets: Exchanges | None) -> list[int]:
        """n of every group of a run."""
        grouping = self.build.program.grouping
        assert grouping is not None
        return [group.size for group in walk(grouping, frames, 0, sets.held(frames) if sets else None)]

    @cached_property
    def events(self) -> Events:
        """What the golden simulator makes of the images."""
        return Events(self.build.program, self.x)

    def _row(self, backend, images, expected, wrong, errors, run: Run, stalls: Stalls) -> dict[str, Any]:
        return {
            "backend": backend.kind,
            "simulator": backend.name,
            "images": images,
            "values": sum(codes.size for codes in expected),
            "mismatches": sum(wrong),
            "stalls": bool(stalls),
            "interval": None,
            "estimated_interval": None,
            "latency": None,
            "estimated_latency": None,
            "errors": errors,
            "divergence": None,
            "idle": stalls.idle,
            "backpressure": stalls.backpressure,
            "seed": stalls.seed if stalls else None,
            "images_per_second": round(images / run.seconds, 3) if run.seconds else None,
        } | self._results(wrong)

    def _results(self, wrong: Sequence[int]) -> dict[str, Any]:
        """For a row: how many values of each result differ, where the program has several."""
        names = self.build.program.results
        return {"results": dict(zip(names, wrong, strict=True))} if len(names) > 1 else {}

    def _rtl_divergence(
        self, backend: Backend, x, expected, run: Run, stalls: Stalls, sets: Exchanges | None = None
    ) -> dict[str, Any] | None:
        if backends.find("compiled").missing():
            return None
        if not backend.named:
            return _told(diverge.at_the_output(self.build.program, run.rtl, expected))
        return _told(diverge.in_rtl(self.build, x, run.rtl, expected, stalls, self.folder, sets))

    def _enter(self, row: dict[str, Any], begin: float) -> None:
        seconds = time.perf_counter() - begin
        row["seconds"] = round(seconds, 3)
        self.result.rows.append(row)
        name = row["simulator"] + ("-stalls" if row["stalls"] else "")
        self.junit.enter(row["backend"], name, seconds, problems([row], None), row)


def _differ(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[int]:
    """How many codes of each result differ."""
    return [int(np.count_nonzero(a != b)) for a, b in zip(results, expected, strict=True)]


def _told(found: diverge.Divergence | None) -> dict[str, Any] | None:
    return found.to_dict() if found else None
