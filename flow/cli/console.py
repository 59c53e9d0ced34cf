"""The terminal: progress bars, tables, and errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bittrue.flow.engine.steps import Outcome

#: Tables go to stdout, everything else to stderr, so that output can be piped.
OUT = Console()
ERR = Console(stderr=True)
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
        OUT.print(sentence, soft_wrap=True)


class Bars:
    """A listener of the flow (and a plain progress callback) that draws one bar a step; use as a context.

    Where stderr is no terminal, as in the log of a machine, one line a step is printed instead.
    """

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(finished_text="[green]✔[/]"),
            TextColumn("[bold]{task.fields[step]:<9}"),
            BarColumn(bar_width=28),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self.bars = Progress(*columns, console=ERR, refresh_per_second=5, disable=not ERR.is_terminal)
        self.task = None

    def __enter__(self) -> Bars:
        self.bars.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.__exit__(*exception)

    def begin(self, step: str) -> None:
        self.task = self.bars.add_task("", step=step, total=1.0)

    def progress(self, text: str, done: float, total: float) -> None:
        if self.task is None:
            self.begin("")
        self.bars.update(self.task, description=escape(text), completed=done / total if total else 0)

    def end(self, step: str, outcome: Outcome) -> None:
        words = outcome.why if outcome.ran else f"up to date (took {outcome.seconds:.1f} s)"
        words = "; ".join(filter(None, (outcome.result.get("status"), words)))
        self.bars.update(self.task, completed=1.0, description=f"[dim]{escape(words)}[/]")
        if not ERR.is_terminal:
            took = f"done in {outcome.seconds:.1f} s ({words})" if outcome.ran else words
            ERR.print(f"{step}: {escape(took)}", highlight=False, soft_wrap=True)


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Table:
    """A table; columns of numbers are flushed right, None is a dash."""
    drawn = Table(
        title=title, caption=caption or None, title_justify="left", caption_justify="left", title_style="bold"
    )
    for index, heading in enumerate(headings):
        numeric = all(isinstance(row[index], int | float | None) for row in rows) or heading in CYCLES
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, str) else number(cell) for cell in row))
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
    return escape(str(value))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def verification(rows: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, str]] = ()) -> Table:
    """The rows of a verification; a cycle count that the plan did not promise is red, with the promise beside it."""

    def cycles(row: Mapping[str, Any], name: str) -> str:
        measured, promised = row[name], row[f"estimated_{name}"]
        words = number(measured)
        return words if measured == promised else f"[bold red]{words} (planned {number(promised)})[/]"

    from bittrue.flow.verify.verify import problems  # not before it is needed: it loads every back end

    body = []
    for row in rows:
        verdict = "[bold red]differs[/]" if problems([row], None) else "[green]equal[/]"
        name = f"{row['backend']} {row['simulator']}" + (" + stalls" if row["stalls"] else "")
        figures = (row["images"], row["values"], row["mismatches"], cycles(row, "interval"), cycles(row, "latency"))
        body.append((name, *figures, verdict))
    body += [(f"{s.get('backend', 'rtl')} {s['simulator']}", *([None] * 5), "[yellow]skipped[/]") for s in skipped]
    heads = ("back end", "images", "values", "mismatches", "interval", "latency", "verdict")
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
