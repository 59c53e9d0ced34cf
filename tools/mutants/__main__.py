"""Draw mutants by seed, run the tests that can notice them, and say which live: `make mutants SEED=1 COUNT=20`.

Every mutant is one change of one file, made by cosmic-ray in a copy of the tree, and meets tests that are known to run
its line, the shortest first, for some seconds. Those that live then meet the other tests at their line,
and the files that speak of it. `killed`: a test failed. `equivalent`: nobody can tell it from the code, for the reason
in `equivalent.yaml`. `alive`: no test failed. `timeout`: the tests do not end, which anybody notices. Status 1 if fewer
than 95 % of those that are not equivalent were noticed. What was found is kept, by seed, in `.cache/mutants`, and a
second call goes on where the first ended; so is which test runs which line, until a file of tests changes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import yaml
from cosmic_ray.mutating import use_mutation

from tools.mutants.child import COMPUTING, Result, Runner
from tools.mutants.covered import Record, batches
from tools.mutants.sample import OPERATORS, ROOT, Mutant, modules, sample
from tools.mutants.select import BY_OPERATION, Files, narrow

KEPT = ROOT / ".cache" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
#: Test files that speak of it that a mutant meets at first, if no test is known to run its line.
FIRST = 6
#: Seconds of tests, by what they took when they were watched, of the first run, the second and so on.
LIMITS = (4.0, 16.0, 40.0)
#: How many of these runs a mutant meets at first.
QUICK = 2
#: What a run of tests says about the mutant.
OUTCOMES = {"passed": "alive", "failed": "killed", "timeout": "timeout"}
COPIED = ("bittrue", "sim", "rtl", "hls", "models", "flow", "tests", "bench", "notebooks", "tools")


def copy_of_tree(number: int) -> Path:
    """A copy of the tree in which files may be spoilt, made anew; what Numba compiled for the last one is kept."""
    folder = KEPT / f"worker-{number}"
    for name in ("tree", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    tree = folder / "tree"
    for name in ("tree", "tmp", "numba"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, symlinks=True)
    for file in ROOT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy2(file, tree)
    return tree


def collect(tree: Path) -> dict[str, list[str]]:
    """The node ids of the files that have a part for each operation."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--collect-only", *BY_OPERATION],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    known: dict[str, list[str]] = {}
    for line in run.stdout.splitlines():
        if "::" in line:
            known.setdefault(line.split("::")[0], []).append(line)
    return known


