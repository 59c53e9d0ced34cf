"""Sweeps: figures of what one recipe trained over settings of its system and seeds, as the system's `Sweeper` says.

The flow's step `train`, or the one that the sweeper names, is run once; every point (`flow.engine.grid`) goes on from
it with settings of its own and is measured on the first test images.

Points are Dask tasks: on processes of this machine, or on the cluster whose scheduler's address is given. A worker
needs bittrue in the same version and no files, since what was trained and images travel with the tasks. Every finished
point is written whole, named by a hash of everything that decides it; a sweep that was interrupted evaluates only what
is missing. The result does not depend on the workers or on the order in which they finish.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.flow import stages
from bittrue.flow.engine import cluster, grid, steps
from bittrue.flow.engine.grid import Axis, Point, Task
from bittrue.flow.engine.recipe import Recipe
from bittrue.flow.engine.sweeper import WITHIN, Shared, Sweeper
from bittrue.flow.engine.training import data_of
from bittrue.flow.report import sweep_figure
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder, write_whole
from bittrue.sim.locks import locked

JSON, PICTURE = "sweep.json", "sweep.svg"
#: What a point gave: `correct`, and what its sweeper declares.
Figures = dict[str, Any]


def run(
    source: str | Path,
    over: Sequence[str],
    seeds: int | None,
    images: int | None,
    *,
    overrides: Sequence[str] = (),
    flow: Path | None = None,
    out: Path | None = None,
    trained: bool = False,
    within: float | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    listener: Any = None,
) -> dict[str, Any]:
    """Bring a sweep up to date and write `sweep.json` and `sweep.svg`; returns the former with its `folder`.

    source, overrides   the recipe that is trained
    over                axes, see `grid.axis`; the first is across the picture, the others make its lines
    seeds               how many, from the recipe's own on; None: as many as the system's sweeps have by default
    images              test images, the first ones; None: all
    flow, out           folders of the flow, `build/<recipe>` by default, and of the sweep, `sweep` in it
    trained             train every point in exact integers, where the recipe alone does not decide that
    within              points of accuracy that the smallest point may be below the reference; None: `WITHIN`, where
                        points have a size
    scheduler           address of a Dask scheduler; None: processes of this machine, `workers` or one a core
    listener            told of steps and progress, see `flow.engine.steps.Listener`
    """
    listener = listener or steps.Silent()
    sweeper = grid.sweeper(source, overrides)
    base = grid.base(sweeper, source, overrides, over)
    axes, variants = grid.variants(sweeper, source, overrides, over)
    seeds = sweeper.seeds if seeds is None else seeds
    if seeds < 1 or (images is not None and images < 1):
        raise BittrueError(f"sweep: {seeds} seeds on {images} images measure nothing; give at least one of each")
    within = _options(sweeper, base, trained, within)
    if scheduler is not None:
        with cluster.client(scheduler, 1):
            pass  # one that is not there is told now, not after a training
    flow = flow or Path("build") / base.name
    out = try_folder(out or flow / "sweep")  # not after the training
    (outcome,) = steps.run(stages.steps(base), base, flow, sweeper.step, None, listener)[-1:]
    shared = _shared(sweeper, base, outcome.folder, variants, images, trained)
    files = steps.stamp(outcome.folder)["files"]
    points = grid.points(sweeper, base, axes, variants, seeds, shared, trained, files)
    listener.begin("sweep")
    with locked(out):
        found = {point.name: _read(out, point) for point in points}
        missing = [point for point in points if found[point.name] is None]
        done = len(points) - len(missing)
        listener.progress(f"{done} of {len(points)} points are there", done, len(points))
        for point, figures in _evaluated(sweeper, missing, shared, scheduler, workers):
            found[point.name] = figures
            content = {"identity": point.identity, "values": point.values, "seed": point.seed} | figures
            write_whole(_file(out, point), (json.dumps(content, indent=1) + "\n").encode())
            done += 1
            listener.progress(f"{done} of {len(points)} points", done, len(points))
        result = _collect(sweeper, base, axes, points, found, shared, trained, within)
        write_whole(out / JSON, (json.dumps(result, indent=1) + "\n").encode())
        write_whole(out / PICTURE, sweep_figure.draw(result, sweeper.names).encode())
    return result | {"folder": str(out)}


def _options(sweeper: Sweeper, base: Recipe, trained: bool, within: float | None) -> float:
    """Refuse options that say nothing of this system; gives `within`."""
    if trained and not sweeper.training:
        raise BittrueError(
            f"--qat: points of the system {base.system!r} are trained as the recipe says; leave the option out"
        )
    if within is not None and not sweeper.cost:
        raise BittrueError(
            f"--within: points of the system {base.system!r} have no size of which the smallest could be told; leave "
            "the option out"
        )
    if within is not None and not 0 <= within <= 100:
        raise BittrueError(f"--within {within}: take from 0 to 100 points of accuracy, such as {WITHIN}")
    return WITHIN if within is None else within


def _shared(
    sweeper: Sweeper, base: Recipe, folder: Path, variants: Sequence[Recipe], images: int | None, trained: bool
) -> Shared:
    """What was trained, and the images that any point needs."""
    from bittrue.models.data.sets import Split

    data = data_of(base)
    if images is not None and images > len(data.test):
        raise BittrueError(f"sweep: {data.name} has {len(data.test):,} test images, not {images:,}; ask for fewer")
    data = replace(data, test=Split(data.test.images[:images], data.test.labels[:images]))
    return sweeper.share(base, variants, folder, data, trained)


# -- points --------------------------------------------------------------------------------------------
def evaluate(task: Task, shared: Shared) -> Figures:
    """The figures of a point; what a worker does."""
    from bittrue.models.training.precision import threads

    if task.sources != grid.sources(task.sweeper):
        raise BittrueError(
            f"this worker has {grid.others(task.sweeper)}, than the sweep was started with; install the same on all "
            "workers"
        )
    with threads(1):  # sums in floating point depend on it, and the processes share the cores
        return task.sweeper.evaluate(task.settings, shared)


def _evaluated(
    sweeper: Sweeper, points: Sequence[Point], shared: Shared, scheduler: str | None, workers: int | None
) -> Iterator[tuple[Point, Figures]]:
    """Points with their figures, as they finish."""
    if not points:
        return
    with cluster.client(scheduler, min(workers or os.cpu_count() or 1, len(points))) as client:
        _compare(sweeper, cluster.ask(client, partial(grid.sources, sweeper)))
        # what all points share is the result of a task, which is done again where the worker that had it is lost
        common = cluster.submit(client, _shared_by_all, shared)
        running = {client.submit(evaluate, point.task, common, pure=False): point for point in points}
        for future in cluster.completed(client, running):
            point, error = running[future], future.exception()
            if isinstance(error, BittrueError):
                raise BittrueError(f"sweep: at {point}: {error}") from error
            if error is not None:
                raise BittrueError(
                    f"sweep: at {point}: a worker failed ({type(error).__name__}: {error}); what is done stays, so the "
                    "same command evaluates only the rest"
                ) from error
            yield point, future.result()


def _shared_by_all(shared: Shared) -> Shared:
    return shared


def _compare(sweeper: Sweeper, found: dict[str, Any]) -> None:
    """Refuse workers that would not compute what this process does."""
    for address, its in found.items():
        if isinstance(its, Exception):
            what = f"cannot run this bittrue ({type(its).__name__}: {' '.join(str(its).split())[:200]})"
        elif its != grid.sources(sweeper):
            what = f"has {grid.others(sweeper)}"
        else:
            continue
        raise BittrueError(
            f"sweep: the worker at {address} {what}; install on all workers what this process has, and start them again"
        )


# -- files ---------------------------------------------------------------------------------------------
def _file(out: Path, point: Point) -> Path:
    return out / "points" / f"{point.name}.json"


def _read(out: Path, point: Point) -> Figures | None:
    """The figures of a point that was finished before; None where there are none that can be read."""
    try:
        content = json.loads(_file(out, point).read_text())
        found = {name: content[name] for name in ("correct", *point.task.sweeper.figures)}
        same = content["identity"] == point.identity
    except (OSError, ValueError, KeyError, TypeError):
        return None
    numbers = type(found["correct"]) is int and all(type(value) in (int, float) for value in found.values())
    return found if same and numbers else None


def _collect(
    sweeper: Sweeper,
    base: Recipe,
    axes: Sequence[Axis],
    points: Sequence[Point],
    found: Mapping[str, Figures],
    shared: Shared,
    trained: bool,
    within: float,
) -> dict[str, Any]:
    """The content of `sweep.json`."""
    images, reference = len(shared.data.test), sweeper.accuracy(shared)
    rows, right = [], []
    for values, group in itertools.groupby(points, key=lambda point: point.values):
        kept = [(point.seed, found[point.name]) for point in group]
        seeds = [{"seed": seed, "accuracy": figures["correct"] / images} for seed, figures in kept]
        scores = np.array([one["accuracy"] for one in seeds])
        measured = {"mean": scores.mean(), "deviation": scores.std(), "lowest": scores.min(), "highest": scores.max()}
        row = {"values": values, "seeds": seeds} | {name: float(value) for name, value in measured.items()}
        rows.append(row | {name: max(figures[name] for _, figures in kept) for name in sweeper.figures})
        right.append(Fraction(sum(figures["correct"] for _, figures in kept), len(kept)))
    result = {
        "recipe": base.name,
        "dataset": base.dataset.name,
        "images": images,
        **({"trained": trained} if sweeper.training else {}),
        "reference": sweeper.reference,
        f"accuracy_{sweeper.reference}": reference,
        "axes": [{"key": one.key, "values": _distinct(rows, one.key)} for one in axes],
        "points": rows,
    }
    if sweeper.cost:
        least = round(reference * images) - Fraction(str(within)) * images / 100
        result |= {"within": within, "smallest": smallest(rows, right, least, sweeper)}
    return result | {"recipe_yaml": base.to_yaml()}


def smallest(
    rows: Sequence[Mapping[str, Any]], right: Sequence[Fraction], least: Fraction, sweeper: Sweeper
) -> dict[str, Any] | None:
    """The row of least cost whose mean count of right images is `least` or more, of equal ones the best; None where no
    row is. Counts are compared, as means of accuracies are rounded."""
    good = [k for k, count in enumerate(right) if count >= least]
    if not good:
        return None
    row = rows[min(good, key=lambda k: (rows[k][sweeper.cost], -right[k]))]
    return {name: row[name] for name in ("values", "mean", *sweeper.figures)}


def _distinct(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """The values of an axis in the order in which they were given."""
    values: list[Any] = []
    for row in rows:
        if row["values"][key] not in values:
            values.append(row["values"][key])
    return values
