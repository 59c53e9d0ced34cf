"""Networks that make images larger: transposed convolutions of every geometry, repeated pixels, decoders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.graph import floats
from bittrue.models.graph.floats import Graph
from bittrue.models.graph.follow import Place
from bittrue.models.graph.phases import expand
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.upsample import Upsample
from tests.helpers.converted import equal_everywhere, error, kinds, noise, seeded  # noqa: F401
from tests.helpers.torch_networks import learn


def geometries(count: int):
    """Transposed convolutions that torch takes, by seed: of images, and of sequences every fourth."""
    rng = np.random.default_rng(5)
    found = 0
    while found < count:
        kernel, stride, dilation = (tuple(rng.integers(1, high, 2).tolist()) for high in (5, 4, 4))
        padding, more, size = rng.integers(0, 4, 2).tolist(), rng.integers(0, 3, 2).tolist(), rng.integers(1, 6, 2)
        groups = int(rng.integers(1, 4))
        inputs, outputs = (groups * int(n) for n in rng.integers(1, 3, 2))
        shape = (inputs, *map(int, size))
        make, of = nn.ConvTranspose2d, (kernel, stride, padding, more, groups, True, dilation)
        if found % 4 == 3:
            make, shape = nn.ConvTranspose1d, shape[:2]
            of = (kernel[0], stride[0], padding[0], more[0], groups, True, dilation[0])
        module = make(inputs, outputs, *of)
        try:
            result = module(torch.zeros(1, *shape))
        except RuntimeError:
            continue
        if result.numel():
            found += 1
            yield module, shape, tuple(result.shape[1:])


def test_a_transposed_convolution_is_a_convolution_with_an_output_for_every_phase():
    for module, shape, given in itertools.islice(geometries(120), 120):
        x, flat = noise(3, *shape), len(shape) == 2
        weight = module.weight.detach().unsqueeze(2) if flat else module.weight.detach()
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
        pair = lambda value, alone, flat=flat: (alone, value[0]) if flat else value  # noqa: E731
        entry = floats.Input("x", Place(""), [], shape)
        node = floats.Transposed(
            "y", Place(""), [entry], given, weight, module.bias.detach(), False, None, pair(module.stride, 1),
            pair(module.padding, 0), pair(module.dilation, 1), module.groups,
        )  # fmt: skip
        graph, expected = Graph([entry], [entry, node], [node]), module(x).detach()
        torch.testing.assert_close(graph.run(x)[node], expected)
        expand(graph)
        torch.testing.assert_close(graph.run(x)[graph.results[0]], expected)
        conv = graph.nodes[1]
        assert isinstance(conv, floats.Conv)
        assert min(conv.padding) >= 0
        assert int(conv.mask.sum()) <= np.prod(conv.stride) * weight.numel() * module.groups


TRANSPOSED = {
    "twice as large": (nn.ConvTranspose2d(3, 4, 4, 2, 1), (3, 4, 5), ["Conv", "Upsample"]),
    "side by side": (nn.ConvTranspose2d(3, 4, 2, 2), (3, 4, 5), ["Conv", "Upsample"]),
    "one step": (nn.ConvTranspose2d(3, 4, 3, 1, 1), (3, 4, 5), ["Conv"]),
    "grouped": (nn.ConvTranspose2d(4, 4, 3, (2, 1), 1, (1, 0), groups=2), (4, 4, 5), ["Conv", "Upsample"]),
    "cut": (nn.ConvTranspose2d(2, 3, 3, 2, dilation=2), (2, 3, 4), None),
    "gaps": (
        nn.ConvTranspose2d(2, 3, 2, 3, output_padding=2),
        (2, 3, 3),
        None,
    ),  # the last window sees nothing by itself
    "sequence": (nn.ConvTranspose1d(3, 2, 5, 3, 1), (3, 7), None),
}


@pytest.mark.parametrize("mode", ["shift", "multiplier"])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolutions_are_what_torch_computes(case, mode):
    module, shape, expected = TRANSPOSED[case]
    x = noise(64, *shape)
    network = bittrue.convert(module.eval(), x, requantize=mode)
    equal_everywhere(network, x[:8])
    assert error(module, network, x) < 0.04
    assert expected is None or kinds(network) == expected


class Decoder(nn.Module):
    """What a segmentation has: smaller, larger again, and what was there before beside it."""

    def __init__(self, larger: nn.Module):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.down, self.norm2 = nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.larger, self.last = larger, nn.Conv2d(4 + 6, 3, 3, padding=1)

    def forward(self, x):
        wide = self.norm1(self.first(x)).relu()
        return self.last(torch.cat([wide, self.larger(self.norm2(self.down(wide)).relu())], 1))


LARGER = {
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU()),
    "transposed, leaky": lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 4, 2, 1), nn.BatchNorm2d(6), nn.PReLU(6)),
    "nearest": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 6, 1)),
    "pixels": lambda: nn.Sequential(nn.Conv2d(6, 24, 1), nn.PixelShuffle(2), nn.ReLU()),
}


@pytest.mark.parametrize("case", LARGER)
def test_decoders(case):
    x = noise(48, 2, 6, 8)
    model = learn(Decoder(LARGER[case]()), x)
    network = bittrue.convert(model, x)
    program = equal_everywhere(network, x[:6])
    assert error(model, network, x) < 0.05
    assert sum(isinstance(node.operation, Upsample) for node in program.nodes) == 1
    assert program.output.shape == (6, 8, 3)
    assert "Affine" not in kinds(network)  # the normalisation is in the weights of every phase


def test_training_leaves_the_taps_that_a_phase_does_not_have():
    x = noise(64, 2, 3, 3)
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 3)).eval()
    network = bittrue.convert(model, x)
    labels = np.random.default_rng(1).integers(0, 3, 64)
    network.fit(((x, labels), (x, labels)), Qat(epochs=2, batch=16, lr=1e-2))
    program = equal_everywhere(network, x[:8])
    (conv,) = [node.operation for node in program.nodes if node.name == "layer0"]
    taps = (conv.weight.reshape(4, 3, 4, 2) != 0).any((1, 3)).sum(1)  # [phase, output, tap, channel]
    assert taps.tolist() == [1, 2, 2, 4]  # nine taps in all


@pytest.mark.parametrize(
    "larger",
    [
        nn.Upsample(scale_factor=(2, 3)),
        nn.Upsample((8, 15), mode="nearest-exact"),
        nn.UpsamplingNearest2d(scale_factor=2),
        lambda y: functional.interpolate(y, scale_factor=3),
        lambda y: y.repeat_interleave(2, 2),
        lambda y: torch.repeat_interleave(y, 2, dim=-1),
    ],
)
def test_pixels_are_repeated(larger):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.larger, self.last = nn.Conv2d(2, 3, 1), larger, nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.last(self.larger(self.first(x)))

    x = noise(64, 2, 4, 5)
    network = bittrue.convert(model := Model().eval(), x)
    equal_everywhere(network, x[:8])
    assert kinds(network) == ["Conv", "Upsample", "Conv"]
    assert network.layers[1].target is network.layers[0].target  # a copy has the step of what it is a copy of
    assert error(model, network, x) < 0.04


def test_samples_of_a_sequence_are_repeated():
    x = noise(64, 2, 9)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Upsample(scale_factor=2), nn.Conv1d(3, 2, 2)).eval()
    network = bittrue.convert(model, x)
    equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.04


def test_larger_images_are_joined_with_smaller_ones_in_one_order():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.side = nn.ConvTranspose2d(2, 3, 2, 2), nn.Conv2d(2, 12, 1)

        def forward(self, x):
            return self.up(x) + functional.pixel_shuffle(self.side(x), 2)

    x = noise(64, 2, 3, 4)
    network = bittrue.convert(model := Sum().eval(), x)
    program = equal_everywhere(network, x[:8])
    assert error(model, network, x) < 0.05
    assert sum(isinstance(node.operation, Upsample) for node in program.nodes) == 1  # of the sum alone
    assert program.output.shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([nn.Upsample(scale_factor=2, mode="bilinear")], "0: torch.nn.Upsample: mode='bilinear' weighs .*'nearest'"),
        ([nn.Upsample((5, 6))], r"0: torch.nn.Upsample: \[5, 6\] is no whole multiple of \[4, 4\]; take whole"),
        ([nn.Upsample(scale_factor=0.5)], r"\[2, 2\] is no whole multiple of \[4, 4\]"),
    ],
)
def test_other_ways_of_making_images_larger_are_refused(layers, says):
    with pytest.raises(BittrueError, match=says):
        bittrue.convert(nn.Sequential(*layers), noise(16, 2, 4, 4))
