"""A program made operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.program import Node, Program


class Builder:
    """Adds operations one after the other and makes the program at the end; `inputs` are types by name.

    >>> from bittrue.sim.contract import INT8
    >>> from bittrue.sim.operations.transpose import Transpose
    >>> build = Builder({"x": TensorType((4, 3), INT8)})
    >>> y = build.add("swap", Transpose(build.types["x"]), "x")
    >>> build.program(y).output.shape
    (3, 4)
    """

    def __init__(self, inputs: Mapping[str, TensorType]) -> None:
        self.inputs = dict(inputs)
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = dict(inputs)

    def add(self, name: str, operation: Operation, *operands: str) -> str:
        self.nodes.append(Node(name, operation, operands))
        self.types[name] = operation.output
        return name

    def program(self, /, *results: str, **meta: Any) -> Program:
        return Program(self.inputs, tuple(self.nodes), results, meta)
