"""The systems that bittrue can train: each is a module that turns a recipe into a program.

Everything after `lower` knows only the `sim.Program`, so a new kind of network adds one module here and
recipes with its name under `system:`. Such a module has

    Recipe                                  the recipe class: flow.recipe.Recipe with its own sections
    SECTIONS                                those that the steps `train`, `quantize` and `rtl` read, by step
    CODE                                    folders whose sources decide its results, besides `sim`
    train(recipe, work) -> dict             float training; returns what the report shows
    quantize(recipe, work) -> dict          reads `work.upstream["train"]`
    lower(recipe, work) -> dict             reads `work.upstream["quantize"]`
    steps(recipe) -> list of Step           steps of its own, between `verify` and `synth` (may be left out)
    designs(recipe, program) -> dict        Verilog to be placed and routed beside the pipeline: by name, the text and
                                            the targets (may be left out)

where `work` is a `flow.engine.steps.Work`. `lower` leaves in `work.folder` the files `program.npz`, `inputs.npy` (the
encoded test set, or `inputs.npz` by input name), `labels.npy`, and `expected.npy`, the exact integer outputs of the
quantised network in PyTorch on the same inputs (of the program, where it has noise of its own).
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from bittrue.sim.errors import BittrueError

SYSTEMS = {
    "lerp-psa": "bittrue.flow.systems.lerp_psa.recipe",
    "fs": "bittrue.flow.systems.fs.recipe",
    "photonic": "bittrue.flow.systems.light.recipe",
}


def find(name: object) -> ModuleType:
    """The module of a system, or an error that lists the systems there are."""
    if isinstance(name, str) and name in SYSTEMS:
        return importlib.import_module(SYSTEMS[name])
    near = difflib.get_close_matches(str(name), SYSTEMS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = "the key 'system' is missing" if name is None else f"unknown system {name!r}"
    raise BittrueError(f"{what}; {hint}write system: with one of {', '.join(SYSTEMS)}")
