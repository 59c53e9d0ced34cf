"""Runs of programs whose samples go in groups (`sim.groups`): what a batch is cut into, and where results belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bittrue.sim import groups
from bittrue.sim import threads as workers
from bittrue.sim.held import Sets, split

if TYPE_CHECKING:
    from bittrue.sim.program import Program

Codes = dict[str, np.ndarray]


def run(
    program: Program, x: Sequence[np.ndarray], first: int, held: Sets | None, threads: int
) -> tuple[np.ndarray, ...]:
    """The results of `Program.run`."""
    grouping = program.grouping
    assert grouping is not None
    if grouping.held is not None:

        def execute(of: Program, batch: list[np.ndarray]) -> Codes:
            return dict(zip(program.results, of.run(*batch, threads=threads), strict=True))

        made = _by_size(program, x, first, held, execute, program.results)
        return tuple(made[name] for name in program.results)
    _ = list(split({}, len(x[0]), first, held))  # which refuses a set
    count, x = len(x[0]), grouping.filled(x)
    made = {
        name: np.empty((grouping.entries(name, len(x[0])), *kind.shape), kind.format.dtype)
        for name, kind in program.outputs.items()
    }
    calls = []
    for block in workers.pieces(slice(0, len(x[0])), program.block, threads, grouping.size):
        into = {name: codes[grouping.part(name, block)] for name, codes in made.items()}
        calls.append(partial(program.run_block, [v[block] for v in x], into, 0))
    workers.spread(threads, calls)
    return tuple(codes if name in grouping.tensors else codes[:count] for name, codes in made.items())


def trace(program: Program, x: Sequence[np.ndarray], first: int, held: Sets | None) -> tuple[Codes, dict[str, int]]:
    """Every tensor, and saturated codes by operation, those of what fills the last group among them."""
    grouping = program.grouping
    assert grouping is not None
    if grouping.held is None:
        _ = list(split({}, len(x[0]), first, held))
        traced = program.trace_block(grouping.filled(x), 0)
        kept = {
            name: codes if name in grouping.tensors else codes[: len(x[0])] for name, codes in traced.tensors.items()
        }
        return kept, traced.saturation
    saturation = dict.fromkeys((node.name for node in program.nodes), 0)

    def execute(of: Program, batch: list[np.ndarray]) -> Codes:
        traced = of.trace(*batch)
        for name, count in traced.saturation.items():
            saturation[name] += count
        return traced.tensors

    return _by_size(program, x, first, held, execute, tuple(program.types)), saturation


def reference(program: Program, x: Sequence[np.ndarray], first: int, held: Sets | None) -> tuple[np.ndarray, ...]:
    """The results of `Program.reference`: one group after the other."""
    grouping = program.grouping
    assert grouping is not None
    made: dict[str, list[np.ndarray]] = {name: [] for name in program.results}
    for group in groups.walk(grouping, len(x[0]), first, held):
        of = program.in_groups_of(group.size)
        batch = [v[group.start : group.start + group.present] for v in x]
        live = of.obvious(of.grouping.filled(batch) if of.grouping else batch, 0)
        for name, codes in made.items():
            codes.append(live[name] if name in grouping.tensors else live[name][: group.present])
    return tuple(np.concatenate(v) for v in made.values()) if len(x[0]) else program.run(*x)


def _by_size(
    program: Program,
    x: Sequence[np.ndarray],
    first: int,
    held: Sets | None,
    execute: Callable[[Program, list[np.ndarray]], Codes],
    names: Sequence[str],
) -> Codes:
    """What `execute` makes of the samples, by tensor, where n is written: all groups of one size run as one batch.

    `execute` is called with the program of that size and the samples, whole groups. Entries come back in the order of
    the run; a tensor of groups has one for each.
    """
    grouping, count = program.grouping, len(x[0])
    assert grouping is not None
    found = list(groups.walk(grouping, count, first, held))
    made = {
        name: np.zeros((len(found) if name in grouping.tensors else count, *kind.shape), kind.format.dtype)
        for name, kind in program.types.items()
        if name in names
    }
    for size in sorted({group.size for group in found}):
        numbers = [k for k, group in enumerate(found) if group.size == size]
        places = np.concatenate([np.arange(found[k].start, found[k].start + size) for k in numbers])
        there = places < count
        batch = [np.zeros((len(places), *v.shape[1:]), v.dtype) for v in x]
        for into, v in zip(batch, x, strict=True):
            into[there] = v[places[there]]
        for name, codes in execute(program.in_groups_of(size), batch).items():
            if name in grouping.tensors:
                made[name][numbers] = codes
            else:
                made[name][places[there]] = codes[there]
    return made
