"""What a plain run of a program does: its operations in order, those that can run as one without the tensor between.

A *matrix product* is an operation with `by_row`: rows of `row` codes to rows of codes, with the table of a function
of one code in its epilogue. So three run as one: a reading order in front (`reading`, a window: rows are gathered a
block at a time, while they are in cache), the product, and the table of its only reader. In front there may also be
rows of a table by an index, each of which is then multiplied once (`by_index`). Other pairs join by
`Operation.fuse`. Saturation is not counted here; a traced run counts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.sim.contract import Range
from bittrue.sim.operation import Operation, TensorType

if TYPE_CHECKING:
    from bittrue.sim.program import Node, Program


@dataclass(frozen=True)
class Action:
    """One step of a plain run: an operation, or several that run as one."""

    result: str
    operands: tuple[str, ...]
    run: Callable[..., np.ndarray]
    counting: Operation | None = None  # what `run` runs, where that depends on the index of the sample
    dead: tuple[str, ...] = ()


def plain(operation: Operation) -> Callable[..., np.ndarray]:
    """The execution of an operation by itself."""
    if (limited := getattr(operation, "within", None)) is not None:
        fmt = operation.output.format
        if (run := limited(fmt.low, fmt.high, fmt.dtype)) is not None:
            return run

    def run(*x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        codes, _ = operation.run(*x)
        if out is not None:
            out[...] = codes
        return codes

    return run


def product(
    operation: Any, output: TensorType, codes: Range, table: np.ndarray | None = None, reading: Any = None
) -> Callable[..., np.ndarray]:
    """A matrix product, with the order in which its rows are read and the table of the function that reads it.

    `codes` are those that its rows hold.
    """
    made: list[Any] = []  # its execution by windows, when it first runs
    row, channels, shape = operation.row, output.channels, output.shape

    def run(x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        rows = None if out is None else out.reshape(-1, channels)
        if not made:
            made.append(operation.by_window(reading, codes) if hasattr(operation, "by_window") else None)
        if made[0] is not None:
            if rows is None:
                rows = np.empty((len(x) * output.tokens, channels), output.format.dtype)
            images = x if reading is not None else x.reshape(-1, 1, 1, row)
            made[0].run(images, rows, count=False, table=table)
            return rows.reshape(len(x), *shape)
        if reading is None:
            codes_, _ = operation.by_row(x.reshape(-1, row), count=False, table=table, out=rows)
            return codes_.reshape(len(x), *shape)
        if rows is None:
            rows = np.empty((len(x) * output.tokens, channels), output.format.dtype)
        gathered = np.empty((min(reading.block, max(len(rows), 1)), reading.size), reading.dtype)
        for first in range(0, len(rows), len(gathered)):
            part = rows[first : first + len(gathered)]
            block = gathered[: len(part)]
            reading(x, first, block)
            operation.by_row(block, count=False, table=table, out=part)
        return rows.reshape(len(x), *shape)

    return run


def summed(output: TensorType, rows: Any, table: np.ndarray | None = None) -> Callable[..., np.ndarray]:
    """A product of rows of a table, from their indices; with the table of the function that reads it."""

    def run(x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        into = None if out is None else out.reshape(-1, output.channels)
        return rows(x.reshape(-1, rows.indices), table, into).reshape(len(x), *output.shape)

    return run


def codes_of(program: Program) -> dict[str, Range]:
    """The codes that every tensor can hold, which may be fewer than its format has."""
    held = {name: Range(kind.format.low, kind.format.high) for name, kind in program.inputs.items()}
    for node in program.nodes:
        held[node.name] = node.operation.reached(*(held[name] for name in node.operands))
    return held


def actions(program: Program) -> list[Action]:
    """The steps of a plain run, each with the tensors that nobody reads any more after it."""
    makers, held = {node.name: node for node in program.nodes}, codes_of(program)

    def only_reader(name: str) -> Node | None:
        """The node that alone reads a tensor, and reads no other; None where there is no such node."""
        readers = program.readers[name]
        alone = len(readers) == 1 and name not in program.results and len(readers[0].operands) == 1
        return readers[0] if alone else None

    def joined(node: Node, reader: Node | None) -> bool:
        """Whether a node and its reader may run as one: those with held inputs are made anew for every block."""
        return reader is not None and not node.operation.held and not reader.operation.held

    def reading_of(node: Node) -> tuple[Any, tuple[str, ...], list[str]]:
        """The reading order (or table) in front of a product, what it reads, and the nodes that are not run by
        themselves: a product takes rows of the codes that there are, so axes that are only named otherwise are none of
        its concern.
        """
        passed: list[str] = []
        name = node.operands[0]
        while name in makers and joined(makers[name], only_reader(name)):
            maker = makers[name]
            reading = getattr(maker.operation, "reading", None)
            if reading is not None and reading.size == node.operation.row:
                return reading, maker.operands, [*passed, name]
            if maker.operation.looks_up and hasattr(node.operation, "by_index"):
                if (rows := node.operation.by_index(maker.operation)) is not None:
                    return rows, maker.operands, [*passed, name]
            if not maker.operation.renames:
                break
            passed.append(name)
            name = maker.operands[0]
        return None, (name,), passed

    inside: set[str] = set()
    steps: list[Action] = []
    for node in program.nodes:
        operation, reader = node.operation, only_reader(node.name)
        if node.name in inside:
            continue
        is_product = hasattr(type(operation), "by_row")  # of one with held inputs it is not there yet
        reading, operands, passed = reading_of(node) if is_product else (None, node.operands, [])
        last = node
        if is_product:
            table = reader.operation.table() if joined(node, reader) else None  # type: ignore[union-attr]
            last = reader if table is not None else node  # type: ignore[assignment]
            if hasattr(reading, "indices"):
                run = summed(last.operation.output, reading, table)
            else:
                run = product(operation, last.operation.output, held[node.operands[0]], table, reading)
        elif joined(node, reader) and (together := reader.operation.fuse(operation)) is not None:  # type: ignore[union-attr]
            last, run = reader, together  # type: ignore[assignment]
        else:
            run = plain(operation)
        inside |= {last.name, *passed} - {node.name}
        steps = [step for step in steps if step.result not in passed]
        steps.append(Action(last.name, operands, run, operation if operation.held else None))
    used = {name: at for at, step in enumerate(steps) for name in (step.result, *step.operands)}
    used |= dict.fromkeys(program.results, len(steps))
    dead = [tuple(name for name, at in used.items() if at == index) for index in range(len(steps))]
    return [replace(step, dead=names) for step, names in zip(steps, dead, strict=True)]
