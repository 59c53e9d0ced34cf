"""The staged flow: named steps, each run only when its inputs changed, each written whole or not at all.

A step has a folder of its own under the flow's. It works in a hidden folder beside it, which takes the final name in
one move when the step is complete, together with `step.json`: what went in (as a hash), what came out (a hash of every
file), how long it took, and the step's result. Killed at any moment, the flow leaves only complete steps, and the
next run continues after the last of them; a step that can continue itself keeps its checkpoints in `scratch`.

A step runs again when its part of the recipe, a file of a step before it, the sources it depends on, a library's
version, or one of its own files changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from bittrue.flow.engine import durations
from bittrue.flow.engine.recipe import Recipe
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.locks import locked
from bittrue.sim.reading import sealed, unsealed

ROOT = Path(__file__).resolve().parents[2]
STAMP = "step.json"
_SOURCES = (".py", ".hpp", ".h", ".cpp", ".html", ".tcl", ".j2")


class Listener(Protocol):
    """Who is told how the flow proceeds: the terminal, a notebook, nobody."""

    def expect(self, steps: Sequence[Expected]) -> None: ...

    def begin(self, step: str) -> None: ...

    def progress(self, text: str, done: float, total: float) -> None: ...

    def end(self, step: str, outcome: Outcome) -> None: ...


class Silent:
    """A listener that says nothing."""

    def expect(self, steps: Sequence[Expected]) -> None:
        pass

    def begin(self, step: str) -> None:
        pass

    def progress(self, text: str, done: float, total: float) -> None:
        pass

    def end(self, step: str, outcome: Outcome) -> None:
        pass


@dataclass(frozen=True)
class Workspace:
    """What a step is given besides the recipe.

    folder    where to write; becomes the step's folder when the step returns
    upstream  the folders of the steps before it, by name
    results   what those steps returned
    seconds   how long they took
    scratch   survives an interruption of this very step (same inputs); for checkpoints
    progress  call with (text, done, total)
    """

    folder: Path
    upstream: Mapping[str, Path]
    results: Mapping[str, dict[str, Any]]
    seconds: Mapping[str, float]
    scratch: Path
    progress: Callable[[str, float, float], None]


@dataclass(frozen=True)
class Step:
    """A named step.

    needs     steps whose files it reads
    sections  sections of the recipe it reads
    code      folders and files whose sources decide its result: relative to the distribution, or absolute
    packages  installed distributions whose version decides its result
    extra     anything else its result depends on, as JSON, for example which tools are installed
    """

    name: str
    run: Callable[[Recipe, Workspace], dict[str, Any]]
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: Callable[[Recipe], Any] = lambda recipe: None  # noqa: E731, ARG005


@dataclass(frozen=True)
class Outcome:
    """What became of a step: `ran` is False when it was up to date; `why` says what made it run."""

    step: str
    folder: Path
    ran: bool
    why: str
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What is expected of a step before a flow begins.

    due       whether it is to run; one whose inputs are made anew counts as such, though they may end the same
    seconds   about how long that takes: as long as the last time in this folder, or else as measured for the recipe
    machine   where that was measured, None for this folder's last time and where nothing is known
    """

    step: str
    due: bool
    seconds: float | None
    machine: dict[str, Any] | None = None


def run(
    steps: Sequence[Step],
    recipe: Recipe,
    out: str | Path,
    until: str | None = None,
    start: str | None = None,
    listener: Listener | None = None,
) -> list[Outcome]:
    """Bring every step up to `until` up to date, in order; `start` and the steps after it run in any case."""
    names = [step.name for step in steps]
    for name in (until, start):
        if name is not None and name not in names:
            raise BittrueError(f"flow: no step is named {name!r}; the steps are {', '.join(names)}")
    if until and start and names.index(until) < names.index(start):
        raise BittrueError(f"flow: the step {start!r} to start from comes after {until!r}, the last one")
    listener = listener or Silent()
    out = Path(out)
    last = names.index(until) if until else len(names) - 1
    first = names.index(start) if start else len(names)
    outcomes: dict[str, Outcome] = {}
    with locked(out):
        write_whole(out / "recipe.yaml", recipe.to_yaml().encode())
        listener.expect(expected(steps[: last + 1], recipe, out, first))
        for index, step in enumerate(steps[: last + 1]):
            listener.begin(step.name)
            outcome = _bring_up_to_date(step, recipe, out, outcomes, index >= first, listener)
            outcomes[step.name] = outcome
            listener.end(step.name, outcome)
    return list(outcomes.values())


