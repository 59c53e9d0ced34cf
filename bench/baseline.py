"""What a careful user writes in numpy: the same integers, vectorised, without a compiler."""

from __future__ import annotations

import numpy as np

from bittrue.sim.operation import Operation
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize


def requantize(acc: np.ndarray, r: Requantize) -> np.ndarray:
    """In int32, in place where numpy can."""
    if not r.pure_shift or r.bias_acc.any():
        raise ValueError("the numpy baseline covers pure shifts")
    acc += ((1 << r.shift) >> 1).astype(np.int32)
    acc >>= r.shift.astype(np.int32)
    acc += r.bias.astype(np.int32)
    return np.clip(acc, r.low, r.format.high, out=acc).astype(r.format.dtype)


def lerp(x: np.ndarray, op: Lerp) -> np.ndarray:
    """Knots and fraction, in int32."""
    offset = x.astype(np.int32) - op.input.format.low
    m, rest = offset >> op.fraction_bits, offset & ((1 << op.fraction_bits) - 1)
    knots = op.knots.astype(np.int32).reshape(-1)
    base = m + np.arange(op.input.channels, dtype=np.int32) * op.knots.shape[1] * (len(op.knots) > 1)
    left = np.take(knots, base)
    rise = (np.take(knots, base + 1) - left) * rest
    half = (1 << op.fraction_bits) >> 1
    return (left + ((rise + half) >> op.fraction_bits)).astype(op.format.dtype)


def table(x: np.ndarray, flat: np.ndarray, low: int, levels: int) -> np.ndarray:
    """One look-up in a flat table of every code of every channel."""
    return np.take(flat, x + (np.arange(x.shape[-1], dtype=np.int32) * levels - low))


class Numpy:
    """A program in numpy: float32 BLAS for products, int32 arithmetic, and full tables for the 1-D functions."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.weights = {
            n.name: np.ascontiguousarray(n.operation.weight.T, dtype=np.float32)
            for n in program.nodes
            if isinstance(n.operation, Linear)
        }
        self.tables = {n.name: n.operation.table().reshape(-1) for n in program.nodes if isinstance(n.operation, Lerp)}

    def step(self, name: str, op: Operation, x: list[np.ndarray]) -> np.ndarray:
        if isinstance(op, Linear):
            return requantize((x[0].astype(np.float32) @ self.weights[name]).astype(np.int32), op.requantize)
        if isinstance(op, Affine):
            return requantize(x[0] * op.weight.astype(np.int32), op.requantize)
        if isinstance(op, Lerp):
            kind = op.input.format
            return table(x[0], self.tables[name], kind.low, kind.levels)
        if isinstance(op, Add):
            total = x[0].astype(np.int16) + x[1]
            return np.clip(total, op.format.low, op.format.high).astype(op.format.dtype)
        if isinstance(op, Mean):
            return requantize(x[0].sum(axis=1, dtype=np.int32), op.requantize)
        if isinstance(op, Transpose):
            return np.ascontiguousarray(x[0].transpose(0, 2, 1))
        raise ValueError(f"the numpy baseline has no {type(op).__name__}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        live = dict(zip(self.program.inputs, [x], strict=True))
        for node in self.program.nodes:
            live[node.name] = self.step(node.name, node.operation, [live[name] for name in node.operands])
        return live[self.program.result]
