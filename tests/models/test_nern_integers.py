"""Generators in whole numbers, the target that takes their codes, and the boot between the two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bittrue.models.graph.lower import lower, record
from bittrue.models.nern import accelerator, boot, exact
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.integers import Integers
from bittrue.models.nern.settings import Integers as Settings
from bittrue.models.nern.target import Target, upright
from bittrue.models.training.loop import accuracy, predict
from bittrue.sim.errors import BittrueError
from tests.helpers.generated import embeddings, few, nern, small_target, target

#: Weights are so many times as large as those of a new generator, so that kernels differ, and as large as kernels are.
LIVELY, SIZE = 3.0, 0.1


def lively(of: Target, settings=None, seed: int = 1, shuffled: bool = True) -> Generator:
    """A generator whose kernels differ, in random orders."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(layer.kernels) for layer in of.layers] if shuffled else None
    made = Generator.for_target(settings or nern(), of, orders, seed=seed)
    with torch.no_grad():
        for layer in [*made.hidden, made.final]:
            layer.weight.mul_(LIVELY)
        size = made.kernels().square().mean().sqrt() / SIZE
        made.final.weight.div_(size)
        made.final.bias.div_(size)
    return made


@pytest.fixture(scope="module")
def data():
    return few()


@pytest.fixture(scope="module")
def small(data):
    """Target, generator, its integers, and the target's, with the codes of the generator."""
    of = target(stem_stride=2, option="B")
    generator = lively(of)
    integers = Integers(generator, Settings()).eval()
    codes = exact.codes(integers, generator, of)
    return of, generator, integers, accelerator.convert(of, codes, integers.units, data, 64)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"act_layer": "gelu"},
        {"num_blocks": 2, "act_layer": "relu6"},
        {"embeddings": embeddings(fusion_mode="sum", collisions="accept"), "num_blocks": 3},
    ],
    ids=["relu", "gelu", "two blocks", "sum"],
)
@pytest.mark.parametrize("mode", ["shift", "multiplier"])
def test_every_tensor_is_the_programs(changes, mode):
    of = small_target()
    integers = Integers(lively(of, nern(**changes)), Settings(requantize=mode)).eval()
    program = lower(integers)
    codes = of.coordinates().astype(program.inputs["coordinate"].format.dtype)
    recorded, traced = record(integers, codes), program.trace(codes).tensors
    assert recorded.keys() == traced.keys()
    for name, values in traced.items():
        np.testing.assert_array_equal(recorded[name], values, err_msg=name)
    np.testing.assert_array_equal(program(codes), program.reference(codes))
    assert len(np.unique(traced["kernel"])) > 20


def test_kernels_are_those_of_the_floats_within_their_step(small):
    """Of every layer: within some steps of the codes, whose own step is the layer's."""
    of, generator, integers, _ = small
    codes = exact.codes(integers, generator, of)
    with torch.no_grad():
        real = of.split(generator.kernels())
    for code, unit, values, layer in zip(codes, integers.units, real, of.layers, strict=True):
        assert code.abs().max() > 60, layer
        error = (code * unit - values).square().mean().sqrt()
        assert error < 0.12 * values.square().mean().sqrt(), layer


def test_the_separable_first_layer_has_the_sums_of_three_parts(small):
    """What hardware keeps: the products with each index alone, added before the requantiser."""
    of, _, integers, _ = small
    index = torch.from_numpy(of.coordinates()).long()
    rows, first = integers.rows.entries, integers.hidden[0]
    weight, bias, shift, _ = first.integers()
    parts = [rows @ part.T for part in weight.detach().chunk(3, dim=1)]
    sums = sum(part[index[:, axis]] for axis, part in enumerate(parts)) + bias.float()
    expected = torch.floor(sums * 2.0**-shift + 0.5).clamp(0, 127)
    found = first(integers.joined(integers.rows(integers.index(index))))
    assert torch.equal(found, expected)


