"""Cells of the tables from what is stored: of runs of a recipe (`Flow`), and of benchmarks (`Bench`).

Over several trainings a share is mean ± standard deviation; counts that differ are given from the least to the most.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import stored
from bittrue.flow.engine import machine
from bittrue.flow.engine.statistics import spread
from bittrue.sim.errors import BittrueError

NONE = "not run"


def span(values: Iterable[float], form: str = "{:,}") -> str:
    """The least and the most of values, or the one that all are."""
    told = list(dict.fromkeys(form.format(value) for value in sorted(values)))
    return told[0] if len(told) == 1 else f"{told[0]} to {told[-1]}"


def wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Flow:
    """The runs of a recipe with the keys that were `changed`, and what each cell says of them."""

    recipe: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = stored.FOLDER

    @property
    def content(self) -> dict[str, Any]:
        return stored.load(self.recipe, "flows", self.folder)

    @property
    def runs(self) -> list[dict[str, Any]]:
        found = [run for run in self.content["runs"] if run["changed"] == dict(self.changed)]
        if not found:
            told = " ".join(f"{key}={value}" for key, value in self.changed.items()) or "nothing"
            raise BittrueError(
                f"results {self.recipe}.json: it has no run with {told} changed; give its folder, together with the "
                "others of the recipe, to: python -m bench results collect"
            )
        return found

    def seeds(self) -> str:
        return "one seed" if len(self.runs) == 1 else f"{len(self.runs)} seeds"

    def share(self, key: str, part: str | None = None) -> str:
        """An accuracy of the chain; with `part` one of the system's own."""
        found = [(run["own"].get(part) or {}) if part else run["accuracy"] for run in self.runs]
        values = [100 * one[key] for one in found if one.get(key) is not None]
        if not values:
            return "–"
        mean, deviation = spread(values)
        return f"{mean:.2f} %" if deviation is None else f"{mean:.2f} % ± {deviation:.2f}"

    def cycles(self, key: str) -> str:
        values = [run[key] for run in self.runs if run[key] is not None]
        return span(values) if values else NONE

    def checked(self, simulator: str, where: str = "verify", stalls: bool | None = None) -> str:
        """Images and mismatches under one simulator, all runs together."""
        every = [[row for row in run[where] if row["simulator"] == simulator] for run in self.runs]
        every = [[row for row in rows if stalls is None or row["stalls"] == stalls][:1] for rows in every]
        rows = [row for found in every for row in found]
        if not rows or not sum(row["images"] for row in rows):
            return NONE
        images = span(row["images"] for row in rows)
        wrong = sum(row["mismatches"] for row in rows)
        return f"{images}, {wrong:,}" if len(rows) == 1 else f"{len(rows)} x {images}, {wrong:,}"

    def beats(self, simulator: str, key: str, where: str = "verify") -> str:
        """Cycles that were simulated, without stalls."""
        rows = [row for run in self.runs for row in run[where] if row["simulator"] == simulator and not row["stalls"]]
        values = [row[key] for row in rows if row[key] is not None]
        return span(values) if values else NONE

    def placed(self, target: str, design: str = "pipeline") -> list[dict[str, Any]]:
        rows = [row for run in self.runs for row in run["synth"]]
        return [row for row in rows if (row["target"], row["design"]) == (target, design)]

    def resource(self, key: str, target: str, design: str = "pipeline") -> str:
        """A resource, the plan's estimate in brackets."""
        rows = self.placed(target, design)
        if not rows:
            return NONE
        known = [row["estimated"][key] for row in rows if (row["estimated"] or {}).get(key) is not None]
        return span(row[key] for row in rows) + (f" ({span(known)})" if known else "")

    def clock(self, target: str, design: str = "pipeline") -> str:
        """The clock after place and route, with the number of placements where there are several."""
        rows = self.placed(target, design)
        if not rows:
            return NONE
        text = span((row["fmax_mhz"] for row in rows), "{:.1f}") + " MHz"
        return text if len(rows) == 1 else f"{text} in {len(rows)} placements"

    def area(self, target: str, design: str = "pipeline") -> str:
        """LUT, DSP, block RAM and, where it was routed, the clock."""
        rows = self.placed(target, design)
        if not rows:
            return NONE
        cells = [self.resource(key, target, design) for key in ("lut", "dsp", "bram")]
        return ", ".join([*cells, *([self.clock(target, design)] if rows[0]["fmax_mhz"] else [])])

    def source(self) -> str:
        """How many trainings, on what, when, of which version."""
        if self.content["note"]:
            return f"{self.seeds()}; {self.content['note']}"
        made = [run["made"] for run in self.runs]
        seeds = [run["seed"] for run in self.runs]
        which = "one seed" if len(seeds) == 1 else f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
        return f"{which}; {origin(made)}"


@dataclass(frozen=True)
class Bench:
    """A benchmark as it was measured, once or several times."""

    name: str
    folder: Path = stored.FOLDER

    @property
    def content(self) -> dict[str, Any]:
        return stored.load(self.name, "bench", self.folder)

    def row(self, what: str) -> list[dict[str, Any]]:
        """The row of this name, of every time."""
        found = [row for run in self.content["runs"] for row in run["rows"] if row["what"] == what]
        if not found:
            raise BittrueError(
                f"results {self.name}.json: no row is named {what!r}; "
                f"measure again: python -m bench {self.name} --store"
            )
        return found

    def __call__(self, what: str, form: str = "{:,.0f}", key: str = "value") -> str:
        return span((row[key] for row in self.row(what) if row.get(key) is not None), form)

    def gain(self, what: str) -> str:
        """The speed-up; below ten with a digit behind the point."""
        values = [row["speed-up"] for row in self.row(what)]
        return span(values, "{:.1f}" if min(values) < 10 else "{:.0f}")

    def note(self, what: str) -> str:
        return self.row(what)[0]["note"]

    def source(self) -> str:
        runs = self.content["runs"]
        times = "" if len(runs) == 1 else f"measured {len(runs)} times, from the least to the most; "
        return self.content["note"] or times + origin([run["made"] for run in runs])


def origin(made: Iterable[Mapping[str, Any]]) -> str:
    """Machines, dates and commits, each once."""
    made = list(made)
    machines = dict.fromkeys(machine.words(one["machine"]) for one in made)
    dates = dict.fromkeys(sorted(one["date"] for one in made))
    commits = dict.fromkeys(one["commit"] or "no checkout" for one in made)
    return f"{' and '.join(machines)}; {' and '.join(dates)}; {' and '.join(commits)}"
