"""Post-training quantisation, exact QAT and lowering: the program is the network, tensor for tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.data.sets import Data, Split, load
from bittrue.models.graph.lower import lower, record
from bittrue.models.int8.converted import Converted
from bittrue.models.int8.quantize import post_training
from bittrue.models.layers.integer import (
    CodeStep,
    IntegerLinear,
)
from bittrue.models.layers.tensors import TensorInput
from bittrue.models.layers.windows import TensorMean
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.networks.settings import Quantize, ResMLPSettings
from bittrue.models.training import loop as train
from bittrue.models.training import qat
from bittrue.models.training.settings import Qat, Train
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def pictures(height, width, channels, classes=4, seed=1):
    """Random images with a label that depends on them, for geometries that `digits` does not have."""
    rng = np.random.default_rng(seed)

    def split(n):
        images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        return Split(images, images.reshape(n, -1)[:, :8].sum(1) % classes)

    return Data("pictures", tuple("abcdefgh"[:classes]), split(300), split(60), split(60))


def trained(data, network, epochs=2):
    model = ResMLP.for_data(network, data, 1)
    train.fit(model, data, Train(epochs=epochs, batch=60, lr=3e-3))
    return model


def assert_equal_everywhere(integer: Converted, program: Program, images: np.ndarray):
    codes = integer.encode(images)
    logits = program(codes)
    assert np.array_equal(logits, train.predict(integer, images))
    assert np.array_equal(logits[:20], program.reference(codes[:20]))
    recorded, traced = record(integer, codes[:200]), program.trace(codes[:200]).tensors
    assert recorded.keys() == traced.keys()
    for name in traced:
        assert np.array_equal(recorded[name], traced[name]), name
    return traced


CASES = {
    "lerp_psa": (ResMLPSettings(patch=2, embed=16, blocks=2), Quantize()),
    "psa": (ResMLPSettings(patch=4, embed=8, blocks=1, nonlinearity="psa", hidden_factor=0.5), Quantize(segments=256)),
    "relu": (ResMLPSettings(patch=2, embed=16, blocks=2, nonlinearity="relu", hidden_factor=2), Quantize()),
    "6 bits": (ResMLPSettings(patch=2, embed=16, blocks=1), Quantize(bits=6, segments=16)),
    "one token": (ResMLPSettings(patch=8, embed=12, blocks=1, hidden_factor=1.3), Quantize(segments=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_of_the_program_is_that_of_the_network(digits, case):
    network, settings = CASES[case]
    integer = post_training(trained(digits, network), digits, settings)
    assert_equal_everywhere(integer, lower(integer), digits.test.images)
    qat.fit(integer, digits, Qat(epochs=1, batch=100, learn_scales=case == "lerp_psa"))
    program = lower(integer)
    traced = assert_equal_everywhere(integer, program, digits.test.images)
    assert all(len(np.unique(tensor)) > 8 for tensor in traced.values()), "a dead tensor proves nothing"
    tokens = (8 // network.patch) ** 2
    assert traced["x"].shape == ((200, tokens, network.patch**2) if tokens > 1 else (200, 64))


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((12, 20, 3), ResMLPSettings(patch=4, embed=10, blocks=1)),  # 15 tokens: not a power of two
        ((32, 32, 1), ResMLPSettings(patch=32, embed=4, blocks=1, nonlinearity="relu")),  # 1024 inputs: beyond float32
    ],
)
def test_other_geometries_are_exact_as_well(shape, network):
    data = pictures(*shape)
    integer = post_training(trained(data, network), data, Quantize())
    qat.fit(integer, data, Qat(epochs=1, batch=60))
    assert_equal_everywhere(integer, lower(integer), data.test.images)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("nonlinearity", ["lerp_psa", "relu"])
def test_digits_reach_their_accuracy_and_every_logit_is_equal(digits, nonlinearity):
    hidden = 1 if nonlinearity == "lerp_psa" else 2
    model = ResMLP.for_data(
        ResMLPSettings(patch=2, embed=32, blocks=2, nonlinearity=nonlinearity, hidden_factor=hidden), digits, 1
    )
    train.fit(model, digits, Train(epochs=60, batch=64, lr=3e-3, weight_decay=0.05))
    integer = post_training(model, digits, Quantize())
    qat.fit(integer, digits, Qat(epochs=10, batch=64))
    program = lower(integer)
    assert_equal_everywhere(integer, program, digits.test.images)
    logits = program(integer.encode(digits.test.images))
    golden = float((logits.argmax(1) == digits.test.labels).mean())
    assert golden == train.accuracy(integer, digits.test)
    assert golden >= 0.96
    assert golden >= train.accuracy(model, digits.test) - 0.015


def test_qat_trains_the_integers(digits):
    integer = post_training(trained(digits, ResMLPSettings(patch=2, embed=16, blocks=1)), digits, Quantize())
    before = train.accuracy(integer, digits.train)
    history = qat.fit(integer, digits, Qat(epochs=4, batch=60, lr=2e-3))
    assert history[-1].loss < history[0].loss
    assert train.accuracy(integer, digits.train) > before + 0.02


@pytest.mark.parametrize("nonlinearity", ["psa", "lerp_psa", "relu"])
@pytest.mark.parametrize("tokens", [9, 16])  # with 9 the mean is shifted by 4: the classifier makes up for it
def test_quantisation_follows_the_float_network(digits, nonlinearity, tokens):
    data = digits if tokens == 16 else pictures(6, 6, 1)
    model = trained(data, ResMLPSettings(patch=2, embed=16, blocks=2, nonlinearity=nonlinearity), epochs=5)
    integer = post_training(model, data, Quantize(percentiles=(99.97,)))
    assert integer.shapes[0][0] == tokens
    real = train.predict(model, data.test.images)
    codes = train.predict(integer, data.test.images) * float(integer.scale)
    assert np.corrcoef(real.ravel(), codes.ravel())[0, 1] > 0.97
    assert (real * codes).sum() / (real * real).sum() == pytest.approx(1, abs=0.1)


def test_a_large_bias_is_not_clipped(digits):
    model = trained(digits, ResMLPSettings(patch=2, embed=16, blocks=2, nonlinearity="relu"), epochs=5)
    before = train.predict(model, digits.test.images)
    with torch.no_grad():  # a channel with a large mean, which every normalisation takes away again
        model.embed.bias[3] += 40
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean[3] += 40
    np.testing.assert_allclose(train.predict(model, digits.test.images), before, atol=1e-2)
    integer = post_training(model, digits, Quantize(percentiles=(99.0,)))
    found = record(integer, integer.encode(digits.test.images))["embed"][..., 3] * integer.layers[0].scale
    assert np.abs(found - 40).max() < 2


def test_the_percentile_is_chosen_on_the_validation_split(digits):
    model = trained(digits, ResMLPSettings(patch=2, embed=16, blocks=1), epochs=5).train()
    integer = post_training(model, digits, Quantize(percentiles=(60.0, 99.9)))
    assert integer.ranges == 99.9
    assert integer.scores[99.9] == train.accuracy(integer, digits.val) > integer.scores[60.0]
    assert model.training  # it is left as it is


def test_a_program_of_a_resmlp_has_no_operation_more_than_it_needs(digits):
    """Normalisations and scales are within the products and tables, but for those around the product over tokens."""
    for nonlinearity, block in (("relu", ["Linear", "Linear"]), ("psa", ["Lerp", "Linear", "Lerp", "Linear"])):
        model = trained(digits, ResMLPSettings(patch=2, embed=16, blocks=1, nonlinearity=nonlinearity))
        integer = post_training(model, digits, Quantize(), own_steps=False)
        mixes = ["Affine", "Transpose", "Linear", "Transpose", "Affine", "Add"]
        kinds = [type(node.operation).__name__ for node in lower(integer).nodes]
        assert kinds == ["Linear", *mixes, *block, "Add", "Mean", "Linear"]


def test_meta_tells_what_the_integers_mean(digits):
    model = trained(digits, ResMLPSettings(patch=2, embed=16, blocks=1, terms=4), epochs=3)
    integer = post_training(model, digits, Quantize())
    program = lower(integer, recipe="demo")
    assert program.meta["recipe"] == "demo"
    assert program.meta["scales"].keys() == program.types.keys()
    assert program.meta["scales"]["x"] == 1  # a step of the codes
    assert program.meta["scales"][program.result] == pytest.approx(float(integer.scale))
    assert program.meta["functions"].keys() == {"blocks_0_mlp_before", "blocks_0_mlp_between"}
    scales = program.meta["functions"]["blocks_0_mlp_between"]
    operation = program["blocks_0_mlp_between"]
    x = torch.arange(-128, 128).float()[:, None] * torch.tensor(scales["x_scale"])
    with torch.no_grad():
        real = model.blocks[0].mlp.between(x).T.numpy()
    step = np.array(scales["y_scale"])[:, None]
    assert (np.abs(operation.table() * step - real.clip(-127 * step, 127 * step)) < 0.06 * 127 * step).all()


def test_programs_survive_their_file(digits, tmp_path):
    integer = post_training(trained(digits, ResMLPSettings(patch=4, embed=8, blocks=1)), digits, Quantize())
    program = lower(integer)
    back = Program.load(program.save(tmp_path / "program.npz"))
    assert back.sha256 == program.sha256 == lower(integer).sha256
    assert dict(back.meta) == dict(program.meta)
    codes = integer.encode(digits.test.images)
    assert np.array_equal(back(codes), program(codes))


# -- what cannot be quantised or lowered ----------------------------------------------------------------
def test_a_layer_that_cannot_be_quantised_is_named_with_its_place(digits):
    model = ResMLP.for_data(ResMLPSettings(patch=4, embed=8, blocks=2), digits, 1)
    model.blocks[0].mlp.between = nn.LayerNorm(8)
    with pytest.raises(BittrueError, match=r"blocks.0.mlp.between.*LayerNorm.*batch normalisation"):
        post_training(model, digits, Quantize())
    with pytest.raises(BittrueError, match="cannot quantise a Linear.*bittrue.convert takes any network"):
        post_training(nn.Linear(2, 2), digits, Quantize())
    with pytest.raises(BittrueError, match="segments is a power of two"):
        post_training(model, digits, Quantize(), segments=3)


class Chain(nn.Module):
    """A network of one's own: what is lowered is the forward, whatever the names."""

    def __init__(self, trick=None):
        super().__init__()
        self.start = TensorInput((6, 5), CodeStep(1 / 128, fixed=True), 8)
        self.shared = IntegerLinear(5, 5, self.start.target, self.start.target, 8)
        self.pool = TensorMean(None, 6, 6, self.start.target, None, 8, "pool", shift=3)
        self.trick = trick
        with torch.no_grad():
            self.shared.weight.copy_(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, codes):
        x = self.start(codes)
        self.shared(x)  # a result that nobody reads
        y = self.shared(self.shared(x))
        if self.trick == "sum":
            y = y + x
        if self.trick == "branch" and y.sum() > 0:
            y = x
        return self.pool(y)


