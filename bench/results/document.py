"""README's places for tables of results, from `<!-- results: NAME -->` to `<!-- /results -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bittrue.sim.errors import BittrueError

README = Path(__file__).parents[2] / "README.md"
PLACE = re.compile(r"<!-- results: (?P<name>[\w-]+) -->\n(?P<text>.*?)<!-- /results -->", re.DOTALL)
BEGIN, END = re.compile(r"<!-- results:.*?-->"), re.compile(r"<!-- /results -->")


def drawn(text: str, tables: Mapping[str, Callable[[Path], str]], folder: Path) -> str:
    """The document with every table as the stored results give it."""
    names = [match["name"] for match in PLACE.finditer(text)]
    if not len(BEGIN.findall(text)) == len(END.findall(text)) == len(names):
        raise BittrueError("README: a place for results begins or ends alone; each is from results: NAME to /results")
    for name in names:
        if name not in tables:
            raise BittrueError(f"README: no table of results is named {name!r}; there are {', '.join(tables)}")
        if names.count(name) > 1:
            raise BittrueError(f"README: the table of results {name!r} has two places")
    if absent := [name for name in tables if name not in names]:
        raise BittrueError(f"README: there is no place for the table of results {absent[0]!r}")
    return PLACE.sub(
        lambda found: f"<!-- results: {found['name']} -->\n{tables[found['name']](folder)}\n<!-- /results -->", text
    )


def difference(text: str, tables: Mapping[str, Callable[[Path], str]], folder: Path) -> str | None:
    """The first line of a table that is not as stored, in a sentence; None where all are."""
    right = drawn(text, tables, folder)
    for found, made in zip(PLACE.finditer(text), PLACE.finditer(right), strict=True):
        if found["text"] != made["text"]:
            had, wanted = found["text"].splitlines(), made["text"].splitlines()
            lines = zip(had + [""] * len(wanted), wanted + [""] * len(had), strict=False)
            old, new = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
            return (
                f"README: the table {found['name']!r} is not what the stored results give: it has {old!r} where they "
                f"give {new!r}; write it anew: python -m bench results write"
            )
    return None
