"""The command `bittrue fit`: fit a neuron set, measure it, draw it, write it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.flow.report import figures
from bittrue.flow.report.figures import ACCENT, BAD, FAINT, GOOD, INK, SOFT, WARM
from bittrue.models.fs import fit as fs_fit
from bittrue.models.fs import kernels as fs_kernels
from bittrue.models.fs import target as fs_target
from bittrue.models.fs.fit import FitSettings, Progress
from bittrue.models.fs.sets import PUBLISHED, NeuronSet
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole

#: Names under which a published set is compared with a fit.
PUBLISHED_AS = {"relu": "relu", "swish": "swish", "silu": "swish", "sigmoid": "sigmoid"}
WIDTH, LEFT, RIGHT = 860, 58, 18
PANELS = (210, 120, 150, 170)


def settings(
    function: str, steps: int, interval: tuple[float, float] | None, weights: str, **others: Any
) -> tuple[fs_target.TargetFunction, FitSettings]:
    """What the command line asks for, checked; without a range the function's usual one is taken."""
    target = fs_target.target(function)
    low, high = interval or fs_target.RANGES.get(target.name, (-8.0, 8.0))
    return target, FitSettings(steps=steps, low=low, high=high, importance=_weights(weights), **others)


def default_name(target: fs_target.TargetFunction, steps: int, bits: int | None) -> str:
    """`gelu-k16`, `gelu-k16-q8`; an expression has no name of its own."""
    stem = target.name.rpartition(":")[2]
    return f"{stem if stem.isidentifier() else 'neuron'}-k{steps}" + (f"-q{bits}" if bits else "")


def run(
    target: fs_target.TargetFunction, asked: FitSettings, out: Path, picture: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Fit, then write the set and its picture; what was measured, with the published set's error on the same grid."""
    fitted = fs_fit.fit(target, asked, out.stem, progress)
    fit = {"command": command(target, asked, out.name), **fitted.fit}
    made = NeuronSet(
        fitted.name, fitted.h, fitted.d, fitted.T, fitted.low, fitted.high, target.name, fitted.source, fit
    )
    made.save(out)
    write_whole(picture, draw(made, target).encode())
    return {
        "file": str(out),
        "picture": str(picture),
        "published_mse": published_error(target, asked.low, asked.high),
        **fit,
    }


def published_error(target: fs_target.TargetFunction, low: float, high: float) -> float | None:
    """Mean squared error of the published set for this function on the same grid, where there is one."""
    name = PUBLISHED_AS.get(target.name)
    if name is None:
        return None
    x = fs_kernels.grid(low, high)
    return fs_kernels.mean_squared_error(PUBLISHED[name], target(x), x)


def command(target: fs_target.TargetFunction, asked: FitSettings, out: str) -> str:
    """The command that makes the same set again."""
    words = ["bittrue", "fit", target.name, "--steps", asked.steps, "--range", f"{asked.low:g}", f"{asked.high:g}"]
    words += ["--bits", asked.bits] if asked.bits else []
    words += ["--importance", ",".join(f"{v:g}" for v in asked.importance)] if asked.importance else []
    words += ["--spike-cost", f"{asked.spike_cost:g}"]
    words += ["--restarts", asked.restarts, "--tries", asked.tries, "--seed", asked.seed, "--out", out]
    return shlex.join(str(word) for word in words)


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What people are told of a fit: a name and a figure each."""
    low, high = result["range"]
    told = [(f"MSE on [{low:g}, {high:g}], {result['grid_points']:,} points", f"{result['mse']:.4e}")]
    if result["published_mse"] is not None:
        told.append(("published set, same grid", f"{result['published_mse']:.4e}"))
    if "weighted_mse" in result:
        told.append(("MSE weighted by importance", f"{result['weighted_mse']:.4e}"))
    told += [
        ("largest error", f"{result['largest_error']:.4f}"),
        ("spikes per value", f"{result['spikes_per_value']:.2f}"),
        ("pieces", f"{result['pieces']}"),
    ]
    if result["bits"]:
        places = ", ".join(f"{array} {bits}" for array, bits in result["fraction_bits"].items())
        told.append((f"{result['bits']}-bit parameters, fraction bits", places))
    told += [(f"MSE as integers, {bits} fraction bits", f"{e:.4e}") for bits, e in result["integer_mse"].items()]
    told.append(("seed, restarts", f"{result['seed']}, {result['restarts']}"))
    return told


def _weights(text: str) -> tuple[float, float] | None:
    if text == "uniform":
        return None
    try:
        mean, sigma = (float(part) for part in text.split(","))
    except ValueError:
        raise BittrueError(f"importance {text!r}: expected 'uniform', or MEAN,SIGMA as in 0,1.5") from None
    fs_target.importance(np.zeros(2), mean, sigma)  # refuses what is no mean and deviation
    return mean, sigma


# -- the picture ---------------------------------------------------------------------------------------
def draw(neuron_set: NeuronSet, target: fs_target.TargetFunction) -> str:
    """Four panels as SVG text: function and approximation, error, spikes of every input, parameters of every step."""
    inner = WIDTH - LEFT - RIGHT
    x = fs_kernels.grid(neuron_set.low, neuron_set.high, 2 * inner + 1)
    found, y = fs_kernels.respond(neuron_set, x), target(x)
    error = found.values - y
    names = (
        f"{target.name} (grey), and the neuron of {neuron_set.steps} steps (blue)",
        "error (neuron - function)",
        "spikes: steps downward, input across",
        "parameters of each step: T, h, d",
    )
    parts, top = [], 30.0
    for title, height, panel in zip(names, PANELS, ("function", "error", "spikes", "parameters"), strict=True):
        parts.append(figures.text(LEFT, top - 9, title, 13, INK, bold=True))
        parts.append(figures.rect(LEFT, top, inner, height, "none", 0, FAINT))
        if panel == "function":
            parts += _curves(x, {SOFT: y, ACCENT: found.values}, top, height)
        elif panel == "error":
            parts += _curves(x, {BAD: error}, top, height)
        elif panel == "spikes":
            parts += _raster(found.spikes, top, height)
        else:
            parts += _parameters(neuron_set, top, height)
        if panel != "parameters":
            parts += _axis(x, top + height)
        top += height + 52
    label = f"{target.name} by an FS-neuron of {neuron_set.steps} steps"
    return figures.svg(WIDTH, top - 16, parts, escape(label))


def _scale(values: Sequence[np.ndarray], top: float, height: float) -> tuple[float, float, Any]:
    """Lowest and highest value, and the map from a value to its place in the panel."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    span = (high - low) or 1.0
    return low, high, lambda v: top + height - 6 - (v - low) / span * (height - 12)


def _curves(x: np.ndarray, curves: dict[str, np.ndarray], top: float, height: float) -> list[str]:
    low, high, place = _scale(list(curves.values()), top, height)
    across = np.linspace(LEFT, WIDTH - RIGHT, len(x))
    parts = [figures.text(LEFT - 6, place(v) + 4, f"{v:.3g}", 11, SOFT, "end") for v in (low, high)]
    if low < 0 < high:
        parts.append(figures.line([(LEFT, place(0)), (WIDTH - RIGHT, place(0))], FAINT, 1))
    for colour, values in curves.items():
        points = list(zip(across.tolist(), [place(v) for v in values.tolist()], strict=True))
        parts.append(figures.line(points, colour, 3 if colour == SOFT else 1.3))
    return parts


def _raster(spikes: np.ndarray, top: float, height: float) -> list[str]:
    """One bar for every run of neighbouring inputs that fire at the same step."""
    steps, points = spikes.shape[1], len(spikes)
    row, pixel = height / steps, (WIDTH - LEFT - RIGHT) / points
    parts = []
    for t in range(steps):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], spikes[:, t].astype(np.int8), [0]])))
        for first, end in edges.reshape(-1, 2).tolist():
            bar = (LEFT + first * pixel, top + t * row + 0.8, (end - first) * pixel, row - 1.6)
            parts.append(figures.rect(*bar, INK, 0))
        if t in (0, steps - 1):
            parts.append(figures.text(LEFT - 6, top + (t + 0.5) * row + 4, t, 11, SOFT, "end"))
    return parts


