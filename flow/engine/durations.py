"""How long the steps of the shipped recipes took where they were last measured, for what is said beforehand.

`durations.json` beside this file is written by `python -m bench results collect --times` from the reports it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("durations.json")


def measured(recipe: str) -> dict[str, Any]:
    """Of a recipe by its name: `machine`, `date`, `commit`, and by step the `seconds`; nothing where never measured."""
    return json.loads(FILE.read_text()).get(recipe, {"machine": None, "seconds": {}})


def text(measured: Mapping[str, Any]) -> bytes:
    """The file's content, recipes in order."""
    return (json.dumps(dict(sorted(measured.items())), indent=1) + "\n").encode()


def told(seconds: float) -> str:
    """Seconds as people say them: `17 s`, `2 min 50 s`, `1 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")
