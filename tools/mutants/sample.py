"""Which mutants there are, and a sample of them by seed."""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code

from tools.mutants.operators import operators

ROOT = Path(__file__).parents[2]
FOLDERS = ("sim", "rtl", "flow")
OPERATORS = operators()
#: The only nodes that the two large families of operators look at.
_KINDS = {"ReplaceBinaryOper": "operator", "ReplaceComparison": "comparison"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the `occurrence`-th that `operator` can make there, in line `line`."""

    path: str
    line: int
    operator: str
    occurrence: int
    names: tuple[str, ...]  # of the class and functions around it, from outside to inside

    def change(self, root: Path = ROOT) -> tuple[str, str]:
        """The changed lines before and after, each as one line of text."""
        before = (root / self.path).read_text()
        return changed(before, self.apply(before))

    def apply(self, code: str) -> str:
        return mutate_code(code, OPERATORS[self.operator], self.occurrence)


def changed(before: str, after: str) -> tuple[str, str]:
    """What differs between two versions of a file: the lines of each, joined, without spaces at their ends."""
    lines = [text.splitlines() for text in (before, after)]
    marks = [t for t in difflib.ndiff(*lines) if t[:2] in ("- ", "+ ")]
    return tuple(" ".join(t[2:].strip() for t in marks if t[0] == sign) for sign in "-+")  # type: ignore[return-value]


def modules(root: Path = ROOT, folders: Sequence[str] = FOLDERS) -> list[str]:
    """The modules that are mutated: all but tests, and what draws (the width of a line is nobody's promise)."""
    found = (path for folder in folders for path in (root / folder).rglob("*.py"))
    left_out = ("test_", "conftest", "figures", "sweep_figure")
    return sorted(str(p.relative_to(root)) for p in found if not p.name.startswith(left_out))


def _skipped(tree: ast.Module) -> list[tuple[int, int, int, int]]:
    """Spans that are not mutated: annotations, imports for them, names for `import *`, and what draws examples."""
    spans: list[Any] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            spans.append(node.annotation)
        if isinstance(node, ast.FunctionDef):
            spans.extend([node.returns] if node.returns is not None else [])
            spans.extend([node] if node.name == "example" else [])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            spans.append(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__",):
            spans.append(node)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and "Callable" in ast.unparse(node.value):
            spans.append(node)  # the name of a type
    return [(s.lineno, s.col_offset, s.end_lineno, s.end_col_offset) for s in spans]


def _names(node: Any) -> tuple[str, ...]:
    found = []
    while node is not None:
        if node.type in ("funcdef", "classdef"):
            found.append(node.name.value)
        node = node.parent
    return tuple(reversed(found))


def mutants(path: str, root: Path = ROOT) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """Every mutant of a module, with the place (line, column) of the change."""
    code = (root / path).read_text()
    skipped = _skipped(ast.parse(code))
    tree = parso.parse(code)
    nodes = list(ast_nodes(tree))
    kinds = {kind: [node for node in nodes if node.type == kind] for kind in ("operator", "comparison")}
    for name, operator in OPERATORS.items():
        occurrence = 0
        for node in kinds[_KINDS[name[:17]]] if name[:17] in _KINDS else nodes:
            for start, _ in operator.mutation_positions(node):
                marker = node.type == "operator" and node.parent.type in ("parameters", "lambdef")  # `*` or `/` alone
                if not marker and not any((a, b) <= start < (c, d) for a, b, c, d in skipped):
                    yield start, Mutant(path, start[0], name, occurrence, _names(node))
                occurrence += 1


def works(mutant: Mutant, root: Path = ROOT) -> bool:
    """Whether the changed file is Python at all, and not the same."""
    before = (root / mutant.path).read_text()
    try:
        return ast.dump(ast.parse(mutant.apply(before))) != ast.dump(ast.parse(before))
    except (SyntaxError, ValueError):
        return False


def sample(seed: int, count: int, paths: Sequence[str] | None = None, root: Path = ROOT) -> list[Mutant]:
    """`count` mutants: places in the code, each with the same chance, and at each of them one change.

    A place with many possible changes (`+` can become eleven other operators) so counts no more than others.
    """
    places: dict[tuple[str, int, int], list[Mutant]] = {}
    for path in modules(root) if paths is None else paths:
        for (line, column), mutant in mutants(path, root):
            places.setdefault((path, line, column), []).append(mutant)
    rng = random.Random(seed)
    order = sorted(places)
    rng.shuffle(order)
    drawn: list[Mutant] = []
    for place in order:
        if len(drawn) == count:
            break
        choices = [m for m in rng.sample(places[place], len(places[place])) if works(m, root)]
        drawn.extend(choices[:1])
    return drawn
