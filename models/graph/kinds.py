"""The registry of what the normalised graph is made of: which handler takes a module, a function, a method of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx, nn

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser

Handle = Callable[["Normaliser", fx.Node], bool]


@dataclass(frozen=True)
class Kind:
    """What the list of supported things says of a handler."""

    modules: tuple[type[nn.Module], ...]
    functions: tuple[Any, ...]
    methods: tuple[str, ...]
    says: str


#: What is taken, and what people try that is not.
KINDS: list[Kind] = []
REFUSED: list[Kind] = []
_MODULES: dict[type[nn.Module], Handle] = {}
_FUNCTIONS: dict[Any, Handle] = {}
_METHODS: dict[str, Handle] = {}


def handles(*what: Any, says: str = "") -> Callable[[Handle], Handle]:
    """Register a handler for modules (classes), functions, and methods of tensors (text).

    A module of one's own that has a handler is not looked into, whatever its forward is written with; `says` is what
    the list of supported things tells of those that are torch's.
    """
    modules = tuple(w for w in what if isinstance(w, type))
    methods = tuple(w for w in what if isinstance(w, str))
    functions = tuple(w for w in what if not isinstance(w, type | str))
    if says:
        KINDS.append(Kind(modules, functions, methods, says))

    def register(handle: Handle) -> Handle:
        _MODULES.update(dict.fromkeys(modules, handle))
        _FUNCTIONS.update(dict.fromkeys(functions, handle))
        _METHODS.update(dict.fromkeys(methods, handle))
        return handle

    return register


def known(module: nn.Module) -> bool:
    """Whether a handler takes modules of this very class, or of one derived from a class that is not torch's."""
    kinds = type(module).__mro__
    return kinds[0] in _MODULES or any(kind in _MODULES and not kind.__module__.startswith("torch.") for kind in kinds)


def handler(module: nn.Module | None, node: fx.Node) -> Handle | None:
    """The handler of a node, None where there is none."""
    if module is not None:  # a subclass that torch itself makes, as of a parametrised weight, is what it is made of
        return next((_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES), None)
    return (_METHODS if node.op == "call_method" else _FUNCTIONS).get(node.target)


def refuses(*what: Any, says: str) -> None:
    """Register what is not supported, with what would work; what only renames values or is a function of each is."""

    def refuse(to: Normaliser, node: fx.Node) -> bool:
        if to.same_values(node) or to.same_place(node):
            return True
        to.refuse(node, says)
        return False

    handles(*what, says=says)(refuse)
    REFUSED.append(KINDS.pop())