def test_an_accelerator_with_generated_codes_is_near_the_float_network(small, data):
    """Calibrated on a network that has these very weights, so that only roundings differ."""
    _, generator, integers, _ = small
    of = target(stem_stride=2, option="B")
    codes = exact.codes(integers, generator, of)
    of.write([(code * unit).float() for code, unit in zip(codes, integers.units, strict=True)])
    network = accelerator.convert(of, codes, integers.units, data, 64)
    with torch.no_grad():
        real = of.network(torch.from_numpy(of.network.encode(data.test.images))).numpy()
    found = predict(network, data.test.images).reshape(real.shape) * float(network.scale.detach())
    assert np.corrcoef(real.ravel(), found.ravel())[0, 1] > 0.98
    assert 0.8 < found.std() / real.std() < 1.2
    assert {layer.path for layer in of.layers} == set(accelerator.written_layers(network))


def test_a_boot_writes_what_the_accelerator_computes_with(small, data):
    of, generator, integers, network = small
    made, program = lower(integers), lower(network)
    system = boot.system(generator, made, of, network, program)
    (link,) = system.links
    assert not link.partial
    booted = system.booted(boot.NETWORK)
    layers = accelerator.written_layers(network)
    for layer in of.layers:
        conv = layers[layer.path]
        np.testing.assert_array_equal(booted[f"{conv.label}.weight"], conv.weight.detach().numpy())
    x = network.encode(data.test.images[:8])
    np.testing.assert_array_equal(system({boot.NETWORK: [x]})[boot.NETWORK], program(x))
    # sample by sample: a coordinate, a kernel of the tour, its nine weights
    weights = {layer.path: layers[layer.path].weight.detach().numpy() for layer in of.layers}
    starts, kernels = of.starts, system.boot(boot.GENERATOR)
    for number, layer in enumerate(of.layers):
        order = generator.orders()[number]
        for p in (0, 1, layer.kernels - 1):
            f, c = divmod(int(order[p]), layer.channels)
            row = weights[layer.path][f].reshape(layer.side**2, layer.channels)[:, c]
            kernel = kernels[starts[number] + p]
            np.testing.assert_array_equal(row, kernel if layer.side == 3 else kernel[4:5])


def test_another_generator_for_the_same_accelerator(small, data):
    """A boot with other codes gives what the accelerator computes when these are its constants."""
    of, generator, _, network = small
    other = lively(of, seed=2)
    integers = Integers(other, Settings()).eval()
    program = lower(network)
    system = boot.system(generator, lower(integers), of, network, program)
    x = network.encode(data.test.images[:8])
    result = system({boot.NETWORK: [x]})[boot.NETWORK]
    before = {layer.path: layer.weight.clone() for layer in accelerator.written_layers(network).values()}
    other.set_orders(generator.orders())
    accelerator.keep(network, of, exact.kernels(integers, other))
    try:
        np.testing.assert_array_equal(result, lower(network)(x))
        assert not np.array_equal(result, program(x))
    finally:
        with torch.no_grad():
            for layer in accelerator.written_layers(network).values():
                layer.weight.copy_(before[layer.path])


