"""Weights that can be written: a program with held inputs made from one with constants, and sets of values for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from bittrue.sim.contract import MAX_BITS, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, Set, bounds, check_set
from bittrue.sim.operation import Operation, same
from bittrue.sim.program import Program

#: Every operation that has such arrays, in place of a list of names.
ALL = "written"
#: The arrays of a requantiser, with the value of all entries at which each costs nothing in hardware.
REQUANTIZER = {"bias_acc": 0, "multiplier": 1, "shift": None, "bias": 0}


def written(
    program: Program,
    operations: str | Iterable[str] = ALL,
    others: Sequence[Program] = (),
    margin: int = 1,
    shifts: int = 1,
) -> Program:
    """The program with the weights of its products (matrices, affines, windows, spikes), the cells and offsets of its
    photonic arrays, and the biases, multipliers and shifts of all requantisers as held inputs.

    operations  names of those whose weights are written; `"written"`: all that have any
    others      programs that differ in these arrays only: the bounds hold what they have too
    margin      bits that biases and multipliers may have beyond the widest that is there
    shifts      by how much a shift may be smaller or larger than those that are there

    A weight or cell may be any code of its format. Another array, or a rail of cells, that is all 0 (a multiplier: all
    1) in every program is left as it is, for it costs nothing in hardware; so is what is a held input already. The new
    ones are named `<operation>.<field>` and hold at first what the program had (`Program.initial`).
    """
    known = [node.name for node in program.nodes if _holds(node.operation)]
    if not known:
        raise BittrueError(
            "written weights: the program has no matrix product, affine or other operation with a requantiser, so "
            "nothing can be written; leave its weights constant"
        )
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


def _arrays(operation: Operation) -> list[str]:
    """The arrays of an operation that can be held, beside those of its requantiser."""
    return [field.name for field in fields(operation) if field.type in ("Parameter", Parameter)]


def _holds(operation: Operation) -> bool:
    """Whether anything of it can be held; what brings samples together has constants only (`sim.groups`)."""
    return not operation.regroups and bool(_arrays(operation) or hasattr(operation, "requantize"))


def _written(name: str, operation: Any, twins: Sequence[Any], margin: int, shifts: int) -> Operation:
    def hold(part: Any, others: Sequence[Any], field: str, idle: int | None, fmt: Format | None) -> dict[str, Held]:
        """The held input in place of an array of the operation or its requantiser; none where it is idle, or held."""
        arrays = [getattr(one, field) for one in (part, *others)]
        if isinstance(arrays[0], Held):
            return {}
        ends = [bounds(array) for array in arrays]
        least, most = min(int(low.min()) for low, _ in ends), max(int(high.max()) for _, high in ends)
        if least == most == idle:
            return {}
        if field == "shift":
            low, high = max(0, least - shifts), min(47, most + shifts)
        elif fmt is not None:
            low, high = fmt.low, fmt.high
        else:
            covering = Format.covering(least, most, signed=field != "multiplier")
            wider = Format(min(MAX_BITS, covering.bits + margin), covering.signed)
            low, high = max(wider.low, 1 if field == "multiplier" else wider.low), wider.high
        return {field: Held(f"{name}.{field}", arrays[0].shape, low, high, arrays[0])}

    changed: dict[str, Any] = {}
    for field in _arrays(operation):
        fmt = {"weight": "weight_format", "plus": "cells", "minus": "cells"}.get(field)
        idle = None if field == "weight" else 0
        changed |= hold(operation, twins, field, idle, fmt and getattr(operation, fmt))
    if hasattr(operation, "requantize"):
        others, parts = [twin.requantize for twin in twins], {}
        for field, idle in REQUANTIZER.items():
            parts |= hold(operation.requantize, others, field, idle, None)
        changed["requantize"] = replace(operation.requantize, **parts)
    return replace(operation, **changed)


def held_only(program: Program, names: Iterable[str]) -> Program:
    """The program in which only these held inputs are written; the others are constants, what they hold at first."""
    kept = set(names)
    if unknown := sorted(kept - set(program.written)):
        raise BittrueError(
            f"written weights: no held input {unknown[0]!r} can be written; those are {', '.join(program.written)}"
        )
    values = {name: held.initial for name, held in program.written.items() if name not in kept}
    if not values:
        return program
    nodes = tuple(replace(node, operation=node.operation.bind(values)) for node in program.nodes)
    return Program(program.inputs, nodes, program.results, program.meta)


def at_first(program: Program, values: Set) -> Program:
    """The program whose held inputs hold these values at first, by name; the others hold what they held."""

    def put(part: Any) -> Any:
        changed = {}
        for name in part.__dataclass_fields__:
            value = getattr(part, name)
            if isinstance(value, Held):
                if value.name in values:
                    changed[name] = replace(value, initial=values[value.name])
            elif hasattr(value, "__dataclass_fields__") and (inner := put(value)) is not value:
                changed[name] = inner
        return replace(part, **changed) if changed else part

    nodes = tuple(replace(node, operation=put(node.operation)) for node in program.nodes)
    return Program(program.inputs, nodes, program.results, program.meta)


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
