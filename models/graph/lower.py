"""From a network of integer layers in torch to a `sim.Program`.

The network's forward is traced (`models.graph.trace`): its layers become operations in the order in which it calls
them, so that the program has the dataflow of the very code that was trained. Any module can be lowered whose forward
consists of integer layers; each says itself what it becomes (`IntegerLayer.emit`).

Names: that of the layer (`label`), or its path with `_` for `.`; `blocks.0.first` makes the tensor `blocks_0_first`.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch
from torch import nn

from bittrue.models.graph.trace import Call, trace
from bittrue.models.layers.integer import CodeStep, IntegerInput, IntegerLayer
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.sim.builder import Builder
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: Modules of torch that only hold others.
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def lower(model: nn.Module, /, **meta: Any) -> Program:
    """The program of a network of integer layers whose first is an `IntegerInput`, one for each of its inputs.

    `meta` of the program holds what is given, and

        scales      real value of one step of every tensor, by name
        functions   for every table: `x_scale` and `y_scale`, real values of one step of its input and output, in a
                    list of one for each channel where they differ

    A layer that cannot be lowered is refused with its place in the model and its type, and so is a computation
    that is not a layer.
    """
    for name in ("scales", "functions"):
        if name in meta:
            raise BittrueError(f"lower: {name!r} of the program's meta is what lowering finds; give yours another name")
    refuse_unknown(model)
    traced = trace(copy.deepcopy(model).cpu().eval())
    entries = {name: entry.tensor_type for name, entry in traced.inputs.items()}
    lowering = Lowering(Builder(entries), {name: entry.scale for name, entry in traced.inputs.items()})
    made = {name: name for name in entries}
    with torch.no_grad():
        for call in traced.calls:
            made[call.name] = _emit(call, lowering, [made[name] for name in call.operands])
    known = {"scales": lowering.scales, "functions": lowering.functions}
    return lowering.build.program(*(made[name] for name in traced.results), **known, **meta)


def _emit(call: Call, lowering: Lowering, operands: list[str]) -> str:
    layer = call.layer
    where = f"layer {layer.path or call.path} ({type(layer).__name__})"
    try:
        inspect.signature(layer.emit).bind(lowering, call.name, *operands)
    except TypeError as error:
        raise BittrueError(f"{where}: it cannot be lowered with {len(operands)} tensors ({error})") from error
    try:
        return layer.emit(lowering, call.name, *operands)
    except BittrueError as error:
        raise BittrueError(f"{where}: {error}") from error


def refuse_unknown(model: nn.Module) -> None:
    """Raise, naming the first module that is neither a layer that lowers itself nor made of modules.

    A module that no forward calls is refused as well: what it was meant to do would be lost without a word.
    """
    pending = [("", model)]
    while pending:
        path, module = pending.pop(0)
        kind = type(module)
        known = isinstance(module, IntegerLayer) and kind.emit is not IntegerLayer.emit
        if known or isinstance(module, IntegerInput | CodeStep):
            continue  # what is inside a layer is its own business
        holds = isinstance(module, CONTAINERS)
        foreign = kind.__module__.startswith("torch.") and not holds
        childless = next(module.children(), None) is None and not holds
        own = next(module.parameters(recurse=False), None) is not None
        if foreign or childless or own:
            raise BittrueError(
                f"cannot lower the layer {path or '(the network itself)'} ({kind.__name__}): no operation is known "
                "for it; remove it, or write it with the layers of models.layers.integer"
            )
        pending += [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]


def record(model: nn.Module, *codes: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the forward, under the names that it has in the program: int64 `[n, ...]`."""
    traced = trace(model)
    with torch.inference_mode():
        values = traced.run(*map(torch.from_numpy, codes))
    tensors = {name: values[name] for name in traced.inputs}
    for call in traced.calls:
        made = call.layer.parts(call.name, *(values[name] for name in call.operands))
        tensors |= made | {call.name: values[call.name]}
    return {name: whole(values) for name, values in tensors.items()}
