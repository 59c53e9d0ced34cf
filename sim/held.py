"""Held inputs: what is written once and kept until it is written again, beside the streamed inputs of a program.

A field of an operation that is an integer array (a weight, a bias, a shift) is a `Parameter`: an array that never
changes, or a `Held` input with bounds. Every range and width follows from `bounds`, the lowest and the highest value
of each entry; for an array that does not change both are the array itself.

A counter is a held input that the hardware keeps by itself: it moves on by one with every sample of the run, and the
index of an image, which deterministic noise is drawn by, is one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from bittrue.sim.contract import Format, axes
from bittrue.sim.errors import BittrueError

#: Mark in the metadata of a dataclass field that came later than its class: where it has its default it is left out of
#: files and hashes, which are those of before.
LATER = "later"


@dataclass(frozen=True, eq=False)
class Held:
    """A held input.

    name      by which it is written; two parameters of one name are one held input
    shape     of the array, `()` for a number
    low, high  of every entry: what lies outside is refused
    initial   what it holds before it is written: int64 `shape`; by default the value nearest to 0
    counts    it is a counter of samples: nobody writes it
    among     the values that an entry can have, ascending, where these are not all between `low` and `high`
    """

    name: str
    shape: tuple[int, ...]
    low: int
    high: int
    initial: np.ndarray | None = None
    counts: bool = False
    among: tuple[int, ...] | None = dataclasses.field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", axes(self.shape, f"held input {self.name!r}"))
        if self.low > self.high:
            raise BittrueError(f"held input {self.name!r}: its bounds {self.low}..{self.high} hold no value")
        nearest = min(max(0, self.low), self.high)
        if self.among is not None:
            values = tuple(int(value) for value in self.among)
            if list(values) != sorted(set(values)) or not values or (values[0], values[-1]) != (self.low, self.high):
                raise BittrueError(
                    f"held input {self.name!r}: its values {values} must ascend from {self.low} to {self.high}"
                )
            object.__setattr__(self, "among", values)
            nearest = min(values, key=abs)
        initial = np.full(self.shape, nearest) if self.initial is None else self.initial
        object.__setattr__(self, "initial", self.check(initial))

    @property
    def format(self) -> Format:
        """The narrowest format of its values; unsigned when none is negative."""
        return Format.covering(self.low, self.high)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def check(self, values: np.ndarray) -> np.ndarray:
        """The values as a read-only int64 array, or an error that names what is wrong."""
        values = np.asarray(values)
        if values.dtype.kind not in "iu":
            raise BittrueError(f"held input {self.name!r}: its values are integers, but the array is {values.dtype}")
        if values.shape != self.shape:
            raise BittrueError(f"held input {self.name!r}: expected shape {self.shape}, got {values.shape}")
        if values.size and (values.min() < self.low or values.max() > self.high):
            raise BittrueError(
                f"held input {self.name!r}: values {values.min()}..{values.max()} lie outside its bounds "
                f"{self.low}..{self.high}; widen the bounds, or change the values"
            )
        if self.among is not None and (other := values[~np.isin(values, self.among)]).size:
            raise BittrueError(
                f"held input {self.name!r}: {other.flat[0]} is none of its values "
                f"{', '.join(map(str, self.among))}; take one of these"
            )
        frozen = np.array(values, dtype=np.int64, order="C")
        frozen.flags.writeable = False
        return frozen

    def same_as(self, other: Held) -> bool:
        """Whether the two are one held input: in all but the name."""
        mine, its = (
            (h.shape, h.low, h.high, h.counts, h.among, h.initial.tobytes())  # type: ignore[union-attr]
            for h in (self, other)
        )
        return mine == its


#: What an array of an operation is.
Parameter = np.ndarray | Held

#: The values of every held input that is written, by name.
Set = Mapping[str, np.ndarray]

#: One set for a whole run, or sets and the index of the first sample of the run that each is for.
Sets = Set | Sequence[tuple[int, Set]]


def bounds(parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of every entry, int64 arrays of the parameter's shape."""
    if isinstance(parameter, Held):
        return np.full(parameter.shape, parameter.low), np.full(parameter.shape, parameter.high)
    return parameter, parameter


def fixed(values: Any, name: str) -> np.ndarray:
    """The array of an operation that hardware has as a constant; a held input in its place is refused by `name`."""
    if isinstance(values, Held):
        raise BittrueError(
            f"{name} is a constant, so the held input {values.name!r} cannot stand for it; give its values. What can "
            "be held: weights, cells and offsets of matrix products, and what requantisers add, multiply and shift by"
        )
    return np.asarray(values)


def content(parameter: Parameter) -> np.ndarray:
    """What it holds before anything is written."""
    return parameter.initial if isinstance(parameter, Held) else parameter  # type: ignore[return-value]


def constant(parameter: Parameter, value: int) -> bool:
    """Whether every entry is this value and stays so."""
    return not isinstance(parameter, Held) and bool((parameter == value).all())


def check_set(written: Mapping[str, Held], values: Set) -> dict[str, np.ndarray]:
    """A whole set of values of these held inputs, checked against their shapes and bounds."""
    if unknown := sorted(set(values) - set(written)):
        raise BittrueError(f"no held input {unknown[0]!r} can be written; those are {', '.join(written) or 'none'}")
    if missing := [name for name in written if name not in values]:
        raise BittrueError(
            f"the set lacks {', '.join(map(repr, missing))}; a set has a value for every held input that is written"
        )
    return {name: held.check(values[name]) for name, held in written.items()}


def split(
    written: Mapping[str, Held], count: int, first: int = 0, held: Sets | None = None
) -> Iterator[tuple[slice, dict[str, np.ndarray] | None]]:
    """The parts of a run of `count` samples in which nothing is written: the samples, and the set that holds.

    `first` is the index of the run's first sample; `held` is one set for all, or sets and the index of the sample that
    each is for and those after it, ascending. Before the first of them holds what does at first: None.
    """
    if held is None:
        changes: list[tuple[int, Set]] = []
    else:
        changes = [(first, held)] if isinstance(held, Mapping) else list(held)
    starts = [at for at, _ in changes]
    if starts != sorted(set(starts)):
        raise BittrueError(f"sets are given for the samples {starts}; these must ascend")
    if changes and not written:
        raise BittrueError("the program has no held input that is written, so it takes no set")
    checked = [(min(max(at - first, 0), count), check_set(written, values)) for at, values in changes]
    begin, current = 0, None
    for end, values in checked:
        if end > begin:
            yield slice(begin, end), current
        begin, current = end, values
    if count > begin or not count:
        yield slice(begin, count), current


def find(part: Any) -> dict[str, Held]:
    """The held inputs among the fields of a dataclass and of its parts, by name."""
    found: dict[str, Held] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Held):
            merge(found, {value.name: value})
        elif is_dataclass(value):
            merge(found, find(value))
    return found


def merge(into: dict[str, Held], more: Mapping[str, Held]) -> None:
    """Add held inputs; two of one name have the same shape, bounds and content."""
    for name, held in more.items():
        if not into.setdefault(name, held).same_as(held):
            raise BittrueError(
                f"two held inputs are named {name!r}, with other shapes, bounds or initial values; "
                "give them names of their own, or make them equal"
            )


def put(part: Any, values: Set) -> Any:
    """The dataclass with the held inputs that are named in `values` replaced by constants, in its parts too."""
    changed = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Held) and value.name in values:
            changed[field.name] = values[value.name]
        elif is_dataclass(value) and not isinstance(value, Held) and (inner := put(value, values)) is not value:
            changed[field.name] = inner
    return replace(part, **changed) if changed else part
