"""The part of photonic networks in the report: alpha, converters, the controller, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow.report.section import Section
from bittrue.flow.systems.light import figures

if TYPE_CHECKING:
    from rich.table import Table


class Light(Section):
    """Shown where `quantize` measured converters; the controller where its step ran."""

    template = Path(__file__).parent / "templates" / "photonic.html"
    words = {
        "functions_title": "The activation tables",
        "functions": "An entry for every input code, so nothing is interpolated: input codes across, output codes up, "
        "from 0.",
        "ranges": "What a sum over tiles clamps in front of an activation is nothing lost: there the activation is "
        "constant.",
        "area": "The pipeline holds the array's digital twin in the place of the array: it is a simulation model, and "
        "a check of what the array's arithmetic costs in logic. The controller is what would stand beside a real "
        "array; it is placed without array or twin, weights streamed.",
    }
    designs = {"pipeline": "pipeline with twin (a model)", "controller": "controller alone"}

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "figures.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {"controller": results.get("controller")}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "controller": content.get("controller"),
            "parts": figures.PARTS,
            "draw_energy": figures.energy,
        }

    def rows(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return (content.get("controller") or {"rows": ()})["rows"]

    def skipped(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
        return (content.get("controller") or {"skipped": ()})["skipped"]

    def tables(self, content: Mapping[str, Any]) -> list[Table]:
        checked = content.get("controller")
        return [table(checked["rows"], checked["skipped"])] if checked else []


def table(rows: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, str]] = ()) -> Table:
    """The rows of a controller with the array's twin behind it, for the terminal."""
    from bittrue.flow.cli import console
    from bittrue.flow.verify.judged import problems

    body = []
    for row in rows:
        verdict = console.DIFFERS if problems([row], None) else console.EQUAL
        name = row["simulator"] + (" + stalls" if row["stalls"] else "")
        name += " + AXI-Lite" if row.get("registers") else ""
        figures_ = (row["images"], row["values"], row["mismatches"], row["interval"], row["images_per_second"])
        body.append((name, *figures_, verdict))
    body += [(s["simulator"], *([None] * 5), console.SKIPPED) for s in skipped]
    heads = ("simulator", "images", "values", "mismatches", "cycles", "images/s", "verdict")
    caption = "; ".join(["cycles an image, without stalls", *(s["reason"] for s in skipped)])
    return console.table("Controller with the array's twin against the golden simulator", heads, body, caption)
