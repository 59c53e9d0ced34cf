"""Which tests can notice a mutant: those that speak of what was changed come first.

No run with coverage is needed. A test file speaks of a module when it, or a helper that it imports, imports it or names
a class or function around the change; tests of one operation (`test_run_equals_reference[Lerp-3]`) are taken for that
operation alone. What is found so is a rank, and a mutant that the first tests leave alive meets the later ones.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tools.mutants.sample import ROOT, Mutant

#: Tests with a part for each operation, and the folder of the modules whose operation is in the test's name.
BY_OPERATION = ("sim/operations/test_conformance.py", "tests/rtl/test_stages.py")
#: Test files that a mutant meets at most, beside those of its folder.
MOST = 14
#: What the tests of a folder are, when nothing names the change.
NEAR = {
    "sim": ("sim/operations/test_conformance.py", "sim/test_program.py", "tests/project/test_face.py"),
    "rtl/light": ("tests/rtl/test_light.py", "tests/rtl/test_light_controller.py", "tests/rtl/test_light_twin.py"),
    "rtl": ("tests/rtl/test_program.py", "tests/rtl/test_stages.py", "tests/rtl/test_kinds.py"),
    "flow": ("tests/flow/test_cli.py", "tests/flow/test_flow.py", "tests/flow/test_steps.py"),
}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


class Files:
    """What the test files say: the modules that each imports, and its words; helpers count half."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        found = [p for folder in ("sim", "tests") for p in (root / folder).rglob("test_*.py")]
        self.tests = sorted(str(p.relative_to(root)) for p in found)

    @cache  # noqa: B019  one object a run
    def said(self, path: str) -> tuple[frozenset[str], frozenset[str]]:
        text = (self.root / path).read_text()
        return frozenset(_imports(ast.parse(text))), frozenset(re.findall(r"\w+", text))

    @cache  # noqa: B019
    def helpers(self, path: str) -> tuple[str, ...]:
        files = (name.replace(".", "/") + ".py" for name in self.said(path)[0] if name.startswith("tests.helpers"))
        return tuple(sorted(name for name in files if (self.root / name).exists()))

    @cache  # noqa: B019
    def mentions(self, name: str) -> int:
        """How many test files have this word: one that many have says nothing about what is meant."""
        return sum(name in self.said(path)[1] for path in self.tests)

    def score(self, path: str, mutant: Mutant) -> float:
        module = "bittrue." + mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        stem = Path(mutant.path).stem
        names = {n for n in mutant.names if not n.startswith("__") and self.mentions(n) <= len(self.tests) // 5}
        score = 0.0
        for file, weight in ((path, 1.0), *((helper, 0.5) for helper in self.helpers(path))):
            imports, words = self.said(file)
            spoken = 2.0 * len(names & words) if names & words else 0.0
            score = max(score, weight * (spoken + 1.5 * (module in imports)))
        score += 2.5 * (stem in Path(path).stem and stem != "__init__")
        return score + 0.5 * (mutant.path.split("/")[0] in path.split("/")[:2])

    def ranked(self, mutant: Mutant) -> list[str]:
        """The test files that may notice the mutant, the likeliest first."""
        scores = {path: self.score(path, mutant) for path in self.tests}
        order = sorted((path for path in self.tests if scores[path] >= 1.0), key=lambda path: (-scores[path], path))
        near = next(tests for folder, tests in NEAR.items() if mutant.path.startswith(folder))
        order = [*order[:8], *near, *order[8:MOST]]
        if re.match("(sim/operations|rtl/dataflow/stages)/", mutant.path):
            order = [*(path for path in BY_OPERATION if path.split("/")[-3] in ("sim", "tests")), *order]
        return list(dict.fromkeys(order))


def classes(path: str, root: Path = ROOT) -> list[str]:
    """The operations that a module of one operation is about."""
    operation = root / "sim/operations" / Path(path).name
    code = ast.parse(operation.read_text() if operation.exists() else "")
    return [node.name for node in code.body if isinstance(node, ast.ClassDef)]


def narrow(path: str, mutant: Mutant, known: dict[str, list[str]], root: Path = ROOT) -> list[str]:
    """What pytest is told of a test file: all of it, or those of its tests that are for the mutant's operation."""
    if path not in BY_OPERATION or not re.match("(sim/operations|rtl/dataflow/stages)/", mutant.path):
        return [path]
    names = classes(mutant.path, root)
    return [n for n in known[path] if any(re.search(rf"\b{name}\b", n) for name in names)] or [path]
