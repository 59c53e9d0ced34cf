"""The system `fs`: a trained MLP or ResMLP whose activations become FS-neurons, spikes that few additions read.

See `flow.engine.registry` for what a system provides, `models.fs.convert` for the conversion.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from bittrue.flow import stages
from bittrue.flow.engine import recipe as common
from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Step, Work
from bittrue.flow.systems.fs import spikes
from bittrue.flow.verify import backends
from bittrue.models.fs.settings import Convert, Sweep
from bittrue.models.networks.settings import Activation, MlpSettings, Quantize, ResMLPSettings
from bittrue.models.settings import Settings
from bittrue.models.training.settings import Qat, Train

CODE = ("models", "flow/engine/training.py", "flow/systems/fs/spikes.py")
SECTIONS = {"train": ("network", "train"), "quantize": ("convert", "quantize", "finetune", "sweep")}

#: Test images whose mean work is the energy view's.
WATCHED = 1024

_OF_MLP, _OF_RESMLP = ("hidden", "norm"), ("patch", "embed", "blocks", "hidden_factor")


class NetworkPart(Settings):
    """An MLP (`hidden`, `norm`) or a ResMLP (the other keys); see `models.networks.settings`."""

    kind: Literal["mlp", "resmlp"] = "mlp"
    nonlinearity: Activation = "relu"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64, 64)
    norm: bool = True
    patch: int = Field(4, ge=1)
    embed: int = Field(64, ge=1)
    blocks: int = Field(3, ge=1)
    hidden_factor: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _own_keys(self) -> Self:
        for name in _OF_RESMLP if self.kind == "mlp" else _OF_MLP:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} does not belong to kind {self.kind}; leave it out or choose the other kind")
        self.settings()
        return self

    def settings(self) -> MlpSettings | ResMLPSettings:
        """The settings of the network of this kind."""
        if self.kind == "mlp":
            return MlpSettings(nonlinearity=self.nonlinearity, hidden=self.hidden, norm=self.norm)
        if self.nonlinearity not in ("relu", "swish"):
            raise ValueError(f"a resmlp has nonlinearity relu or swish, not {self.nonlinearity}")
        return ResMLPSettings(nonlinearity=self.nonlinearity, **{name: getattr(self, name) for name in _OF_RESMLP})


class Recipe(common.Recipe):
    """A recipe of this system. `quantize` is for what is not spiking in a ResMLP, `finetune` trains through spikes."""

    system: Literal["fs"]
    network: NetworkPart = NetworkPart()
    train: Train = Train()
    convert: Convert = Convert()
    quantize: Quantize = Quantize()
    finetune: Qat = Qat(epochs=0)
    sweep: Sweep = Sweep()


def train(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Float training with the ordinary activation; leaves `network.pt`."""
    from bittrue.models.networks.mlp import Mlp
    from bittrue.models.networks.resmlp import ResMLP

    data = training.data_of(recipe)
    kind = Mlp if recipe.network.kind == "mlp" else ResMLP
    return training.fit(recipe, work, kind.for_data(recipe.network.settings(), data, recipe.train.seed), data)


def quantize(recipe: Recipe, work: Work) -> dict[str, Any]:
    """Conversion to FS-neurons and training through the spikes; leaves `integer.pt` and `neurons.npz`.

    Spikes are counted on the test set with the golden simulator; `neurons.npz` holds what belongs to each neuron.
    """
    from bittrue.models.fs import convert as fs_convert
    from bittrue.models.int8.quantize import post_training
    from bittrue.models.networks.mlp import Mlp
    from bittrue.models.networks.resmlp import ResMLP
    from bittrue.models.training import qat, storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = storage.load(work.upstream["train"] / "network.pt", Mlp, ResMLP)
    work.progress("calibrating", 0, 1)
    quantized = post_training(model, data, recipe.quantize) if isinstance(model, ResMLP) else None
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
        "accuracy_converted": accuracy(network, data.test),
        "history": [],
    }
    if quantized is not None:
        result["accuracy_int8"] = accuracy(quantized, data.test)
    result["sweep"] = fs_convert.sweep(observed, data, recipe.convert, recipe.sweep, work.progress)
    if recipe.finetune.epochs:
        checkpoint = work.scratch / "checkpoint.pt"
        epochs = qat.fit(network, data, recipe.finetune, checkpoint=checkpoint, progress=training.watch(work))
        result["history"] = training.history(epochs)
    result["accuracy"] = accuracy(network, data.test)
    if recipe.convert.strict:
        fs_convert.refuse_clipped(network, fs_convert.outside(network, data.test.images))
    counted = spikes.count(_program(network, recipe, data), [network.encode(data.test.images)], work.progress)
    storage.save(network, work.folder / "integer.pt")
    np.savez(work.folder / "neurons.npz", **counted.arrays())
    return result | {"spikes": counted.to_json()}


def lower(recipe: Recipe, work: Work) -> dict[str, Any]:
    """The program, the encoded test set, and the network's own integer logits on it."""
    from bittrue.models.fs.networks import FsMlp, FsResMLP
    from bittrue.models.training import storage

    data = training.data_of(recipe)
    network = storage.load(work.upstream["quantize"] / "integer.pt", FsMlp, FsResMLP)
    return training.write_lowered(work, _program(network, recipe, data), network, data)


def steps(recipe: Recipe) -> list[Step]:  # noqa: ARG001
    """The step `spikes`."""
    code = tuple(f"flow/systems/fs/{name}.py" for name in ("recipe", "spikes", "raster"))
    code += tuple(f"flow/run/{name}.py" for name in ("waves", "probe", "toggles"))
    code += ("flow/report/energy.py", "flow/report/work.py", *backends.SIMULATORS)
    return [Step("spikes", hardware, ("lower", "rtl"), ("verify",), code, (), stages.tools)]


def hardware(recipe: Recipe, work: Work) -> dict[str, Any]:
    """What the spikes do in hardware: the raster of one test image, golden and RTL, and the energy of an inference."""
    from bittrue.flow.report import energy
    from bittrue.flow.systems.fs import raster
    from bittrue.rtl.dataflow.plan import Plan

    program, x, _ = training.read_lowered(work)
    plan = Plan.from_json(program, json.loads((work.upstream["rtl"] / "plan.json").read_text()))
    verilog = (work.upstream["rtl"] / "bittrue_top.v").read_text()
    compiled = recipe.verify.compiled != 0 and backends.find("compiled").missing() is None
    work.progress("raster", 0, 1)
    found = raster.of_rtl(plan, verilog, x) if compiled else raster.of_program(program, x)
    view = energy.view(plan, [v[:WATCHED] for v in x], verilog, energy.TOGGLED if compiled else 0, work.progress)
    return {"rasters": {"image": 0, "layers": [layer.to_json() for layer in found]}, "energy": view}


def _program(network, recipe: Recipe, data):
    from bittrue.models.graph.lower import lower as to_program

    return to_program(network, name=recipe.name, dataset=data.name, classes=list(data.classes))
