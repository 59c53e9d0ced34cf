"""What the report tells of a program that takes several images in one pass, beside its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.sim.operations.bundle import Bundle

if TYPE_CHECKING:
    from bittrue.models.superposition.settings import SuperpositionSettings
    from bittrue.sim.program import Program

#: Initial widths that are looked at, 16 channels each, unless a network has more than half of that.
WIDEST = 16
#: Of the order in which images share their passes with other companions.
SEED = 1


def of(program: Program, codes: np.ndarray, network: SuperpositionSettings, shape: Any, classes: int) -> dict[str, Any]:
    """Keys `macs` and `ordinary` (multiply-accumulates for an image, by images at a time, and of the ordinary network),
    `bound` (D), `crossover`, `keys` and `cross_talk`."""
    from bittrue.models.superposition.macs import table

    modes = (1,) if program.grouping is None else program.grouping.modes
    rows = table([network], shape=tuple(shape), classes=classes, summed=True)
    ordinary = rows[0][0].total
    macs = {
        str(count.images): {"macs": count.total, "speed_up": speed, "over_one_slot": alone or 1.0}
        for count, speed, alone in rows
        if count.network == network and count.images in modes
    }
    talk = {str(n): cross_talk(program, codes, n) for n in modes if n > 1}
    told = {
        "macs": macs,
        "ordinary": ordinary,
        "bound": network.bound,
        "crossover": crossover(network, shape, classes, modes),
    }
    return told | {"keys": keys(program), "cross_talk": talk}


def crossover(network: SuperpositionSettings, shape: Any, classes: int, modes: Sequence[int]) -> dict[str, Any]:
    """Where binding costs more than it saves, in multiply-accumulates for an image, keys of copies added beforehand.

    Of n images at a time `M(n) = stem + D^2 H W + (bulk + unbind) / n + classifier`, against M of the ordinary network.

    images   n, a real number, from which on M(n) is less; None where it never is
    curves   by n, points (D, how many times less M(n) is), D the channels that are bound, up to `WIDEST` times 16
    bound    by n, the largest D with which M(n) is no more, between two points on a straight line; None where no D is
             too many
    """
    from bittrue.models.superposition.macs import baseline, count

    options: dict[str, Any] = {"shape": tuple(shape), "classes": classes, "summed": True}
    ordinary = count(baseline(network), 1, **options).total
    widest = max(WIDEST, 2 * network.initial_width)
    counts = {
        wide: count(network.model_copy(update={"initial_width": wide}), 1, **options)
        for wide in sorted({*range(1, widest + 1), network.initial_width})
    }

    def times_less(one: Any, n: int) -> float:
        return ordinary / (one.stem + one.binding + (one.bulk + one.unbind) / n + one.classifier)

    own = counts[network.initial_width]
    left = ordinary - own.stem - own.binding - own.classifier
    curves = {n: [(16 * wide, times_less(one, n)) for wide, one in counts.items()] for n in modes}
    return {
        "images": (own.bulk + own.unbind) / left if left > 0 else None,
        "curves": {str(n): [[d, round(times, 4)] for d, times in points] for n, points in curves.items()},
        "bound": {str(n): _falls_below(points) for n, points in curves.items()},
    }


def _falls_below(points: Sequence[tuple[int, float]]) -> float | None:
    """Where a falling curve goes through 1; 0 where it begins below, None where it stays above."""
    if points[0][1] < 1:
        return 0.0
    for (d, before), (further, after) in pairwise(points):
        if after < 1:
            return round(d + (further - d) * (before - 1) / (before - after), 1)
    return None


def cross_talk(program: Program, codes: np.ndarray, n: int) -> float:
    """The share of images whose largest result is another one when they share their pass with others at random."""
    run = program.in_groups_of(n)
    whole = codes[: len(codes) // n * n]
    order = np.random.default_rng([SEED, n]).permutation(len(whole))
    first, again = run(whole), run(whole[order])
    decided = [results.reshape(len(results), -1).argmax(1) for results in (first, again)]
    return float((decided[0][order] != decided[1]).mean())


def keys(program: Program) -> list[dict[str, Any]]:
    """By slot: cosines with the keys of all, the length over the mean of all, and the magnitudes of the Fourier
    coefficients over the largest of all; of matrices that are not circulant, of all their entries, without a spectrum.
    Nothing where images are not bound."""
    bundle = next((node.operation for node in program.nodes if isinstance(node.operation, Bundle)), None)
    if bundle is None:
        return []
    whole = (bundle.keys if bundle.circulant else bundle.weight.reshape(bundle.slots, -1)).astype(float)
    lengths = np.linalg.norm(whole, axis=1)
    units = whole / np.maximum(lengths, 1)[:, None]
    spectra = np.abs(np.fft.rfft(whole, axis=1)) if bundle.circulant else np.zeros((bundle.slots, 0))
    most = max(spectra.max(initial=0.0), 1.0)
    return [
        {
            "cosines": [round(float(v), 6) for v in units @ units[slot]],
            "length": float(lengths[slot] / lengths.mean()),
            "spectrum": [round(float(v), 4) for v in spectra[slot] / most],
        }
        for slot in range(bundle.slots)
    ]
