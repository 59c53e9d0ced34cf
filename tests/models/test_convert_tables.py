"""Tables with segments, sums that grow, affines beside tables and means, modules that have handlers of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bittrue
from bittrue.models.graph import kinds as registry
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.lerp import Lerp
from tests.helpers.converted import equal_everywhere, error, kinds, noise, seeded  # noqa: F401


def lookups(program: bittrue.Program) -> list[Lerp]:
    return [node.operation for node in program.nodes if isinstance(node.operation, Lerp)]


@pytest.mark.parametrize(("bits", "segments", "most"), [(8, 64, 0.05), (8, 1024, 0.05), (5, 8, 0.3)])
@pytest.mark.usefixtures("last_epoch_kept")
def test_a_table_has_segments_whose_ends_are_trained(bits, segments, most):
    x = noise(200, 6)
    model = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 12), nn.PReLU(12), nn.Linear(12, 4))
    network = bittrue.convert(model, x, activation_bits=bits, segments=segments)
    assert error(model, network, x) < most
    one, each = lookups(equal_everywhere(network, x))
    assert (len(one.knots), len(each.knots)) == (1, 12)
    assert one.segments == each.segments == min(segments, 1 << bits)
    labels = np.arange(200) % 4
    network.fit(((x, labels), (x, labels)), Qat(epochs=1, batch=50, lr=3e-2))
    after = lookups(equal_everywhere(network, x))
    assert not any(np.array_equal(a.knots, b.knots) for a, b in zip((one, each), after, strict=True))


class Growing(nn.Module):
    """A sum that every block makes `by` times as large."""

    def __init__(self, by: float):
        super().__init__()
        self.start, self.blocks = nn.Linear(6, 8), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.end, self.by = nn.Linear(8, 3), by

    def forward(self, x):
        x = self.start(x)
        for k, block in enumerate(self.blocks):
            x = x + block(x) * self.by ** (k + 1)
        return self.end(x)


def test_what_grows_along_a_sum_keeps_steps_of_its_own():
    x = noise(300, 6)
    model = Growing(4.0)
    shared, own = (bittrue.convert(model, x, own_steps=own) for own in (False, True))
    assert "Affine" not in kinds(shared)
    assert kinds(own).count("Affine") >= 2
    equal_everywhere(own, x)
    assert error(model, own, x) < error(model, shared, x) / 1.5
    flat = bittrue.convert(Growing(0.2), x, own_steps=True)
    assert "Affine" not in kinds(flat)  # nothing is in front of a sum that is no larger


def test_the_best_ranges_are_those_with_the_best_accuracy_on_validation_data():
    digits = bittrue.dataset("digits")
    x, labels = torch.from_numpy(digits.train.images).flatten(1) / 255, digits.train.labels
    means = torch.stack([x[labels == k].mean(0) for k in range(10)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))
    model[1].weight.data, model[1].bias.data = means, 1 - means.square().sum(1) / 2  # the nearest of the means
    model[3].weight.data = torch.eye(10)
    network = bittrue.convert(model, digits, ranges=(51.0, "mse", 100.0))
    assert set(network.scores) == {51.0, "mse", 100.0}
    assert len(set(network.scores.values())) > 1
    assert network.scores[network.ranges] == max(network.scores.values())
    alone = bittrue.convert(model, digits, ranges=network.ranges)
    assert alone.lower().sha256 == network.lower().sha256
    assert alone.scores == {}
    with pytest.raises(BittrueError, match="only a data set has those"):
        bittrue.convert(model, noise(20, 1, 8, 8), ranges=("mse", 100.0))
    with pytest.raises(BittrueError, match="percentile above 50 and up to 100, not 12"):
        bittrue.convert(model, digits, ranges=("mse", 12))


class Norm(nn.BatchNorm1d):
    """Channels last, as torch's is not, and with a forward that mixes samples while it is on its way."""

    def forward(self, x):
        return super().forward(x.reshape(-1, x.shape[-1])).view_as(x)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.slope, self.last = Norm(5), nn.Parameter(torch.rand(5) + 0.5), nn.Linear(5, 3)
        self.end = Norm(5)

    def forward(self, x):
        x = torch.tanh(self.norm(x) * self.slope) + x
        return self.last(self.end(x).mean(1))


def test_an_affine_goes_into_a_table_of_each_channel_and_behind_a_mean(monkeypatch):
    x = noise(200, 4, 5)
    model = Mixed()
    for _ in range(20):
        model(x)
    model.eval()
    with pytest.raises(BittrueError, match="norm.*it mixes samples"):
        bittrue.convert(model, x)
    monkeypatch.setitem(registry._MODULES, Norm, lambda to, node: along_last(to, node))
    network = bittrue.convert(model, x)
    assert kinds(network) == ["Function", "IntegerAdd", "Mean", "Linear"]
    equal_everywhere(network, x)
    assert error(model, network, x) < 0.05


def along_last(to, node):
    from bittrue.models.graph.handlers import normalisation

    return normalisation(to, node, len(to.shape(node)) - 1)


class Uneven(nn.Module):
    """Functions of each channel, whose arguments and results differ by two orders of magnitude."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.size = (
            nn.Linear(6, 8),
            nn.Linear(8, 3),
            nn.Parameter(10 ** torch.linspace(-1, 1, 8)),
        )
        self.first.weight.data *= self.size.data[:, None]
        self.last.weight.data /= self.size.data

    def forward(self, x):
        return self.last(torch.tanh(self.first(x) / self.size) * self.size)


def test_channels_of_tables_are_made_alike_on_both_sides():
    x = noise(300, 6)
    model = Uneven()
    before, after = (bittrue.convert(model, x, equalise_channels=equal) for equal in (False, True))
    equal_everywhere(after, x)
    assert kinds(before) == kinds(after) == ["Linear", "Function", "Linear"]
    assert error(model, after, x) < error(model, before, x) / 3