class Sound:
    """Which tests pass on the tree without a mutant: only what these say counts, the others are left out."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.known = runner, {}

    @property
    def left_out(self) -> list[str]:
        return [f"--deselect={test}" for test, passes in self.known.items() if not passes]

    def passes(self, test: str, tree: Path) -> bool:
        """Whether this test passes in the tree, in which there is no mutant now."""
        if "::" not in test:
            return True
        if test not in self.known:
            self.known[test] = self.runner.run(tree, [test], tree.parent / "numba").outcome == "passed"
        return self.known[test]


def runs_of(
    mutant: Mutant, record: Record, files: Files, known: dict[str, list[str]], first: bool
) -> Iterator[tuple[list[str], int]]:
    """What pytest is told, run after run, and the seconds that it may compute: at first, or then. Tests that are known
    to run the place, which may take eight times as long as they took, then files that speak of it."""
    marks = ["-m=not slow"] if first else []
    likely = {file: files.score(file, mutant) for file in files.tests}
    covering = record.of(mutant, lambda file: likely.get(file, 0.0))
    runs = list(batches(covering, record.seconds, LIMITS))
    for tests in runs[:QUICK] if first else runs[QUICK:]:
        limit = 30 + 8 * sum(record.seconds.get(test, 0.0) for test in tests)
        yield [*tests, *marks], min(round(limit), COMPUTING)
    ranked = files.ranked(mutant)
    for file in ranked if not first else [] if covering else ranked[:FIRST]:
        yield [*narrow(file, mutant, known), *marks], COMPUTING


def judge(mutant: Mutant, tree: Path, runs: Iterable[tuple[list[str], int]], sound: Sound) -> Result:
    """Make the change, make one run of tests after the other until one fails, and put the file back."""
    path = tree / mutant.path
    stamp = path.stat()
    numba = tree.parent / "numba"
    if re.search(r"\bjit\b", path.read_text()):  # what is compiled from a mutant must not replace what others find
        numba = tree.parent / "tmp" / "numba"
        shutil.rmtree(numba, ignore_errors=True)
        shutil.copytree(tree.parent / "numba", numba)
    waiting = list(runs)
    while waiting:
        try:
            with use_mutation(path, OPERATORS[mutant.operator], mutant.occurrence):
                tests, limit = waiting[0]
                result = sound.runner.run(tree, [*tests, *sound.left_out], numba, limit=limit)
        finally:
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        if result.outcome == "passed":
            waiting.pop(0)
        elif result.outcome == "timeout" or sound.passes(result.by, tree):
            return result
    return Result("passed", "")


def record_all(record: Record, tests: list[str], tree: Path, runner: Runner) -> None:
    """Write down which test runs which line, of those test files of which that is not known yet."""
    record.keep_texts()
    missing = record.missing(tests)
    for number, test in enumerate(missing, 1):
        print(f"watching which lines run: {number} of {len(missing)}, {test}", flush=True)
        begin = time.monotonic()
        runner.run(tree, [test, "-m=not slow"], tree.parent / "numba", record.place(test))
        print(f"    {time.monotonic() - begin:.0f} s", flush=True)
    record.read(tests)


def key(mutant: Mutant, change: tuple[str, str]) -> tuple[str, str, str, str]:
    return mutant.path, ".".join(mutant.names), *change


def equivalent() -> dict[tuple[str, str, str, str], str]:
    """The list of equivalent mutants: file, where, line before, line after, and why nobody can tell."""
    entries = yaml.safe_load(EQUIVALENT.read_text()) or []
    return {(e["file"], e["in"], e["before"], e["after"]): e["why"] for e in entries}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the paths of the modules that are mutated")
    parser.add_argument("--quick", action="store_true", help="only what each meets at first, some seconds of tests")
    parser.add_argument("--again", action="store_true", help="run those that lived once more")
    options = parser.parse_args()
    drawn = sample(options.seed, options.count, [path for path in modules() if options.only in path])
    changes = {mutant: mutant.change() for mutant in drawn}  # before anybody goes on writing at the code
    excused = equivalent()
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"seed-{options.seed}{options.only.replace('/', '-')}.jsonl"
    told = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {tuple(row["key"]): row | {"key": tuple(row["key"])} for row in told}
    done = {k: row for k, row in done.items() if not options.again or row["outcome"] == "killed"}
    passes = (True,) if options.quick else (True, False)
    files, sound, record = Files(), Sound(Runner()), Record(KEPT / "lines")
    trees: Queue[Path] = Queue()

    def one(mutant: Mutant, first: bool) -> dict:
        row = {"key": key(mutant, changes[mutant]), "line": mutant.line, "operator": mutant.operator, "first": first}
        if row["key"] in excused:
            return row | {"outcome": "equivalent", "by": excused[row["key"]]}
        before = done.get(row["key"])
        if before and (first or before["outcome"] != "alive" or not before.get("first")):
            return before
        tree, begin = trees.get(), time.monotonic()
        try:
            result = judge(mutant, tree, runs_of(mutant, record, files, known, first), sound)
            row |= {"outcome": OUTCOMES[result.outcome], "by": result.by, "seconds": round(time.monotonic() - begin)}
        finally:
            trees.put(tree)
        with kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
        done[row["key"]] = row
        return row

    for number in range(options.workers):
        trees.put(copy_of_tree(number))
    known = collect(trees.queue[0])
    record_all(record, files.tests, trees.queue[0], sound.runner)
    with ThreadPoolExecutor(options.workers) as pool:
        late: set[tuple[str, ...]] = set()
        for first in passes:
            rows = []
            for row in pool.map(one, drawn, [first] * len(drawn)):
                rows.append(row)
                path, where, before, after = row["key"]
                if not first and row["key"] not in late:
                    continue  # told already
                print(f"{len(rows):4} {row['outcome']:10} {path}:{row['line']} {where}", flush=True)
                if row["outcome"] != "killed":
                    print(f"       - {before}\n       + {after}", flush=True)
            late = {row["key"] for row in rows if row["outcome"] == "alive"}
    return verdict(Counter(row["outcome"] for row in rows))


def verdict(counts: Counter[str]) -> int:
    """Print the counts, and give the command's status."""
    judged = sum(counts.values()) - counts["equivalent"]
    share = (counts["killed"] + counts["timeout"]) / judged if judged else 1.0
    print(", ".join(f"{counts[name]} {name}" for name in ("killed", "equivalent", "alive", "timeout")))
    print(f"{share:.1%} of the {judged} that are not equivalent were noticed; 95 % are wanted")
    return int(share < 0.95)


if __name__ == "__main__":
    sys.exit(main())
