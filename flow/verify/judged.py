"""What a verification found, judged: sentences for all that is not as it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: The design whose rows are named by their back end.
PIPELINE = "pipeline"


def problems(rows: Sequence[Mapping[str, Any]], golden: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the rows of a verification, in sentences."""
    found = []
    if golden and golden["mismatches"]:
        differ = f"{golden['mismatches']} of {golden['values']} values differ from the reference"
        found.append(f"golden: {differ}{_by_result(golden)}")
    for row in rows:
        design = row.get("design", PIPELINE)
        kind = row["backend"] if design == PIPELINE else design
        name = f"{kind}/{row['simulator']}" + (" with stalls" if row["stalls"] else "")
        if row["mismatches"]:
            first = f"; first divergence: {row['divergence']['text']}" if row["divergence"] else ""
            found.append(f"{name}: {row['mismatches']} of {row['values']} values differ{_by_result(row)}{first}")
        elif row["errors"]:
            first = f"; first divergence: {row['divergence']['text']}" if row["divergence"] else ""
            found.append(f"{name}: {'; '.join(row['errors'])}{first}")
        if row.get("schedule"):
            found.append(f"{name}: {row['schedule']}")
        for node, seen in (row.get("events") or {}).items():
            if seen["rtl"] != seen["golden"]:
                found.append(f"{name}: {seen['rtl']} events left {node}, in the golden simulator {seen['golden']}")
        for figure in ("interval", "latency"):
            if row[figure] != row[f"estimated_{figure}"]:
                found.append(
                    f"{name}: {figure} is {row[figure]} cycles, the design promised {row[f'estimated_{figure}']}"
                )
    return found


def _by_result(row: Mapping[str, Any]) -> str:
    """How many values differ in each result that is wrong, where there are several."""
    wrong = [f"{count} in {name}" for name, count in row.get("results", {}).items() if count]
    return f" ({', '.join(wrong)})" if wrong else ""


def unverified(
    rows: Sequence[Mapping[str, Any]],
    skipped: Sequence[Mapping[str, str]],
    golden: Mapping[str, Any] | None = None,
) -> list[str]:
    """Sentences for what was to be verified and was not, as no back end of its kind could run; without any, nothing."""
    found = []
    for kind, what in (("rtl", "the RTL was"), ("hls", "the HLS kernels were")):
        reasons = [one["reason"] for one in skipped if one.get("backend", "rtl") == kind]
        if reasons and not any(row["backend"] == kind for row in rows):
            found.append(f"{what} not verified: {'; '.join(dict.fromkeys(reasons))}")
    if not rows and not skipped and not golden:
        found.append("nothing was verified: no back end was given any image; name some")
    return found


def mean_interval(ends: np.ndarray) -> int | None:
    """Cycles per frame over the second half of the frames, from the cycles in which they ended; rounded."""
    half = len(ends) // 2
    return round((int(ends[-1]) - int(ends[half])) / (len(ends) - 1 - half)) if len(ends) > half + 1 else None
