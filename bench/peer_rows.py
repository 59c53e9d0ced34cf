"""Networks and rows of the comparison with other simulators (`bench/peers.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.timing import Row, taking_turns
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

SAMPLES, CALLS = 10_000, 50
UINT8 = Format(8, signed=False)
PEERS = "pip install 'bittrue[peers]'"
INSTALL = {"hls4ml": "pip install 'bittrue[hls]'", "da4ml": PEERS, "aihwkit": PEERS}
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Mlp:
    """Layers `y = saturate(round_shift(weight x + bias, shift))`, the hidden ones ReLU; codes in and out."""

    program: Program
    codes: np.ndarray

    @property
    def layers(self) -> list[Linear]:
        return [node.operation for node in self.program.nodes]

    @property
    def title(self) -> str:
        return "-".join(str(n) for n in (self.layers[0].input.channels, *(len(layer.weight) for layer in self.layers)))


def network(widths: tuple[int, ...]) -> Mlp:
    """Random weights; biases centre the sums, shifts fit them into 8 bits."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (SAMPLES, widths[0])).astype(UINT8.dtype)
    build, name, h = Builder({"x": TensorType(widths[:1], UINT8)}), "x", codes[:1000]
    for k, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        last = k == len(widths) - 2
        weight = np.clip(np.round(rng.normal(0, 40, (outputs, inputs))), -128, 127).astype(np.int64)
        acc = h.astype(np.int64) @ weight.T
        bias = -np.round(acc.mean(axis=0)).astype(np.int64)
        shift = int(np.quantile(np.abs(acc + bias), 0.995)).bit_length() - (7 if last else 8)
        made = Requantize(
            outputs, np.array(shift), bias_acc=bias, format=INT8 if last else UINT8, floor=None if last else 0
        )
        layer = Linear(build.types[name], weight, made)
        name, h = build.add(f"layer{k}", layer, name), layer.reference(h)
    return Mlp(build.program(name), codes)


def row(what: str, value: float, unit: str, note: str) -> Row:
    return {"bench": "peers", "what": what, "value": value, "unit": unit, "note": note}


def absent(title: str, peer: str, reason: Exception) -> Row:
    """A row for a peer that is not there, or does not run."""
    missing = isinstance(reason, ModuleNotFoundError) and str(reason.name).split(".")[0] == peer
    why = f"not installed: {INSTALL[peer]}" if missing else f"not measured: {reason}"
    return {"bench": "peers", "what": f"{title}: {peer}", "note": why}


def rates(title: str, candidates: Mapping[str, tuple[Run, np.ndarray]], notes: Mapping[str, str]) -> list[Row]:
    """Samples a second of every candidate, all at once and one at a time; speed-ups are over the slowest.

    One at a time, each candidate makes `CALLS` calls when it is its turn: caches are warm, as in steady state.
    """
    rows = []
    for batch, count in ((SAMPLES, 1), (1, CALLS)):
        calls = {
            name: lambda run=run, x=x[:batch], count=count: [run(x) for _ in range(count)]
            for name, (run, x) in candidates.items()
        }
        middle = {name: median(values) / count for name, values in taking_turns(calls, repeats=5).items()}
        for name, value in middle.items():
            note = notes.get(name, "") if batch > 1 else ""
            made = row(f"{title}: {name}, batch {batch:,}", batch / value, "samples/s", note)
            rows.append(made | {"speed-up": max(middle.values()) / value})
    return rows