def expected(steps: Sequence[Step], recipe: Recipe, out: str | Path, first: int | None = None) -> list[Expected]:
    """Which of the steps are to run in this folder, `first` and those after it in any case, and about how long."""
    out, found, known = Path(out), {}, durations.measured(recipe.name)
    for index, step in enumerate(steps):
        due = first is not None and index >= first
        due = due or any(found[name].due for name in step.needs)
        due = due or _stale(out / step.name, _inputs(step, recipe, out)) is not None
        left, elsewhere = stamp(out / step.name), known["seconds"].get(step.name)
        machine = known["machine"] if left is None and elsewhere is not None else None
        found[step.name] = Expected(step.name, due, left["seconds"] if left else elsewhere, machine)
    return list(found.values())


def stamp(folder: str | Path) -> dict[str, Any] | None:
    """The `step.json` of a complete step, None where there is none or it cannot be read."""
    try:
        content = unsealed((Path(folder) / STAMP).read_bytes())
        return content if {"inputs", "files", "result", "seconds", "digest"} <= set(content) else None
    except (OSError, BittrueError):
        return None


def _bring_up_to_date(
    step: Step, recipe: Recipe, out: Path, done: Mapping[str, Outcome], force: bool, listener: Listener
) -> Outcome:
    folder = out / step.name
    inputs = _inputs(step, recipe, out)
    key = _hash(inputs)
    why = "asked for" if force else _stale(folder, inputs)
    if why is None:
        left = stamp(folder)
        return Outcome(step.name, folder, False, "up to date", left["seconds"], left["result"])
    partial, scratch = out / f".{step.name}.partial", out / f".{step.name}.scratch-{key[:16]}"
    shutil.rmtree(partial, ignore_errors=True)
    for old in out.glob(f".{step.name}.scratch-*"):
        if old != scratch:
            shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    work = Workspace(
        folder=partial,
        upstream={name: out / name for name in done},
        results={name: outcome.result for name, outcome in done.items()},
        seconds={name: outcome.seconds for name, outcome in done.items()},
        scratch=scratch,
        progress=listener.progress,
    )
    begin = time.perf_counter()
    try:
        result = json.loads(json.dumps(step.run(recipe, work)))
        seconds = round(time.perf_counter() - begin, 3)
        files = _files(partial)
        content = {"step": step.name, "seconds": seconds, "inputs": inputs, "files": files, "result": result}
        content["digest"] = _hash([files, result])
        write_whole(partial / STAMP, sealed(content))
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return Outcome(step.name, folder, True, why, seconds, result)


def _replace(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`. Between the two moves there is no folder: then the step runs again."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _inputs(step: Step, recipe: Recipe, out: Path) -> dict[str, Any]:
    """What goes into a step, by the words in which a change of it is told."""
    before = {f"the step {name}": (stamp(out / name) or {}).get("digest") for name in step.needs}
    sections = {f"the recipe's {name}": value for name, value in recipe.part(*step.sections).items()}
    packages = {f"the version of {name}": _version(name) for name in step.packages}
    extra = json.loads(json.dumps(step.extra(recipe)))
    return before | sections | packages | {"bittrue's sources": source_hash(step.code), "the installed tools": extra}


def _stale(folder: Path, inputs: dict[str, Any]) -> str | None:
    """Why a step must run, or None."""
    left = stamp(folder)
    if left is None:
        return "for the first time"
    if left["inputs"] != inputs:
        names = sorted(set(left["inputs"]) | set(inputs))
        changed = [name for name in names if left["inputs"].get(name) != inputs.get(name)]
        return f"{' and '.join(changed)} changed"
    if left["files"] != _files(folder):
        return "its files were altered"
    return None


def source_hash(code: Sequence[str]) -> str:
    """Hash of the named sources: every source file of a folder, tests apart."""
    sha = hashlib.sha256()
    for name in code:
        place = ROOT / name
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if path.is_file() and path.suffix in _SOURCES and not path.name.startswith("test_"):
                sha.update(f"{path.relative_to(place.parent)}\0".encode() + path.read_bytes())
    return sha.hexdigest()


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / STAMP
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
