"""Groups of samples: n of them become one, go through operations together, and come apart again.

An operation that `regroups` gathers the samples of a group, or parts them; both have `slots`, N, and `images`, n, a
divisor of N: how many samples there are in a group. n is constant, or a held input: then it is that of the group's
first sample, whatever is written before the group is complete. Tensors between the two have an entry a group, all
others an entry a sample. The first sample of a call begins a group. A last group that is not complete is filled with
samples of code 0, whose results are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, Sets, split

if TYPE_CHECKING:
    from bittrue.sim.program import Node

#: What an operation does to samples (`Operation.regroups`).
TOGETHER, APART = "together", "apart"


def divisors(slots: int) -> tuple[int, ...]:
    """The numbers of samples that fill so many slots evenly."""
    return tuple(n for n in range(1, slots + 1) if slots % n == 0)


def modes(images: Parameter, slots: int) -> tuple[int, ...]:
    """Every n that there can be, ascending: those that divide the slots where it is written, else the one."""
    return divisors(slots) if isinstance(images, Held) else (int(images),)


def written(slots: int, name: str = "images", initial: int | None = None) -> Held:
    """n as a held input: at first all slots are taken by samples of their own."""
    return Held(name, (), 1, slots, np.array(slots if initial is None else initial), among=divisors(slots))


def check(images: Parameter | int, slots: int, stem: str) -> Parameter:
    """n as an operation keeps it, or an error where it does not divide the slots."""
    if slots < 1:
        raise BittrueError(f"{stem}: {slots} slots hold no image; give at least 1")
    legal = divisors(slots)
    if isinstance(images, Held):
        if images.shape or images.counts or (images.among or range(images.low, images.high + 1)) != legal:
            raise BittrueError(
                f"{stem}: held input {images.name!r} must be one number, any of {', '.join(map(str, legal))}, which "
                f"divide {slots} slots; make it with bittrue.sim.groups.written({slots})"
            )
        return images
    n = np.asarray(images)
    if n.dtype.kind not in "iu" or n.shape or int(n) not in legal:
        raise BittrueError(
            f"{stem}: {images} images do not fill {slots} slots evenly; give one of {', '.join(map(str, legal))}"
        )
    frozen = np.array(n, np.int64)
    frozen.flags.writeable = False
    return frozen


@dataclass(frozen=True, eq=False)
class Grouping:
    """What a program's regrouping operations have in common.

    slots, images   N, and n: a constant, or a held input
    tensors         names of the tensors that have an entry a group
    """

    slots: int
    images: Parameter
    tensors: frozenset[str]

    @property
    def held(self) -> Held | None:
        """n, where it is written."""
        return self.images if isinstance(self.images, Held) else None

    @property
    def size(self) -> int:
        """n, where it is constant; where it is written what it is at first."""
        return int(self.images.initial if isinstance(self.images, Held) else self.images)  # type: ignore[arg-type]

    @property
    def modes(self) -> tuple[int, ...]:
        """Every n that there can be, ascending."""
        return modes(self.images, self.slots)

    def entries(self, name: str, samples: int) -> int:
        """Entries of a tensor for so many samples, a multiple of n."""
        return samples // self.size if name in self.tensors else samples

    def part(self, name: str, samples: slice) -> slice:
        """Those entries of a tensor that whole groups of samples make."""
        if name not in self.tensors:
            return samples
        return slice(samples.start // self.size, samples.stop // self.size)

    def filled(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Samples, and of code 0 so many that the last group is complete."""
        missing = -len(x[0]) % self.size
        if not missing:
            return list(x)
        return [np.concatenate([v, np.zeros((missing, *v.shape[1:]), v.dtype)]) for v in x]


def of(nodes: Sequence[Node]) -> Grouping | None:
    """The grouping of a program, None where samples stay by themselves; refused where samples and groups meet."""
    if not any(_regroups(node.operation) for node in nodes):
        return None
    together: set[str] = set()
    first: Node | None = None
    for node in nodes:
        operation = node.operation
        grouped = {name in together for name in node.operands}
        if len(grouped) > 1:
            raise BittrueError(
                f"program: {node.name!r} reads a tensor of samples and one of groups; bring both together, or apart"
            )
        here = grouped.pop()
        if _regroups(operation):
            if here != (operation.regroups == APART):
                what = "are together already" if here else "are not together"
                raise BittrueError(f"program: the samples that {node.name!r} reads {what}; leave it out")
            here = operation.regroups == TOGETHER
            first = first or node
            if not _alike(first.operation, operation):
                raise BittrueError(
                    f"program: {first.name!r} and {node.name!r} have other slots or images; all of a program have the "
                    "same"
                )
        if here:
            together.add(node.name)
    assert first is not None
    operation = first.operation
    others = sorted({name for node in nodes for name in node.operation.held} - set(operation.held))
    if others:
        raise BittrueError(
            f"program: its samples go in groups, so that beside {operation.stem!r} it holds no other input "
            f"({', '.join(others)}); make that a constant"
        )
    return Grouping(operation.slots, operation.images, frozenset(together))  # type: ignore[attr-defined]


def _regroups(operation: Any) -> bool:
    """Whether it brings samples together or apart: one that is alone in its group stays by itself."""
    return bool(operation.regroups) and (isinstance(operation.images, Held) or int(operation.images) > 1)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a.images, Held) and isinstance(b.images, Held):
        return a.slots == b.slots and a.images.name == b.images.name
    return a.slots == b.slots and type(a.images) is type(b.images) and np.array_equal(a.images, b.images)


@dataclass(frozen=True, eq=False)
class Group:
    """A group of a run: the place of its first sample, n, and how many of the n there are."""

    start: int
    size: int
    present: int


def walk(grouping: Grouping, count: int, first: int = 0, held: Sets | None = None) -> Iterator[Group]:
    """The groups of a run of `count` samples, in order; `first` and `held` as for a program."""
    spans: list[tuple[slice, int]] = []
    name = grouping.held.name if grouping.held is not None else ""
    for part, values in split({} if grouping.held is None else {name: grouping.held}, count, first, held):
        spans.append((part, grouping.size if values is None else int(values[name])))
    at, span = 0, 0
    while at < count:
        while spans[span][0].stop <= at:
            span += 1
        size = spans[span][1]
        yield Group(at, size, min(size, count - at))
        at += size
