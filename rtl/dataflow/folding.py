"""Folding: how much of a stage's work is done in one cycle, and the choices there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

from bittrue.rtl.dataflow.stage import PARALLEL
from bittrue.sim.errors import BittrueError


@dataclass(frozen=True)
class Folding:
    """How many inputs (`simd`) and outputs (`pe`) a stage works on each cycle, and which architecture it has.

    block_luts  LUTs that a block RAM is worth where a stage has the choice (`rtl.dataflow.structure.Storage`); None: as
                its class says
    ring        whether it reads the ring of the window before it, which is no stage of its own then
                (`rtl.dataflow.convolved`)
    """

    simd: int
    pe: int
    architecture: str = PARALLEL
    block_luts: int | None = None
    ring: bool = False


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def check_folding(stem: str, **values: tuple[int, int]) -> None:
    """Refuse a folding that does not divide: `simd=(value, total)`."""
    for name, (value, total) in values.items():
        if value < 1 or total % value:
            choices = ", ".join(map(str, divisors(total)))
            raise BittrueError(f"{stem}: {name} = {value} does not divide {total}; choose one of {choices}")


def matrix_foldings(inputs: int, outputs: int, architecture: str = PARALLEL) -> list[Folding]:
    """Every folding of a matrix product."""
    return [Folding(simd, pe, architecture) for pe in divisors(outputs) for simd in divisors(inputs)]


def fold_matrix(
    inputs: int, outputs: int, budget: int, foldings: Iterable[Folding], lanes: int | None = None
) -> Folding | None:
    """That of these foldings with the fewest products that is through with a vector within `budget` cycles, if any is.

    A `simd` is preferred that takes the vector in as fast, with the `lanes` of the input stream, which a converter
    narrows where they do not divide it; or, where they are not known, one that the fewest that are fast enough divide.
    """
    fewest = next((n for n in divisors(inputs) if inputs // n <= budget), inputs)

    def key(f: Folding) -> tuple[int, ...]:
        slow = f.simd % fewest != 0 if lanes is None else inputs // gcd(f.simd, lanes) > budget
        return slow, f.simd * f.pe, f.simd % (lanes or 1) != 0, f.pe, f.simd

    return min((f for f in foldings if (outputs // f.pe) * (inputs // f.simd) <= budget), key=key, default=None)
