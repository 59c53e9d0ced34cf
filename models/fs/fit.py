"""Fitting a neuron set to a function: annealing from many starts, with the best d of every candidate known exactly.

The error of a candidate (h, T) with its least-squares d is computed on the whole grid from its pieces
(`models.fs.search`), some 10 microseconds whatever the number of points, so that millions of candidates are tried.
Restarts are rows of one array; after every round only the best go on. With `bits`, h and T move on the grid of their
fixed-point format and d is rounded in the loop: the error that decides is that of the quantised neuron.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bittrue.models.fs import kernels as fs_kernels
from bittrue.models.fs import search as fs_search
from bittrue.models.fs.sets import MAX_STEPS, NeuronSet
from bittrue.models.fs.target import TargetFunction, importance
from bittrue.sim.errors import BittrueError

#: Candidates of every restart between two reports of progress.
CHUNK = 500
#: Changes go down to this power of ten below the largest one.
FINENESS = 4.0
#: Weight of each end of the interval in the search, relative to all of it: what is clipped ends up there.
END_WEIGHT = 0.001
#: |h| and |T| stay below this many times the interval's farther end: a step that always fires has T < low.
REACH = 1.25
#: Fraction bits for which the error of the integer neuron is reported.
REPORTED_FRACTION_BITS = (6, 8, 10, 12)

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Round:
    """A round of annealing: this part of the restarts, so many times the candidates, from hot to cold."""

    part: float
    tries: float
    hot: float
    cold: float


ROUNDS = (Round(1.0, 1.0, 0.1, 0.01), Round(0.25, 3.0, 0.05, 0.003), Round(0.08, 8.0, 0.02, 0.0005))


@dataclass(frozen=True)
class FitSettings:
    """What a fit is asked for.

    steps:      K
    low, high:  the interval of the fit, and the valid range of the result
    bits:       Q, signed codes of h, d and T, each on a power-of-two grid of its own; None: float32
    importance: (mean, sigma) of the inputs that matter, see `models.fs.target.importance`; None: uniform
    spike_cost: what is minimised is MSE (1 + spike_cost * spikes per value); 0 fits the function alone. Spikes are what
                the hardware spends energy on, and many sets have nearly the same error
    restarts, tries: starts, and candidates of each in the first round
    """

    steps: int = 16
    low: float = -8.0
    high: float = 8.0
    bits: int | None = None
    importance: tuple[float, float] | None = None
    spike_cost: float = 0.1
    restarts: int = 32
    tries: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise BittrueError(f"range {self.low:g} {self.high:g}: expected two numbers, the lower one first")
        limits = {
            "steps": (self.steps, 1, MAX_STEPS),
            "restarts": (self.restarts, 1, 10_000),
            "tries": (self.tries, 1, 10_000_000),
        }
        if self.bits is not None:
            limits["bits"] = (self.bits, 2, 16)
        for name, (value, least, most) in limits.items():
            if not isinstance(value, int) or not least <= value <= most:
                raise BittrueError(f"{name} {value!r}: expected an integer of {least} to {most}")
        if not (math.isfinite(self.spike_cost) and self.spike_cost >= 0):
            raise BittrueError(f"spike cost {self.spike_cost:g}: expected a number of at least 0")


def fit(target: TargetFunction, settings: FitSettings, name: str = "", progress: Progress | None = None) -> NeuronSet:
    """The best set found; `fit` of the result holds the settings, the measured errors and the seconds it took.

    Deterministic in the settings. The reported mean squared errors are those of the float32 neuron on the float32
    grid of 100,000 points, not of the search.
    """
    began = time.perf_counter()
    x = np.linspace(settings.low, settings.high, fs_kernels.GRID_POINTS)
    y = target(x)
    weight = np.ones_like(x) if settings.importance is None else importance(x, *settings.importance)
    searched = weight.copy()
    searched[[0, -1]] += END_WEIGHT * weight.sum()
    mass, moment = (np.concatenate([[0.0], np.cumsum(v)]) for v in (searched, searched * y))
    square = float((searched * y * y).sum())
    grid = (settings.low, (settings.high - settings.low) / (len(x) - 1), mass, moment, square)
    found_h, found_t, errors = _search(settings, grid, progress or (lambda *_: None))

    levels = 0 if settings.bits is None else 1 << (settings.bits - 1)
    candidates = []
    for h, threshold in zip(found_h, found_t, strict=True):
        _, d = fs_search.judge(h, threshold, *grid, levels, settings.spike_cost)
        h[-1] = 0.0  # nothing looks at the membrane after the last step
        made = NeuronSet(name or target.name, h, d, threshold, settings.low, settings.high, target.name)
        x32 = fs_kernels.grid(settings.low, settings.high)
        spikes = fs_kernels.respond(made, x32).spikes.sum(-1)
        factor = 1 + settings.spike_cost * float(np.average(spikes, weights=weight))
        candidates.append((fs_kernels.mean_squared_error(made, target(x32), x32, weight) * factor, made))
    best = min(candidates, key=lambda entry: entry[0])[1]
    seconds = time.perf_counter() - began
    report = measured(best, target, settings) | {
        "restarts": settings.restarts,
        "tries": settings.tries,
        "seed": settings.seed,
        "restart_errors": [float(f"{e:.4g}") for e in np.sort(errors)],
        "seconds": round(seconds, 1),
    }
    return NeuronSet(
        best.name, best.h, best.d, best.T, best.low, best.high, target.name, "fitted with `bittrue fit`", report
    )


def measured(neuron_set: NeuronSet, target: TargetFunction, settings: FitSettings) -> dict[str, Any]:
    """What a set is worth on the interval of the settings, plain JSON values."""
    x = fs_kernels.grid(settings.low, settings.high)
    y = target(x)
    found = fs_kernels.respond(neuron_set, x)
    ends = np.abs(found.values - y)[[0, -1]]
    report: dict[str, Any] = {
        "range": [settings.low, settings.high],
        "grid_points": len(x),
        "mse": fs_kernels.mean_squared_error(neuron_set, y, x),
        "largest_error": float(np.abs(found.values - y).max()),
        "error_at_ends": [float(e) for e in ends],
        "spikes_per_value": float(found.spikes.sum() / len(x)),
        "pieces": int(np.count_nonzero(np.diff(found.words))) + 1,
        "importance": list(settings.importance) if settings.importance else "uniform",
        "spike_cost": settings.spike_cost,
        "bits": settings.bits,
    }
    if settings.importance:
        weight = importance(x.astype(np.float64), *settings.importance)
        report["weighted_mse"] = fs_kernels.mean_squared_error(neuron_set, y, x, weight)
    if settings.bits:
        report["fraction_bits"] = {array: _fraction_bits(getattr(neuron_set, array)) for array in ("h", "d", "T")}
    report["integer_mse"] = {}
    for bits in REPORTED_FRACTION_BITS:
        codes = np.floor(x.astype(np.float64) * 2**bits + 0.5) / 2**bits
        values = fs_kernels.respond(neuron_set.quantized(bits), codes).values
        report["integer_mse"][str(bits)] = float(np.mean((y - values) ** 2))
    return report


def _fraction_bits(values: np.ndarray) -> int:
    """The fewest fraction bits (maybe negative) with which all the values are codes."""
    return next(f for f in range(-64, 64) if np.array_equal(np.rint(values * 2.0**f), values * 2.0**f))


# -- the search ----------------------------------------------------------------------------------------
def _search(settings: FitSettings, grid: tuple, progress: Progress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best (h, T) `[S, K]` of the restarts that reached the last round, and the best error of every restart `[R]`."""
    rng = np.random.default_rng(settings.seed)
    h, threshold = _starts(settings, rng)
    units, tops = _formats(settings)
    best_h, best_t, best = h.copy(), threshold.copy(), np.full(settings.restarts, np.inf)
    bound = REACH * max(abs(settings.low), abs(settings.high))
    levels = 0 if settings.bits is None else 1 << (settings.bits - 1)
    size = (bound, bound / 2, FINENESS)

    kept = [max(1, math.ceil(settings.restarts * round_.part)) for round_ in ROUNDS]
    total = sum(n * round_.tries for n, round_ in zip(kept, ROUNDS, strict=True)) * settings.tries
    done, rows = 0, np.arange(settings.restarts)
    for number, (count, round_) in enumerate(zip(kept, ROUNDS, strict=True)):
        rows = rows[np.argsort(best[rows], kind="stable")[:count]]
        h, threshold = best_h[rows], best_t[rows]
        seen = [h.copy(), threshold.copy(), best[rows]]
        tries = int(settings.tries * round_.tries)
        for first in range(0, tries, CHUNK):
            chunk = min(CHUNK, tries - first)
            heat = tuple(round_.hot * (round_.cold / round_.hot) ** (k / tries) for k in (first, first + chunk))
            fs_search.anneal(
                rng, h, threshold, *seen, chunk, heat, size, units[rows], tops[rows], levels, settings.spike_cost, grid
            )
            done += chunk * len(rows)
            words = f"round {number + 1} of {len(ROUNDS)}, {len(rows)} restarts, error {seen[2].min():.4g}"
            progress(words, done, total)
        best_h[rows], best_t[rows], best[rows] = seen
    return best_h[rows], best_t[rows], best


