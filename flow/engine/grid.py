"""The grid of a sweep: axes of a recipe's keys, a recipe for every combination of values, points with seeds.

A point is a choice of one value for every axis and a seed. It is named by a hash of everything that decides it: its
settings, what was trained before, the images, sources and versions. A setting with nothing random has one seed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bittrue.flow.engine import kernels, plain_yaml, registry, steps
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine.recipe import Recipe
from bittrue.flow.engine.sweeper import Shared, Sweeper
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values it takes, each as the text of an override."""

    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One point as a worker sees it."""

    sweeper: Sweeper
    settings: Any
    sources: str


@dataclass(frozen=True)
class Point:
    """A point of the grid: `values` by key, the seed, the worker's task, and what decides it, whose hash names it."""

    values: dict[str, Any]
    seed: int
    task: Task
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return ", ".join([*(f"{key}={value}" for key, value in self.values.items()), f"seed {self.seed}"])


# -- who can be swept ----------------------------------------------------------------------------------
def sweepers() -> dict[str, Sweeper]:
    """Of every system that has one, by the system's name."""
    found = {}
    for system in list(registry.systems().values()):
        try:
            one = system.sweep()
        except Exception as error:  # whatever a foreign package raises
            registry.withdraw(system.name, error)
        else:
            if one is not None:
                found[system.name] = one
    return found


def sweeper(source: str | Path, overrides: Sequence[str]) -> Sweeper:
    """That of a recipe's system, or an error that names the systems which have one."""
    name, system = recipes.system_of(source, overrides)
    known = sweepers()
    if system.name not in known:
        shipped = [one for other in known for one in registry.find(other).recipes()]
        hint = f", for example {shipped[0]}" if shipped else ""
        raise BittrueError(
            f"sweep: recipe {name} is of the system {system.name!r}, which has nothing to sweep; take a recipe of the "
            f"system {' or '.join(map(repr, known))}{hint}"
        )
    return known[system.name]


# -- axes ----------------------------------------------------------------------------------------------
def axis(text: str) -> Axis:
    """`section.key=4,6,8` as an axis; values are separated as in a YAML list."""
    key, equals, listed = text.partition("=")
    try:
        values = plain_yaml.load(f"[{listed}]")
    except yaml.YAMLError as error:
        raise BittrueError(
            f"--over {text!r}: its values are not a YAML list ({' '.join(str(error).split())})"
        ) from error
    if not equals or not key.strip() or not values:
        raise BittrueError(f"--over {text!r}: write key.sub=value,value, for example --over section.key=4,6,8")
    texts = tuple(json.dumps(value) for value in values)
    if len(set(texts)) != len(texts):
        raise BittrueError(f"--over {text!r}: a value is there twice; give each once")
    return Axis(key.strip(), texts)


def base(sweeper: Sweeper, source: str | Path, overrides: Sequence[str], over: Sequence[str]) -> Recipe:
    """The recipe that is trained: the overrides; with the first value of every axis where they are not whole without.

    An override may need a key that only an axis brings. What is trained does not depend on the axes, and a point takes
    its own values.
    """
    try:
        return recipes.load(source, overrides)
    except BittrueError:
        firsts = [f"{one.key}={one.texts[0]}" for one in map(axis, over) if _section(one.key) in sweeper.sections]
        if not firsts:
            raise
        return recipes.load(source, [*overrides, *firsts])


def variants(
    sweeper: Sweeper, source: str | Path, overrides: Sequence[str], over: Sequence[str]
) -> tuple[list[Axis], list[Recipe]]:
    """The axes, and the recipe of every combination of their values, the last axis fastest."""
    axes = [axis(text) for text in over]
    if not axes:
        raise BittrueError(
            f"sweep: no axis; give --over key.sub=value,value with a key of {_listed(sweeper.sections)}, as in "
            f"{sweeper.examples[0]}"
        )
    keys = [one.key for one in axes]
    if len(set(keys)) != len(keys):
        raise BittrueError(f"sweep: {', '.join(keys)} name a key twice; give each once, with all its values")
    combinations = itertools.product(*(one.texts for one in axes))
    chosen = [[f"{key}={text}" for key, text in zip(keys, texts, strict=True)] for texts in combinations]
    found = [recipes.load(source, [*overrides, *changes]) for changes in chosen]
    for key in keys:
        if key == sweeper.seed:
            raise BittrueError(f"--over {key}: seeds are no axis; give their number with --seeds")
        if _section(key) not in sweeper.sections:
            raise BittrueError(
                f"--over {key}: {sweeper.because}, so it varies keys of {_listed(sweeper.sections)}; change {key} for "
                f"all points as {key}=VALUE behind the recipe"
            )
        if key in sweeper.fixed:
            raise BittrueError(f"--over {key}: {sweeper.fixed[key]}, so it is no axis; leave it out")
    for variant in found:
        sweeper.check(variant)
    return axes, found


def _section(key: str) -> str:
    return key.partition(".")[0]


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# -- points --------------------------------------------------------------------------------------------
def points(
    sweeper: Sweeper, base: Recipe, axes: Sequence[Axis], variants: Sequence[Recipe], seeds: int, shared: Shared,
    trained: bool, files: dict[str, str],
) -> list[Point]:  # fmt: skip
    """All points, the seeds fastest; `files` are the hashes of what the step left."""
    common = {"networks": {name: files[name] for name in sweeper.files}, "images": _hash_of(shared.data)}
    common["sources"] = sources(sweeper)
    first, result = _value(base, sweeper.seed), []
    for variant in variants:
        values = {one.key: _value(variant, one.key) for one in axes}
        for seed in range(first, first + (seeds if sweeper.random(variant) else 1)):
            settings, identity = sweeper.task(base, variant, seed, trained)
            result.append(Point(values, seed, Task(sweeper, settings, common["sources"]), identity | common))
    return result


def _value(variant: Recipe, key: str) -> Any:
    """The value at a dotted key, as JSON has it."""
    value: Any = json.loads(variant.model_dump_json())
    for name in key.split("."):
        value = value[name]
    return value


def sources(sweeper: Sweeper) -> str:
    """Hash of the sources and versions that decide a point. A worker that is asked for it before it has torch takes
    the float kernels that all CPUs have, as this process does."""
    kernels.hold()
    return _hash_of_sources(sweeper.code, sweeper.packages)


@cache
def _hash_of_sources(code: tuple[str, ...], packages: tuple[str, ...]) -> str:
    versions = [version(name) for name in packages]
    return hashlib.sha256(f"{steps.source_hash(code)} {versions}".encode()).hexdigest()


def others(sweeper: Sweeper) -> str:
    """In words, what a worker with another hash of `sources` has."""
    return f"other sources of bittrue, or another {_listed(sweeper.packages, 'or')}"


def _hash_of(data: Data) -> str:
    sha = hashlib.sha256(f"{data.name} {data.classes} {data.gain}".encode())
    for split in (data.train, data.val, data.test):
        for array in (split.images, split.labels):
            sha.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()
