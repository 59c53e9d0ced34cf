"""What `train` does, and what is not there yet: a network that takes several images in one pass, in float."""

from __future__ import annotations

from typing import Any

from bittrue.flow.engine import kernels, training
from bittrue.flow.engine.statistics import share
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.mimo.recipe import Recipe
from bittrue.sim.errors import BittrueError


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training; leaves `network.pt`. `modes` are the accuracies on the test set by images at a time, each in one
    random pairing; `accuracy` is that of all slots taken."""
    from bittrue.models.superposition import evaluate, logs
    from bittrue.models.superposition.networks import Superposition
    from bittrue.models.superposition.train import fit
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    model = Superposition.for_data(recipe.network, data, recipe.train.seed)
    checkpoint = work.scratch / "checkpoint.pt"
    with logs.tensorboard(recipe.log.tensorboard) as log:
        done = fit(model, data, recipe.train, checkpoint=checkpoint, progress=training.watch(work), log=log)
    storage.save(model, work.folder / "network.pt")
    work.progress("evaluating", 1, 1)
    modes = evaluate.validate(model, data.test, recipe.network.modes, 1)
    accuracies = {str(mode.images): mode.mean for mode in modes}
    accuracy = accuracies[str(recipe.network.slots)]
    words = [f"float {share(accuracy, len(data.test))} with {recipe.network.slots} images at a time"]
    words.append(f"the last of {len(done.history)} epochs")
    if done.transferred is not None:
        words.append(str(done.transferred))
    return training.history(done.history) | {
        "status": "; ".join(words),
        "accuracy": accuracy,
        "modes": accuracies,
        "figures": list(done.figures),
        "transferred": None if done.transferred is None else str(done.transferred),
        "kernels": kernels.described(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
    }


def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:  # noqa: ARG001 - a step is called so
    """Not there yet: says so."""
    raise BittrueError(
        f"quantize: the network of {recipe.name} is trained, but networks that take several images in one pass are not "
        "yet made into integers, so that there is no program, no RTL and no HLS of one; end the flow with --until "
        f"train, and see its modes with bittrue mimo validate {recipe.name}"
    )
