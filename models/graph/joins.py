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
    from bittrue.models.graph.floats import Node
    from bittrue.models.graph.normalise import Normaliser


@handles(
    operator.add,
    operator.iadd,
    torch.add,
    "add",
    "add_",
    says="of two tensors of one shape, or one of each channel or pixel; by a constant it is part of a function",
)
def _add(to: Normaliser, node: fx.Node) -> bool:
    return _sum(to, node, 1)


@handles(
    operator.sub,
    operator.isub,
    torch.sub,
    "sub",
    "sub_",
    says="of two tensors of one shape, or one of each channel or pixel; by a constant it is part of a function",
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
    factor = sign * float(given["alpha"])
    left, right = _broadcast(to, node, operands, "adds")
    if factor != 1:
        right = floats.Affine(
            f"{to.name(node)}_factor",
            to.followed.places[node],
            [right],
            right.shape,
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
    says="at the end only, or in front of argmax, where it is left out: the largest result is the same",
)
def _softmax(to: Normaliser, node: fx.Node) -> bool:
    (operand,) = to.reads(node)
    decided = bool(node.users) and all(user.target in _DECIDES for user in node.users)
    if (node not in to.followed.results and not decided) or len(to.shape(node)) != 1:
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
    says="of two tensors of one shape, or a gate of each channel or pixel; by a constant it is part of a function",
)
def _mul(to: Normaliser, node: fx.Node) -> bool:
    operands = to.reads(node)
    if len({id(to.values[operand].root) for operand in operands}) == 1 and to.same_place(node):
        return True
    if len(operands) < 2:
        return False
    return to.put(node, floats.Multiply, _broadcast(to, node, operands, "multiplies"), to.shape(node))


def _broadcast(to: Normaliser, node: fx.Node, operands: list[fx.Node], does: str) -> list[Node]:
    """Two tensors of one shape, or of which one has axes of length 1 where the other has more."""
    made = [to.settle(operand) for operand in operands]
    made = [one.operands[0] if isinstance(one, floats.Expand) else one for one in made]
    shapes, whole = [one.shape for one in made], to.shape(node)
    if whole not in shapes and to.shape(operands[0]) == to.shape(operands[1]):
        return [to.settle(operand) for operand in operands]  # both are expanded
    if whole not in shapes or len({len(shape) for shape in shapes}) > 1:
        to.refuse(
            node, f"the tensors that it {does} have the shapes {shapes[0]} and {shapes[1]}; bring them to one, or one "
            "of them to axes of length 1 where the other has more"
        )  # fmt: skip
    return made


@handles(
    *(torch.broadcast_to, "expand", "expand_as", "broadcast_to"),
    says="along axes of length 1 of an image, or where it is then added or multiplied",
)
def _expand(to: Normaliser, node: fx.Node) -> bool:
    (source,) = to.reads(node)[:1]
    before, after = to.shape(source), to.shape(node)
    if before == after:
        to.values[node] = to.values[source]
        return True
    if len(before) != len(after):
        to.refuse(node, f"it gives a sample {list(before)} more axes; give it axes of length 1 first (unsqueeze)")
    return to.add(node, floats.Expand, [source])


_DECIDES = (torch.argmax, "argmax")


@handles(*_DECIDES, says="at the end only: the number of the largest, the first of equal ones")
def _argmax(to: Normaliser, node: fx.Node) -> bool:
    given = to.arguments(node, "input, dim=None, keepdim=False")
    shape = to.shape(given["input"])
    if node not in to.followed.results or node.users.keys() - {*to.followed.results, to.followed.output}:
        to.refuse(node, "it is only known at the end; leave what comes behind it to whoever reads the result")
    if given["dim"] is None or (along := given["dim"] % (len(shape) + 1) - 1) < 0:
        to.refuse(node, "it compares samples with each other; give the axis of the classes (dim=)")
    return to.put(node, floats.ArgMax, [to.settle(given["input"])], to.shape(node) or (1,), along=along)


@handles(functional.dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, says="in evaluation mode, where it does nothing")
def _dropout(to: Normaliser, node: fx.Node) -> bool:
    if (
        to.followed.module(node) is None
        and to.arguments(node, "input, p=0.5, training=True, inplace=False")["training"]
    ):
        to.refuse(node, "it drops values in evaluation mode as well; give it training=self.training")
    return False
