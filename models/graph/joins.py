"""What reads several tensors, and what stands at the end of a network, as `handlers`."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import fx, nn
from torch.nn import functional

from bittrue.models.graph import floats
from bittrue.models.graph.kinds import handles

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


@handles(
    operator.add,
    operator.iadd,
    torch.add,
    "add",
    "add_",
    says="of two tensors of one shape; by a constant it is part of a function",
)
def _add(to: Normaliser, node: fx.Node) -> bool:
    return _sum(to, node, 1)


@handles(
    operator.sub,
    operator.isub,
    torch.sub,
    "sub",
    "sub_",
    says="of two tensors of one shape; by a constant it is part of a function",
)
def _sub(to: Normaliser, node: fx.Node) -> bool:
    return _sum(to, node, -1)


def _sum(to: Normaliser, node: fx.Node, sign: int) -> bool:
    given = to.arguments(node, "input, other, alpha=1")
    operands = [given["input"], given["other"]]
    if not all(isinstance(operand, fx.Node) for operand in operands):
        return False
    if to.values[operands[0]].root is to.values[operands[1]].root and to.same_place(node):
        return True
    shapes = [to.shape(operand) for operand in operands]
    if shapes[0] != shapes[1]:
        to.refuse(node, f"the tensors that it adds have the shapes {shapes[0]} and {shapes[1]}; bring them to one")
    factor = sign * float(given["alpha"])
    left, right = map(to.settle, operands)
    if factor != 1:
        right = floats.Affine(
            f"{to.name(node)}_factor",
            to.followed.places[node],
            [right],
            shapes[1],
            torch.tensor([factor]),
            torch.zeros(1),
        )
        to.nodes.append(right)
    return to.put(node, floats.Add, [left, right], to.shape(node))


@handles(torch.cat, torch.concat, torch.concatenate, says="along an axis of the samples, of any number of tensors")
def _cat(to: Normaliser, node: fx.Node) -> bool:
    given = to.arguments(node, "tensors, dim=0")
    tensors = list(given["tensors"])
    if not all(isinstance(tensor, fx.Node) for tensor in tensors):
        to.refuse(node, "one of its tensors is a constant; only tensors that depend on the samples can be put together")
    along = given["dim"] % (len(to.shape(node)) + 1) - 1
    if along < 0:
        to.refuse(node, "it puts samples one after the other; every sample goes through a circuit alone")
    return to.add(node, floats.Cat, tensors, along=along)


@handles(
    nn.Softmax,
    nn.LogSoftmax,
    functional.softmax,
    functional.log_softmax,
    torch.softmax,
    torch.log_softmax,
    "softmax",
    "log_softmax",
    says="at the end only, where it is left out: the largest result is the same",
)
def _softmax(to: Normaliser, node: fx.Node) -> bool:
    (operand,) = to.reads(node)
    if node not in to.followed.results or len(to.shape(node)) != 1:
        to.refuse(node, "it is only known at the end, over the classes, where the decision needs none of it")
    value = to.values[operand]
    if value.call is not None:
        to.settle(operand)
        value = to.values[operand]
    to.tails[node] = lambda x: to.followed.call(node, {operand: x})
    to.values[node] = value
    return True


@handles(
    *(operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    says="of two tensors of one shape (gates); by a constant it is part of a function",
)
def _mul(to: Normaliser, node: fx.Node) -> bool:
    operands = to.reads(node)
    if len({id(to.values[operand].root) for operand in operands}) == 1 and to.same_place(node):
        return True
    if len(operands) < 2:
        return False
    shapes = [to.shape(operand) for operand in operands]
    if shapes[0] != shapes[1]:
        to.refuse(
            node, f"the tensors that it multiplies have the shapes {shapes[0]} and {shapes[1]}; bring them to one"
        )
    return to.add(node, floats.Multiply, operands)


@handles(functional.dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, says="in evaluation mode, where it does nothing")
def _dropout(to: Normaliser, node: fx.Node) -> bool:
    if (
        to.followed.module(node) is None
        and to.arguments(node, "input, p=0.5, training=True, inplace=False")["training"]
    ):
        to.refuse(node, "it drops values in evaluation mode as well; give it training=self.training")
    return False