def _starts(settings: FitSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Starting points of three families, float64 `[R, K]`.

    0: falling resets with thresholds near them; 1 and 2: a run of steps that halve (or a little less) what is above
    zero or above a random origin, the others random. Annealing makes the rest of the way.
    """
    shape, width = (settings.restarts, settings.steps), settings.high - settings.low
    h, threshold = rng.normal(0, width / 10, shape), rng.normal(0, width / 10, shape)
    for r in range(settings.restarts):
        family = r % 3
        if family == 0:
            falling = np.sort(np.exp(rng.uniform(np.log(width / 50), np.log(width / 2), settings.steps)))[::-1]
            h[r] = falling
            threshold[r] = falling * rng.uniform(0.5, 1.2) + rng.normal(0, width / 100, settings.steps)
            continue
        run = int(rng.integers(settings.steps // 3, settings.steps)) if settings.steps > 1 else 1
        first = int(rng.integers(0, settings.steps - run + 1))
        inside = family == 1 and settings.low < 0 < settings.high
        origin = 0.0 if inside else rng.uniform(settings.low, settings.high)
        halves = (settings.high - origin) * rng.uniform(0.5, 0.65) ** np.arange(1, run + 1)
        h[r, first : first + run] = halves
        threshold[r, first : first + run] = halves + origin
    return h, threshold


def _formats(settings: FitSettings) -> tuple[np.ndarray, np.ndarray]:
    """Grid of h and T per restart and the highest code, `[R, 2]`: formats that hold the bound, a half, a quarter."""
    units, tops = np.zeros((settings.restarts, 2)), np.zeros((settings.restarts, 2))
    if settings.bits is None:
        return units, tops
    bound = REACH * max(abs(settings.low), abs(settings.high))
    for r in range(settings.restarts):
        narrower = (r // 3) % 3
        units[r] = 2.0 ** (math.ceil(math.log2(bound)) - narrower - (settings.bits - 1))
    tops[:] = (1 << (settings.bits - 1)) - 1
    return units, tops
