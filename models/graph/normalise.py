"""From a followed forward to the normalised float graph.

Every node of torch.fx is one of four things: a kind that a handler below knows; the same values in another order, told
by what becomes of numbered values; a function of each value of one tensor, told by what it gives (`functions`), however
many operations it is written with; or refused, with its place and what would work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bittrue.models.graph import (
    floats,
    groups,  # noqa: F401  (they register themselves)
    handlers,  # noqa: F401
    joins,  # noqa: F401
    padding,  # noqa: F401
    pools,  # noqa: F401
    refusals,  # noqa: F401
)
from bittrue.models.graph.floats import Graph, Node
from bittrue.models.graph.follow import Followed
from bittrue.models.graph.functions import differs_along, recognise
from bittrue.models.graph.kinds import handler
from bittrue.models.layers.groups import Regrouping
from bittrue.sim.errors import BittrueError

#: A function is told by what it gives for values up to so many times the largest that was seen.
REACH = 16


@dataclass
class Value:
    """What an fx node stands for: `call` of the tensor of `root`, or that tensor itself."""

    root: Node
    call: Callable[[Tensor], Tensor] | None = None


class Normaliser:
    """Makes the graph, node by node; handlers read arguments and add nodes through it."""

    def __init__(
        self, what: str, followed: Followed, names: Sequence[str], regrouping: Regrouping | None = None
    ) -> None:
        self.what, self.followed, self.regrouping = what, followed, regrouping
        self.inputs = [
            floats.Input(name, followed.places[node], [], tuple(followed.values[node].shape[1:]))
            for name, node in zip(names, followed.inputs, strict=True)
        ]
        self.nodes: list[Node] = [*self.inputs]
        self.values = {node: Value(made) for node, made in zip(followed.inputs, self.inputs, strict=True)}
        self.tails: dict[fx.Node, Callable[[Tensor], Tensor]] = {}
        self.tuples: dict[fx.Node, fx.Node] = {}  # nodes that give several tensors, and what they are taken of

    def graph(self) -> Graph:
        """The whole graph."""
        for node in self.followed.nodes:
            if node in self.followed.inputs or not self.reads(node):
                continue
            handle = handler(self.followed.module(node), node)
            if handle is not None and handle(self, node):
                continue
            value = self.followed.values[node]
            if not isinstance(value, Tensor):
                if _holds_tensors(value):
                    if len(self.reads(node)) != 1 or self.reads(node)[0] in self.tuples:
                        self.refuse(node)
                    self.tuples[node] = self.reads(node)[0]  # whoever takes a part of it reads the whole
                    self.values[node] = self.values[self.tuples[node]]
                continue  # a size, a type: its value is known
            if not (self.same_values(node) or self.same_place(node)):
                self.refuse(node)
        for number, node in enumerate(self.followed.results):
            if node not in self.values:
                raise BittrueError(
                    f"{self.what}: its result number {number} does not depend on the samples; leave it out"
                )
        results = [self.settle(node) for node in self.followed.results]
        tails = [self.tails.get(node) for node in self.followed.results]
        graph = Graph(self.inputs, self.nodes, results, tails, self.regrouping)
        graph.prune()
        for entry in self.inputs:
            if entry not in graph.nodes:
                raise BittrueError(
                    f"{self.what}: what it gives does not depend on its input {entry.name!r}; leave it out"
                )
        return graph

    # -- what handlers ask -----------------------------------------------------------------------------
    def reads(self, node: fx.Node) -> list[fx.Node]:
        """The tensors that depend on the samples among a node's operands."""
        return [operand for operand in node.all_input_nodes if operand in self.values]

    def arguments(self, node: fx.Node, names: str) -> dict[str, Any]:
        """The arguments of a call by name; a tensor that depends on the samples is its fx node, others are values.

        `names` are in the order of positions; a default follows a `=`, and is the value of a Python expression.
        """
        declared = [part.strip().partition("=") for part in names.split(",")]
        given = dict(zip((name for name, _, _ in declared), node.args, strict=False)) | node.kwargs
        found = {}
        for name, equals, default in declared:
            value = given.pop(name) if name in given else (eval(default) if equals else None)  # noqa: S307  (our own text)
            found[name] = self.known(value)
        if any(value is not None for value in given.values()) or len(node.args) > len(declared):
            self.refuse(node, f"its argument {', '.join(given) or 'list'} is not supported; leave it out")
        return found

    def known(self, value: Any) -> Any:
        """An argument, with the values of nodes that do not depend on the samples in place of them."""
        return fx.node.map_aggregate(
            value, lambda v: self.followed.values[v] if isinstance(v, fx.Node) and v not in self.values else v
        )

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a sample of what a node gives."""
        return tuple(self.followed.values[node].shape[1:])

    def name(self, node: fx.Node) -> str:
        """The name of what a node gives: the path of its module, and of a function in it, the function's."""
        path = self.followed.places[node].path
        path = f"layer{path}" if path[:1].isdigit() else path
        if node.op == "call_module":
            return path.replace(".", "_") or "network"
        own = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "function")
        return "_".join(part for part in (*path.split("."), own.strip("_")) if part)

    def add(self, node: fx.Node, kind: type[Node], operands: list[fx.Node], **parameters: Any) -> bool:
        """Let an fx node stand for a new node of the graph, which reads what others stand for."""
        if self.followed.values[node].shape[:1] != self.followed.values[operands[0]].shape[:1]:
            self.refuse(node, "it mixes samples; every sample goes through a circuit alone")
        return self.put(node, kind, [self.settle(operand) for operand in operands], self.shape(node), **parameters)

    def put(
        self, node: fx.Node, kind: type[Node], operands: list[Node], shape: tuple[int, ...], **parameters: Any
    ) -> bool:
        """As `add`, of nodes of the graph and with any shape."""
        made = kind(self.name(node), self.followed.places[node], operands, shape, **parameters)
        self.nodes.append(made)
        self.values[node] = Value(made)
        return True

    def settle(self, node: fx.Node) -> Node:
        """The node of the graph whose tensor an fx node stands for; a function of another becomes a node now."""
        value = self.values[node]
        if value.call is None:
            return value.root
        root, shape = value.root, self.shape(node)
        read = self.seen(root)
        _, along = differs_along(value.call, read, self.followed.values[node])
        reach = REACH * max(1.0, float(read.abs().max()))
        found = recognise(value.call, shape, along, reach)
        if found.identity:
            self.values[node] = Value(root)
            return root
        if found.affine is not None:
            gain, offset = found.affine
            self.put(node, floats.Affine, [root], shape, weight=gain, bias=offset, along=along)
            if found.limits is not None:
                line = self.values[node].root
                self.put(node, floats.Function, [line], shape, call=torch.relu, along=None, limits=found.limits)
        else:
            self.put(node, floats.Function, [root], shape, call=value.call, along=along, limits=found.limits)
        return self.values[node].root

    def seen(self, root: Node) -> Tensor | None:
        """The values that were seen of a node of the graph."""
        known = (n for n, v in self.values.items() if v.root is root and v.call is None and n not in self.tuples)
        return next((self.followed.values[n] for n in known), None)

    def refuse(self, node: fx.Node, why: str = "") -> None:
        """Raise, with the place of a node and what would work."""
        module = self.followed.module(node)
        if module is not None:
            thing = (
                f"torch.nn.{type(module).__name__}"
                if type(module).__module__.startswith("torch.nn")
                else type(module).__name__
            )
        else:
            thing = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        why = why or (
            "no layer is known for it: it is none of the supported modules and functions (bittrue.supported()), no "
            "other order of a tensor's values, and no function of each value of one tensor; write it with those"
        )
        raise BittrueError(f"{self.what}: {self.followed.places[node]}: {thing}: {why}")

    # -- what needs no handler -------------------------------------------------------------------------
    def same_values(self, node: fx.Node) -> bool:
        """Take a node whose result has the values that it reads, in another order of each sample's, or some of them."""
        operands = self.reads(node)
        given = self.followed.values[node]
        whole = self.tuples.get(operands[0]) if len(operands) == 1 else None  # what a chunk was taken of
        source = whole or operands[0]
        read = self.followed.values[source]
        if len(operands) != 1 or not isinstance(given, Tensor) or not isinstance(read, Tensor) or not given.ndim:
            return False
        if not 0 < given.numel() <= read.numel() < 1 << 22:
            return False
        numbered = torch.arange(read.numel(), dtype=torch.float32)
        marked = ((numbered + 0.5) * (1 - 2 * (numbered % 2))).view(read.shape)  # no two alike, half of them negative
        try:
            parts = marked if whole is None else self.followed.call(operands[0], {source: marked})
            found = self.followed.call(node, {operands[0]: parts})
        except Exception:  # noqa: BLE001  (what wants other values is not a matter of order)
            return False
        index = found.abs().reshape(-1).floor().long()
        if len(index.unique()) < len(index) or int(index.max()) >= read.numel():
            return False
        if not torch.equal(found.reshape(-1), marked.reshape(-1)[index]):
            return False
        count, size = len(read), read.numel() // len(read)
        order = index.view(count, -1) if given.shape[0] == count else None
        if order is None or not torch.equal(order - order[:1], (torch.arange(count) * size)[:, None].expand_as(order)):
            self.refuse(node, "it mixes samples; every sample goes through a circuit alone, so keep the first axis")
        shape = self.shape(node) or (1,)
        if torch.equal(order[0], torch.arange(size)) and tuple(read.shape[1:]) == shape:
            self.values[node] = self.values[source]
            return True
        return self.put(node, floats.View, [self.settle(source)], shape, order=order[0])

    def same_place(self, node: fx.Node) -> bool:
        """Take a node that is a function of each value of one tensor, with the functions that it reads."""
        operands = self.reads(node)
        given = self.followed.values[node]
        if not isinstance(given, Tensor):
            return False
        roots = {id(self.values[operand].root): self.values[operand].root for operand in operands}
        if len(roots) != 1:
            return False
        (root,) = roots.values()
        read = next(
            (self.followed.values[n] for n, v in self.values.items() if v.root is root and v.call is None), None
        )
        if read is None or read.shape != given.shape:
            return False
        calls = {operand: self.values[operand].call for operand in operands}

        def call(x: Tensor) -> Tensor:
            return self.followed.call(node, {n: x if inner is None else inner(x) for n, inner in calls.items()})

        if differs_along(call, read, given)[0]:
            self.values[node] = Value(root, call)
            return True
        if all(inner is None for inner in calls.values()) or len(operands) != 1:
            return False
        self.settle(operands[0])  # it may be one of what it reads, if not of what that reads
        return self.same_place(node)


def normalise(what: str, followed: Followed, names: Sequence[str], regrouping: Regrouping | None = None) -> Graph:
    """The graph of a followed forward, whose inputs have these names; `what` begins the sentences about refusals,
    `regrouping` is how the samples go in groups, where they do."""
    return Normaliser(what, followed, names, regrouping).graph()


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
