"""Whether functions give back what their annotations say: a list is no tuple, a numpy integer no int."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

#: What can be told of a value at once.
TOLD = (int, bool, str, float, bytes, tuple, list, dict, set, frozenset, NoneType)


def _kinds(hint: Any) -> tuple[type, ...] | None:
    """The types that a hint allows; None where it says too little."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_kinds(part) for part in get_args(hint)]
        return None if None in parts else tuple(kind for part in parts for kind in part)  # type: ignore[union-attr]
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and (kind in TOLD or kind.__module__.startswith("bittrue.")):
        return (kind,) if kind is not float else (float, int)
    return None


def _functions(packages: tuple[str, ...]) -> Iterator[FunctionType]:
    for name, module in list(sys.modules.items()):
        if name.startswith(packages):
            for value in list(vars(module).values()):
                members = list(vars(value).values()) if inspect.isclass(value) else [value]
                for member in members:
                    inner = getattr(member, "fget", None) or getattr(member, "func", None) or member
                    inner = inspect.unwrap(getattr(inner, "__func__", inner))
                    if isinstance(inner, FunctionType) and inner.__module__ == name:
                        yield inner


def promised(packages: tuple[str, ...]) -> Mapping[CodeType, tuple[type, ...]]:
    """By code: the types that it may give back. Generators and coroutines give back something else."""
    found = {}
    for function in _functions(packages):
        if function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            continue
        try:
            hint = get_type_hints(function).get("return", inspect.Parameter.empty)
        except (NameError, TypeError, AttributeError):  # names that only type checkers import
            continue
        kinds = _kinds(NoneType if hint is None else hint)
        if kinds:
            found[function.__code__] = kinds
    return found


@contextmanager
def watched(*packages: str) -> Iterator[dict[str, str]]:
    """Meanwhile every return from these packages is looked at; by function, what it gave that it must not."""
    allowed, wrong = promised(packages), {}

    def look(frame: FrameType, event: str, given: Any) -> None:
        if event == "return" and frame.f_code in allowed and not (given is None and _raised(frame)):
            kinds = allowed[frame.f_code]
            if not isinstance(given, kinds) or (isinstance(given, bool) and bool not in kinds):
                code = frame.f_code
                wrong[f"{frame.f_globals['__name__']}.{code.co_qualname}"] = f"{type(given).__name__}, not {kinds}"

    def _raised(frame: FrameType) -> bool:
        """Whether it ends by an exception, for which None stands: the last instruction is no return."""
        return frame.f_code.co_code[frame.f_lasti] not in RETURNS

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield wrong
    finally:
        sys.setprofile(before)


RETURNS = {code for name, code in __import__("opcode").opmap.items() if name.startswith("RETURN")}
