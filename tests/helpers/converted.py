"""What the tests of `bittrue.convert` have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bittrue
from bittrue.models.graph.lower import record
from bittrue.models.int8.converted import Converted
from tests.helpers.torch_networks import learn


@pytest.fixture(autouse=True)
def seeded():
    """Random numbers of torch are the same in every test of a module that imports this."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(model: nn.Module, network: Converted, x: torch.Tensor) -> float:
    """Root mean square of what the integers change, as a share of the spread of the float results."""
    with torch.no_grad():
        real = model(x.clone()).double()
    found = torch.from_numpy(network.decode(network.lower()(network.encode(x))))
    if real.ndim == 2 and (real.exp().sum(1) - 1).abs().max() < 1e-5:  # log_softmax at the end
        found = torch.log_softmax(found, 1)
    elif real.ndim == 2 and (real.sum(1) - 1).abs().max() < 1e-5:
        real, found = real.log(), torch.log_softmax(found, 1)
    return float(((found - real).square().mean() / (real - real.mean()).square().mean()).sqrt())


def equal_everywhere(network: Converted, x: torch.Tensor) -> bittrue.Program:
    program, codes = network.lower(), network.encode(x)
    recorded, traced = record(network, codes), program.trace(codes).tensors
    assert recorded.keys() == traced.keys()
    for name, tensor in traced.items():
        assert np.array_equal(recorded[name], tensor), name
    assert np.array_equal(program.reference(codes[:4]), program(codes[:4]))
    return program


def kinds(network: Converted) -> list[str]:
    return [type(layer).__name__.removeprefix("Tensor") for layer in network.layers]


def conv_norm(*, padding: int, bias: bool = True):
    return learn(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=padding, bias=bias)), noise(64, 3, 6, 6))
