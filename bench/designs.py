"""Designs of more than one benchmark: which are asked for, and those of recipes before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.sim.errors import BittrueError


def chosen(bench: str, designs: Sequence[str], few: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """The designs of these names; a few where none is named, and every one for `all`."""
    for name in designs:
        if name not in (*names, "all"):
            raise BittrueError(f"{bench}: no design is named {name!r}; there are {'; '.join(names)}; and all")
    return names if "all" in designs else designs or few


def untrained(name: str) -> Plan:
    """The design of a recipe, its network as it is before training."""
    from bittrue.flow.engine import recipe as recipes
    from bittrue.flow.engine import training
    from bittrue.models.int8.quantize import of_codes, post_training
    from bittrue.models.networks.convolution import Convolution
    from bittrue.models.networks.resmlp import ResMLP

    recipe: Any = recipes.load(name)
    data = training.data_of(recipe)
    make = Convolution if recipe.system == "cnn" else ResMLP
    model: Any = make.for_data(recipe.network, data, recipe.train.seed).eval()
    if recipe.system == "cnn":
        program = of_codes(model, data, **recipe.convert.model_dump()).lower(name=name)
    else:
        program = post_training(model, data, recipe.quantize).lower(name=name)
    if recipe.rtl.interval is not None:
        return plan(program, interval=recipe.rtl.interval)
    return plan(program, device=recipe.rtl.device)
