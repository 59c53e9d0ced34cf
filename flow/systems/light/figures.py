"""Pictures of photonic networks for the report: what an inference costs, beside the same layers in INT8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bittrue.flow.report.figures import ACCENT, BAD, GOOD, INK, SOFT, WARM, rect, svg, text

#: Purposes of `flow.systems.light.energy.estimate`, of both networks, in the order in which they are drawn.
PARTS = {
    "input_dacs": ("input DACs", ACCENT),
    "weight_dacs": ("weight DACs", WARM),
    "converters": ("converters", GOOD),
    "light": ("light", "var(--light,#b58900)"),
    "products": ("products", BAD),
    "weights": ("reading weights", SOFT),
    "digital": ("digital", INK),
}


def energy(rows: Sequence[Mapping[str, Any]], width: float = 1000) -> str:
    """For every `images_per_load` two bars, the photonic network above its INT8 twin; all on one scale, in nJ."""
    bars = [
        (f"{row['images_per_load']:,} image{'s' if row['images_per_load'] > 1 else ''} a load", name, row[key])
        for row in rows
        for name, key in (("photonic", "photonic_pj"), ("INT8", "int8_pj"))
    ]
    most = max(max(sum(pj.values()) for *_, pj in bars), 1e-12)
    parts, x = [], 0.0
    for key, (name, colour) in PARTS.items():
        if any(pj.get(key) for *_, pj in bars):
            parts += [rect(x, 2, 10, 10, colour), text(x + 15, 11, name, 11, SOFT)]
            x += 36 + 6.6 * len(name)
    y = 28.0
    for index, (load, name, pj) in enumerate(bars):
        if index % 2 == 0:
            parts.append(text(0, y + 12, load, 12))
        parts.append(text(190, y + 12, name, 11, SOFT, "end"))
        x = 200.0
        for key, (_, colour) in PARTS.items():
            wide = (width - 290) * pj.get(key, 0.0) / most
            parts.append(rect(x, y, wide, 14, colour, 1))
            x += wide
        parts.append(text(x + 6, y + 12, f"{sum(pj.values()) / 1000:,.3g} nJ", 11, SOFT))
        y += 18 if index % 2 == 0 else 28
    return svg(width, y, parts, "energy of an inference by purpose, photonic and INT8")
