"""What the code says by a number or by a word, said a second time: constants, defaults, and what is a property or kept.

Nothing computed tells whether a default or a limit is the one that was meant; users have what is written here. Whoever
changes one sees it among the differences of the commit, in `numbers.json`: `python -m tests.helpers.numbers`.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel

PACKAGES = ("bittrue.sim", "bittrue.rtl", "bittrue.flow")
KEPT = Path(__file__).with_name("numbers.json")
#: What a dataclass has of its own.
GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__replace__")
METHODS = (FunctionType, property, classmethod, staticmethod, cached_property)
#: Longer ones are sentences.
LONGEST = 60


def modules(package: str) -> Iterator[ModuleType]:
    """All modules of a package but tests."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not re.match("test_|conftest|__main__|bus_bench", module.name.split(".")[-1]):
            yield importlib.import_module(module.name)


def plain(value: Any) -> Any:
    """What JSON can hold of a value, None where that says nothing."""
    if isinstance(value, bool | int | float) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return value if len(value) <= LONGEST else None
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist() if value.size < 2 * LONGEST else None
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return {name: member.value for name, member in value.__members__.items()}
    if isinstance(value, tuple | list):
        inner = [plain(one) for one in value]
        return inner if any(one is not None for one in inner) else None
    if isinstance(value, dict):
        return {str(key): told for key, one in value.items() if (told := plain(one)) is not None}
    if isinstance(value, set | frozenset | range):
        return sorted(map(str, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, re.Pattern):
        return [value.pattern, int(value.flags)]
    if hasattr(value, "__metadata__"):  # an option of the command line
        told = [vars(one) for one in get_args(value)[1:] if hasattr(one, "__dict__")]
        return [{k: v for k, v in one.items() if v and isinstance(v, bool | int | float)} for one in told]
    return None


def _defaults(function: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    given = {p.name: plain(p.default) for p in parameters if p.default is not p.empty}
    return {name: value for name, value in given.items() if value is not None}


def _kind(value: Any) -> str:
    """What a decorator has made of a function."""
    kinds = [] if isinstance(value, FunctionType) else [type(value).__name__]
    inner = getattr(value, "__func__", getattr(value, "fget", value))
    if hasattr(inner, "__wrapped__") and isinstance(inner, FunctionType):
        kinds.append("wrapped")
    if getattr(inner, "__isabstractmethod__", False):
        kinds.append("abstract")
    return " ".join(kinds)


def _of_function(function: Any) -> dict[str, Any]:
    return _defaults(getattr(function, "__func__", getattr(function, "py_func", function)))


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """Fields, other members, defaults of methods; and which methods a decorator has made into what."""
    if issubclass(kind, BaseModel):
        fields = kind.model_json_schema().get("properties", {})
        yield (
            "fields",
            {f: {k: v for k, v in told.items() if k not in ("description", "title")} for f, told in fields.items()},
        )
    if "__dataclass_params__" in vars(kind):
        made = kind.__dataclass_params__  # type: ignore[attr-defined]
        yield "dataclass", " ".join(word for word in ("frozen", "eq", "order") if getattr(made, word))
    decorated: dict[str, list[str]] = defaultdict(list)
    for member, value in vars(kind).items():
        if member in GENERATED and dataclasses.is_dataclass(kind):
            continue
        if isinstance(value, METHODS) or type(value).__name__ == "_lru_cache_wrapper":
            if given := _of_function(value):
                yield f"{member}()", given
            if made := _kind(value):
                decorated[made].append(member)
        elif not member.startswith("__") and not issubclass(kind, BaseModel | enum.Enum) and plain(value) is not None:
            yield member, plain(value)
    yield from sorted(decorated.items())


def said(module: ModuleType) -> dict[str, Any]:
    """By name: what is written in this module."""
    found: dict[str, Any] = {}
    tree = ast.parse(Path(module.__file__).read_text())
    assigned = {
        n.id for s in tree.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if own and inspect.isclass(value) and not issubclass(value, enum.Enum):
            found[name] = dict(_of_class(value))
        elif own and callable(value) and hasattr(value, "__name__") and not inspect.isclass(value):
            found[f"{name}()"] = _of_function(value) | ({"made": _kind(value)} if _kind(value) else {})
        elif name in assigned and not name.startswith("__"):
            found[name] = plain(value)
    return json.loads(json.dumps({name: value for name, value in found.items() if value not in (None, {}, [])}))


def read() -> dict[str, dict[str, Any]]:
    return json.loads(KEPT.read_text())


def main() -> None:
    told = {module.__name__: said(module) for package in PACKAGES for module in modules(package)}
    rows = []
    for module, numbers in told.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in numbers.items()]
        if lines:
            rows.append(f"  {json.dumps(module)}: {{\n" + ",\n".join(lines) + "\n  }")
    KEPT.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
