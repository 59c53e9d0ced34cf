"""The systems there are: every package below `bittrue.flow.systems`, and every entry point of `bittrue.systems`.

Nothing names the systems that come with bittrue: a folder below `flow/systems` whose package declares `SYSTEM` is one.
A system of your own is a package of your own with

    [project.entry-points."bittrue.systems"]
    mine = "my_package"

in its `pyproject.toml`: the module that declares `SYSTEM` (see `flow.engine.system`). Where such a package cannot be
imported, all others work, and whoever asks for it is told why it does not.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from bittrue.flow.engine.system import System
from bittrue.sim.errors import BittrueError

#: The package of the systems that come with bittrue, and the group of entry points that name others.
PACKAGE, GROUP = "bittrue.flow.systems", "bittrue.systems"


@dataclass(frozen=True)
class Found:
    """What there is.

    systems   by name
    origins   of those that an entry point names: which one, by the name of the system
    broken    a sentence for each entry point that gave none, by its name
    """

    systems: dict[str, System]
    origins: dict[str, str]
    broken: dict[str, str]


@cache
def found() -> Found:
    """All systems; looked for once a process."""
    package = importlib.import_module(PACKAGE)
    systems: dict[str, System] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if module.ispkg:
            system = _declared(f"{PACKAGE}.{module.name}")
            systems[system.name] = system
    origins: dict[str, str] = {}
    broken: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            system = _declared(entry.module)
            if system.name in systems:
                raise BittrueError(f"a system is named {system.name!r} already; give it another name")
            systems[system.name], origins[system.name] = system, _origin(entry)
        except Exception as error:  # whatever a foreign package raises when it is imported
            broken[entry.name] = _unusable(_origin(entry), error)
    return Found(systems, origins, broken)


def withdraw(name: str, error: Exception) -> None:
    """Take a system out that failed later, told as those that failed at once; one of bittrue's own raises."""
    known = found()
    if name not in known.origins:
        raise error
    del known.systems[name]
    known.broken[name] = _unusable(known.origins[name], error)


def _unusable(origin: str, error: Exception) -> str:
    return f"the system of {origin} cannot be used: {error}"


def systems() -> dict[str, System]:
    """Every system that can be used, by name."""
    return found().systems


def find(name: object) -> System:
    """A system by name, or an error that lists the systems there are."""
    known, broken = found().systems, found().broken
    if isinstance(name, str) and name in known:
        return known[name]
    if isinstance(name, str) and name in broken:
        raise BittrueError(broken[name])
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = "the key 'system' is missing" if name is None else f"unknown system {name!r}"
    raise BittrueError(f"{what}; {hint}write system: with one of {', '.join(known)}")


def _declared(module: str) -> System:
    """The `SYSTEM` of a module."""
    system = getattr(importlib.import_module(module), "SYSTEM", None)
    if not isinstance(system, System):
        raise BittrueError(f"{module} declares no SYSTEM; see bittrue.flow.engine.system for what one is")
    return system


def _origin(entry: EntryPoint) -> str:
    distribution = f"{entry.dist.name} {entry.dist.version}, " if entry.dist else ""
    return f"{distribution}entry point {entry.name!r} ({entry.value})"