@pytest.mark.parametrize("extra", [nn.Dropout3d(), nn.GELU(), nn.MultiheadAttention(8, 2)])
def test_a_layer_that_cannot_be_lowered_is_named_with_its_place(extra):
    model = Chain()
    model.blocks = nn.ModuleList([nn.ModuleDict({"extra": extra})])
    with pytest.raises(BittrueError, match=rf"blocks.0.extra \({type(extra).__name__}\)"):
        lower(model)


def test_a_replaced_layer_and_own_parameters_are_refused():
    model = Chain()
    kept, model.pool = model.pool, nn.Linear(4, 4)
    with pytest.raises(BittrueError, match=r"pool \(Linear\)"):
        lower(model)
    model.pool = kept
    model.gate = nn.Parameter(torch.ones(8))
    with pytest.raises(BittrueError, match=r"\(Chain\)"):
        lower(model)


def test_any_forward_of_integer_layers_is_lowered():
    model = Chain()
    program = lower(model)
    codes = np.random.default_rng(1).integers(-128, 128, (30, 6, 5)).astype(np.int8)
    with torch.no_grad():
        assert np.array_equal(program(codes), model(torch.from_numpy(codes)).numpy())
    assert [type(node.operation).__name__ for node in program.nodes] == ["Linear", "Linear", "Mean"]
    recorded = record(model, codes)
    assert all(np.array_equal(recorded[k], v) for k, v in program.trace(codes).tensors.items())


@pytest.mark.parametrize(
    ("trick", "says"), [("sum", "cannot lower 'add' in the forward of Chain"), ("branch", "sum|depends")]
)
def test_a_computation_that_is_no_layer_is_refused(trick, says):
    with pytest.raises(BittrueError, match=says):
        lower(Chain(trick))


def test_a_network_without_an_input_is_refused():
    with pytest.raises(BittrueError, match="its first layer is no IntegerInput"):
        lower(nn.Sequential(IntegerLinear(3, 3, CodeStep(), CodeStep(), 8)))


def test_parameters_that_are_not_finite_are_refused(digits):
    model = ResMLP.for_data(ResMLPSettings(patch=4, embed=8, blocks=1, nonlinearity="relu"), digits, 1)
    integer = post_training(model, digits, Quantize(percentiles=(100.0,)))
    with torch.no_grad():
        integer.layers[0].weight[0, 0] = float("nan")
    with pytest.raises(BittrueError, match=r"layer embed \(TensorLinear\): a parameter is not finite"):
        lower(integer)
