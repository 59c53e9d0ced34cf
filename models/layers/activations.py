"""The fixed functions that a network may have between its linear layers, by name."""

from __future__ import annotations

from torch import nn

from bittrue.sim.errors import BittrueError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


def activation(name: str) -> nn.Module:
    """The module of a function: `relu`, `swish` (x times sigmoid of x), `sigmoid`, `gelu` (exact, by erf)."""
    if name not in ACTIVATIONS:
        raise BittrueError(f"no activation is named {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def name_of(module: nn.Module) -> str | None:
    """The name of an activation, None for a module that is none."""
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    return names.get(type(module))