class Grouped(nn.Module):
    """A convolution in groups, whose matrix has entries that no kernel is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.grouped(self.first(x).relu()).relu().mean((2, 3)))


def test_arranged_as_the_converter_arranges():
    weight = torch.arange(6 * 2 * 9.0).view(6, 2, 3, 3) + 1
    found = accelerator.arranged(weight, 4).view(6, 9, 4)
    for n in range(6):
        for c in range(4):
            inside = c // 2 == n // 3
            expected = weight[n, c % 2].flatten() if inside else torch.zeros(9)
            assert torch.equal(found[n, :, c], expected)


class TestTraining:
    def test_the_codes_are_trained_and_the_best_is_kept(self, data):
        of = small_target()
        generator = lively(of)
        settings = Settings(num_iterations=12, batch_size=32, lr=3e-3, eval_iterations_interval=4, images=64)
        integers = Integers(generator, settings)
        before = exact.codes(integers, generator, of)
        network = accelerator.convert(of, before, integers.units, data, 64)
        state = torch.get_rng_state()
        done = exact.fit(integers, network, generator, of, data, settings)
        assert torch.equal(state, torch.get_rng_state())
        assert [step for step, _, _ in done.evaluations] == [0, 4, 8, 12]
        assert done.accuracy == max(right for _, right, _ in done.evaluations) == accuracy(network, data.val)
        after = exact.codes(integers, generator, of)
        if done.step:
            assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for layer, codes in zip(of.layers, after, strict=True):
            conv = accelerator.written_layers(network)[layer.path]
            assert torch.equal(conv.weight, accelerator.arranged(codes, conv.weight.shape[1] // 9))
            assert conv.given is None
        losses = [loss for _, _, loss in done.evaluations[1:]]
        assert losses[-1] < losses[0]

    def test_without_steps_it_is_what_it_was(self, data):
        of = small_target()
        generator, settings = lively(of), Settings(num_iterations=0)
        integers = Integers(generator, settings)
        before = {name: value.clone() for name, value in integers.state_dict().items()}
        network = accelerator.convert(of, exact.codes(integers, generator, of), integers.units, data, 64)
        done = exact.fit(integers, network, generator, of, data, settings)
        assert (done.step, len(done.evaluations)) == (0, 1)
        assert all(torch.equal(value, before[name]) for name, value in integers.state_dict().items())

    def test_every_kernel_has_a_gradient_through_all_roundings(self, data):
        of = small_target()
        generator = lively(of)
        integers = Integers(generator, Settings())
        network = accelerator.convert(of, exact.codes(integers, generator, of), integers.units, data, 64)
        which = torch.arange(10, 40)
        made = exact.kernels(integers, generator, which)
        assert torch.equal(made, exact.kernels(integers, generator))
        accelerator.give(network, of, made)
        (network(torch.from_numpy(network.encode(data.train.images[:8]))) ** 2).sum().backward()
        accelerator.give(network, of, None)
        for layer in [*integers.hidden, integers.final]:
            assert layer.weight.grad.abs().sum() > 0


class TestRefused:
    def test_fourier_features(self):
        of = small_target()
        with pytest.raises(BittrueError, match=r"type ffn mixes the indices .*embeddings.type basic"):
            Integers(lively(of, nern(embeddings=embeddings(type="ffn"))), Settings())

    def test_samples_that_are_no_code(self):
        of = target(option="B")
        with pytest.raises(BittrueError, match=r"downsample|shortcut.*takes the average of each kernel.*center"):
            Integers(lively(of, nern(sampling_mode="average")), Settings())
        assert Integers(lively(target(), nern(sampling_mode="average")), Settings())

    def test_steps_too_far_apart(self):
        of = small_target()
        generator = lively(of)
        integers = Integers(generator, Settings())
        with pytest.raises(BittrueError, match=r"steps of the generated layers reach from 1e-07 to 1, too far apart"):
            integers._scaled(1e-3, np.array([1e-7, 1.0]), 9)

    def test_a_gain_below_zero(self, data):
        of = small_target()
        norm = next(m for m in of.network.modules() if isinstance(m, nn.BatchNorm2d))
        with torch.no_grad():
            norm.weight[2] = -0.5
        generator = lively(of)
        integers = Integers(generator, Settings())
        with pytest.raises(BittrueError, match=r"multiplies channel 2 with -0\.\d+; turn the signs"):
            accelerator.convert(of, exact.codes(integers, generator, of), integers.units, data, 64)
        x = torch.from_numpy(of.network.encode(data.test.images))
        before, weight = of.network(x), of.weights()[0].clone()
        assert upright(of.network) == 1
        assert upright(of.network) == 0
        assert torch.equal(of.network(x), before)
        assert torch.equal(of.weights()[0][2], -weight[2])
        assert accelerator.convert(of, exact.codes(integers, generator, of), integers.units, data, 64)

    def test_filters_of_zeros(self, data):
        of = small_target()
        codes = [torch.ones(layer.filters, layer.channels, 3, 3) for layer in of.layers]
        with torch.no_grad():
            of.network.get_parameter(f"{of.layers[1].path}.weight")[4] = 0
        with pytest.raises(BittrueError, match=r"filter 4 of .* is all zeros in the original"):
            accelerator.convert(of, codes, [0.01] * len(codes), data, 64)
