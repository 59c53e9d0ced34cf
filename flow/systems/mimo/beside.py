"""What a network that takes several images in one pass costs in every mode, and the networks that it stands beside.

These are the ordinary network of its depth, width and stem, and the same network with one slot. Neither is trained:
where operations go and what they cost follows from their geometry alone, so that their weights are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.report import energy
from bittrue.rtl.dataflow.plan import Plan, plan

if TYPE_CHECKING:
    from bittrue.flow.systems.mimo.recipe import Recipe
    from bittrue.models.data.sets import Data
    from bittrue.models.superposition.settings import SuperpositionSettings
    from bittrue.sim.program import Program

#: Of the weights that are drawn.
SEED = 0


def by_mode(made: Plan) -> dict[str, dict[str, float]]:
    """The energy of an image, pJ, by images at a time: of additions, products, memories, and in all."""
    grouping = made.program.grouping
    modes = (None,) if grouping is None else grouping.modes
    nothing = [np.zeros((1, *kind.shape), kind.format.dtype) for kind in made.program.inputs.values()]
    return {str(1 if n is None else n): energy.view(made, nothing, toggled=0, size=n)["total"]["pj"] for n in modes}


def networks(network: SuperpositionSettings) -> dict[str, SuperpositionSettings]:
    """The settings of those that a network stands beside, by what they are called; not of the network itself."""
    from bittrue.models.superposition.macs import baseline

    found = {"ordinary network": baseline(network), "one slot": network.model_copy(update={"slots": 1})}
    return {name: settings for name, settings in found.items() if settings != network}


def program(settings: SuperpositionSettings, recipe: Recipe, data: Data) -> Program:
    """A network of drawn weights, in integers as the recipe's."""
    from bittrue.models.superposition import integers
    from bittrue.models.superposition.networks import Superposition

    return integers.quantize(Superposition.for_data(settings, data, SEED), data, recipe.convert).lower()


def told(name: str, made: Plan) -> dict[str, Any]:
    """A plan in figures: cycles between images, products that it forms in a cycle, the estimated area."""
    area = made.estimate
    return {
        "name": name,
        "latency": made.estimated_latency,
        "cycles": made.estimated_interval,
        "products": sum(f.simd * f.pe for f in made.folding.values()),
        "estimated": {part: getattr(area, part) for part in ("lut", "ff", "dsp", "bram")},
    }


def of(recipe: Recipe, data: Data, interval: int) -> list[dict[str, Any]]:
    """The networks beside the recipe's, each planned for as many cycles of a pass."""
    from bittrue.models.superposition.macs import count
    from bittrue.rtl.dataflow.packed import suited

    asked = recipe.rtl.architecture
    architecture = asked if isinstance(asked, str) else suited(recipe.synth.targets)  # by node only for its own
    rows = []
    for name, settings in networks(recipe.network).items():
        made = plan(
            program(settings, recipe, data),
            interval=interval,
            architecture=architecture,
            block_luts=recipe.rtl.block_luts,
            rings=recipe.rtl.rings,
        )
        macs = count(settings, 1, shape=tuple(data.shape), classes=len(data.classes)).total
        rows.append(told(name, made) | {"macs": macs, "pj": by_mode(made)["1"]})
    return rows
