"""Networks of FS-neurons: conversion, training through the spikes, lowering; every tensor equal to the program's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.flow import stages
from bittrue.flow.engine import recipe, steps
from bittrue.flow.systems.fs import spikes
from bittrue.flow.systems.fs.recipe import NetworkPart
from bittrue.models.data.sets import Data, Split, load
from bittrue.models.fs import convert as fs_convert
from bittrue.models.fs.convert import convert, observe
from bittrue.models.fs.settings import Convert, Sweep
from bittrue.models.graph.lower import lower, record
from bittrue.models.int8.quantize import post_training
from bittrue.models.networks.mlp import Mlp
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.networks.settings import MlpSettings, Quantize, ResMLPSettings
from bittrue.models.training import loop as train
from bittrue.models.training import qat, storage
from bittrue.models.training.settings import Qat, Train
from bittrue.sim.errors import BittrueError
from tests.helpers.fs_networks import MLPS, SMALL, pictures, trained
from tests.helpers.lengths import long_but


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def mlp(digits):
    model = Mlp.for_data(MlpSettings(), digits, 1)
    train.fit(model, digits, Train(epochs=25, batch=64, lr=2e-3, weight_decay=0.05))
    return model


def assert_equal_everywhere(network, images):
    """Every tensor of the forward is the program's, in the fast, the traced and the slow execution."""
    program, codes = lower(network), network.encode(images)
    logits = program(codes)
    assert np.array_equal(logits, train.predict(network, images))
    assert np.array_equal(logits[:10], program.reference(codes[:10]))
    recorded, traced = record(network, codes[:100]), program.trace(codes[:100])
    assert recorded.keys() == traced.tensors.keys()
    for name, codes_of in traced.tensors.items():
        assert np.array_equal(recorded[name], codes_of), name
    return program, traced


@pytest.mark.parametrize("gradient", ["straight_through", "triangular"])
@pytest.mark.parametrize("case", long_but(MLPS, *[*MLPS][::2]))
@pytest.mark.usefixtures("last_epoch_kept")
def test_every_tensor_of_an_mlp_before_and_after_training_through_spikes(case, gradient):
    settings, conversion = MLPS[case]
    data = pictures(5, 3, 2)
    network = convert(trained(Mlp, settings, data), data, conversion.model_copy(update={"gradient": gradient}))
    program, traced = assert_equal_everywhere(network, data.test.images)
    fires = sum(int(traced.tensors[name].sum()) for name in traced.tensors if name.startswith("neurons"))
    assert fires > 100  # equal, and not because nothing happens
    before = [p.detach().clone() for p in network.parameters()]
    qat.fit(network, data, Qat(epochs=1, batch=50, lr=1e-2, learn_scales=case == "relu"))
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    changed, _ = assert_equal_everywhere(network, data.test.images)
    assert changed.sha256 != program.sha256


RESMLPS = {
    "relu": (
        ResMLPSettings(patch=2, embed=8, blocks=2, nonlinearity="relu", hidden_factor=2),
        Convert(first="integer"),
    ),
    "swish": (
        ResMLPSettings(patch=2, embed=8, blocks=1, nonlinearity="swish"),
        Convert(first="integer", fraction_bits=7),
    ),
    "spikes from the pixels on": (
        ResMLPSettings(patch=4, embed=12, blocks=1, nonlinearity="relu"),
        Convert(steps=6, bits=6),
    ),
}


@pytest.mark.parametrize("case", RESMLPS)
def test_every_tensor_of_a_resmlp_before_and_after_training_through_spikes(case):
    settings, conversion = RESMLPS[case]
    data = pictures(8, 4, 1)
    model = trained(ResMLP, settings, data)
    network = convert(model, data, conversion, post_training(model, data, Quantize()))
    program, _ = assert_equal_everywhere(network, data.test.images)
    kinds = [type(node.operation).__name__ for node in program.nodes]
    assert kinds.count("FsNeuron") == settings.blocks
    assert kinds.count("SpikingLinear") == settings.blocks + kinds.count("Encode")
    assert kinds.count("Encode") == (conversion.first == "spikes")
    qat.fit(network, data, Qat(epochs=1, batch=50, lr=1e-2, learn_scales=True))
    assert_equal_everywhere(network, data.test.images)


