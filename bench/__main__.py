"""Run the benchmarks, print one table, write `out/bench.json`.

    python -m bench [layer] [convolution] [superposition] [emulation] [network] [first_inference] [rtl_speed]
                    [spikes] [photonic] [peers] [written] [adders] [placed] [packed] [area] [generated]
    python -m bench layer --store --times 3     # measure three times, and keep the rows for README's tables
    python -m bench placed --designs all        # every recipe's design (see `bench.placed`, `bench.packed`)
    python -m bench results write               # README's tables of results from what is stored

Set OMP_NUM_THREADS=1 before: the baselines' BLAS must not use more threads than the kernels, which use one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.results import command, stored
from bench.timing import Row
from bittrue.flow.report.report import made
from bittrue.sim.files import write_whole
from bittrue.sim.kernels.matrix import backends

BENCHES = (
    "layer",
    "convolution",
    "superposition",
    "emulation",
    "network",
    "first_inference",
    "rtl_speed",
    "spikes",
    "photonic",
    "peers",
    "written",
    "adders",
    "placed",
    "packed",
    "area",
    "generated",
)
#: Those of which `--designs` tells the designs.
CHOOSING = ("placed", "packed")
RESULT = Path(__file__).parents[1] / "out" / "bench.json"


def cpu() -> str:
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def others(name: str, rows: list[Row]) -> list[dict[str, Any]]:
    """The runs that are stored, if any are, without the rows that are measured again."""
    again = {row["what"] for row in rows}
    if not (stored.FOLDER / f"{name}.json").exists():
        return []
    runs = [
        run | {"rows": [row for row in run["rows"] if row["what"] not in again]}
        for run in stored.load(name, "bench")["runs"]
    ]
    return [run for run in runs if run["rows"]]


def table(rows: list[Row]) -> Table:
    """The rows as people read them; words in brackets are words, and no markup."""
    drawn = Table("benchmark", "what", "value", "unit", "speed-up", "note")
    for row in rows:
        value, gain = row.get("value"), row.get("speed-up")
        cells = (
            str(row["bench"]),
            str(row["what"]),
            "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}",
            str(row.get("unit", "")),
            "" if gain is None else f"{gain:.1f}x",
            str(row.get("note", "")),
        )
        drawn.add_row(*(escape(cell) for cell in cells))
    return drawn


def main() -> None:
    if sys.argv[1:2] == ["results"]:
        sys.exit(command.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure speed against honest baselines.")
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--store", action="store_true", help="keep the rows in bench/results, for README's tables")
    parser.add_argument("--times", type=int, default=1, help="how often each is measured")
    parser.add_argument(
        "--designs", nargs="+", default=(), help="of placed and packed: which, or all; by default, a few"
    )
    asked = parser.parse_args()
    names = asked.names or BENCHES
    if asked.times < 1:
        parser.error(f"--times {asked.times}: measure at least once")
    for name in names:
        if name not in BENCHES:
            parser.error(f"no benchmark is named {name!r}; choose from {', '.join(BENCHES)}")
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print("OMP_NUM_THREADS is not 1: numpy's rows may use several threads, the others use one")
    rows: list[Row] = []
    for name in names:
        print(f"measuring {name} ...", flush=True)
        told = {"designs": asked.designs} if asked.designs and name in CHOOSING else {}
        runs = [importlib.import_module(f"bench.{name}").measure(**told) for _ in range(asked.times)]
        rows += [row for found in runs for row in found]
        if asked.store:
            kept = others(name, runs[0]) if told else []
            kept += [{"made": made(), "rows": found} for found in runs]
            print(f"stored: {stored.save(name, {'kind': 'bench', 'bench': name, 'runs': kept, 'note': ''})}")
    Console(width=150).print(table(rows))
    content = {"cpu": cpu(), "backends": backends(), "numpy": np.__version__, "rows": rows}
    print(f"written to {write_whole(RESULT, json.dumps(content, indent=1).encode())}")


if __name__ == "__main__":
    main()
