"""Recipes: the YAML file that says what to train, how to build it, and how hard to check it.

A recipe names its `system`; the system (see `flow.engine.system`) owns the sections about its network and its
training, this module owns what every system shares: the data set, the hardware, the verification and the synthesis.

    recipe = load("mine.yaml", ["train.epochs=5", "rtl.interval=512"])

Every key is checked. An error names the key, the file or override it stands in, and the nearest valid key.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bittrue.flow.engine import plain_yaml, registry
from bittrue.flow.engine.system import System
from bittrue.sim.errors import BittrueError
from bittrue.sim.reading import shown

#: So many faults of a recipe are told at once.
SAID = 3
_Model = TypeVar("_Model", bound=BaseModel)


class Part(BaseModel):
    """A section of a recipe: no unknown key is accepted, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetPart(Part):
    """Which images; `folder` holds the files of every set that is not bundled."""

    name: Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "watch"] = "digits"
    folder: Path | None = None


class RtlPart(Part):
    """How fast the hardware shall be: an `interval` in cycles per frame, or the fastest that fits `device`.

    `architecture` of operations that have several, for all that have it or by the operation's name; without one, what
    suits all targets of `synth` (`packed` on AMD's, else what the planner takes for the interval). `weights` that are
    written while it runs: `written` for all operations that have any, or the names of some (`sim.written`), over a
    `weight_bus`. `block_luts`: LUTs that a block RAM is worth in matrix layers, where not what the planner takes.
    `rings`: whether convolutions read the ring of pixels themselves, wherever they can, or nowhere; by default where
    that takes less.
    """

    interval: int | None = Field(None, ge=1)
    device: str | None = "ecp5-85k"
    architecture: str | dict[str, str] | None = None
    block_luts: int | None = Field(None, ge=0)
    rings: bool | None = None
    weights: Literal["constant", "written"] | list[str] = "constant"
    weight_bus: Literal["stream", "lite"] = "stream"

    @field_validator("device")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        from bittrue.rtl.dataflow.estimate import DEVICES

        return value if value is None else _one_of(value, DEVICES, "device to plan for")

    @field_validator("architecture")
    @classmethod
    def _built(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        from bittrue.rtl.dataflow.stage import architectures

        if value is None:
            return None
        for name in {value} if isinstance(value, str) else set(value.values()):
            _one_of(name, architectures(), "architecture of an operation")
        return value


class VerifyPart(Part):
    """How many test images each back end runs; null means all of them.

    `idle` and `backpressure` are the probabilities of a cycle in which the source is silent and the sink refuses.
    """

    reference: int | None = Field(16, ge=0)
    compiled: int | None = Field(None, ge=0)
    gxx: int | None = Field(None, ge=0)
    icarus: int | None = Field(8, ge=0)
    verilator: int | None = Field(32, ge=0)
    idle: float = Field(0.3, ge=0, lt=1)
    backpressure: float = Field(0.3, ge=0, lt=1)
    seed: int = 0


class SynthPart(Part):
    """What to synthesise for, the clock asked of place and route, and the placer's seed."""

    targets: tuple[str, ...] = ("ecp5-85k",)
    frequency_mhz: float = Field(100.0, gt=0)
    seed: int = Field(1, ge=1)

    @field_validator("targets")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return known_targets(value)


def known_targets(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of targets as they are, or a ValueError for the first that does not exist."""
    from bittrue.flow.synth.targets import TARGETS

    return tuple(_one_of(name, TARGETS, "target") for name in names)


def _one_of(name: str, known: Iterable[str], what: str) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no {what} is named {name!r}{hint}; known are {', '.join(sorted(known))}")


class Recipe(Part):
    """What every system's recipe holds. A system adds its own sections (see `flow.engine.system`)."""

    name: str = Field("recipe", pattern=r"^[A-Za-z0-9._-]+$")
    description: str = ""
    system: str
    dataset: DatasetPart = DatasetPart()
    rtl: RtlPart = RtlPart()
    verify: VerifyPart = VerifyPart()
    synth: SynthPart = SynthPart()

    def part(self, *names: str) -> dict[str, Any]:
        """The named sections, or keys such as `section.key`, as JSON values: what a step's inputs are hashed from."""
        whole = json.loads(self.model_dump_json())
        return {name: reduce(getitem, name.split("."), whole) for name in names}

    def to_yaml(self) -> str:
        """The whole recipe, every default written out; `load` reads it back to an equal recipe."""
        return yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False, allow_unicode=True)


def read_by(system: System, step: str) -> tuple[str, ...]:
    """The sections that `train`, `quantize` or `rtl` reads, of those which the system adds (`System.reads`)."""
    own = () if step == "rtl" else tuple(name for name in system.recipe.model_fields if name not in Recipe.model_fields)
    return tuple(system.reads.get(step, own))


def shipped() -> dict[str, Path]:
    """The recipes that come with the systems, by name."""
    found = {name: path for system in registry.systems().values() for name, path in system.recipes().items()}
    return dict(sorted(found.items()))


def load(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path, and apply `key.sub=value` overrides in order."""
    content, where, places = _read(source, overrides)
    return parse(content, where, places)


def system_of(source: str | Path, overrides: Iterable[str] = ()) -> tuple[str, System]:
    """Name and system of a recipe, whether or not the rest of it can be used yet."""
    content, where, _ = _read(source, overrides)
    return str(content["name"]), _system(content, where)


def _read(source: str | Path, overrides: Iterable[str]) -> tuple[dict[str, Any], str, dict[str, str]]:
    """A recipe's content, its place for errors, and which override set which key."""
    path = _find(source)
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BittrueError(f"recipe {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise BittrueError(f"recipe {path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise BittrueError(f"recipe {path}: it holds a {type(content).__name__}; expected keys such as system, dataset")
    content.setdefault("name", path.stem)
    places: dict[str, str] = {}
    for override in overrides:
        apply(content, override, places)
    return content, f"recipe {path.stem if path in shipped().values() else path}", places


def parse(content: dict[str, Any], where: str = "recipe", places: dict[str, str] | None = None) -> Recipe:
    """Validate the content of a recipe. `places` says which override set which dotted key, for the errors."""
    return checked(_system(content, where).recipe, content, where, places)


def _system(content: dict[str, Any], where: str) -> System:
    try:
        return registry.find(content.get("system"))
    except BittrueError as error:
        raise BittrueError(f"{where}: {error}") from error


def checked(
    model: type[_Model], content: dict[str, Any], where: str, places: dict[str, str] | None = None,
    whole: str = "a recipe",
) -> _Model:  # fmt: skip
    """Settings from plain values, or one sentence about what is wrong with them; `whole` is what all keys make up."""
    try:
        # as JSON, where lists are tuples and texts are paths, but no truth is a number and no text either
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problems = error.errors()
        sentences = list(dict.fromkeys(_explain(model, problem, where, places or {}, whole) for problem in problems))
        more = f"; and {len(sentences) - SAID} more" if len(sentences) > SAID else ""
        raise BittrueError("; ".join(sentences[:SAID]) + more) from error


def _find(source: str | Path) -> Path:
    names = shipped()
    if str(source) in names:
        return names[str(source)]
    path = Path(source)
    if path.is_file():
        return path
    near = difflib.get_close_matches(str(source), names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BittrueError(
        f"recipe {str(source)!r}: {hint}it is neither a file nor a shipped recipe; shipped are {', '.join(names)}"
    )


def apply(content: dict[str, Any], override: str, places: dict[str, str]) -> None:
    """Set one dotted key in nested dictionaries, from `key.sub=value`; `places` is told which override it was."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise BittrueError(f"override {override!r}: write key.sub=value, for example train.epochs=5")
    try:
        value = plain_yaml.load(text)
    except yaml.YAMLError as error:
        raise BittrueError(f"override {override!r}: its value is not YAML ({' '.join(str(error).split())})") from error
    inner = content
    for name in keys[:-1]:
        if inner.get(name) is None:
            inner[name] = {}
        inner = inner[name]
        if not isinstance(inner, dict):
            raise BittrueError(f"override {override!r}: {name!r} is a value, not a section, so it has no {keys[-1]!r}")
    inner[keys[-1]] = value
    places[".".join(keys)] = override


def _explain(
    model: type[BaseModel], problem: dict[str, Any], where: str, places: dict[str, str], whole: str = "a recipe"
) -> str:
    """One sentence for one problem that pydantic found: the key, its place, what is valid, the remedy."""
    path = [str(name) for name in problem["loc"]]
    key = ".".join(path)
    for name, override in places.items():
        if key == name or key.startswith(name + ".") or name.startswith(key + "."):
            where = f"override {override!r}"
    if problem["type"] == "extra_forbidden":
        valid = _keys(model, path[:-1])
        section = ".".join(path[:-1])
        near = difflib.get_close_matches(path[-1], valid, 1, 0.5)
        nearest = ".".join([*path[:-1], near[0]]) if near else ""
        hint = f"did you mean {nearest!r}? " if near else ""
        inside = f"section {section!r}" if section else whole
        return f"{where}: unknown key {shown(key)}; {hint}{inside} has {', '.join(valid)}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "missing":
        return f"{where}: the key {key!r} is missing; add it"
    if not key:  # of keys in several sections
        return f"{where}: {message}"
    value = problem["input"]
    near = difflib.get_close_matches(str(value), _choices(problem), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: {key:.200} = {shown(value)} is not usable: {message:.600}{hint}"


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The valid keys of the section at `path`."""
    for name in path:
        inner = model.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _choices(problem: dict[str, Any]) -> list[str]:
    """The literals that pydantic would have accepted."""
    expected = problem.get("ctx", {}).get("expected", "")
    return [text.strip(" '") for text in expected.replace(" or ", ",").split(",")] if isinstance(expected, str) else []