def test_the_rest_of_a_resmlp_is_that_of_its_int8_network():
    data = pictures(8, 4, 1)
    model = trained(ResMLP, RESMLPS["relu"][0], data)
    quantized = post_training(model, data, Quantize())
    before = lower(quantized).sha256
    network = convert(model, data, Convert(first="integer"), quantized)
    codes = network.encode(data.test.images)
    mine, its = record(network, codes), record(quantized, codes)
    upstream = [
        name for name in its if name in mine and not name.startswith(("blocks_0_mlp", "blocks_1", "mean", "cl"))
    ]
    assert len(upstream) == 8
    assert all(np.array_equal(mine[name], its[name]) for name in upstream)
    qat.fit(network, data, Qat(epochs=1, batch=50, lr=1e-2, learn_scales=True))
    assert lower(quantized).sha256 == before  # nothing is shared


def test_swish_in_a_resmlp_of_int8_is_a_table_in_front_of_the_second_linear(digits):
    network = ResMLPSettings(patch=4, embed=8, blocks=2, nonlinearity="swish")
    integer = post_training(trained(ResMLP, network, digits), digits, Quantize())
    program, _ = assert_equal_everywhere(integer, digits.test.images[:100])
    tables = [node.name for node in program.nodes if type(node.operation).__name__ == "Lerp"]
    assert tables == ["blocks_0_mlp_between", "blocks_1_mlp_between"]


def test_a_float_mlp_comes_back_from_its_file(digits, mlp, tmp_path):
    back = storage.load(storage.save(mlp, tmp_path / "network.pt"), Mlp)
    assert np.array_equal(train.predict(back, digits.test.images), train.predict(mlp, digits.test.images))


# -- accuracy ------------------------------------------------------------------------------------------
def test_ten_steps_keep_the_accuracy_of_the_relu_network_without_training(digits, mlp):
    before = train.accuracy(mlp, digits.test)
    assert before > 0.95
    assert train.accuracy(convert(mlp, digits, Convert()), digits.test) >= before - 0.01
    coarse = post_training(mlp, digits, Quantize(bits=6))
    for first in ("spikes", "integer"):
        assert train.accuracy(convert(mlp, digits, Convert(first=first), coarse), digits.test) >= before - 0.02


def test_a_bias_that_is_larger_than_every_logit_is_kept(digits, mlp):
    """Taken off by a neuron that always gives 1."""
    model = copy.deepcopy(mlp)
    with torch.no_grad():
        model.norms[-1].weight[0], model.norms[-1].bias[0] = 0, 1
        model.classifier.weight[:, 0] = 0
        before = train.accuracy(model, digits.test)
        model.classifier.bias[0] += 60
        model.classifier.weight[0, 0] = -60
    assert train.accuracy(convert(model, digits, Convert()), digits.test) >= before - 0.02


@pytest.mark.parametrize("gradient", ["straight_through", "triangular"])
def test_training_through_the_spikes_repairs_a_coarse_network(digits, mlp, gradient):
    network = convert(mlp, digits, Convert(steps=3, bits=3, gradient=gradient))
    before = train.accuracy(network, digits.test)
    qat.fit(network, digits, Qat(epochs=8, batch=64, lr=1e-3))
    assert train.accuracy(network, digits.test) > before + 0.005


def test_the_sweep_is_conversion_with_each_setting(digits, mlp):
    observed, grid = observe(mlp, digits, Convert()), Sweep(steps=(1, 10), bits=(2, 8), images=60)
    rows = fs_convert.sweep(observed, digits, Convert(), grid)
    assert [(row["steps"], row["bits"]) for row in rows] == [(1, 2), (1, 8), (10, 2), (10, 8)]
    some = Split(digits.val.images[:60], digits.val.labels[:60])
    alone = convert(mlp, Data(digits.name, digits.classes, digits.train, some, some, digits.gain), Convert())
    assert rows[-1]["accuracy"] == train.accuracy(alone, some)
    assert rows[0]["accuracy"] < rows[-1]["accuracy"]
    assert fs_convert.sweep(observed, digits, Convert(), Sweep(images=0)) == []


