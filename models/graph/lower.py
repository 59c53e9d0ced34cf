"""From a network of integer layers in torch to a `sim.Program`.

The network's forward is traced: its layers become operations in the order in which it calls them, so that the
program has the dataflow of the very code that was trained. Any module can be lowered whose forward consists of
integer layers; `emit` says what each becomes and is open for more.

Names: the path of the layer with `_` for `.`; `blocks.0.token.norm` makes the tensor `blocks_0_token_norm`.
A linear over tokens makes three: `.._transpose`, the product itself, and `.._back`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bittrue.models.layers.integer import (
    IntegerAdd,
    IntegerAffine,
    IntegerInput,
    IntegerLayer,
    IntegerLinear,
    IntegerMean,
    IntegerTable,
    IntegerTokenLinear,
    Step,
)
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Builder, Program
from bittrue.sim.requantize import Requantize

INPUT = "x"


@dataclass
class Lowering:
    """A program in the making, with what people and plots want to know about it."""

    build: Builder
    scales: dict[str, float]
    functions: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, operation: Operation, *operands: str, scale: float) -> str:
        self.scales[name] = scale
        return self.build.add(name, operation, *operands)

    def type(self, name: str) -> TensorType:
        return self.build.types[name]


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
    kind = TensorType(first.layer.shape, Format(first.layer.bits, signed=first.layer.low < 0))
    lowering = Lowering(Builder(**{INPUT: kind}), {INPUT: first.layer.scale})
    made = {first.name: INPUT}
    with torch.no_grad():
        for call in rest:
            try:
                made[call.name] = emit(call.layer, lowering, call.name, *(made[name] for name in call.operands))
            except BittrueError as error:
                raise BittrueError(f"layer {call.path} ({type(call.layer).__name__}): {error}") from error
    return lowering.build.program(made[result], scales=lowering.scales, functions=lowering.functions, **meta)


# -- what each layer becomes ---------------------------------------------------------------------------
@singledispatch
def emit(layer: IntegerLayer, lowering: Lowering, name: str, *operands: str) -> str:  # noqa: ARG001
    """Add the operations of a layer that reads `operands`, and give the name of its result."""
    raise BittrueError(f"no operation is known for it (result {name!r})")


@emit.register
def _linear(layer: IntegerLinear, lowering: Lowering, name: str, source: str) -> str:
    return lowering.add(name, linear_operation(layer, lowering.type(source)), source, scale=layer.scale)


@emit.register
def _token_linear(layer: IntegerTokenLinear, lowering: Lowering, name: str, source: str) -> str:
    turn = Transpose(lowering.type(source))
    turned = lowering.add(f"{name}_transpose", turn, source, scale=lowering.scales[source])
    mixed = lowering.add(name, linear_operation(layer, turn.output), turned, scale=layer.scale)
    return lowering.add(f"{name}_back", Transpose(lowering.type(mixed)), mixed, scale=layer.scale)


@emit.register
def _affine(layer: IntegerAffine, lowering: Lowering, name: str, source: str) -> str:
    weight, shift, bias = map(whole, layer.integers())
    fmt = Format(layer.bits)
    requantize = Requantize(len(bias), shift, bias, format=fmt)
    return lowering.add(name, Affine(lowering.type(source), weight, requantize, fmt), source, scale=layer.scale)


@emit.register
def _table(layer: IntegerTable, lowering: Lowering, name: str, source: str) -> str:
    operation = Lerp(lowering.type(source), whole(layer.integers()), Format(layer.bits))
    lowering.functions[name] = {"x_scale": lowering.scales[source], "y_scale": layer.scale}
    return lowering.add(name, operation, source, scale=layer.scale)


@emit.register
def _add(layer: IntegerAdd, lowering: Lowering, name: str, left: str, right: str) -> str:
    operation = Add(lowering.type(left), lowering.type(right), Format(layer.bits))
    return lowering.add(name, operation, left, right, scale=layer.scale)


@emit.register
def _mean(layer: IntegerMean, lowering: Lowering, name: str, source: str) -> str:
    kind = lowering.type(source)
    requantize = Requantize(kind.channels, np.array(layer.shift), format=Format(layer.bits))
    return lowering.add(name, Mean(kind, requantize), source, scale=layer.scale)


def linear_operation(layer: IntegerLinear, source: TensorType) -> Linear:
    """The matrix product of a layer, over the channels of `source`."""
    return Linear(source, whole(layer.integers()[0]), linear_requantize(layer), Format(layer.weight_bits))


def linear_requantize(layer: IntegerLinear) -> Requantize:
    """From the sums of a layer to its results."""
    _, shift, bias = layer.integers()
    floor = 0 if layer.relu else None
    bias_acc = whole(layer.rounding(shift))
    return Requantize(len(bias), whole(shift), whole(bias), bias_acc, format=Format(layer.bits), floor=floor)


def whole(x: Tensor) -> np.ndarray:
    """Whole numbers held in floats as int64."""
    x = x.detach().cpu().numpy()
    if not np.isfinite(x).all():
        raise BittrueError("a parameter is not finite; train it again, with a smaller learning rate")
    if np.abs(x).max(initial=0) >= 2.0**62:
        raise BittrueError(
            f"a parameter is {np.abs(x).max():.3g} in whole numbers, beyond 64 bits; its network has weights or biases "
            "that are far too large, so train it again, with a smaller learning rate"
        )
    codes = x.astype(np.int64)
    if not np.array_equal(codes, x):
        raise BittrueError("a value is not a whole number after rounding")
    return codes


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
                "write it with the layers of models.integer"
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
    """Raise, naming the first module that is neither a layer that `emit` knows nor made of modules.

    A module that no forward calls is refused as well: what it was meant to do would be lost without a word.
    """
    pending = [("", model)]
    while pending:
        path, module = pending.pop(0)
        kind = type(module)
        if isinstance(module, IntegerInput | Step) or emit.dispatch(kind) is not emit.dispatch(object):
            continue  # what is inside a layer is its own business
        foreign = kind.__module__.startswith("torch.") and not isinstance(module, nn.ModuleList | nn.Sequential)
        childless = next(module.children(), None) is None and not isinstance(module, nn.ModuleList | nn.Sequential)
        own = next(module.parameters(recurse=False), None) is not None
        if foreign or childless or own:
            raise BittrueError(
                f"cannot lower the layer {path or '(the network itself)'} ({kind.__name__}): no operation is known "
                "for it; remove it, or write it with the layers of models.integer"
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
