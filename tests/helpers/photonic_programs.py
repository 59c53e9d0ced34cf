"""Small photonic programs for the tests of the controller: chains of layers with everything alive."""

from __future__ import annotations

import numpy as np

from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def photonic_network(
    sizes: tuple[int, ...] = (10, 7, 5),
    rows: int = 4,
    *,
    codes: int = 4,
    cells: int = 3,
    adc: int = 6,
    noise: bool = False,
    per_channel: bool = False,
    seed: int = 0,
) -> Program:
    """A network of layers of these sizes on tiles of `rows` rows; both rails leak, offsets are pedestals."""
    rng = np.random.default_rng(seed)
    fmt, cell = Format(codes, signed=False), Format(cells, signed=False)
    builder = Builder({"image": TensorType((sizes[0],), fmt)})
    tensor = "image"
    for k, (channels, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = rng.integers(-cell.high, cell.high + 1, (outputs, channels))
        leak = rng.integers(0, 2, weight.shape)
        plus, minus = (np.minimum(np.maximum(w, 0) + leak, cell.high) for w in (weight, -weight))
        tiles = -(-channels // rows)
        span = rows * fmt.high * cell.high
        shift = max(0, span.bit_length() - adc - k - 1)
        offset = rng.integers(0, span // 4, (tiles, outputs))
        drawn = None
        if noise:
            drawn = Noise.from_physics(
                rng.integers(1 << 62).item(), k, relative=0.02, photons=20.0, thermal=span / 100, shift=12 + k
            )
        mac = PhotonicMac(TensorType((channels,), fmt), plus, minus, rows, adc, shift, offset, cell, drawn)
        last = k == len(sizes) - 2
        middle = (1 << adc) * tiles << shift >> 1
        scale = rng.integers(1, 6, outputs) if seed % 2 else np.ones(outputs, np.int64)
        digits = max(0, middle.bit_length() - (7 if last else 5)) + 2 * (seed % 2)
        requantize = Requantize(
            outputs,
            digits + rng.integers(0, 3, outputs),
            bias_acc=rng.integers(-middle, 0, outputs),
            bias=rng.integers(-3, 4, outputs),
            multiplier=scale,
            format=Format(8) if last else Format(6 - k),
            floor=-5 if k == seed % 3 else None,
        )
        total = TileSum(mac.output, shift, requantize)
        tensor = builder.add(f"mac{k}", mac, tensor)
        tensor = builder.add(f"sum{k}", total, tensor)
        if not last:
            knots = rng.integers(0, fmt.high + 1, (outputs if per_channel else 1, total.output.format.levels + 1))
            tensor = builder.add(f"act{k}", Lerp(total.output, np.sort(knots, 1), fmt), tensor)
    return builder.program(tensor)


def images(program: Program, count: int, seed: int = 0) -> np.ndarray:
    """Random images for a program."""
    (tensor,) = program.inputs.values()
    rng = np.random.default_rng(seed)
    return rng.integers(0, tensor.format.high + 1, (count, *tensor.shape)).astype(tensor.format.dtype)
