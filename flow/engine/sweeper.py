"""What a system is to a sweep: one declared object, as the system itself is to the flow (`flow.engine.system`).

    class Mine(Sweeper):
        sections, because = ("array",), "a sweep converts one trained network"
        ...

It stands in the system's `sweep.py` and is what `System.sweep` gives. Axes, seeds, tasks, files, table and picture are
the same for all (`flow.engine.grid`, `flow.engine.sweep`). The module imports nothing heavy, as its words are part of
the command's help; a sweeper goes to workers by its class and holds nothing.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data, Split
    from bittrue.sim.program import Program

#: Points of accuracy that the smallest point may be below the reference, unless it is said.
WITHIN = 1.5


@dataclass(frozen=True, eq=False)
class Shared:
    """What all points have in common: `data`, with the test images that were asked for, and what a system adds."""

    data: Data


class Sweeper(ABC):
    """What may be varied of a system's recipes, and how a point is evaluated.

    sections    of the recipe, whose keys may be axes
    because     why no other section's, as the beginning of a sentence: "a sweep converts one trained network"
    seed        the key of the first seed
    fixed       keys of these sections that are no axes, and why
    seeds       how many, unless the command says otherwise
    step        the step of the flow that is run once
    files       those of this step that every point begins with; their hashes decide it
    names       what keys mean, with units, for pictures
    reference   what points are compared with, in a word: the result has its accuracy as `accuracy_<reference>`
    training    the section by which the option --qat trains every point; empty: the recipe alone decides
    figures     what `evaluate` gives besides `correct`: counts, or shares of 1; they depend on a point's settings
    cost        which of them is smallest for the smallest point near the reference; empty: nothing of that is told
    packages    whose versions decide a point
    examples    commands for the help
    """

    sections: tuple[str, ...]
    because: str
    seed: str
    fixed: Mapping[str, str] = {}
    seeds: int = 8
    step: str = "train"
    files: tuple[str, ...] = ("network.pt",)
    names: Mapping[str, str] = {}
    reference: str = "float"
    training: str = ""
    figures: tuple[str, ...] = ()
    cost: str = ""
    packages: tuple[str, ...] = ("numpy", "numba", "torch")
    examples: tuple[str, ...] = ()

    @property
    def code(self) -> tuple[str, ...]:
        """Sources that decide a point: below the distribution, or absolute paths."""
        return ("sim", "models", "flow/engine/sweeper.py", str(Path(inspect.getfile(type(self))).resolve()))

    def check(self, variant: Any) -> None:  # noqa: B027  (may be left out)
        """Refuse, before anything is trained, a recipe that cannot be a point."""

    @abstractmethod
    def random(self, variant: Any) -> bool:
        """Whether anything of a point is drawn from its seed; else one seed is enough."""

    @abstractmethod
    def share(self, base: Any, variants: Sequence[Any], folder: Path, data: Data, trained: bool) -> Shared:
        """What all points need, from the step's `folder`, the recipe `base` that was trained, and the points' recipes;
        `trained`: whether --qat is given."""

    @abstractmethod
    def task(self, base: Any, variant: Any, seed: int, trained: bool) -> tuple[Any, dict[str, Any]]:
        """The settings of a point, which go to a worker, and all of them that decide its figures, as JSON."""

    @abstractmethod
    def evaluate(self, settings: Any, shared: Any) -> dict[str, Any]:
        """A point: `correct`, how many test images are in the right class, and its `figures`; what a worker does, with
        one thread of torch. It leaves `shared` as it was."""

    @abstractmethod
    def accuracy(self, shared: Any) -> float:
        """The accuracy of the reference on the test images, 0..1."""


def correct(program: Program, network: Any, test: Split) -> int:
    """How many images the golden simulator puts into the right class; `network` encodes them for its program."""
    logits = program(network.encode(test.images))
    return int((logits.argmax(1) == test.labels).sum())
