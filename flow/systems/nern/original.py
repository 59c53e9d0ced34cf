"""The step `original` of flows with generated kernels: the network whose kernels will be generated, in floats.

It is a step by itself as generators of any size begin with the same one: another `nern.hidden_layer_size` trains a
generator and no original, and so does every point of a sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import kernels, training
from bittrue.flow.engine.statistics import chosen, share
from bittrue.flow.engine.steps import Step, Workspace
from bittrue.flow.engine.system import TRAINING

if TYPE_CHECKING:
    from bittrue.flow.systems.nern.recipe import Recipe
    from bittrue.models.data.sets import Data
    from bittrue.models.nern.target import Target

#: Sections that it reads; of the generator's only what says which kernels are drawn towards each other.
SECTIONS = ("system", "dataset", "network", "train", "nern.output_size", "nern.keep")
NETWORK = "network.pt"


def step(recipe: Recipe) -> Step:  # noqa: ARG001
    """The step, for the system's `first`."""
    code = (*TRAINING, "flow/systems/nern/recipe.py", "flow/systems/nern/original.py")
    return Step("original", run, (), SECTIONS, code, ("torch", "numpy"))


@training.one_thread
def run(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training of the original by the recipe's section `train`; leaves `network.pt`."""
    from bittrue.models.nern import original
    from bittrue.models.nern.networks import Resnet
    from bittrue.models.nern.target import upright
    from bittrue.models.training import storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = Resnet.for_data(recipe.network, data, recipe.train.seed)
    done = original.fit(
        model, data, recipe.train, side=recipe.nern.output_size, keep=recipe.nern.keep,
        checkpoint=work.scratch / "original.pt", progress=training.watch(work),
    )  # fmt: skip
    upright(model)  # for the requantisers of its integers
    storage.save(model, work.folder / NETWORK)
    right, told = accuracy(model, data.test), training.history(done)
    return told | {
        "status": f"float {share(right, len(data.test))}, {chosen(told)}",
        "accuracy": right,
        "kernels": kernels.described(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def target(recipe: Recipe, work: Workspace) -> tuple[Data, Target]:
    """The data set, and the original that the step left, with the kernels which are generated."""
    from bittrue.models.nern.networks import Resnet
    from bittrue.models.nern.target import Target
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    network = storage.load(work.upstream["original"] / NETWORK, Resnet)
    return data, Target(network, recipe.nern.output_size, recipe.nern.keep)