# -- values outside, and other bad input ---------------------------------------------------------------
def test_values_outside_the_valid_range_are_counted_as_the_golden_simulator_counts_them(digits, mlp):
    network = convert(mlp, digits, Convert(percentiles=(97.0,)))
    program, images = lower(network), digits.train.images[:1000]
    traced = program.trace(network.encode(images))
    counted = fs_convert.outside(network, images)
    assert counted == network.clipped
    assert {name.replace(".", "_"): clipped for name, (clipped, _) in counted.items()} == {
        name: count for name, count in traced.saturation.items() if name.startswith("neurons")
    }
    assert all(0.003 < clipped / total < 0.1 for clipped, total in counted.values())
    with pytest.raises(
        BittrueError, match=r"layer neurons.0: \d+ of 64000 inputs lie outside .*convert.strict forbids"
    ):
        convert(mlp, digits, Convert(percentiles=(97.0,), strict=True))
    convert(mlp, digits, Convert(percentiles=(100.0,), headroom=0.05, strict=True))


def test_an_activation_without_a_neuron_set_is_named_with_its_place(digits):
    model = Mlp.for_data(MlpSettings(hidden=(8, 8), nonlinearity="gelu"), digits, 1)
    with pytest.raises(BittrueError, match=r"functions.0 \(GELU\): no neuron set is published for gelu; .*bittrue fit"):
        convert(model, digits, Convert())
    model = Mlp.for_data(SMALL, digits, 1)
    model.functions[1] = nn.Tanh()
    with pytest.raises(BittrueError, match=r"functions.1 \(Tanh\): no neuron set is known"):
        convert(model, digits, Convert())
    model.functions[1] = nn.SiLU()
    with pytest.raises(BittrueError, match=r"functions.1 \(SiLU\) is another than functions.0 \(ReLU\)"):
        convert(model, digits, Convert())
    model = ResMLP.for_data(ResMLPSettings(patch=4, embed=8, blocks=1), digits, 1)
    with pytest.raises(BittrueError, match=r"blocks.0.mlp.before \(LerpPsa\): it is learned"):
        convert(model, digits, Convert())
    with pytest.raises(BittrueError, match="cannot convert a Linear"):
        convert(nn.Linear(2, 2), digits, Convert())


def test_the_int8_network_of_another_model_is_refused(digits):
    settings = ResMLPSettings(patch=4, embed=8, blocks=1, nonlinearity="relu")
    model = ResMLP.for_data(settings, digits, 1)
    with pytest.raises(BittrueError, match="a ResMLP was given as `quantized`; give .*quantize"):
        convert(model, digits, Convert(), model)
    other = ResMLP.for_data(settings.model_copy(update={"embed": 9}), digits, 1)
    with pytest.raises(BittrueError, match=r"of another model: its layer embed has weights \[9, 16\], not \[8, 16\]"):
        convert(model, digits, Convert(), post_training(other, digits, Quantize()))


@pytest.mark.parametrize(
    ("nonlinearity", "settings", "says"),
    [
        ("swish", {"steps": 10}, "has 16 steps, and convert.steps asks for 10.*bittrue fit swish --steps 10"),
        ("relu", {"neurons": "swish"}, "approximates swish, not relu"),
        ("relu", {"neurons": "rely"}, "no neuron set is named 'rely'"),
    ],
)
def test_a_neuron_set_that_does_not_fit_is_refused(digits, nonlinearity, settings, says):
    model = Mlp.for_data(MlpSettings(hidden=(8,), nonlinearity=nonlinearity), digits, 1)
    with pytest.raises(BittrueError, match=says):
        convert(model, digits, Convert(**settings))


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Convert, {"steps": 0}, "steps"),
        (Convert, {"steps": 17}, "steps"),
        (Convert, {"fraction_bits": 17}, "fraction_bits"),
        (Convert, {"bits": 1}, "bits"),
        (Convert, {"percentiles": ()}, "at least one"),
        (MlpSettings, {"hidden": ()}, "at least one hidden layer"),
        (MlpSettings, {"hidden": (8, 0)}, "hidden"),
        (MlpSettings, {"nonlinearity": "lerp_psa"}, "gelu"),
    ],
)
def test_settings_name_what_is_wrong(kind, values, says):
    with pytest.raises(ValidationError, match=says):
        kind(**values)


