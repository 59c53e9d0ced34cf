"""Photonic MAC: tiles of non-negative products behind an 8-bit ADC that clips, then with the sum over the tiles.

    python -m bench photonic

16384 x 192 -> 96, 8-bit codes of light and signed weights within 8 bits (their rails are open by turns), tiles of 16
rows and of 64. Measured against numpy tile by tile: int32 product, shift, clip; and the same with a float32 product.
Every candidate gives the same codes. Targets: 30 times numpy's int32 product with the intrinsic, 10 times without,
where `sgemm` is chosen; `numba`, the readable one that runs any width, is shown beside them and has no target.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from bench.baseline import requantize
from bench.layer import with_backend
from bench.timing import Row, taking_turns
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.kernels.matrix import backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

TOKENS, IMAGES, INPUTS, OUTPUTS = 64, 256, 192, 96
CODES = Format(8, signed=False)
TARGETS = {"vnni": 30.0, "sgemm": 10.0}
PLAIN, REAL = "numpy int32 product", "numpy sgemm"


def array(rows: int) -> PhotonicMac:
    """An array whose windows lie in the middle of the light and clip about one code in eight."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (OUTPUTS, INPUTS))
    plus, minus = np.maximum(weight, 0), np.maximum(-weight, 0)
    deviation = int(np.sqrt(rows) * 74 * 74)  # of a tile's count, for codes and weights that are evenly spread
    shift = (2 * deviation).bit_length() - 8
    starts = np.arange(0, INPUTS, rows)
    middle = (np.add.reduceat(plus, starts, axis=1) + np.add.reduceat(minus, starts, axis=1)).T * CODES.high // 2
    kind = TensorType((TOKENS, INPUTS), CODES)
    return PhotonicMac(kind, plus, minus, rows, 8, shift, middle - (128 << shift))


class Numpy:
    """The array, and the sum over its tiles, as a careful user writes them: int32 in place, tile by tile."""

    def __init__(self, mac: PhotonicMac, total: TileSum) -> None:
        self.mac, self.total = mac, total
        half = (1 << mac.shift) >> 1
        self.tiles = [
            (part, np.ascontiguousarray(mac.weight[:, part].T.astype(np.int32)), mac.pedestal[k] - mac.offset[k] + half)
            for k, part in mac.parts()
        ]

    def codes(self, x: np.ndarray, real: bool = False) -> np.ndarray:
        mac = self.mac
        rows = x.reshape(-1, mac.input.channels).astype(np.float32 if real else np.int32)
        out = np.empty((len(rows), mac.tiles, len(mac.plus)), np.uint8)
        for k, (part, weight, constant) in enumerate(self.tiles):
            acc = (rows[:, part] @ weight.astype(rows.dtype)).astype(np.int32, copy=False)
            acc += constant.astype(np.int32)
            acc >>= mac.shift
            np.clip(acc, 0, mac.output.format.high, out=out[:, k], casting="unsafe")
        return out

    def sums(self, x: np.ndarray, real: bool = False) -> np.ndarray:
        acc = self.codes(x, real).sum(axis=1, dtype=np.int32)
        acc <<= self.total.shift
        return requantize(acc, self.total.requantize)


def programs(rows: int) -> tuple[Program, Program, Numpy]:
    """The array alone, the array with the sum of its tiles, and both in numpy."""
    mac = array(rows)
    reach = (mac.tiles * 256 << mac.shift).bit_length()
    total = TileSum(mac.output, mac.shift, Requantize(OUTPUTS, np.array(reach - 9), bias=np.full(OUTPUTS, -256)))
    made = []
    for operations in ((mac,), (mac, total)):
        build, name = Builder({"x": mac.input}), "x"
        for k, operation in enumerate(operations):
            name = build.add(f"y{k}", operation, name)
        made.append(build.program(name))
    return *made, Numpy(mac, total)


def runner(program: Program) -> Callable[[np.ndarray], np.ndarray]:
    """The array alone by its own `run`, which counts the clipped codes too; a longer program as a whole."""
    if len(program.nodes) > 1:
        return program
    operation = program.nodes[0].operation
    return lambda x: operation.run(x)[0]


def compared(title: str, program: Program, plain: Callable[..., np.ndarray], x: np.ndarray) -> list[Row]:
    """One row a candidate, its speed-up over numpy's int32 product from medians."""
    candidates = {PLAIN: lambda: plain(x), REAL: lambda: plain(x, real=True)}
    for name in backends():
        run = runner(with_backend(program, name, x[:1]))
        candidates[f"bittrue, {name}"] = lambda run=run: run(x)
    expected = plain(x).reshape(-1)
    if not np.array_equal(expected[: 4 * len(expected) // IMAGES], program.reference(x[:4]).reshape(-1)):
        raise AssertionError(f"{title}: numpy gives other codes than the reference")
    for name, call in candidates.items():
        if not np.array_equal(call().reshape(-1), expected):
            raise AssertionError(f"{title}: {name} gives other codes")
    seconds = taking_turns(candidates, repeats=5)
    slowest = median(seconds[PLAIN])
    rows = []
    for name, values in seconds.items():
        value = median(values)
        target = TARGETS.get(name.removeprefix("bittrue, "))
        note = f"{2e-9 * x.size * OUTPUTS / value:.3g} GOP/s" + (f", target {target:.0f}x" if target else "")
        rows.append(
            {
                "bench": "photonic",
                "what": f"{title}: {name}",
                "value": value * 1e3,
                "unit": "ms",
                "speed-up": slowest / value,
                "note": note,
            }
        )
    return rows


def measure() -> list[Row]:
    shape = (IMAGES, TOKENS, INPUTS)
    x = np.random.default_rng(1).integers(0, CODES.high + 1, shape).astype(CODES.dtype)
    rows: list[Row] = []
    for size in (16, 64):
        alone, summed, plain = programs(size)
        clipped = np.mean(np.isin(plain.codes(x), (0, 255)))
        rows += compared(f"tiles of {size} rows, {100 * clipped:.1f} % clipped", alone, plain.codes, x)
        rows += compared(f"tiles of {size} rows and their sum", summed, plain.sums, x)
    return rows
