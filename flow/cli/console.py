"""The terminal: progress bars, tables, and errors in one sentence."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from bittrue.flow.engine import durations, machine
from bittrue.flow.engine.steps import Expected, Outcome

#: Tables go to stdout, everything else to stderr, so that output can be piped.
OUT = Console()
ERR = Console(stderr=True)
#: Verdicts of a verification.
EQUAL, DIFFERS, SKIPPED = Text("equal", "green"), Text("differs", "bold red"), Text("skipped", "yellow")
#: Letters of the longest word that is never cut.
LONG = 36
#: Columns of figures that are already text.
CYCLES = ("interval", "latency")


def fail(sentence: object) -> None:
    """One sentence in red on stderr."""
    ERR.print(f"[bold red]error:[/] [red]{escape(str(sentence))}[/]", soft_wrap=True, highlight=False)


def conclude(problems: Sequence[str]) -> None:
    """Say every problem and end the command with status 1; without problems nothing happens."""
    for problem in problems:
        fail(problem)
    if problems:
        raise typer.Exit(1)


def say(as_json: bool, result: Mapping[str, Any], sentence: str) -> None:
    """A command's result: JSON for machines, or a sentence for people."""
    if as_json:
        print(json.dumps(result))
    else:
        line(sentence)


def line(text: object) -> None:
    """A line of a result on stdout as it is: not wrapped, no markup, so that what it names can be copied."""
    OUT.print(str(text), soft_wrap=True, highlight=False, markup=False)


def show(drawn: Table, console: Console = OUT) -> None:
    """Print a table: within the terminal's width where no name has to be cut for that, else as wide as it needs.

    Only words of more than `LONG` letters are cut, such as the paths of files; in a pipe nothing is.
    """
    measure = partial(Measurement.get, console, console.options.update(max_width=10_000), drawn)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        drawn.width = measure().maximum
    else:
        excess = measure().minimum - console.width
        for column in drawn.columns:
            longest = max((len(word) for cell in column.cells for word in str(cell).split()), default=0)
            if excess > 0 and longest > LONG and not column.no_wrap:
                column.max_width = max(LONG, longest - excess)
        needed = measure()
        drawn.width = max(needed.minimum, min(needed.maximum, console.width))
    console.print(drawn, crop=False)


class Bars:
    """A listener of the flow (and a plain progress callback) that draws one bar a step; use as a context.

    Where stderr is no terminal, as in the log of a machine, lines are printed instead: that a step which takes longer
    than `SOON` seconds began, how far it is every `BEAT` seconds, and that it is done.
    """

    SOON, BEAT = 1.0, 30.0

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(finished_text="[green]✔[/]"),
            TextColumn("[bold]{task.fields[step]:<9}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[about]}"),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        self.lines = not ERR.is_interactive
        self.bars = Progress(*columns, console=ERR, refresh_per_second=5, disable=self.lines, expand=True)
        self.task = None
        self.step, self.words, self.since = "", "", 0.0
        self.about: dict[str, str] = {}
        self.ended = threading.Event()
        self.told = False
        self.beats: threading.Thread | None = None

    def __enter__(self) -> Bars:
        self.bars.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._rest()
        if self.task is not None and not any(exception):
            self.bars.update(self.task, completed=1.0)
        self.bars.__exit__(*exception)

    def expect(self, steps: Sequence[Expected]) -> None:
        due = [one for one in steps if one.due]
        long = [one for one in due if one.seconds is not None and one.seconds >= self.SOON]
        self.about = {one.step: f"about {durations.told(one.seconds)}" for one in long}
        self._say("", forecast(steps))

    def begin(self, step: str) -> None:
        self._rest()
        self.step, self.words, self.since = step, "", time.monotonic()
        self.task = self.bars.add_task("", step=step, total=1.0, about=self.about.get(step, ""))
        if self.lines:
            self.ended, self.told = threading.Event(), False
            self.beats = threading.Thread(target=self._beat, args=(self.ended,), daemon=True)
            self.beats.start()

    def progress(self, text: str, done: float, total: float) -> None:
        if self.task is None:
            self.begin("")
        share = done / total if total else 0
        self.words = text + (f" ({100 * share:.0f} %)" if 0 < share < 1 else "")
        # a bar that was full once is drawn as done: this one is when the step is, not a part of it
        self.bars.update(self.task, description=escape(text), completed=min(share, 0.999))

    def end(self, step: str, outcome: Outcome) -> None:
        self._rest()
        words = outcome.why if outcome.ran else f"up to date (took {outcome.seconds:.1f} s)"
        words = "; ".join(filter(None, (outcome.result.get("status"), words)))
        self.bars.update(self.task, completed=1.0, description=f"[dim]{escape(words)}[/]", about="")
        if self.lines:
            self._say(step, f"done in {outcome.seconds:.1f} s ({words})" if outcome.ran else words)

    def _rest(self) -> None:
        """The step under way is over."""
        self.ended.set()
        if self.beats is not None:
            self.beats.join()
            self.beats = None

    def _beat(self, ended: threading.Event) -> None:
        wait = self.SOON
        while not ended.wait(wait):
            taken = time.monotonic() - self.since
            about = self.about.get(self.step, "")
            if self.told:
                words = f"{taken:.0f} s{about and f' of {about}'}, {self.words or 'at work'}"
            else:
                words = f"began{about and f', {about}'}"
            self._say(self.step, words)
            wait, self.told = self.BEAT, True

    @staticmethod
    def _say(step: str, words: str) -> None:
        ERR.print(f"{step}: {words}" if step else words, soft_wrap=True, highlight=False, markup=False)


