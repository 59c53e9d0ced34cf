"""Results: store what was measured, and write README's tables from it.

python -m bench results collect build/lerp-psa-digits build/seed-2    # reports of finished flows
python -m bench layer --store                                         # a benchmark
python -m bench results write                                         # README
python -m bench results check                                         # status 1 where README differs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.results.collect import collect
from bench.results.document import README, difference, drawn
from bench.results.stored import FOLDER
from bench.results.tables import TABLES
from bittrue.flow.engine.durations import FILE
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole


def main(words: Sequence[str] | None = None) -> int:
    """The command's status; what is wrong is said in a sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m bench results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("collect", help="store the reports of finished flows, all of a recipe together")
    first.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a flow, with its report.json")
    first.add_argument("--times", action="store_true", help="keep how long the steps took; if nothing else ran")
    commands.add_parser("write", help="write README's tables from what is stored")
    commands.add_parser("check", help="fail where README's tables are not what is stored")
    asked = parser.parse_args(words)
    try:
        if asked.command == "collect":
            for path in collect(asked.folders, times=FILE if asked.times else None):
                print(f"written: {path}")
        elif asked.command == "write":
            write_whole(README, drawn(README.read_text(), TABLES, FOLDER).encode())
            print(f"written: {README}")
        elif told := difference(README.read_text(), TABLES, FOLDER):
            raise BittrueError(told)
        else:
            print("README's tables are those of the stored results")
    except BittrueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
