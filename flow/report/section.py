"""A system's part of the report: a section of the page, and what it adds to the verdict, the tiles and the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: What the page says where a system says nothing else (`Section.words`).
WORDS = {
    "functions_title": "The learned functions",
    "functions": "One cell a channel: the integer knots of its table over the whole range of input codes, all on the "
    "same axes. The grey diagonal is the identity. Between two knots the hardware interpolates.",
    "ranges": "",
    "events": "events",
    "area": "",
}


class Section:
    """What a system shows of its own; everything may be left out.

    template   Jinja template that is included behind the verification. It may use every key of `report.json`, the
               filters and figures of the page (`flow.report.report`), and the names that `context` gives
    words      other words for places of the generic page, by the keys of `WORDS`: `ranges` is added behind the text
               about saturation, `area` behind that about area, `events` names what one-bit tensors carry
    designs    what the designs beside the pipeline (and `pipeline`) are called in the table of areas
    """

    template: Path | None = None
    words: Mapping[str, str] = {}
    designs: Mapping[str, str] = {}

    @property
    def code(self) -> tuple[str, ...]:
        """Sources that decide what it shows, as in `Step.code`: by default the whole package of its class."""
        return () if type(self) is Section else (str(Path(inspect.getfile(type(self))).resolve().parent),)

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:  # noqa: ARG002
        """Keys that it adds to `report.json`, from the results of the steps by name."""
        return {}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Names for the template: values, and figures, functions that return SVG text."""
        return {}

    def rows(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """Verifications beside those of the pipeline, as rows of `verify`: they join the verdict and the headline."""
        return ()

    def skipped(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:  # noqa: ARG002
        """Back ends of those verifications that could not run: what none of them verified is no success."""
        return ()

    def problems(self, content: Mapping[str, Any]) -> list[str]:  # noqa: ARG002
        """One sentence for everything else that is not as it must be."""
        return []

    def tiles(self, content: Mapping[str, Any]) -> list[tuple[str, str, str]]:  # noqa: ARG002
        """Figures that one looks for first: title, value, explanation."""
        return []

    def tables(self, content: Mapping[str, Any]) -> list[Table]:  # noqa: ARG002
        """Tables for the terminal, between verification and synthesis."""
        return []
