"""What the converters of a photonic network do on data: codes used and clipped, signal over what they add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bittrue.models.graph.trace import INPUT
from bittrue.models.light.integer import IntegerPhotonicMLP
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: Images traced together.
BLOCK = 250


@dataclass(frozen=True)
class Conversion:
    """The converter of a layer, over all its tiles, outputs and images.

    window     `pedestal` or `full`              step       counts of one code, a power of two
    codes      codes that there are              used       codes that occur
    spread     of a tile's and output's codes: mean over them of the number that occur
    values     conversions                       clipped    of them outside the window
    sqnr_db    10 log10 of the mean square of z = W x + b, with real parameters and the layer's own input codes, over
               that of what the sum over the tiles misses it by: quantisation of weights, converter, cells, noise
    light      mean count over the largest that the layer can make
    """

    name: str
    window: str
    step: int
    codes: int
    used: int
    spread: float
    values: int
    clipped: int
    sqnr_db: float
    light: float


def conversions(
    network: IntegerPhotonicMLP,
    program: Program,
    x: np.ndarray,
    progress: Callable[[str, float, float], None] | None = None,
) -> list[Conversion]:
    """One row for each layer of a network and its program, for DAC codes `[n, features]`, with the program's noise."""
    if not len(x):
        raise BittrueError("conversions: there are no inputs to convert")
    names = [f"layers_{k}_array" for k in range(len(network.layers))]
    seen = [
        np.zeros((len(layer.array.weight) * layer.array.tiles, layer.array.high + 1), bool) for layer in network.layers
    ]
    clipped, light = np.zeros(len(names), np.int64), np.zeros(len(names))
    signal, error = np.zeros(len(names)), np.zeros(len(names))
    for start in range(0, len(x), BLOCK):
        if progress is not None:
            progress("reading the converters", start, len(x))
        trace = program.trace(x[start : start + BLOCK], first=start)
        for k, layer in enumerate(network.layers):
            q = trace.tensors[INPUT if k == 0 else f"tables_{k - 1}"].astype(np.int64)
            codes = trace.tensors[names[k]].astype(np.int64)
            flat = codes.reshape(len(codes), -1)
            seen[k][np.arange(flat.shape[1])[None, :].repeat(len(flat), 0), flat] = True
            clipped[k] += trace.saturation[names[k]]
            low, shift = program[names[k]].offset, program[names[k]].shift
            light[k] += float(((codes << shift) + low).clip(min=0).sum()) / max(program[names[k]].light.high, 1)
            wanted, got = _sums(layer, q, codes)
            signal[k] += float(np.square(wanted).sum())
            error[k] += float(np.square(wanted - got).sum())
    rows = []
    for k, (name, layer) in enumerate(zip(names, network.layers, strict=True)):
        values = len(x) * layer.array.tiles * len(layer.array.weight)
        rows.append(
            Conversion(
                name=name,
                window=layer.array.array.window,
                step=1 << program[name].shift,
                codes=layer.array.high + 1,
                used=int(seen[k].any(0).sum()),
                spread=float(seen[k].sum(1).mean()),
                values=values,
                clipped=int(clipped[k]),
                sqnr_db=float(10 * np.log10(signal[k] / error[k])) if error[k] else float("inf"),
                light=float(light[k] / values),
            )
        )
    return rows


@torch.no_grad()
def _sums(layer, q: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z as the real parameters have it, and as the converted light has it, `[n, N]`."""
    array, unit = layer.array, float(layer.sum.target.value)
    weight, bias = array.weight.double().numpy(), layer.sum.bias.double().numpy()
    wanted = q @ weight.T * float(array.source.value) + bias
    shift, constant, step = layer.sum.integers()
    acc = (codes << step).sum(-2) + constant.numpy()
    return wanted, layer.sum.start + acc * np.exp2(-shift.numpy().astype(np.float64)) * unit
