"""Networks of integer layers with random parameters, held to their programs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bittrue.models.graph.lower import record
from bittrue.sim.program import Program


def randomised(network: nn.Module) -> nn.Module:
    """A network with parameters drawn at random, in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.modules():
            for name in ("weight", "bias", "knots"):
                if isinstance(getattr(layer, name, None), nn.Parameter):
                    getattr(layer, name).copy_(torch.randn(getattr(layer, name).shape, generator=generator))
    return network.eval()


def assert_equal(network: nn.Module, program: Program) -> None:
    """Every tensor of the forward is the program's, on random codes; the result is not one code throughout."""
    kind = next(iter(program.inputs.values()))
    rng = np.random.default_rng(1)
    codes = rng.integers(kind.format.low, kind.format.high + 1, (20, *kind.shape)).astype(kind.format.dtype)
    recorded, traced = record(network, codes), program.trace(codes).tensors
    assert recorded.keys() == traced.keys()
    for name, values in traced.items():
        assert np.array_equal(recorded[name], values), name
    assert len(np.unique(traced[program.result])) > 1  # a dead tensor proves nothing
