"""The faults: cosmic-ray's, and four that are typical here and that it has not.

An operator gives, for a node of parso's tree, the places where it can change it, and makes the k-th change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names

#: Names whose exchange is a fault that people make.
TWINS = [
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
    ("low", "high"),
    ("least", "most"),
    ("first", "last"),
    ("rows", "columns"),
    ("inputs", "outputs"),
    ("left", "right"),
    ("zeros", "ones"),
]
OTHER = dict(TWINS) | {b: a for a, b in TWINS}
#: Functions of which the first argument is a result of the same kind.
WRAPPERS = {"abs", "min", "max", "clip", "minimum", "maximum", "saturate", "sorted", "set", "list", "tuple", "reversed"}

Span = tuple[tuple[int, int], tuple[int, int]]


def _span(node: Any) -> Span:
    return node.start_pos, node.end_pos


def _code(text: str, like: Any) -> Any:
    """A node of this code, with what stands before `like`: spaces, line ends, comments."""
    return parso.python.tree.Name(text, like.start_pos, like.get_first_leaf().prefix)


class ExchangeNames(Operator):
    """`min` for `max`, `low` for `high`, and such."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "name" and node.value in OTHER and node.get_definition() is None:
            yield _span(node)

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        return _code(OTHER[node.value], node)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = min(a)", "x = max(a)"), Example("x = f.low", "x = f.high"))


class DropOperand(Operator):
    """One of the terms of a sum, the parts of a union, the conditions of an `and` or `or` is left out."""

    KINDS = {"arith_expr": "+-", "expr": "|", "and_test": ("and",), "or_test": ("or",)}

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type in self.KINDS:
            for operand in node.children[::2]:
                yield _span(operand)

    def mutate(self, node: Any, index: int) -> Any:
        children = node.children
        kept = children[2:] if index == 0 else children[: 2 * index - 1] + children[2 * index + 1 :]
        if index == 0 and children[1].value == "-":
            kept = children[1:]
        return _code("".join(part.get_code() for part in kept).strip(), node)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("x = a + b - c", "x = b - c"),
            Example("x = a + b - c", "x = a + b", occurrence=2),
            Example("x = a - b", "x = - b"),
            Example("x = a and b", "x = a", occurrence=1),
        )


class Unwrap(Operator):
    """A clip, an absolute value, a limit is left out: `max(a, 0)` becomes `a`."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if self._argument(node) is not None:
            yield _span(node)

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        return _code(f"({self._argument(node).get_code().strip()})", node)

    @staticmethod
    def _argument(node: Any) -> Any:
        if node.type not in ("power", "atom_expr") or len(node.children) < 2:
            return None
        name, call = node.children[-2:]
        name = name.children[-1] if name.type == "trailer" else name
        if call.type != "trailer" or call.children[0].value != "(" or len(call.children) != 3:
            return None
        if name.type != "name" or name.value not in WRAPPERS:
            return None
        if len(node.children) > 2 and (len(node.children) > 3 or node.children[0].type != "name"):
            return None
        inner = call.children[1]
        first = inner.children[0] if inner.type == "arglist" else inner
        return None if first.type == "argument" else first

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = max(a, 0)", "x = (a)"), Example("x = np.clip(a - b, 0, 1)", "x = (a - b)"))


class DropStatement(Operator):
    """A call whose result nobody takes, a refusal (`raise`), an augmented assignment does nothing."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.parent is not None and node.parent.type == "simple_stmt":
            called = node.type in ("power", "atom_expr") and node.children[-1].type == "trailer"
            if called or node.type == "raise_stmt":
                yield _span(node)
            elif node.type == "expr_stmt" and node.children[1].type == "operator" and node.children[1].value != "=":
                yield _span(node)

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        return _code("pass", node)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("check(a)\n", "pass\n"), Example("raise E(a)\n", "pass\n"), Example("a += 1\n", "pass\n"))


OWN: tuple[type[Operator], ...] = (ExchangeNames, DropOperand, Unwrap, DropStatement)


def operators() -> dict[str, Operator]:
    """Every operator by name: cosmic-ray's without arguments, and those above."""
    theirs = {name.split("/")[1]: get_operator(name) for name in operator_names()}
    classes = {name: kind for name, kind in theirs.items() if not kind.arguments()} | {k.__name__: k for k in OWN}
    return {name: classes[name]() for name in sorted(classes)}
