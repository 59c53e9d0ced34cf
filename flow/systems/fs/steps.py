"""What `train`, `quantize` and `spikes` do: an MLP or ResMLP whose activations become FS-neurons.

See `models.fs.convert` for the conversion.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.fs import spikes
from bittrue.flow.systems.fs.recipe import Recipe
from bittrue.flow.verify import backends

#: Test images whose mean work is the energy view's.
WATCHED = 1024


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training with the ordinary activation; leaves `network.pt`."""
    from bittrue.models.networks.mlp import Mlp
    from bittrue.models.networks.resmlp import ResMLP

    data = training.data_of(recipe)
    kind = Mlp if recipe.network.kind == "mlp" else ResMLP
    return training.fit(recipe, work, kind.for_data(recipe.network.settings(), data, recipe.train.seed), data)


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Conversion to FS-neurons and training through the spikes; leaves the program, its test set, and `neurons.npz`.

    Spikes are counted on the test set with the golden simulator; `neurons.npz` holds what belongs to each neuron.
    """
    from bittrue.models.fs import convert as fs_convert
    from bittrue.models.graph.lower import lower as lowered
    from bittrue.models.int8.quantize import post_training
    from bittrue.models.networks.mlp import Mlp
    from bittrue.models.networks.resmlp import ResMLP
    from bittrue.models.training import qat, storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", Mlp, ResMLP)
    work.progress("calibrating", 0, 1)
    quantized = post_training(model, data, recipe.quantize)
    observed = fs_convert.observe(model, data, recipe.convert, quantized)
    network = fs_convert.build(observed, data, recipe.convert)
    made = network.neurons_made
    result: dict[str, Any] = {
        "neuron_set": made.neuron_set.name,
        "steps": made.integers.steps,
        "fraction_bits": made.integers.fraction_bits,
        "percentile": network.percentile,
        "calibration": {str(percentile): score for percentile, score in network.calibration.items()},
        "clipped_in_calibration": {name: list(pair) for name, pair in network.clipped.items()},
        "accuracy_float": accuracy(model, data.test),
        "accuracy_int8": accuracy(quantized, data.test),
        "accuracy_converted": accuracy(network, data.test),
    }
    result["sweep"] = fs_convert.sweep(observed, data, recipe.convert, recipe.sweep, work.progress)
    epochs = None
    if recipe.finetune.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        epochs = qat.fit(network, data, recipe.finetune, checkpoint=checkpoint, progress=training.watch(work))
    result |= training.history(epochs) | {"accuracy": accuracy(network, data.test)}
    if recipe.convert.strict:
        fs_convert.refuse_clipped(network, fs_convert.outside(network, data.test.images))
    program = lowered(network, name=recipe.name, dataset=data.name, classes=list(data.classes))
    training.write_lowered(work, program, network, data)
    counted = spikes.count(program, [network.encode(data.test.images)], work.progress)
    np.savez(work.folder / "neurons.npz", **counted.arrays())
    return result | {"spikes": counted.to_json(), "status": training.trained(result, len(data.test))}


def hardware(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """What the spikes do in hardware: the raster of one test image, golden and RTL, and the energy of an inference."""
    from bittrue.flow.stages import built, read_design
    from bittrue.flow.systems.fs import energy, raster

    program, x, _ = training.read_lowered(work)
    program = built(recipe, program)
    design, verilog = read_design(program, work.upstream["rtl"])
    plan = design.plan
    compiled = recipe.verify.compiled != 0 and backends.find("compiled").missing() is None
    work.progress("raster", 0, 1)
    found = raster.of_rtl(plan, verilog, x) if compiled else raster.of_program(program, x)
    view = energy.view(plan, [v[:WATCHED] for v in x], verilog, energy.TOGGLED if compiled else 0, work.progress)
    return {"rasters": {"image": 0, "layers": [layer.to_json() for layer in found]}, "energy": view}
