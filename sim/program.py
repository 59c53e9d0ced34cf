"""A program: named integer operations in order, each reading tensors that exist. The product of bittrue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.sim import describe, execution, grouped, groups, storage
from bittrue.sim import threads as workers
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Set, Sets, check_set, merge, split
from bittrue.sim.operation import Operation, TensorType

#: Most samples that run together, and bytes of the largest tensor of theirs: small enough for the cache, large enough
#: to amortise Python.
BLOCK, BYTES = 256, 1 << 20


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a program; its result is the tensor of the same name.

    operands  names of the tensors that it reads, in order; a name alone stands for one
    """

    name: str
    operation: Operation
    operands: tuple[str, ...]

    def __post_init__(self) -> None:
        names = (self.operands,) if isinstance(self.operands, str) else tuple(self.operands)
        object.__setattr__(self, "operands", names)

    def __repr__(self) -> str:
        return f"Node({self.name!r}, {type(self.operation).__name__} to {self.operation.output}, {self.operands})"


@dataclass(frozen=True, eq=False)
class Trace:
    """What a traced run leaves: every tensor by name, and saturated codes by operation."""

    tensors: dict[str, np.ndarray]
    saturation: dict[str, int]


def alone(results: tuple[np.ndarray, ...]) -> Any:
    """What a run returns to people: the codes of the only result, or a tuple of them."""
    return results[0] if len(results) == 1 else results


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in single-assignment form.

    inputs    name -> type of every streamed input: a new one with every sample
    nodes     in an order in which each operand exists; names are unique
    results   names of the tensors that are the program's outputs, in order; a name alone stands for one
    meta      JSON values for people and plots (scales, recipe, labels); never read when running

    Its held inputs (`held`) are those that its operations name: weights that are written, counters of samples.
    """

    inputs: Mapping[str, TensorType]
    nodes: tuple[Node, ...]
    results: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", dict(self.inputs))
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "results", (self.results,) if isinstance(self.results, str) else tuple(self.results))
        types = dict(self.inputs)
        if not types or not self.nodes:
            raise BittrueError("a program has at least one input and one operation")
        for node in self.nodes:
            if node.name in types:
                raise BittrueError(f"program: two tensors are named {node.name!r}; give each operation its own name")
            if len(node.operands) != len(node.operation.inputs):
                raise BittrueError(
                    f"program: {node.name!r} takes {len(node.operation.inputs)} operands, got {len(node.operands)}"
                )
            for operand, expected in zip(node.operands, node.operation.inputs, strict=True):
                if operand not in types:
                    raise BittrueError(f"program: {node.name!r} reads {operand!r}, which no earlier operation makes")
                if types[operand] != expected:
                    raise BittrueError(f"program: {node.name!r} expects {expected} but {operand!r} is {types[operand]}")
            types[node.name] = node.operation.output
        if not self.results:
            raise BittrueError("a program has at least one result; name a tensor that one of its operations makes")
        for name in self.results:
            if name not in types or name in self.inputs:
                raise BittrueError(f"program: its result {name!r} is not made by any of its operations")
            if self.results.count(name) > 1:
                raise BittrueError(f"program: {name!r} is named twice as a result; name it once and read it twice")
        _ = self.held  # refuses two of one name that differ
        _ = self.grouping  # refuses samples that meet groups

    # -- what it is ------------------------------------------------------------------------------------
    @cached_property
    def types(self) -> dict[str, TensorType]:
        """The type of every tensor, inputs first, in order."""
        return dict(self.inputs) | {node.name: node.operation.output for node in self.nodes}

    @cached_property
    def outputs(self) -> dict[str, TensorType]:
        """The type of every result by name, in order."""
        return {name: self.types[name] for name in self.results}

    @property
    def result(self) -> str:
        """The name of the only result. Raises BittrueError where there are several."""
        if len(self.results) > 1:
            raise BittrueError(
                f"the program has {len(self.results)} results ({', '.join(self.results)}), one is needed"
            )
        return self.results[0]

    @property
    def output(self) -> TensorType:
        """The type of the only result. Raises BittrueError where there are several."""
        return self.types[self.result]

    def __getitem__(self, name: str) -> Operation:
        for node in self.nodes:
            if node.name == name:
                return node.operation
        raise BittrueError(f"program: no operation is named {name!r}; it has {', '.join(n.name for n in self.nodes)}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample; where samples go in groups, its share of them, rounded up."""
        shared = sum(node.operation.macs for node in self.nodes if self._of_groups(node))
        alone = sum(node.operation.macs for node in self.nodes) - shared
        return alone + (-(-shared // self.grouping.size) if self.grouping is not None else 0)

    @property
    def weights(self) -> int:
        return sum(node.operation.weights for node in self.nodes)

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """Who reads each tensor."""
        table: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            for operand in node.operands:
                table[operand].append(node)
        return table

    @cached_property
    def held(self) -> dict[str, Held]:
        """Every held input by name, in the order in which the operations name them."""
        found: dict[str, Held] = {}
        for node in self.nodes:
            try:
                merge(found, node.operation.held)
            except BittrueError as error:
                raise BittrueError(f"program: {node.name!r}: {error}") from error
        return found

    @cached_property
    def written(self) -> dict[str, Held]:
        """The held inputs that are written from outside: all but the counters."""
        return {name: held for name, held in self.held.items() if not held.counts}

    @property
    def initial(self) -> dict[str, np.ndarray]:
        """What the written inputs hold at first."""
        return {name: held.initial for name, held in self.written.items()}  # type: ignore[misc]

    @cached_property
    def counts_frames(self) -> bool:
        """Whether a sample's result depends on its index in the run: whether a held input is a counter."""
        return any(held.counts for held in self.held.values())

    @cached_property
    def grouping(self) -> groups.Grouping | None:
        """How its samples go in groups (`sim.groups`); None where each goes by itself."""
        return groups.of(self.nodes)

    def in_groups_of(self, n: int) -> Program:
        """The program with n samples in every group, of those that it can have. Raises BittrueError for any other."""
        if self.grouping is None or n not in self.grouping.modes:
            known = "1" if self.grouping is None else ", ".join(map(str, self.grouping.modes))
            raise BittrueError(f"program: its samples do not go {n} at a time; it takes {known}")
        if self.grouping.held is None:
            return self
        if n not in self._sizes:
            self._sizes[n] = self.bind({self.grouping.held.name: np.array(n)})
        return self._sizes[n]

    @cached_property
    def _sizes(self) -> dict[int, Program]:
        """Those that were asked for."""
        return {}

    def _of_groups(self, node: Node) -> bool:
        """Whether it works for a group at a time: its operands are a group's."""
        return self.grouping is not None and node.operands[0] in self.grouping.tensors

    @property
    def sha256(self) -> str:
        """Hash of everything that determines a result; `meta` does not."""
        return storage.digest(self)

    def summary(self) -> list[dict[str, Any]]:
        """One row an operation, for tables: name, kind, operands, output, accumulator, MACs, weights, table bits."""
        return [
            {
                "name": node.name,
                "kind": type(node.operation).__name__.lower(),
                "operands": list(node.operands),
                "output": str(node.operation.output),
                "accumulator_bits": node.operation.accumulator.bits,
                "accumulator": str(node.operation.accumulator),
                "macs": node.operation.macs,
                "weights": node.operation.weights,
                "table_bits": node.operation.table_bits,
            }
            for node in self.nodes
        ]

    def __repr__(self) -> str:
        return describe.text(self)

    def _repr_html_(self) -> str:  # what notebooks show
        return describe.html(self)

    # -- what it does ----------------------------------------------------------------------------------
    def check(self, *x: np.ndarray) -> list[np.ndarray]:
        """The input batches, checked: one array `[n, *shape]` per input, in order."""
        if len(x) != len(self.inputs):
            raise BittrueError(f"the program has {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {len(x)}")
        checked = [kind.check(v, f"input {name!r}") for (name, kind), v in zip(self.inputs.items(), x, strict=True)]
        if len({len(v) for v in checked}) > 1:
            raise BittrueError(f"inputs have different batch sizes: {', '.join(str(len(v)) for v in checked)}")
        return checked

    def bind(self, values: Set) -> Program:
        """The program with constants in place of its written inputs: what it is while it holds this set."""
        if not self.written and not values:
            return self
        values = check_set(self.written, values)
        nodes = tuple(replace(node, operation=node.operation.bind(values)) for node in self.nodes)
        return Program(self.inputs, nodes, self.results, self.meta)

    @cached_property
    def _initially(self) -> Program:
        return self.bind(self.initial)

    def parts(self, count: int, first: int = 0, held: Sets | None = None) -> Iterator[tuple[slice, Program]]:
        """The parts of a run of `count` samples in which nothing is written: the samples, and the program of then.

        `first` is the index of the run's first sample; `held` is one set for all, or sets and the index of the sample
        that each is for and those after it, ascending. Before the first set there is the initial one.
        """
        for part, values in split(self.written, count, first, held):
            yield part, self._initially if values is None else self.bind(values)

    def check_first(self, first: int) -> int:
        """The index of a first sample, refused where the counters of a program that counts its samples lack it."""
        if not isinstance(first, int | np.integer):
            raise BittrueError(f"program: the index of the first image is a whole number, not {first!r}")
        if self.counts_frames and not 0 <= first < 1 << 32:
            raise BittrueError(f"program: the index of the first image, {first}, must lie in 0..2^32-1")
        return int(first)

    def __call__(self, *x: np.ndarray, first: int = 0, held: Sets | None = None, threads: int = 1) -> Any:
        """Run a batch: int arrays `[n, *shape]` in, codes `[n, *output shape]` out; several results are a tuple.

        `first` is the index of the batch's first sample in the run it is a part of; only programs that count their
        samples (`counts_frames`) read it, from 0 to 2^32 - 1; the sample after the last of these is number 0 again.
        `held` is what the written inputs hold, see `parts`; without it they hold what they do at first.
        `threads`, 1 to 1024, share the samples of the batch; the codes are the same for any number of them.
        Where samples go in groups (`grouping`), a result has an entry for each sample all the same, unless it is a
        tensor of groups.
        """
        return alone(self.run(*x, first=first, held=held, threads=threads))

    def run(self, *x: np.ndarray, first: int = 0, held: Sets | None = None, threads: int = 1) -> tuple[np.ndarray, ...]:
        """The same, always as a tuple: the codes of every result, in order."""
        first, threads = self.check_first(first), workers.check(threads)
        checked = self.check(*x)
        count = len(checked[0])
        if self.grouping is not None:
            return grouped.run(self, checked, first, held, threads)
        made = {name: np.empty((count, *kind.shape), kind.format.dtype) for name, kind in self.outputs.items()}
        if held is None and threads == 1 and 0 < count <= self.block:  # one piece of one part: nothing to hand out
            self._initially.run_block(checked, made, first)
            return tuple(made.values())
        calls = []
        for part, program in self.parts(count, first, held):
            for block in workers.pieces(part, self.block, threads):
                into = {name: codes[block] for name, codes in made.items()}
                calls.append(partial(program.run_block, [v[block] for v in checked], into, first + block.start))
        workers.spread(threads, calls)
        return tuple(made.values())

    @cached_property
    def block(self) -> int:
        """Samples that run together."""
        stored = {name for step in self._steps for name in (step.result, *step.operands)}
        largest = max(self.types[name].size * self.types[name].format.dtype.itemsize for name in stored)
        return max(8, min(BLOCK, BYTES // largest))

    def run_block(self, x: list[np.ndarray], results: Mapping[str, np.ndarray], first: int) -> None:
        """Run one block of samples into `results`; the first of them has the index `first`."""
        live = dict(zip(self.inputs, x, strict=True))
        for step in self._steps:
            run = step.run if step.counting is None else execution.plain(step.counting.bind(self._counted(first)))
            live[step.result] = run(*(live[name] for name in step.operands), out=results.get(step.result))
            for name in step.dead:
                del live[name]

    def _counted(self, first: int) -> dict[str, np.ndarray]:
        """What the counters hold at the sample of this index."""
        return {name: np.int64(first) for name, held in self.held.items() if held.counts}

    @cached_property
    def _steps(self) -> list[execution.Action]:
        """What a plain run does: the operations in order, those that can run as one fused (`sim.execution`)."""
        return execution.actions(self)

    def trace(self, *x: np.ndarray, first: int = 0, held: Sets | None = None, threads: int = 1) -> Trace:
        """Run a batch and keep every tensor, with the number of saturated codes of every operation.

        `first`, `held` and `threads` as in a plain run.
        """
        first, threads, checked = self.check_first(first), workers.check(threads), self.check(*x)
        if self.grouping is not None:
            return Trace(*grouped.trace(self, checked, first, held))
        calls = [
            partial(program.trace_block, [v[block] for v in checked], first + block.start)
            for part, program in self.parts(len(checked[0]), first, held)
            for block in list(workers.pieces(part, part.stop - part.start, threads)) or [part]
        ]
        traces = workers.spread(threads, calls)
        kept = {name: [trace.tensors[name] for trace in traces] for name in self.types}
        counts = {node.name: sum(trace.saturation[node.name] for trace in traces) for node in self.nodes}
        return Trace({name: v[0] if len(v) == 1 else np.concatenate(v) for name, v in kept.items()}, counts)

    def trace_block(self, x: list[np.ndarray], first: int) -> Trace:
        """The trace of samples that run together; the first of them has the index `first`."""
        live = dict(zip(self.inputs, x, strict=True))
        saturation, counted = {}, self._counted(first)
        for node in self.nodes:
            y, count = node.operation.bind(counted).run(*(live[name] for name in node.operands))
            live[node.name], saturation[node.name] = y, int(count)
        return Trace(live, saturation)

    def reference(self, *x: np.ndarray, first: int = 0, held: Sets | None = None) -> Any:
        """The slow, obvious execution of the whole program; `first`, `held` and what is returned as in a plain run."""
        first, checked = self.check_first(first), self.check(*x)
        if self.grouping is not None:
            return alone(grouped.reference(self, checked, first, held))
        made: dict[str, list[np.ndarray]] = {name: [] for name in self.results}
        for part, program in self.parts(len(checked[0]), first, held):
            live = program.obvious([v[part] for v in checked], first + part.start)
            for name, codes in made.items():
                codes.append(live[name])
        return alone(tuple(v[0] if len(v) == 1 else np.concatenate(v) for v in made.values()))

    def obvious(self, x: list[np.ndarray], first: int) -> dict[str, np.ndarray]:
        """Every tensor of samples that run together, the slow way; the first of them has the index `first`."""
        live, counted = dict(zip(self.inputs, x, strict=True)), self._counted(first)
        for node in self.nodes:
            live[node.name] = node.operation.bind(counted).reference(*(live[name] for name in node.operands))
        return live

    # -- files -----------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write the program to an `.npz` file, whole or not at all."""
        return storage.save(self, path)

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read what `save` wrote; a damaged, newer or foreign file is refused with the reason."""
        return load(path)


def load(path: str | Path) -> Program:
    """The program that was saved in a file. Nothing in the file is run: it holds plain arrays and JSON.

    Raises BittrueError for what is no such file, was altered after it was written, or comes from a newer bittrue.
    """
    return storage.load(path, _make)


def unpack(content: bytes, where: str) -> Program:
    """The program of the bytes that `storage.packed` gives, refused as `load` does; `where` is for people."""
    return storage.unpacked(content, where, _make)


def _make(
    inputs: Mapping[str, TensorType], nodes: Iterable, results: Sequence[str], meta: Mapping[str, Any]
) -> Program:
    return Program(inputs, tuple(Node(*node) for node in nodes), tuple(results), meta)
