"""Sweeps: accuracy of one trained photonic network over settings of its array and seeds of its noise.

The network is trained once, through the flow; every point converts it to its own array and runs the golden simulator
on the first test images. A point is a choice of one value for every axis and a seed: `array.seed`, from which noise,
errors of setting and drift are drawn. A setting with nothing random is evaluated once, whatever the number of seeds.

Points are Dask tasks: on processes of this machine, or on the cluster whose scheduler's address is given. A worker
needs bittrue in the same version and no files, since network and images travel with the tasks. Every finished point is
written whole, named by a hash of everything that decides it; a sweep that was interrupted evaluates only what is
missing. The result does not depend on the workers or on the order in which they finish.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from bittrue.flow import stages
from bittrue.flow.engine import cluster, plain_yaml, steps
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine.recipe import Recipe
from bittrue.flow.engine.training import data_of
from bittrue.flow.systems.light import sweep_figure
from bittrue.models.light.settings import Array, Calibrate
from bittrue.models.training.settings import Qat
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder, write_whole
from bittrue.sim.locks import locked

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data

JSON, PICTURE = "sweep.json", "sweep.svg"
#: What decides a point besides its settings.
CODE, PACKAGES = ("sim", "models", "flow/systems/light/sweep.py"), ("numpy", "numba", "torch")
SECTIONS = ("array", "calibrate")
Tell = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values it takes, each as the text of an override."""

    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One point as a worker sees it; `training` is None for a conversion without training."""

    array: Array
    calibrate: Calibrate
    training: Qat | None
    sources: str


@dataclass(frozen=True, eq=False)
class Shared:
    """What all points have in common: both trained networks, the calibration of the twin, images."""

    regular: Any
    twin: Any
    calibrate: Calibrate
    data: Data


@dataclass(frozen=True)
class Point:
    """A point of the grid: `values` by key, the seed, the worker's task, and the hash that names it."""

    values: dict[str, Any]
    seed: int
    task: Task
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return ", ".join([*(f"{key}={value}" for key, value in self.values.items()), f"seed {self.seed}"])


def axis(text: str) -> Axis:
    """`array.adc_bits=4,6,8` as an axis; values are separated as in a YAML list."""
    key, equals, listed = text.partition("=")
    try:
        values = plain_yaml.load(f"[{listed}]")
    except yaml.YAMLError as error:
        raise BittrueError(
            f"--over {text!r}: its values are not a YAML list ({' '.join(str(error).split())})"
        ) from error
    if not equals or not key.strip() or not values:
        raise BittrueError(f"--over {text!r}: write key.sub=value,value, for example array.adc_bits=4,6,8")
    texts = tuple(json.dumps(value) for value in values)
    if len(set(texts)) != len(texts):
        raise BittrueError(f"--over {text!r}: a value is there twice; give each once")
    return Axis(key.strip(), texts)


def run(
    source: str | Path,
    over: Sequence[str],
    seeds: int,
    images: int | None,
    *,
    overrides: Sequence[str] = (),
    flow: Path | None = None,
    out: Path | None = None,
    trained: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    listener: Any = None,
) -> dict[str, Any]:
    """Bring a sweep up to date and write `sweep.json` and `sweep.svg`; returns the former with its `folder`.

    source, overrides   the recipe that is trained
    over                axes, see `axis`; the first is across the picture, the others make its lines
    seeds               how many, from `array.seed` on
    images              test images, the first ones; None: all
    flow, out           folders of the flow, `build/<recipe>` by default, and of the sweep, `sweep` in it
    trained             train every point in exact integers, by the recipe's `finetune`
    scheduler           address of a Dask scheduler; None: processes of this machine, `workers` or one a core
    listener            told of steps and progress, see `flow.engine.steps.Listener`
    """
    listener = listener or steps.Silent()
    base = _base(source, overrides, over)
    axes, variants = _variants(source, overrides, base, over)
    if seeds < 1 or (images is not None and images < 1):
        raise BittrueError(f"sweep: {seeds} seeds on {images} images measure nothing; give at least one of each")
    if scheduler is not None:
        with cluster.client(scheduler, 1):
            pass  # one that is not there is told now, not after a training
    flow = flow or Path("build") / base.name
    out = try_folder(out or flow / "sweep")  # not after the training
    (outcome,) = steps.run(stages.steps(base), base, flow, "train", None, listener)
    shared = _shared(base, outcome.folder, variants, images, trained)
    points = _points(base, axes, variants, seeds, shared, trained, steps.stamp(outcome.folder)["files"])
    listener.begin("sweep")
    with locked(out):
        found = {point.name: _read(out, point) for point in points}
        missing = [point for point in points if found[point.name] is None]
        done = len(points) - len(missing)
        listener.progress(f"{done} of {len(points)} points are there", done, len(points))
        for point, correct in _evaluated(missing, shared, scheduler, workers):
            found[point.name] = correct
            content = {"identity": point.identity, "values": point.values, "seed": point.seed, "correct": correct}
            write_whole(_file(out, point), (json.dumps(content, indent=1) + "\n").encode())
            done += 1
            listener.progress(f"{done} of {len(points)} points", done, len(points))
        result = _collect(base, axes, points, found, shared, trained)
        write_whole(out / JSON, (json.dumps(result, indent=1) + "\n").encode())
        write_whole(out / PICTURE, sweep_figure.draw(result).encode())
    return result | {"folder": str(out)}


