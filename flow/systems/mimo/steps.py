"""What `train` and `quantize` do: a network that takes several images in one pass, in floats and in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import kernels, training
from bittrue.flow.engine.statistics import share
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.mimo import told
from bittrue.flow.systems.mimo.recipe import Recipe
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    import numpy as np

    from bittrue.models.data.sets import Data
    from bittrue.models.int8.converted import Converted
    from bittrue.sim.program import Program


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training; leaves `network.pt`. `modes` are the accuracies on the test set by images at a time, each in one
    random pairing; `accuracy` is that of all slots taken."""
    from bittrue.models.superposition import evaluate
    from bittrue.models.superposition.networks import Superposition
    from bittrue.models.superposition.train import fit
    from bittrue.models.training import logs, storage

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


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """The network in integers, and its training in these; leaves the program and its test set.

    `modes` has, by images at a time, the accuracies on the test set in its own order: `float`, `converted`, `quantized`
    (trained in integers, where it was) and `golden`, of the program. That this has the integers' logits, bit for bit,
    is held here in every mode. `accuracy` is that of the most images at a time, which the program has at first.
    """
    import numpy as np

    from bittrue.models.superposition import evaluate, integers
    from bittrue.models.superposition.networks import Superposition
    from bittrue.models.training import storage

    data, modes = training.data_of(recipe), recipe.modes
    model = storage.load(work.upstream["train"] / "network.pt", Superposition)
    work.progress("calibrating", 0, 1)
    integer = integers.quantize(model, data, recipe.convert, modes)
    order = np.arange(len(data.test))
    work.progress("evaluating", 1, 1)
    found = {"float": {n: evaluate.judge(model, data.test, n, order)[0] for n in modes}}
    found["converted"] = _golden(integer.lower(), integer, data)[0]
    epochs = None
    if recipe.qat.epochs:
        low = recipe.train.low if len(modes) > 1 else None
        epochs = integers.fit(
            integer, data, recipe.qat, low=low, frequency=recipe.train.frequency if low is not None else 1.0,
            checkpoint=work.scratch / "checkpoint.pt", progress=training.watch(work),
        )  # fmt: skip
    program = integer.lower(name=recipe.name, dataset=data.name, classes=list(data.classes))
    work.progress("evaluating", 1, 1)
    found["quantized"], found["golden"] = _in_golden(integer, program, data)
    integer.at_a_time = modes[-1]
    training.write_lowered(work, program, integer, data)
    result = training.history(epochs) | {"accuracy_converted": found["converted"][modes[-1]]}
    result |= {"accuracy": found["quantized"][modes[-1]], "slots": recipe.network.slots}
    result["modes"] = {str(n): {name: one[n] for name, one in found.items()} for n in modes}
    result |= told.of(program, integer.encode(data.test.images), recipe.network, data.shape, len(data.classes))
    words = training.trained(result, len(data.test))
    if len(modes) > 1:
        words += "; " + ", ".join(f"{n} at a time {100 * found['quantized'][n]:.2f} %" for n in modes)
    return result | {"status": words}


@training.one_thread
def modes(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """What an image costs: `energy`, pJ by images at a time (`source`); `products` a cycle and `estimated` area of the
    plan; and `beside`, the same of the networks that take one image, each planned for as many cycles of a pass."""
    from bittrue.flow.report import energy
    from bittrue.flow.stages import built, read_design
    from bittrue.flow.systems.mimo import beside

    program, _, _ = training.read_lowered(work)
    design, _ = read_design(built(recipe, program), work.upstream["rtl"])
    made = design.plan
    interval = recipe.rtl.interval or max([made.estimated_interval, *(cycles for _, cycles in made.modes.values())])
    work.progress("planning the networks beside it", 0, 1)
    own = beside.told(recipe.name, made)
    result = {name: own[name] for name in ("products", "estimated")} | {"energy": beside.by_mode(made)}
    result |= {"source": energy.SOURCE, "interval": interval}
    return result | {"beside": beside.of(recipe, training.data_of(recipe), interval)}


def _golden(program: Program, integer: Converted, data: Data) -> tuple[dict[int, float], dict[int, np.ndarray]]:
    """The program's accuracies on the test set, and its logits, by images at a time."""
    from bittrue.models.superposition import integers
    from bittrue.models.training.loop import share

    codes = integer.encode(data.test.images)
    logits = {n: integers.logits(program, codes, n) for n in integer.modes}
    return {n: share(found, data.test.labels) for n, found in logits.items()}, logits


def _in_golden(integer: Converted, program: Program, data: Data) -> tuple[dict[int, float], dict[int, float]]:
    """Accuracies on the test set by images at a time, of integers and of their program, whose logits are the same."""
    import torch

    from bittrue.models.layers.lowering import whole
    from bittrue.models.training.loop import predict, share

    accuracies, golden = _golden(program, integer, data)
    found = {}
    for n in integer.modes:
        integer.at_a_time = n
        logits = whole(torch.from_numpy(predict(integer, data.test.images)))
        wrong = int((golden[n] != logits).sum())
        if wrong:
            raise BittrueError(
                f"quantize: {wrong} of {logits.size} results of the program are not those of its network with {n} "
                "images at a time, which is a fault of bittrue; report it with the recipe"
            )
        found[n] = share(logits, data.test.labels)
    return found, accuracies
