"""FS-neurons on one thread: a million values with the published swish (K = 16) and ReLU (K = 10) sets.

    python -m bench spikes

Measured against the float32 loop over the steps that one writes in numpy, and against the same loop at its best: in
place, in blocks that stay in the cache, its block size the best of several. The loops give decoded values and keep no
spikes. `step by step` writes every spike, as a traced run does; `by table` gives the decoded values, as a fused run
does; all agree in every bit, and every array that a call returns is a new one. Then a whole layer: neurons and the
spiking linear layer behind them, against the float loop and a float32 product. Then a neuron-step against
`snntorch.Leaky`, forward only, as many neurons and steps.

Targets: 30 times the plain loop with tables, 8 times step by step, 20 times snnTorch for each neuron-step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

import numpy as np

from bench.timing import Row, taking_turns
from bittrue.models.fs.sets import PUBLISHED
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.kernels.spikes import decode_steps, decode_words, take
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

ROWS, CHANNELS, OUTPUTS = 4096, 256, 256
FRACTION_BITS = 10
#: Values that the best numpy loop takes at a time: of 2^11 .. 2^20 the fastest here.
BLOCK = 1 << 16
PLAIN, IN_PLACE = "numpy float32 K-loop", "numpy float32 K-loop, in place, in blocks"
STEPS, DECODED, TABLE = "bittrue, step by step", "bittrue, step by step, decoded", "bittrue, by table"
TARGETS = {STEPS: 8.0, TABLE: 30.0}


class Neurons:
    """One published set: integer operation, codes, and the same values and parameters in float32."""

    def __init__(self, name: str) -> None:
        found = PUBLISHED[name]
        made = found.own_unit() if found.binary else found.integer(FRACTION_BITS)
        kind = TensorType((CHANNELS,), Format(12 if found.binary else 16))
        self.operation = FsNeuron(kind, made.threshold, made.reset, made.lowest, made.highest)
        self.decode, self.unit, self.steps = made.decode, made.decode_unit, made.steps
        self.h, self.T = (np.float32(v * made.unit) for v in (made.reset, made.threshold))
        self.d = np.float32(made.decode * made.decode_unit)
        # Inputs spread as the source measured them before the activations of its networks.
        mean, deviation = (-0.359, 1.462) if found.binary else (-0.063, 1.563)
        values = np.random.default_rng(0).normal(mean, deviation, (ROWS, CHANNELS)) / made.unit
        self.codes = np.clip(np.round(values), self.operation.lowest, self.operation.highest).astype(kind.format.dtype)
        self.values = np.float32(self.codes * made.unit)

    def plain(self) -> np.ndarray:
        """The loop as the equation reads."""
        v, out = self.values.copy(), np.zeros_like(self.values)
        for h, d, T in zip(self.h, self.d, self.T, strict=True):
            z = (v > T).astype(np.float32)
            out += d * z
            v -= h * z
        return out

    def in_place(self) -> np.ndarray:
        """The loop without a temporary array, a block of values at a time."""
        out = np.zeros_like(self.values)
        v, spikes, product = (np.empty(BLOCK, np.float32) for _ in range(3))
        fires = np.empty(BLOCK, bool)
        for x, y in zip(self.values.reshape(-1, BLOCK), out.reshape(-1, BLOCK), strict=True):
            np.copyto(v, x)
            for h, d, T in zip(self.h, self.d, self.T, strict=True):
                np.greater(v, T, out=fires)
                np.copyto(spikes, fires)
                np.multiply(spikes, d, out=product)
                np.add(y, product, out=y)
                np.multiply(spikes, h, out=product)
                np.subtract(v, product, out=v)
        return out

    def layer(self) -> tuple[Program, np.ndarray]:
        """Neurons and a spiking linear layer with 8-bit weights, and the weights in float32 `[C, N]`."""
        rng = np.random.default_rng(1)
        weight = rng.integers(-128, 128, (OUTPUTS, CHANNELS))
        build = Builder({"x": self.operation.inputs[0]})
        spikes = build.add("fire", self.operation, "x")
        shift = 7 + int(self.decode.max()).bit_length()
        layer = SpikingLinear(build.types[spikes], weight, self.decode, Requantize(OUTPUTS, np.array(shift)))
        return build.program(build.add("layer", layer, spikes)), np.float32(weight.T)


def neurons(name: str) -> tuple[list[Row], float]:
    """Rows of one set, and the median nanoseconds of one step of one neuron, step by step."""
    given = Neurons(name)
    operation, codes, decode = given.operation, given.codes, given.decode
    reach = int(np.abs(decode).sum())
    dtype = Format.covering(-reach, reach).dtype
    table = decode_words(operation.words, decode).astype(dtype)
    candidates = {
        PLAIN: given.plain,
        IN_PLACE: given.in_place,
        STEPS: lambda: operation.run(codes)[0],
        DECODED: lambda: decode_steps(operation.run(codes)[0], decode, dtype),
        TABLE: lambda: take(codes, operation.input.format.low, table),
    }
    expected = (operation.reference(codes).astype(np.int64) * decode[:, None]).sum(axis=1)
    for what, call in candidates.items():
        got = call()
        if what == STEPS:
            got = decode_steps(got, decode, dtype)
        if not np.array_equal(got if what in (DECODED, TABLE, STEPS) else got / given.unit, expected):
            raise AssertionError(f"{name}: {what} gives other values")
    rows, seconds = compared(f"{name} K={given.steps}", candidates)
    return rows, median(seconds[STEPS]) * 1e9 / (codes.size * given.steps)


def layers(name: str) -> list[Row]:
    """Rows of a whole layer behind neurons of one set."""
    given = Neurons(name)
    program, weight = given.layer()
    codes = given.codes
    if not np.array_equal(program(codes[:64]), program.reference(codes[:64])):
        raise AssertionError(f"{name}: the fused layer gives other codes")
    candidates = {
        PLAIN: lambda: given.plain() @ weight,
        IN_PLACE: lambda: given.in_place() @ weight,
        STEPS: lambda: program.trace(codes).tensors["layer"],
        TABLE: lambda: program(codes),
    }
    rows, _ = compared(f"{name} K={given.steps}, layer {CHANNELS} -> {OUTPUTS}", candidates, targets={})
    backend = program["layer"].product.backend
    return [
        row | {"note": f"{row['note']}, product by {backend}"} if row["what"].endswith(TABLE) else row for row in rows
    ]


def compared(
    title: str, candidates: Mapping[str, Callable[[], object]], targets: Mapping[str, float] = TARGETS
) -> tuple[list[Row], dict[str, list[float]]]:
    """One row a candidate, its speed-up over the plain loop from medians; and all the times."""
    seconds = taking_turns(candidates)
    middle = {what: median(values) for what, values in seconds.items()}
    rows = []
    for what, values in seconds.items():
        note = f"best {min(values) * 1e3:.3g} ms"
        if what not in (PLAIN, IN_PLACE):
            note += f", {middle[IN_PLACE] / middle[what]:.1f}x in place"
        if what in targets:
            note += f", target {targets[what]:.0f}x"
        rows.append(row(f"{title}: {what}", middle[what] * 1e3, "ms", middle[PLAIN] / middle[what], note))
    return rows, seconds


def row(what: str, value: float, unit: str, gain: float, note: str) -> Row:
    return {"bench": "spikes", "what": what, "value": value, "unit": unit, "speed-up": gain, "note": note}


def leaky(steps: int) -> tuple[float, str]:
    """Median nanoseconds of one step of one neuron in snnTorch, the fastest of several sizes, and that size."""
    import torch
    from snntorch import Leaky

    torch.set_num_threads(1)
    neuron, total = Leaky(beta=0.9), ROWS * CHANNELS
    current = torch.from_numpy(np.random.default_rng(0).normal(0, 1, total).astype(np.float32))

    def forward(size: int) -> None:
        with torch.no_grad():
            for part in current.split(size):
                membrane = neuron.reset_mem()
                for _ in range(steps):
                    _, membrane = neuron(part, membrane)

    sizes = {f"{size} at a time": lambda size=size: forward(size) for size in (total, 1 << 16, 1 << 14)}
    best, size = min((median(values), size) for size, values in taking_turns(sizes, repeats=5).items())
    return best * 1e9 / (total * steps), size


def measure() -> list[Row]:
    rows: list[Row] = []
    for name in ("swish", "relu"):
        found, step = neurons(name)
        steps = PUBLISHED[name].steps
        rows += found
        try:
            peer, size = leaky(steps)
        except ImportError:
            rows.append({"bench": "spikes", "what": "snnTorch", "note": "not installed: pip install 'bittrue[test]'"})
        else:
            title = f"a neuron-step, K={steps}"
            rows.append(row(f"{title}: snntorch.Leaky, {size}", peer, "ns", 1.0, "forward, no gradients"))
            rows.append(row(f"{title}: {STEPS}", step, "ns", peer / step, "target 20x"))
        rows += layers(name)
    return rows
