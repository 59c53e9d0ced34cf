"""What a format of files is to the corpus of damaged ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import damage
from tests.helpers.damage import Rng, pick

#: A way to damage the content of a file: its name, what it does, and whether nothing but the old content may be read.
Damage = tuple[str, Callable[[Rng, bytes], bytes], bool]


@dataclass(frozen=True)
class Format:
    """A format.

    make      write whole files of it into a folder
    read      what a user's reader makes of the folder, in plain values that `same` compares
    damages   by a file's name, ways to damage it
    says      what the damaged file, named, says, found in another way; None where there is no telling
    open      the damages after which any content is right, since nothing tells it from a whole file
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    damages: dict[str, tuple[Damage, ...]]
    says: Callable[[Path, str], Any] | None = None
    open: frozenset[str] = frozenset()

    def draw(self, rng: Rng) -> tuple[str, Damage]:
        name = pick(rng, list(self.damages))
        return name, pick(rng, self.damages[name])


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are equal, and of one kind: no truth is a number here, and no text either."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    return a == b or (a != a and b != b)


OCTETS: Damage = ("bytes", damage.octets, False)
SEALED: Damage = ("bytes", damage.octets, True)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