def _parameters(neuron_set: NeuronSet, top: float, height: float) -> list[str]:
    arrays = {"T": (neuron_set.T, WARM), "h": (neuron_set.h, ACCENT), "d": (neuron_set.d, GOOD)}
    zero = np.zeros(1)
    low, high, place = _scale([zero, *(values for values, _ in arrays.values())], top, height)
    pitch = (WIDTH - LEFT - RIGHT) / neuron_set.steps
    parts = [figures.text(LEFT - 6, place(v) + 4, f"{v:.3g}", 11, SOFT, "end") for v in (low, high)]
    parts.append(figures.line([(LEFT, place(0)), (WIDTH - RIGHT, place(0))], FAINT, 1))
    for number, (name, (values, colour)) in enumerate(arrays.items()):
        for t, value in enumerate(values.tolist()):
            left = LEFT + (t + 0.14 + 0.24 * number) * pitch
            upper, lower = sorted((place(value), place(0)))
            parts.append(figures.rect(left, upper, 0.22 * pitch, max(lower - upper, 0.6), colour, 1))
        parts.append(figures.text(WIDTH - RIGHT - 60 + 22 * number, top - 9, name, 13, colour, bold=True))
    for t in range(neuron_set.steps):
        parts.append(figures.text(LEFT + (t + 0.5) * pitch, top + height + 16, t, 11, SOFT, "middle"))
    return parts


def _axis(x: np.ndarray, below: float) -> list[str]:
    across, values = np.linspace(LEFT, WIDTH - RIGHT, 6), np.round(np.linspace(float(x[0]), float(x[-1]), 6), 6)
    return [
        figures.text(a, below + 16, f"{v:.3g}", 11, SOFT, "middle")
        for a, v in zip(across.tolist(), values.tolist(), strict=True)
    ]
