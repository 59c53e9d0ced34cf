"""The step `controller` of photonic flows: what would drive a real array, verified with the array's twin behind it.

Compiled, its weights are in memory; under cocotb they are streamed. Everywhere an AXI4-Lite master reads registers,
provokes an error and clears it. The step keeps `controller.v`, the one with streamed weights, `controller_memory.v`,
and an SVD file of the registers beside either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.engine.training import read_lowered
from bittrue.flow.run.sources import SIMULATORS
from bittrue.flow.systems.light.recipe import Recipe
from bittrue.flow.verify import backends
from bittrue.flow.verify.backends import Stalls
from bittrue.sim.program import Program

if TYPE_CHECKING:
    from bittrue.rtl.light.design import PhotonicDesign
    from bittrue.rtl.light.jobs import Geometry

#: Where the weights come from -> file, and the simulators that take that design.
VARIANTS = {"memory": ("controller_memory", ("compiled",)), "stream": ("controller", ("icarus", "verilator"))}


def step(recipe: Recipe) -> Step:  # noqa: ARG001
    """The step, for the system's `steps`."""
    here = tuple(f"flow/systems/light/{name}.py" for name in ("controller", "energy"))
    code = (*here, "flow/report/energy.py", "flow/verify/verify.py", "flow/verify/diverge.py", "flow/run/probe.py")
    return Step(
        "controller",
        run,
        ("lower",),
        ("array", "controller", "verify"),
        ("sim", "rtl", *code, *SIMULATORS),
        ("amaranth", "cocotb", "verilator"),
        lambda recipe: backends.installed(recipe.controller.counts),
    )


def designs(recipe: Recipe, program: Program) -> Sequence[tuple[PhotonicDesign, tuple[str, ...]]]:
    """What is placed and routed beside the pipeline: the controller without array, weights streamed."""
    part = recipe.controller
    return [(design(recipe, program, "stream", twin=False), part.synth)] if part.synth else []


def design(recipe: Recipe, program: Program, weights: str = "memory", *, twin: bool = True) -> PhotonicDesign:
    """The controller of a recipe."""
    from bittrue.rtl.light.design import PhotonicDesign

    part = recipe.controller
    return PhotonicDesign(program, geometry(recipe, program), part.settling, weights, part.images, twin=twin)


def geometry(recipe: Recipe, program: Program) -> Geometry:
    """The array of a recipe, with the most lanes that suit it and the images."""
    from bittrue.rtl.light.jobs import Geometry

    (image,) = program.inputs.values()
    rows, columns = recipe.array.rows, recipe.array.columns
    return Geometry(rows, columns, math.gcd(recipe.controller.lanes, rows, columns, image.channels))


def run(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Verify controller and twin; the result's rows are those of `flow.verify.verify`."""
    from bittrue.flow.stages import write_design
    from bittrue.flow.systems.light.energy import estimate
    from bittrue.flow.verify.verify import verify

    program, x, _ = read_lowered(work)
    part, array = recipe.controller, recipe.array
    stalls = Stalls(recipe.verify.idle, recipe.verify.backpressure, recipe.verify.seed)
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    problems: list[str] = []
    for weights, (file, simulators) in VARIANTS.items():
        made = design(recipe, program, weights)
        write_design(made, work.folder, name=file)
        counts = {name: part.counts[name] for name in simulators}
        found = verify(made, x, counts, stalls, work.folder / weights, work.progress)
        rows += found.rows
        skipped += found.skipped
        problems += found.problems
    jobs = made.jobs
    sizes = (jobs.input.channels, *(layer.outputs for layer in jobs.layers))
    result = {
        "rows": rows,
        "skipped": skipped,
        "problems": problems,
        "rows_of_array": array.rows,
        "columns": array.columns,
        "lanes": jobs.geometry.lanes,
        "settling": part.settling,
        "images_per_load": part.images,
        "measurements": len(jobs.work),
        "cycles_per_image": made.interval,
        "energy": [estimate(sizes, array, images) for images in sorted({1, part.images})],
    }
    final = work.folder.parent / "controller"  # the waveform moves there with the step's folder
    return json.loads(json.dumps(result).replace(json.dumps(str(work.folder))[1:-1], json.dumps(str(final))[1:-1]))