# -- counting ------------------------------------------------------------------------------------------
def test_spikes_and_synaptic_operations_are_counted_one_by_one():
    data = pictures(8, 4, 1)
    model = trained(ResMLP, RESMLPS["spikes from the pixels on"][0], data)
    network = convert(model, data, Convert(steps=5), post_training(model, data, Quantize()))
    program, codes = lower(network), network.encode(data.train.images)  # more than one block of inputs
    assert len(codes) > spikes.BLOCK
    found, traced = spikes.count(program, [codes]), program.trace(codes)
    assert [train.name for train in found.trains] == ["encoder", "blocks_0_mlp_neurons"]
    for kind in found.trains:
        z, node = traced.tensors[kind.name], next(n for n in program.nodes if n.name == kind.name)
        v = traced.tensors[node.operands[0]]
        assert np.array_equal(kind.per_neuron, z.sum(axis=(0, 2)))
        assert np.array_equal(kind.per_step, z.sum(axis=(0, 1, 3)))
        assert kind.spikes == z.sum() > 0
        assert kind.clipped == traced.saturation[kind.name]
        assert np.allclose(kind.mean, v.mean(axis=0))
        assert np.allclose(kind.deviation, v.std(axis=0))
        assert np.allclose(kind.overall, (v.mean(), v.std()))
    for layer in found.synapses:
        operation, additions = program[layer.name], 0
        for z in traced.tensors[layer.source]:
            additions += len(operation.weight) * int(np.count_nonzero(z))
        assert layer.operations == additions
        assert layer.macs == operation.macs
    content = found.to_json()
    assert content["in_all"]["neurons"] == found.trains[1].neurons
    assert content["in_all"]["spiking_macs"] + content["in_all"]["other_macs"] == program.macs
    with pytest.raises(BittrueError, match="no inputs"):
        spikes.count(program, [codes[:0]])


# -- the flow ------------------------------------------------------------------------------------------
QUICK = ["train.epochs=2", "finetune.epochs=1", "sweep.images=20", "sweep.steps=[3,10]", "sweep.bits=[4,8]"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("fs-mlp-digits", ["network.hidden=[16,12]"]),
        ("fs-swish-mlp-digits", ["network.hidden=[12]", "sweep.fraction_bits=[6]"]),
        (
            "fs-resmlp-fashion-mnist",
            ["dataset.name=digits", "network.embed=8", "network.blocks=1", "finetune.batch=64", "train.batch=64"],
        ),
    ],
)
def test_the_flow_from_recipe_to_golden(tmp_path, name, more):
    made = recipe.load(name, QUICK + more)
    outcomes = {o.step: o for o in steps.run(stages.steps(made), made, tmp_path, until="simulate")}
    assert outcomes["simulate"].result["mismatches_with_network"] == 0
    found = outcomes["quantize"].result
    assert outcomes["simulate"].result["accuracy"] == found["accuracy"]
    assert found["accuracy_float"] == outcomes["train"].result["accuracy"]
    assert {"accuracy_converted", "accuracy_int8", "sweep", "spikes", "clipped_in_calibration"} <= set(found)
    saturation = outcomes["simulate"].result["saturation"]
    for layer in found["spikes"]["layers"]:
        assert layer["spikes"] == sum(layer["per_step"]) > 0
        assert layer["clipped"] == saturation[layer["name"]]
    again = recipe.load(name, [*QUICK, *more, "convert.bits=6"])
    outcomes = {o.step: o for o in steps.run(stages.steps(again), again, tmp_path, until="lower")}
    assert not outcomes["train"].ran
    assert outcomes["quantize"].ran
    assert "convert changed" in outcomes["quantize"].why


@pytest.mark.parametrize("name", [name for name in recipe.shipped() if name.startswith("fs-")])
def test_every_shipped_recipe_has_the_function_in_its_name(name):
    made = recipe.load(name)
    assert made.network.settings().nonlinearity == ("swish" if "swish" in name else "relu")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("network.embed=32", "embed does not belong to kind mlp"),
        ("network.kind=resmlp", "hidden does not belong to kind resmlp|resmlp"),
        ("network.hiden=[3]", "did you mean 'network.hidden'"),
        ("convert.roundin=nearest", "did you mean 'convert.rounding'"),
        ("convert.steps=99", "less than or equal to 16"),
    ],
)
def test_a_recipe_says_what_is_wrong(override, says):
    with pytest.raises(BittrueError, match=says):
        recipe.load("fs-mlp-digits", [override, "network.hidden=[8]"])


@pytest.mark.parametrize(
    ("kind", "nonlinearity", "settings"), [("mlp", "gelu", MlpSettings), ("resmlp", "swish", ResMLPSettings)]
)
def test_the_settings_of_each_kind_of_network(kind, nonlinearity, settings):
    part = NetworkPart(kind=kind, nonlinearity=nonlinearity)
    assert type(part.settings()) is settings
    assert part.settings().nonlinearity == nonlinearity
