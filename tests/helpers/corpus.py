"""Damaged files of every format that is read, by seed: the outcome is a sentence, or what the file holds.

    python -m tests.helpers.corpus --cases 10000 --seed 0        all of them, in processes that may die
    python -m tests.helpers.corpus --seed 0 --only 1234          one again, with its traceback

A case is a number: the format is `case % len(FORMATS)`, all that is drawn follows from (seed, case). Right is

    a sentence   a BittrueError of one line, not too long
    the same     the content of the file before it was damaged
    as written   what the damaged file says, found in another way (`Format.says`), where a format has no hash

and everything else is a fault: another exception, other content in silence, a warning of numpy, more than `SECONDS`,
more than `BYTES` of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.sim.errors import BittrueError
from tests.helpers.corpus_formats import FORMATS
from tests.helpers.corpus_kinds import Format, same

SECONDS, BYTES = 10.0, 3 << 30
#: Longest sentence, in characters.
LONGEST = 1500


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `fault` says what is wrong with it, where something is."""

    case: int
    format: str
    damage: str
    kind: str
    fault: str = ""

    def __str__(self) -> str:
        return f"case {self.case}, {self.format}, {self.damage}: {self.kind} {self.fault}"


class TooLongError(BaseException):
    """A case took more than its time; no `except Exception` may catch it."""


@contextmanager
def limited() -> Iterator[None]:
    """A time for what is done, and memory beyond what there is already."""

    def stop(*_: object) -> None:
        raise TooLongError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # of zipfile and h5py, about the file
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


class Corpus:
    """The formats with a whole file each, made once in a folder, and the cases."""

    def __init__(self, folder: Path, seed: int, formats: tuple[Format, ...] = FORMATS) -> None:
        self.folder, self.seed, self.formats = folder, seed, formats
        self.whole: dict[str, tuple[dict[str, bytes], object]] = {}

    def base(self, of: Format) -> tuple[dict[str, bytes], object]:
        """The files of a format by name, and what is read from them."""
        if of.name not in self.whole:
            place = self.folder / of.name
            place.mkdir(parents=True)
            of.make(place)
            files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
            self.whole[of.name] = files, of.read(place)
        return self.whole[of.name]

    def run(self, case: int) -> Outcome:
        """Damage a file, read it, judge what comes of it."""
        rng = np.random.default_rng([self.seed, case])
        of = self.formats[case % len(self.formats)]
        files, content = self.base(of)
        name, (label, damage, lasting) = of.draw(rng)
        place = self.folder / of.name
        broken = damage(rng, files[name])
        (place / name).write_bytes(broken)
        try:
            with limited():
                found = of.read(place)
                alike = same(found, content)
                says = None if alike or lasting or of.says is None else of.says(place, name)
            if alike:
                kind, fault = "the same", ""
            elif label in of.open or (says is not None and same(found, says)):
                kind, fault = "as written", ""
            else:
                kind, fault = "other content", f"\n  read {found!r:.300}\n  was  {content!r:.300}\n  says {says!r:.300}"
        except BittrueError as error:
            text = str(error)
            kind, fault = "a sentence", ""
            if "\n" in text or len(text) > LONGEST or not text.strip():
                kind, fault = "no sentence", repr(text[:300])
        except TooLongError:
            kind, fault = "no end", f"after {SECONDS} s"
        except BaseException as error:  # whatever it is, it is a fault
            if isinstance(error, KeyboardInterrupt):
                raise
            kind, fault = type(error).__name__, traceback.format_exc(limit=-3)
        finally:
            (place / name).write_bytes(files[name])
        return Outcome(case, of.name, f"{label} of {name}", kind, fault)


def main() -> int:
    """Run many cases in processes of their own, since a library in C may take its process with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.only is not None:
        options.first, options.cases = options.only, options.only + 1
    if options.child or options.only is not None:
        return child(options)
    begin, first, faults, counts = time.perf_counter(), options.first, 0, Counter()
    while first < options.cases:
        command = [sys.executable, "-m", "tests.helpers.corpus", "--child", "--first", str(first)]
        command += ["--cases", str(options.cases), "--seed", str(options.seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:  # type: ignore[union-attr]
                at, of, kind, rest = line.rstrip("\n").split("\t")
                first = int(at) + 1
                counts[of, kind] += 1
                if rest:
                    faults += 1
                    print(rest.replace("\\n", "\n"), flush=True)
        if process.returncode:
            print(f"case {first}: the process died with status {process.returncode}", flush=True)
            faults, first = faults + 1, first + 1
    for of in sorted({of for of, _ in counts}):
        print(f"{of:12}", ", ".join(f"{count} {kind}" for (name, kind), count in sorted(counts.items()) if name == of))
    print(f"{sum(counts.values())} cases in {time.perf_counter() - begin:.0f} s, {faults} faults")
    return 1 if faults else 0


def child(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(Path(folder), options.seed)
        for case in range(options.first, options.cases):
            faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
            outcome = corpus.run(case)
            text = str(outcome).replace("\t", " ").replace("\n", "\\n") if outcome.fault else ""
            print(outcome.case, outcome.format, outcome.kind, text, sep="\t", flush=True)
            faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
