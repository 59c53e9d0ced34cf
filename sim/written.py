"""Weights that can be written: a program with held inputs made from one with constants, and sets of values for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from bittrue.sim.contract import MAX_BITS, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, check_set
from bittrue.sim.operation import Operation, same
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

#: The operations whose weights can be written.
WRITABLE = (Linear, Affine)
#: Every operation that has such weights, in place of a list of names.
ALL = "written"


def written(
    program: Program,
    operations: str | Iterable[str] = ALL,
    others: Sequence[Program] = (),
    margin: int = 1,
    shifts: int = 1,
) -> Program:
    """The program with the weights, biases and shifts of its matrix products and affines as held inputs.

    operations  names of those whose weights are written; `"written"`: all that have any
    others      programs that differ in these arrays only: the bounds hold what they have too
    margin      bits that biases and multipliers may have beyond the widest that is there
    shifts      by how much a shift may be smaller or larger than those that are there

    A weight may be any code of its format. An array that is all 0 (a multiplier: all 1) in every program is left as
    it is, for it costs nothing in hardware. The held inputs are named `<operation>.<field>` and hold at first what the
    program had (`Program.initial`).
    """
    known = [node.name for node in program.nodes if isinstance(node.operation, WRITABLE)]
    if not known:
        raise BittrueError("written weights: the program has no matrix product or affine, so none can be written")
    names = known if operations == ALL else [operations] if isinstance(operations, str) else list(operations)
    if unknown := [name for name in names if name not in known]:
        raise BittrueError(
            f"written weights: the weights of {unknown[0]!r} cannot be written; those of {', '.join(known)} can"
        )
    for other in others:
        for _ in _pairs(program, other, lambda name, _, names=frozenset(names): name in names):
            pass
    nodes = []
    for node in program.nodes:
        if node.name in names:
            twins = [other[node.name] for other in others]
            node = replace(node, operation=_written(node.name, node.operation, twins, margin, shifts))
        nodes.append(node)
    return Program(program.inputs, tuple(nodes), program.results, program.meta)


def _written(name: str, operation: Any, twins: Sequence[Any], margin: int, shifts: int) -> Operation:
    def hold(field: str, low: int, high: int, array: np.ndarray) -> Held:
        return Held(f"{name}.{field}", array.shape, low, high, array)

    requantize: Requantize = operation.requantize
    changed: dict[str, Held] = {}
    for field, idle in (("bias_acc", 0), ("multiplier", 1), ("shift", None), ("bias", 0)):
        arrays = [getattr(op.requantize, field) for op in (operation, *twins)]
        least, most = min(int(a.min()) for a in arrays), max(int(a.max()) for a in arrays)
        if least == most == idle:
            continue
        if field == "shift":
            low, high = max(0, least - shifts), min(47, most + shifts)
        else:
            covering = Format.covering(least, most, signed=field != "multiplier")
            wider = Format(min(MAX_BITS, covering.bits + margin), covering.signed)
            low, high = max(wider.low, 1 if field == "multiplier" else wider.low), wider.high
        changed[field] = hold(field, low, high, arrays[0])
    fmt: Format = operation.weight_format
    return replace(
        operation,
        weight=hold("weight", fmt.low, fmt.high, operation.weight),
        requantize=replace(requantize, **changed),
    )


def set_of(program: Program, constants: Program) -> dict[str, np.ndarray]:
    """The set with which a program with held inputs is another one, which has constants in their place.

    Refused where the two differ in anything else, and where the constants lie outside the bounds.
    """
    found: dict[str, np.ndarray] = {}
    for held, value in _pairs(program, constants, lambda _, mine: isinstance(mine, Held)):
        if isinstance(held, Held):
            if not isinstance(value, np.ndarray):
                raise BittrueError(f"written weights: {held.name!r} is no constant of the other program")
            found[held.name] = value
    return check_set(program.written, found)


def _pairs(mine: Program, other: Program, free: Any) -> Iterator[tuple[Any, Any]]:
    """The arrays of two programs that are the same but for those that `free(node, array)` allows to differ."""
    if dict(mine.inputs) != dict(other.inputs) or mine.results != other.results:
        raise BittrueError("written weights: the two programs have other inputs or other results")
    if [(n.name, n.operands, type(n.operation)) for n in mine.nodes] != [
        (n.name, n.operands, type(n.operation)) for n in other.nodes
    ]:
        raise BittrueError("written weights: the two programs have other operations; only constants may differ")
    for a, b in zip(mine.nodes, other.nodes, strict=True):
        yield from _fields(a.name, a.operation, b.operation, free, a.name)


def _fields(node: str, a: Any, b: Any, free: Any, place: str) -> Iterator[tuple[Any, Any]]:
    for field in fields(a):
        x, y, here = getattr(a, field.name), getattr(b, field.name), f"{place}.{field.name}"
        if isinstance(x, np.ndarray | Held) and free(node, x):
            if getattr(y, "shape", None) != x.shape:
                raise BittrueError(f"written weights: {here} has another shape in the other program")
            yield x, y
        elif is_dataclass(x) and not isinstance(x, Held) and type(x) is type(y):
            yield from _fields(node, x, y, free, here)
        elif not same(x, y):
            raise BittrueError(
                f"written weights: {here} differs between the two programs and is not written; "
                "quantise both alike, or let it be written"
            )
