"""Random convolutional networks: windows of every kind, groups, pools, residuals, branches, gates, larger images, two
inputs.

    python -m tests.helpers.convolutions --count 200 --seed 0

runs so many through reference, golden and RTL, with and without stalls, to the cycle, and all of them through the C++
kernels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from bittrue.hls import host, project
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.arg_max import ArgMax
from bittrue.sim.operations.concat import Concat
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.multiply import Multiply
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.slice import Slice
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program
from tests.helpers.programs import Growing, stimulus
from tests.helpers.stage_bench import StageBench

KINDS = (
    *("convolution", "depthwise", "groups", "max", "mean", "residual", "branches", "gate"),
    *("upsample", "transposed", "excite"),
)


class Convolutions(Growing):
    """Adds layers of a convolutional network."""

    def window(self, name: str, x: str, kernel, stride, dilation, padding, fill: int = 0) -> str:
        kind = self.build.types[x]
        return self.add(f"{name}.window", Window(kind, kernel, stride, dilation, padding, fill), x)

    def reshape(self, name: str, x: str, *shape: int) -> str:
        return self.add(name, Reshape(self.build.types[x], shape), x)

    def convolution(self, name: str, x: str, outputs: int, *geometry, floor: int | None = None, part: float = 1) -> str:
        u = self.window(name, x, *geometry)
        down, across, taps, channels = self.build.types[u].shape
        u = self.reshape(f"{name}.rows", u, down, across, taps * channels)
        return self.linear(name, u, outputs, floor=floor, part=part)

    def groups(self, name: str, x: str, *geometry) -> str:
        """Half of the channels, and the rest, each to outputs of their own."""
        channels = self.build.types[x].channels
        cut = max(1, channels // 2)
        ends = [(0, cut), (cut, channels)] if cut < channels else [(0, channels)]
        parts = []
        for k, (start, stop) in enumerate(ends):
            part = self.add(f"{name}.part{k}", Slice(self.build.types[x], start, stop), x)
            parts.append(self.convolution(f"{name}.{k}", part, 2, *geometry))
        return self.concat(name, *parts)

    def depthwise(self, name: str, x: str, *geometry) -> str:
        u = self.window(name, x, *geometry)
        kind = self.build.types[u]
        weight = self.rng.integers(-128, 128, kind.shape[-2:])
        requantize = self.requantize((self.codes[u] * weight).sum(axis=-2))
        return self.add(name, Depthwise(kind, weight, requantize), u)

    def max_pool(self, name: str, x: str, *geometry) -> str:
        u = self.window(name, x, *geometry, self.build.types[x].format.low)
        return self.add(name, Maximum(self.build.types[u]), u)

    def mean_pool(self, name: str, x: str, *geometry) -> str:
        u = self.window(name, x, *geometry)
        requantize = self.requantize(self.codes[u].sum(axis=-2))
        return self.add(name, Mean(self.build.types[u], requantize), u)

    def gate(self, name: str, x: str) -> str:
        """One half of the channels times the other, and both added to it."""
        half = self.build.types[x].channels // 2
        a = self.add(f"{name}.a", Slice(self.build.types[x], 0, half), x)
        b = self.add(f"{name}.b", Slice(self.build.types[x], half, 2 * half), x)
        requantize = self.requantize(self.codes[a] * self.codes[b])
        gated = self.add(f"{name}.gated", Multiply(self.build.types[a], self.build.types[b], requantize), a, b)
        kinds = [self.build.types[k] for k in (gated, a, b)]
        return self.add(name, Add(*kinds[:2], INT8, (kinds[2],)), gated, a, b)

    def upsample(self, name: str, x: str, factors: tuple[int, int], parts: bool = False) -> str:
        return self.add(name, Upsample(self.build.types[x], factors, parts), x)

    def excite(self, name: str, x: str) -> str:
        """Every channel times a code of its own, which a layer makes of the means of all."""
        height, width, channels = self.build.types[x].shape
        gate = self.linear(f"{name}.squeeze", self.global_mean(f"{name}.mean", x), channels)
        gate = self.upsample(f"{name}.wide", self.reshape(f"{name}.pixel", gate, 1, 1, channels), (height, width))
        requantize = self.requantize(self.codes[x] * self.codes[gate])
        return self.add(name, Multiply(self.build.types[x], self.build.types[gate], requantize), x, gate)

    def concat(self, name: str, *parts: str) -> str:
        return self.add(name, Concat(tuple(self.build.types[k] for k in parts)), *parts)

    def flatten(self, name: str, x: str) -> str:
        return self.reshape(name, x, self.build.types[x].size)

    def global_mean(self, name: str, x: str) -> str:
        height, width, channels = self.build.types[x].shape
        return self.mean(name, self.reshape(f"{name}.pixels", x, height * width, channels))


def geometry(rng: np.random.Generator, shape: tuple[int, ...], fmt: Format = INT8) -> tuple:
    """Kernel, stride, dilation, padding of a window on an image of this shape."""
    while True:
        pick = lambda high: tuple(int(v) for v in rng.integers(1, high, 2))  # noqa: E731
        chosen = pick(4), pick(3), pick(3), tuple(int(v) for v in rng.integers(0, 3, 4))
        try:
            Window(TensorType(shape, fmt), *chosen)
        except BittrueError:
            continue
        return chosen


def same(rng: np.random.Generator) -> tuple:
    """A window that leaves the size of an image as it is."""
    rows, columns = (int(v) for v in rng.choice([1, 3], 2))
    return (rows, columns), (1, 1), (1, 1), (rows // 2, rows // 2, columns // 2, columns // 2)


def network(seed: int) -> Program:
    """One of them: about five layers on a small image, one or two inputs, one to three results."""
    rng = np.random.default_rng([17, seed])
    sequence = rng.random() < 0.2
    shape = (1 if sequence else int(rng.integers(3, 8)), int(rng.integers(3, 9)), int(rng.integers(1, 4)))
    inputs = {name: TensorType(shape, INT8) for name in ("x", "z")[: 1 + (rng.random() < 0.25)]}
    grow = Convolutions(seed, inputs)
    x = "x" if len(inputs) == 1 else grow.concat("both", "x", "z")
    results = []
    for k in range(int(rng.integers(2, 5))):
        kind, here = (
            str(rng.choice(KINDS)),
            f"layer{k}",
        )
        chosen = geometry(rng, grow.build.types[x].shape)
        factors = tuple(int(v) for v in rng.integers(1, 4, 2))
        if max(grow.build.types[x].shape[:2]) > 8:
            factors = (1, 1)
        if kind == "convolution":
            x = grow.convolution(here, x, int(rng.integers(1, 7)), *chosen, floor=0 if rng.random() < 0.5 else None)
        elif kind == "depthwise":
            x = grow.depthwise(here, x, *chosen)
        elif kind == "max":
            x = grow.max_pool(here, x, *chosen)
        elif kind == "gate":
            x = grow.gate(here, grow.convolution(f"{here}.c", x, 2 * int(rng.integers(1, 4)), *same(rng)))
        elif kind == "upsample":
            x = grow.upsample(here, x, factors)
        elif kind == "transposed":
            outputs = int(rng.integers(1, 4)) * factors[0] * factors[1]
            x = grow.upsample(here, grow.convolution(f"{here}.c", x, outputs, *chosen), factors, parts=True)
        elif kind == "excite":
            x = grow.excite(here, x)
        elif kind == "groups":
            x = grow.groups(here, x, *chosen)
        elif kind == "mean":
            x = grow.mean_pool(here, x, *chosen)
        elif kind == "residual":
            channels = grow.build.types[x].channels
            inner = grow.convolution(f"{here}.a", x, int(rng.integers(1, 5)), *same(rng), floor=0)
            outer = grow.convolution(f"{here}.b", inner, channels, *same(rng), part=0.7)
            x = grow.sum(here, outer, x)
        else:
            parts = [
                grow.convolution(f"{here}.{j}", x, int(rng.integers(1, 5)), *same(rng))
                for j in range(int(rng.integers(2, 4)))
            ]
            x = grow.concat(here, *parts)
        if rng.random() < 0.15:
            results.append(x)
    x = grow.global_mean("mean", x) if rng.random() < 0.5 else grow.flatten("flat", x)
    x = grow.linear("classifier", x, 3)
    if rng.random() < 0.3:
        x = grow.add("decision", ArgMax(grow.build.types[x]), x)
    return grow.build.program(*results, x)


def interval(program: Program, rng: np.random.Generator) -> int:
    """One that can be reached: that of a code a beat in the widest tensor, or slower."""
    return int(max(kind.size for kind in program.types.values()) * rng.choice([1, 1.5, 3]))


def in_rtl(program: Program, seed: int) -> None:
    """Reference, golden and RTL: every result, the end of every frame, and all again under stalls.

    Every other one with matrix stages that read the rings of windows wherever they can.
    """
    rng = np.random.default_rng([3, seed])
    planned = plan(program, interval=interval(program, rng), rings=[None, True][seed % 2])
    x = stimulus(program, 5, seed)
    expected = program.trace(*x).tensors
    truth = program.reference(*x)
    truth = truth if isinstance(truth, tuple) else (truth,)
    for name, codes, fast in zip(program.results, truth, program.run(*x), strict=True):
        np.testing.assert_array_equal(expected[name], codes, err_msg=name)
        np.testing.assert_array_equal(fast, codes, err_msg=name)
    bench = StageBench(planned)
    found = bench.run(x)
    promised = planned.expect(*x)
    for name, codes, result in zip(program.results, truth, found.results, strict=True):
        np.testing.assert_array_equal(result, codes, err_msg=name)
    assert found.latency == promised.latency == planned.estimated_latency
    assert [e - found.began for e in found.ends] == [int(end) for end in promised.ends]
    few = [v[:2] for v in x]
    stalled = bench.run(few, idle=0.3, backpressure=0.4, seed=seed)
    for codes, result in zip(truth, stalled.results, strict=True):
        np.testing.assert_array_equal(result, codes[:2])


def together(seeds: range) -> Program:
    """These networks as one program, each with inputs of its own, so that one compilation does."""
    programs = {f"n{seed}": network(seed) for seed in seeds}
    build = Builder({f"{key}.{name}": kind for key, p in programs.items() for name, kind in p.inputs.items()})
    results = []
    for key, p in programs.items():
        for node in p.nodes:
            build.add(f"{key}.{node.name}", node.operation, *(f"{key}.{name}" for name in node.operands))
        results += [f"{key}.{name}" for name in p.results]
    return build.program(*results)


def in_hls(seeds: range, folder: Path) -> None:
    """All tensors of these networks in the C++ kernels."""
    program = together(seeds)
    x = stimulus(program, 6, seeds.start)
    traced = host.build(project.write(program, folder)).trace(*x)
    for name, codes in program.trace(*x).tensors.items():
        np.testing.assert_array_equal(traced[name], codes, err_msg=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow")
    options = parser.parse_args()
    console, seeds = Console(), range(options.seed, options.seed + options.count)
    wrong = []
    for seed in track(seeds, "RTL", console=console):
        try:
            in_rtl(network(seed), seed)
        except AssertionError as error:
            wrong.append(seed)
            console.print(f"seed {seed}: {error}")
    for first in track(range(options.seed, options.seed + options.count, 25), "HLS", console=console):
        part = range(first, min(first + 25, seeds.stop))
        with tempfile.TemporaryDirectory() as folder:
            in_hls(part, Path(folder))
    console.print(f"{options.count} networks, seeds {seeds.start} to {seeds.stop - 1}: {len(wrong)} with differences")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
