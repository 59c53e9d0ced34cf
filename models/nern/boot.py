"""The system of a generator and what it generates for: which code of which sample of a boot goes where.

Sample number p of a boot, counted over the layers, is the coordinate (l, f, c) that hardware counts up to, c fastest;
its kernel is the one at that place in the tour of layer l (`Generator.orders`). A convolution of one pixel takes the
code in the centre.
"""

from __future__ import annotations

import numpy as np
import torch

from bittrue.models.int8.converted import Converted
from bittrue.models.nern.accelerator import arranged, written_layers
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.target import Target, coordinates
from bittrue.sim.program import Program
from bittrue.sim.system import Link, System
from bittrue.sim.written import held_only, written

#: The programs of the system.
GENERATOR, NETWORK = "generator", "network"


def places(generator: Generator, target: Target, integer: Converted) -> np.ndarray:
    """int64 `[kernels, k^2]`: the entry of the generated layers' weights, one behind the other, that each code of each
    sample is written to; -1: it is not used."""
    taps, layers, first = target.side**2, written_layers(integer), 0
    found = []
    for layer, order in zip(target.layers, generator.orders(), strict=True):
        conv = layers[layer.path]
        own = torch.arange(1, layer.kernels * taps + 1).view(layer.filters, layer.channels, target.side, target.side)
        if layer.side != target.side:
            middle = target.side // 2
            own = own[:, :, middle : middle + 1, middle : middle + 1]
        numbers = arranged(own, conv.weight.shape[1] // conv.reading.taps).flatten().numpy()
        where = np.full(layer.kernels * taps + 1, -1, np.int64)
        where[numbers] = first + np.arange(len(numbers))
        found.append(where[1:].reshape(layer.kernels, taps)[order])
        first += len(numbers)
    return np.concatenate(found)


def accelerator(program: Program, target: Target, integer: Converted) -> Program:
    """The target's program with the weights of its generated layers as held inputs."""
    layers = written_layers(integer)
    names = [str(layers[layer.path].label) for layer in target.layers]
    return held_only(written(program, names), [f"{name}.weight" for name in names])


def system(generator: Generator, made: Program, target: Target, integer: Converted, program: Program) -> System:
    """The programs of a generator and of its target, and the boot that joins them."""
    layers = written_layers(integer)
    held = tuple(f"{layers[layer.path].label}.weight" for layer in target.layers)
    use = accelerator(program, target, integer)
    ((_, kind),) = made.inputs.items()
    where = places(generator, target, integer)
    partial = int((where >= 0).sum()) < sum(use.written[name].size for name in held)
    link = Link(GENERATOR, NETWORK, held, where, partial)
    boot = coordinates(target.layers).astype(kind.format.dtype)
    return System({GENERATOR: made, NETWORK: use}, [link], {GENERATOR: [boot]})
