"""Which test runs which line: what is recorded once, for all test files, so that a mutant meets only what can tell it.

coverage watches, with a context a test; what a fixture of a module or more does counts for all tests of the file.
Lines of kernels that Numba compiles and of subprocesses are not seen. A file's record is kept until it changes. Lines
that ran in an earlier version of a module are taken for those that they have become.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import coverage
import pytest

from tools.mutants.sample import FOLDERS, ROOT, Mutant

#: Seconds of computing after which no further test of a file is begun.
SECONDS = 40.0
#: Seconds that count beside those of a test, which may be none.
BEGIN = 0.02
#: Seconds that it takes to import a file of tests and list what is in it.
FILE = 0.5
#: For what ran in a version of a module of which no text is kept: which lines, nobody knows.
MOVED = 0


def computed() -> float:
    """Seconds that this process and those that it waited for have computed: a test may have a compiler do the work."""
    return sum(os.times()[:4])


class Watch:
    """A plugin of pytest: coverage's context is the test that runs, or its file while fixtures are set up for more."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.end, self.seconds, self.watch = computed() + seconds, {}, None

    def begin(self, tree: Path) -> None:
        where = [str(tree / folder) for folder in FOLDERS]
        self.watch = coverage.Coverage(data_file=None, config_file=False, source=where, omit=["*/test_*.py"])
        self.watch.start()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """The first case of every test, then the second of each: the record may end before all have run."""
        cases: Counter[str] = Counter()
        number = {}
        for item in items:
            cases[name := item.nodeid.split("[")[0]] += 1
            number[item] = cases[name]
        items.sort(key=number.__getitem__)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        start = computed()
        self.watch.switch_context(item.nodeid)
        result = yield
        self.seconds[item.nodeid] = round(computed() - start, 3)
        if computed() > self.end:
            item.session.shouldstop = "the record of this file is long enough"
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        shared = fixturedef.scope != "function"
        if shared:
            self.watch.switch_context(request.node.nodeid.split("::")[0] or request.config.args[0])
        result = yield
        if shared and hasattr(request, "_pyfuncitem"):
            self.watch.switch_context(request._pyfuncitem.nodeid)
        return result

    def found(self, tree: Path) -> dict[str, dict[str, list[int]]]:
        """By test or test file, and by module: the lines that ran."""
        self.watch.stop()
        data, tests = self.watch.get_data(), defaultdict(dict)
        for file in data.measured_files():
            path = str(Path(file).relative_to(tree))
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in filter(None, contexts):
                    tests[context].setdefault(path, []).append(line)
        return dict(tests)


def told(watch: Watch, tree: Path) -> str:
    """The text of a record: which lines ran in which versions of the modules, and seconds of each test."""
    lines = watch.found(tree)
    stamps = {path: stamp(tree / path) for path in {path for modules in lines.values() for path in modules}}
    return json.dumps({"seconds": watch.seconds, "lines": lines, "stamps": stamps})


def stamp(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def followed(before: str, after: str) -> dict[int, list[int]]:
    """For each line of a text the lines that it has become in a later version; new ones belong to those around them."""
    texts = before.splitlines(), after.splitlines()
    found: dict[int, list[int]] = defaultdict(list)
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if kind == "equal":
            for line in range(b - a):
                found[a + line + 1].append(c + line + 1)
        else:  # those before and behind an insertion; none of what has gone
            for line in range(a - 1, a + 1) if kind == "insert" else range(a, b):
                found[line + 1].extend(range(c + 1, d + 1))
    return found


class Record:
    """What was recorded of the test files of a tree, in a folder of JSON files: one a test file."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.folder, self.root = folder, root
        self.seconds: dict[str, float] = {}
        self.tests: dict[tuple[str, int], set[str]] = defaultdict(set)

    def place(self, test: str) -> Path:
        return self.folder / f"{test.replace('/', '-')}-{stamp(self.root / test)}.json"

    @cache  # noqa: B019  one object a run
    def stamp(self, path: str) -> str:
        return stamp(self.root / path) if (self.root / path).exists() else ""

    def keep_texts(self) -> None:
        """Keep the modules as they are now, by their stamps, for those that read the records later."""
        (self.folder / "modules").mkdir(parents=True, exist_ok=True)
        for path in (path for folder in FOLDERS for path in (self.root / folder).rglob("*.py")):
            (self.folder / "modules" / stamp(path)).write_bytes(path.read_bytes())

    @cache  # noqa: B019
    def lines(self, path: str, then: str | None) -> dict[int, list[int]] | None:
        """What the lines of a module have become since it had this stamp; None if nobody knows."""
        kept, now = self.folder / "modules" / (then or "none"), self.root / path
        if then == self.stamp(path):
            return {}
        return followed(kept.read_text(), now.read_text()) if kept.exists() and now.exists() else None

    def missing(self, tests: Sequence[str]) -> list[str]:
        return [test for test in tests if not self.place(test).exists()]

    def read(self, tests: Sequence[str]) -> None:
        """Take in what is kept of these files."""
        for test in tests:
            if self.place(test).exists():
                self.take(json.loads(self.place(test).read_text()))

    def take(self, kept: dict[str, Any]) -> None:
        """Take in one record; a line that a shared fixture ran counts for every test of its file."""
        self.seconds |= kept["seconds"]
        for context, modules in kept["lines"].items():
            whole = [name for name in kept["seconds"] if name.split("::")[0] == context]
            named = whole if "::" not in context else [context]
            for path, lines in modules.items():
                now = self.lines(path, kept["stamps"].get(path))
                ran = [MOVED] if now is None else [at for line in lines for at in now.get(line, [line])]
                for at in ran:
                    self.tests[path, at].update(named)

    def of(self, mutant: Mutant, likely: Callable[[str], float] = lambda _: 0.0) -> list[str]:
        """The tests that run the statement around the mutant: the shortest first, those of a `likely` file sooner, and
        many cases of one not at once."""
        lines = statement((self.root / mutant.path).read_text(), mutant.line)
        found = {test for line in (*lines, MOVED) for test in self.tests.get((mutant.path, line), ())}
        if not found:  # a constant, a default, a class: what uses the module may tell
            found = {test for (path, _), tests in self.tests.items() if path == mutant.path for test in tests}
        cases: Counter[str] = Counter()
        order = []
        for seconds, test in sorted((self.seconds.get(test, 0.0), test) for test in found):
            cases[name := test.split("[")[0]] += 1
            order.append((cases[name] * (seconds + BEGIN) / (1.0 + likely(test.split("::")[0])), test))
        return [test for _, test in sorted(order)]


def statement(code: str, line: int) -> range:
    """The lines of the innermost statement that has this one: of a compound one, those before its body."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt):
            end = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno
            if node.lineno <= line <= max(end, node.lineno):
                best = range(node.lineno, max(end, node.lineno) + 1)
    return best


def batches(tests: Sequence[str], seconds: dict[str, float], limits: Sequence[float]) -> Iterator[list[str]]:
    """The tests in runs of growing length: each takes what fits its seconds, at least one; a file takes some itself."""
    waiting = list(tests)
    for limit in limits:
        batch, spent, opened = [], 0.0, set()
        while waiting:
            file = waiting[0].split("::")[0]
            spent += seconds.get(waiting[0], 0.0) + (0.0 if file in opened else FILE)
            if batch and spent > limit:
                break
            opened.add(file)
            batch.append(waiting.pop(0))
        if batch:
            yield batch
