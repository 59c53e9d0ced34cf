"""The list of what can be converted, made from the code that does it."""

from __future__ import annotations

from typing import Any

from torch import nn

from bittrue.models.graph import groups, handlers, joins, padding, pools, refusals  # noqa: F401  (they register themselves)
from bittrue.models.graph.kinds import KINDS, REFUSED, Kind

INTRODUCTION = """\
# What `bittrue.convert` takes

Written by `python -m bittrue.models.graph.supported`; a test compares. Any module that torch.fx can follow, with one
tensor in and out or several, made of

1. the modules, functions and methods of tensors in the table;
2. whatever gives the values of one tensor in another order (view, reshape, flatten, permute, transpose, squeeze,
   unsqueeze, contiguous, pixel_shuffle and the like), or a part of them (chunk, split, slices), and whatever gives them
   as they are (dropout, identity);
3. whatever is a function of each value of one tensor, however many operations it is written with (ReLU, ReLU6, GELU,
   SiLU, sigmoid, tanh, hardswish, ELU, softplus, `x * sigmoid(1.7 * x)`, your own): the same function everywhere, or
   one for every channel (PReLU). `max(x, 0)` behind a product costs nothing, other clamps a comparison, factors and
   offsets go into the products beside them, and anything else is a table of its exact results.

A forward may look at shapes, sizes and types, call a module several times (its weights are shared), and take
arguments that have defaults. Of several inputs the calibration data, samples and codes are tuples in the order of its
arguments, or dictionaries by their names; results come as it gives them, in a tuple or a dictionary. What is told by 2.
and 3. is told by what a node gives, and the whole is compared with the model's own results, so what is taken is taken
rightly.

| module | function | method | how |
|---|---|---|---|
"""
REFUSALS = """
Refused, with the module's path, the line of your code and what would work: decisions that depend on the data, inputs
and results that nothing depends on or that depend on nothing, tensors that are changed in place and read elsewhere,
constants that differ from place to place, and

| module | function | method | instead |
|---|---|---|---|
"""


def supported() -> str:
    """What `convert` takes, as a page in Markdown."""
    return INTRODUCTION + _rows(KINDS) + REFUSALS + _rows(REFUSED)


def _rows(kinds: list[Kind]) -> str:
    return "".join(f"| {' | '.join(_cells(kind))} |\n" for kind in kinds)


def _cells(kind: Kind) -> list[str]:
    functions = sorted({_path(function) for function in kind.functions})
    return [
        ", ".join(f"`{_path(module)}`" for module in kind.modules),
        ", ".join(f"`{name}`" for name in functions),
        ", ".join(f"`{name}`" for name in kind.methods),
        kind.says,
    ]


def _path(thing: Any) -> str:
    if isinstance(thing, type) and issubclass(thing, nn.Module):
        return f"nn.{thing.__name__}"
    module = getattr(thing, "__module__", None) or ""
    home = {"_operator": "operator", "torch.nn.functional": "functional"}.get(module, "torch")
    if module.startswith("torch._C._nn") or module == "torch._jit_internal":
        home = "functional"
    return f"{home}.{getattr(thing, '__name__', thing)}"


if __name__ == "__main__":
    print(supported(), end="")
