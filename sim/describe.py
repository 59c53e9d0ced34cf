"""A program as a short table for people: text for a terminal, HTML for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a program shows itself: here it is only looked at
    from bittrue.sim.operation import TensorType
    from bittrue.sim.program import Program

#: Operations that a text and a page show; of more the ones in the middle are left out.
ROWS, HTML_ROWS = 24, 200
HEADS = ("operation", "kind", "reads", "gives", "accumulator", "MACs", "weights")
#: Letters of a cell; longer ones end in an ellipsis.
WIDEST = 32


def text(program: Program) -> str:
    """`repr(program)`: a line about it, then a line an operation, of at most `ROWS` of them."""
    rows = [HEADS, *_rows(program, ROWS)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column >= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([f"Program {_ends(program)}", *(f"  {line}" for line in lines), _sums(program)])


def html(program: Program) -> str:
    """What a notebook shows; every name is escaped."""
    right, left = ' style="text-align:right"', ' style="text-align:left"'
    head = "".join(f"<th{right if column >= 5 else left}>{name}</th>" for column, name in enumerate(HEADS))
    body = "".join(
        "<tr>" + "".join(f"<td{right if k >= 5 else left}>{escape(cell)}</td>" for k, cell in enumerate(row)) + "</tr>"
        for row in _rows(program, HTML_ROWS)
    )
    title, sums = escape(f"Program {_ends(program)}"), escape(_sums(program))
    return f"<div><b>{title}</b><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{sums}</div>"


def _ends(program: Program) -> str:
    """Inputs and results with their types."""

    def named(types: dict[str, TensorType]) -> str:
        return ", ".join(f"{_cut(name)} {kind}" for name, kind in types.items())

    return f"{named(dict(program.inputs))} to {named(program.outputs)}"


def _sums(program: Program) -> str:
    held = f", held inputs {', '.join(_cut(name) for name in program.held)}" if program.held else ""
    return (
        f"{len(program.nodes):,} operations, {program.macs:,} MACs, {program.weights:,} weights{held}, "
        f"sha256 {program.sha256[:12]}"
    )


def _rows(program: Program, most: int) -> list[tuple[str, ...]]:
    """The cells of the operations: of more than `most` the first and the last ones, and a row that says how many."""
    rows = [_row(row) for row in program.summary()]
    if len(rows) <= most:
        return rows
    first, last = most - most // 2, most // 2
    gap = (f"... {len(rows) - most:,} more", *([""] * (len(HEADS) - 1)))
    return [*rows[:first], gap, *rows[-last:]]


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    reads = ", ".join(row["operands"])
    figures = [f"{row[key]:,}" if row[key] else "" for key in ("macs", "weights")]
    accumulator = f"{row['accumulator_bits']} bits"
    return (_cut(row["name"]), row["kind"], _cut(reads), row["output"], accumulator, *figures)


def _cut(words: str) -> str:
    """A name on one line, of at most `WIDEST` letters."""
    words = " ".join(words.split())
    return words if len(words) <= WIDEST else f"{words[: WIDEST - 1]}…"