def forecast(steps: Sequence[Expected]) -> str:
    """What a flow is about to do and about how long that takes, in a sentence; steps below a second are not timed."""
    due = [one for one in steps if one.due]
    if not due:
        return "all steps are up to date"
    known = [one for one in due if one.seconds is not None]
    unknown = [one.step for one in due if one.seconds is None]
    if not known:
        return f"to do: {', '.join(unknown)}; how long this takes was never measured for this recipe"
    parts = [f"{one.step} {durations.told(one.seconds)}" for one in known if one.seconds >= Bars.SOON]
    where = ("as last time" if one.machine is None else f"as on {machine.words(one.machine)}" for one in known)
    said = f"to do: about {durations.told(sum(one.seconds for one in known))}, {' or '.join(dict.fromkeys(where))}"
    said += f" ({', '.join(parts)})" if parts else ""
    return said + (f"; how long {', '.join(unknown)} takes was never measured" if unknown else "")


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Table:
    """A table; columns of numbers are flushed right, None is a dash. Only text breaks, between its words.

    A cell that is coloured is a `rich.text.Text`; any other text stands there as it is.
    """
    drawn = Table(
        title=title,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, heading in enumerate(headings):
        cells = [row[index] for row in rows]
        numeric = all(isinstance(cell, int | float | None) for cell in cells) or heading in CYCLES
        words = any(isinstance(cell, str | Text) and " " in str(cell) for cell in cells) and not numeric
        # A column that does not wrap needs room for its whole heading: else others are cut for it.
        least = None if words else max(cell_len(heading), *(cell_len(number(cell)) for cell in cells), 0)
        drawn.add_column(
            heading, justify="right" if numeric else "left", no_wrap=not words, overflow="fold", min_width=least
        )
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else escape(number(cell)) for cell in row))
    return drawn


def number(value: Any) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def pipeline(stages: Sequence[Mapping[str, Any]]) -> Table:
    """The stages of a plan."""
    lanes = [
        str(s["lanes_in"]) if s["lanes_in"] == s["lanes_out"] else f"{s['lanes_in']}:{s['lanes_out']}" for s in stages
    ]
    keys = ("name", "kind", "simd", "pe", "interval", "latency", "entries")
    body = [
        [*(s[key] for key in keys[:4]), of, *(s[key] for key in keys[4:])] for s, of in zip(stages, lanes, strict=True)
    ]
    heads = ("stage", "kind", "simd", "pe", "lanes", "interval", "latency", "entries")
    caption = "lanes: codes a beat; in:out where they differ" if any(":" in of for of in lanes) else ""
    return table("Pipeline", heads, body, caption)


def verification(rows: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, str]] = ()) -> Table:
    """The rows of a verification; a cycle count that the plan did not promise is red, with the promise beside it."""

    def cycles(row: Mapping[str, Any], name: str) -> str | Text:
        measured, promised = row[name], row[f"estimated_{name}"]
        words = number(measured)
        return words if measured == promised else Text(f"{words} (planned {number(promised)})", "bold red")

    from bittrue.flow.verify.exchanges import together  # not before it is needed: it loads every back end
    from bittrue.flow.verify.judged import problems

    body, grouped = [], any(map(together, rows))
    for row in rows:
        verdict = DIFFERS if problems([row], None) else EQUAL
        name = f"{row['backend']} {row['simulator']}" + (" + stalls" if row["stalls"] else "")
        figures = (row["images"], row["values"], row["mismatches"], cycles(row, "interval"), cycles(row, "latency"))
        body.append((name, *([together(row)] if grouped else []), *figures, verdict))
    heads = ("back end", *(["at a time"] if grouped else []), "images", "values", "mismatches", "interval", "latency")
    nothing = [None] * (len(heads) - 1)
    body += [(f"{s.get('backend', 'rtl')} {s['simulator']}", *nothing, SKIPPED) for s in skipped]
    heads = (*heads, "verdict")
    caption = "; ".join(s["reason"] for s in skipped)
    return table("Verification against the golden simulator", heads, body, caption)


def synthesis(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of a synthesis, estimates beside."""
    body = []
    for row in rows:
        cells = [
            f"{row[name]:,}" + (f" (~{row['estimated'][name]:,})" if row["estimated"].get(name) is not None else "")
            for name in ("lut", "dsp", "bram")
        ]
        fmax = "–" if row["fmax_mhz"] is None else f"{row['fmax_mhz']:.1f} MHz"
        design = row.get("design", "pipeline")
        name = row["target"] if design == "pipeline" else f"{design}, {row['target']}"
        body.append((name, cells[0], row["ff"], *cells[1:], fmax))
    return table("Synthesis", ("target", "LUT", "FF", "DSP", "block RAM", "Fmax"), body, "(~n): the plan's estimate")
