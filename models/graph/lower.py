"""From a network of integer layers in torch to a `sim.Program`.

The network's forward is traced: its layers become operations in the order in which it calls them, so that the
program has the dataflow of the very code that was trained. Any module can be lowered whose forward consists of
integer layers; each says itself what it becomes (`IntegerLayer.emit`).

Names: the path of the layer with `_` for `.`; `blocks.0.token.norm` makes the tensor `blocks_0_token_norm`.
A linear over tokens makes three: `.._transpose`, the product itself, and `.._back`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bittrue.models.layers.integer import CodeStep, IntegerInput, IntegerLayer, IntegerTokenLinear
from bittrue.models.layers.lowering import Lowering, whole
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Builder, Program

INPUT = "x"


def lower(model: nn.Module, **meta: Any) -> Program:
    """The program of a network of integer layers whose first is an `IntegerInput`.

    `meta` of the program holds what is given, and

        scales      real value of one step of every tensor, by name
        functions   for every table: `x_scale` and `y_scale`, real values of one step of its input and output

    A layer that cannot be lowered is refused with its place in the model and its type, and so is a computation
    that is not a layer.
    """
    refuse_unknown(model)
    model = copy.deepcopy(model).cpu().eval()
    calls, result = trace(model)
    first, *rest = calls
    lowering = Lowering(Builder({INPUT: first.layer.tensor_type}), {INPUT: first.layer.scale})
    made = {first.name: INPUT}
    with torch.no_grad():
        for call in rest:
            try:
                made[call.name] = call.layer.emit(lowering, call.name, *(made[name] for name in call.operands))
            except BittrueError as error:
                raise BittrueError(f"layer {call.path} ({type(call.layer).__name__}): {error}") from error
    return lowering.build.program(made[result], scales=lowering.scales, functions=lowering.functions, **meta)


# -- what the network calls ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """One call of a layer in a forward: the name of its result, the layer, its path, the names it reads."""

    name: str
    layer: IntegerLayer
    path: str
    operands: tuple[str, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return isinstance(m, IntegerLayer)


def trace(model: nn.Module) -> tuple[list[Call], str]:
    """The layers that a forward calls, in order, and the name of its result."""
    try:
        graph = _Tracer().trace(model)
    except fx.proxy.TraceError as error:
        raise BittrueError(f"cannot lower {type(model).__name__}: its forward depends on its data ({error})") from error
    calls: list[Call] = []
    names: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            result = node.args[0]
            break
        if node.op != "call_module":
            stack = list(node.meta.get("nn_module_stack") or [""])
            place = stack[-1] or type(model).__name__
            what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
            raise BittrueError(
                f"cannot lower {what!r} in the forward of {place}: it is not a layer; "
                "write it with the layers of models.layers.integer"
            )
        name = unique = node.target.replace(".", "_")
        while unique in names.values():  # a layer that is called twice
            unique = f"{name}_{sum(n.startswith(name) for n in names.values()) + 1}"
        names[node] = unique
        operands = tuple(names[n] for n in node.args if n in names)
        calls.append(Call(unique, model.get_submodule(node.target), node.target, operands))
    if not calls or not isinstance(calls[0].layer, IntegerInput) or result not in names:
        raise BittrueError(
            f"cannot lower {type(model).__name__}: its first layer is no IntegerInput or it gives no single tensor"
        )
    needed = {names[result]}
    for call in reversed(calls):
        if call.name in needed:
            needed.update(call.operands)
    return [call for call in calls if call.name in needed], names[result]


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
        foreign = kind.__module__.startswith("torch.") and not isinstance(module, nn.ModuleList | nn.Sequential)
        childless = next(module.children(), None) is None and not isinstance(module, nn.ModuleList | nn.Sequential)
        own = next(module.parameters(recurse=False), None) is not None
        if foreign or childless or own:
            raise BittrueError(
                f"cannot lower the layer {path or '(the network itself)'} ({kind.__name__}): no operation is known "
                "for it; remove it, or write it with the layers of models.layers.integer"
            )
        pending += [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]


def record(model: nn.Module, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the forward, under the names and in the layout of the program: int64 `[n, ...]`."""
    calls, _ = trace(model)
    tokens_first = calls[0].layer.tokens is not None
    values: dict[str, Tensor] = {}
    tensors: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for call in calls:
            operands = [values[name] for name in call.operands] or [torch.from_numpy(codes)]
            values[call.name] = y = call.layer(*operands)
            if isinstance(call.layer, IntegerTokenLinear):
                tensors[f"{call.name}_transpose"] = whole(operands[0].permute(1, 2, 0))
                tensors[call.name] = whole(y.permute(1, 2, 0))
                tensors[f"{call.name}_back"] = whole(y.transpose(0, 1))
            else:
                name = INPUT if isinstance(call.layer, IntegerInput) else call.name
                tensors[name] = whole(y.transpose(0, 1) if tokens_first and y.ndim > 2 else y)
    return tensors