# -- the grid ------------------------------------------------------------------------------------------
def _base(source: str | Path, overrides: Sequence[str], over: Sequence[str]) -> Recipe:
    """The recipe that is trained: the overrides; with the first value of every axis where they are not whole without.

    `array.noise.bandwidth_hz=1e9`, for example, needs the noise that an axis brings, `calibrate.method=constant` the
    alpha. Training does not see the array, and a point calibrates the trained network anew.
    """
    try:
        return recipes.load(source, overrides)
    except BittrueError:
        firsts = [f"{one.key}={one.texts[0]}" for one in map(axis, over) if one.key.split(".")[0] in SECTIONS]
        if not firsts:
            raise
        return recipes.load(source, [*overrides, *firsts])


def _variants(
    source: str | Path, overrides: Sequence[str], base: Recipe, over: Sequence[str]
) -> tuple[list[Axis], list[Recipe]]:
    """The axes, and the recipe of every combination of their values, the last axis fastest."""
    if base.system != "photonic":
        raise BittrueError(
            f"sweep: recipe {base.name} is of the system {base.system!r}; a sweep varies a photonic array, so take a "
            "recipe of the system 'photonic', for example photonic-mlp-digits"
        )
    axes = [axis(text) for text in over]
    if not axes:
        raise BittrueError("sweep: no axis; give --over key.sub=value,value, for example --over array.adc_bits=4,6,8")
    keys = [one.key for one in axes]
    if len(set(keys)) != len(keys):
        raise BittrueError(f"sweep: {', '.join(keys)} name a key twice; give each once, with all its values")
    combinations = itertools.product(*(one.texts for one in axes))
    chosen = [[f"{key}={text}" for key, text in zip(keys, texts, strict=True)] for texts in combinations]
    variants = [recipes.load(source, [*overrides, *changes]) for changes in chosen]
    for key in keys:
        if key == "array.seed":
            raise BittrueError("--over array.seed: seeds are no axis; give their number with --seeds")
        if key.split(".")[0] not in SECTIONS:
            raise BittrueError(
                f"--over {key}: a sweep converts one trained network, so it varies keys of "
                f"{' and '.join(SECTIONS)}; change {key} for all points as {key}=VALUE behind the recipe"
            )
    return axes, variants


def _points(
    base: Recipe,
    axes: Sequence[Axis],
    variants: Sequence[Recipe],
    seeds: int,
    shared: Shared,
    trained: bool,
    files: dict[str, str],
) -> list[Point]:
    """All points, the seeds fastest."""
    networks = {name: files[name] for name in ("network.pt", "twin.pt")}
    images = _hash_of(shared.data)
    result = []
    for variant in variants:
        values = {one.key: _value(variant, one.key) for one in axes}
        random = variant.array.noise.on or variant.array.weight_error or variant.array.drift
        for seed in range(base.array.seed, base.array.seed + (seeds if random else 1)):
            array = Array.model_validate(variant.array.model_dump() | {"seed": seed})
            task = Task(array, variant.calibrate, variant.finetune if trained else None, sources())
            settings = {
                "array": array.model_dump(mode="json"),
                "calibrate": variant.calibrate.model_dump(mode="json"),
                "training": task.training and task.training.model_dump(mode="json"),
                "trained_with": base.calibrate.model_dump(mode="json"),
            }
            identity = settings | {"networks": networks, "images": images, "sources": task.sources}
            result.append(Point(values, seed, task, identity))
    return result


def _value(variant: Recipe, key: str) -> Any:
    """The value at a dotted key, as JSON has it."""
    value: Any = json.loads(variant.model_dump_json())
    for name in key.split("."):
        value = value[name]
    return value


@cache
def sources() -> str:
    """Hash of the sources and versions that decide a point."""
    versions = [version(name) for name in PACKAGES]
    return hashlib.sha256(f"{steps.source_hash(CODE)} {versions}".encode()).hexdigest()


def _hash_of(data: Data) -> str:
    sha = hashlib.sha256(f"{data.name} {data.classes} {data.gain}".encode())
    for split in (data.train, data.val, data.test):
        for array in (split.images, split.labels):
            sha.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def _shared(base: Recipe, folder: Path, variants: Sequence[Recipe], images: int | None, trained: bool) -> Shared:
    """The trained networks and the images that any point needs."""
    from bittrue.models.data.sets import Split
    from bittrue.models.light.network import SimpleMLP
    from bittrue.models.light.transform import NonNegativeNetwork
    from bittrue.models.training import storage

    data = data_of(base)
    if images is not None and images > len(data.test):
        raise BittrueError(f"sweep: {data.name} has {len(data.test):,} test images, not {images:,}; ask for fewer")
    data = replace(data, test=Split(data.test.images[:images], data.test.labels[:images]))
    if not trained:
        needed = max(max(variant.array.images, variant.calibrate.images) for variant in variants)
        train = Split(data.train.images[:needed], data.train.labels[:needed])
        data = replace(data, train=train, val=Split(data.val.images[:0], data.val.labels[:0]))
    networks = (
        storage.load(folder / f"{name}.pt", kind)
        for name, kind in (("network", SimpleMLP), ("twin", NonNegativeNetwork))
    )
    return Shared(*networks, base.calibrate, data)


# -- a point -------------------------------------------------------------------------------------------
def evaluate(task: Task, shared: Shared) -> int:
    """How many of the test images the golden simulator puts into the right class; what a worker does."""
    from bittrue.models.graph.lower import lower
    from bittrue.models.light.convert import convert
    from bittrue.models.light.transform import transform
    from bittrue.models.training import qat
    from bittrue.models.training.precision import threads

    if task.sources != sources():
        raise BittrueError(
            "this worker has other sources of bittrue, or another numpy, numba or torch, than the sweep was started "
            "with; install the same on all workers"
        )
    data = shared.data
    with threads(1):  # sums in floating point depend on it, and the processes share the cores
        twin = shared.twin
        if task.calibrate != shared.calibrate:
            twin = transform(shared.regular, task.calibrate, images=data.train.images)
        network = convert(twin, data, task.array)
        if task.training is not None and task.training.epochs:
            qat.fit(network, data, task.training)
        program = lower(network, name="sweep", dataset=data.name, classes=list(data.classes))
    logits = program(network.encode(data.test.images))
    return int((logits.argmax(1) == data.test.labels).sum())


def _evaluated(
    points: Sequence[Point], shared: Shared, scheduler: str | None, workers: int | None
) -> Iterator[tuple[Point, int]]:
    """Points with their results, as they finish."""
    if not points:
        return
    with cluster.client(scheduler, min(workers or os.cpu_count() or 1, len(points))) as client:
        _compare(cluster.ask(client, sources))
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


def _compare(found: dict[str, Any]) -> None:
    """Refuse workers that would not compute what this process does."""
    for address, its in found.items():
        if isinstance(its, Exception):
            what = f"cannot run this bittrue ({type(its).__name__}: {' '.join(str(its).split())[:200]})"
        elif its != sources():
            what = "has other sources of bittrue, or another numpy, numba or torch"
        else:
            continue
        raise BittrueError(
            f"sweep: the worker at {address} {what}; install on all workers what this process has, and start them again"
        )


# -- files ---------------------------------------------------------------------------------------------
def _file(out: Path, point: Point) -> Path:
    return out / "points" / f"{point.name}.json"


def _read(out: Path, point: Point) -> int | None:
    """The result of a point that was finished before; None where there is none that can be read."""
    try:
        content = json.loads(_file(out, point).read_text())
        correct = content["correct"]
        return correct if content["identity"] == point.identity and isinstance(correct, int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _collect(
    base: Recipe,
    axes: Sequence[Axis],
    points: Sequence[Point],
    found: dict[str, int],
    shared: Shared,
    trained: bool,
) -> dict[str, Any]:
    """The content of `sweep.json`."""
    from bittrue.models.training.loop import accuracy

    images = len(shared.data.test)
    rows = []
    for values, group in itertools.groupby(points, key=lambda point: point.values):
        seeds = [{"seed": point.seed, "accuracy": found[point.name] / images} for point in group]
        scores = np.array([one["accuracy"] for one in seeds])
        measured = {"mean": scores.mean(), "deviation": scores.std(), "lowest": scores.min(), "highest": scores.max()}
        rows.append({"values": values, "seeds": seeds} | {name: float(value) for name, value in measured.items()})
    return {
        "recipe": base.name,
        "dataset": base.dataset.name,
        "images": images,
        "trained": trained,
        "accuracy_float": accuracy(shared.twin, shared.data.test),
        "axes": [{"key": one.key, "values": _distinct(rows, one.key)} for one in axes],
        "points": rows,
        "recipe_yaml": base.to_yaml(),
    }


def _distinct(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """The values of an axis in the order in which they were given."""
    values: list[Any] = []
    for row in rows:
        if row["values"][key] not in values:
            values.append(row["values"][key])
    return values
