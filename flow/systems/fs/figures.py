"""Pictures of spiking networks for the report: spikes of every step, accuracy against K and bits, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bittrue.flow.report.figures import (
    ACCENT,
    BAD,
    FAINT,
    GOOD,
    INK,
    PANEL,
    SOFT,
    WARM,
    line,
    rect,
    svg,
    text,
)
from bittrue.flow.systems.fs.raster import Raster, layer

#: One colour for each width of the weights, wrapped.
SERIES = (ACCENT, WARM, GOOD, BAD, SOFT)
PARTS = {"additions": ACCENT, "multiplications": WARM, "memory": GOOD}


def raster(value: Mapping[str, Any]) -> str:
    """A layer's raster from `report.json`."""
    return layer(Raster.from_json(value))


def per_step(spikes: Sequence[int], values: int) -> str:
    """Share of the neurons that spike at every time step, on the scale 0 to 1."""
    parts, wide, height = [], 9, 26
    for step, count in enumerate(spikes):
        share = count / max(1, values)
        parts.append(rect(step * (wide + 2), 0, wide, height, PANEL, 1))
        parts.append(rect(step * (wide + 2), height * (1 - share), wide, height * share, ACCENT, 1))
    return svg(len(spikes) * (wide + 2), height, parts, "share of neurons that spike at each time step")


def sweep(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> str:
    """Accuracy against K (or the fraction bits, where K belongs to the neurons), one line for each width of weights.

    `chosen` holds `steps` and `fraction_bits` of the network that was built, marked by a vertical line.
    """
    axis = "steps" if len({row["steps"] for row in rows}) > 1 else "fraction_bits"
    if any(row[axis] is None for row in rows):
        axis = "steps"
    places = sorted({row[axis] for row in rows})
    low = min(row["accuracy"] for row in rows)
    low, high = max(0.0, low - 0.02), min(1.0, max(row["accuracy"] for row in rows) + 0.01)
    left, top, width, height = 52, 14, 560, 200

    def at(row_place: float, accuracy: float) -> tuple[float, float]:
        span = (places[-1] - places[0]) or 1
        return left + width * (row_place - places[0]) / span, top + height * (1 - (accuracy - low) / (high - low or 1))

    parts = []
    for k in range(5):
        value = low + k * (high - low) / 4
        y = at(places[0], value)[1]
        parts += [
            line([(left, y), (left + width, y)], FAINT, 1),
            text(left - 6, y + 4, f"{100 * value:.1f} %", 10, SOFT, "end"),
        ]
    for place in places:
        parts.append(text(at(place, low)[0], top + height + 15, place, 10, SOFT, "middle"))
    words = "time steps K" if axis == "steps" else "fraction bits F of the neurons"
    parts.append(text(left + width / 2, top + height + 31, words, 11, SOFT, "middle"))
    if chosen.get(axis) in places:
        x = at(chosen[axis], low)[0]
        parts.append(line([(x, top), (x, top + height)], SOFT, 1, "3 3"))
    for index, bits in enumerate(sorted({row["bits"] for row in rows}, reverse=True)):
        colour = SERIES[index % len(SERIES)]
        points = sorted((row[axis], row["accuracy"]) for row in rows if row["bits"] == bits)
        places_ = [at(*point) for point in points]
        parts.append(line(places_, colour, 1.8))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in places_]
        y = top + 12 + 18 * index
        parts += [rect(left + width + 20, y - 8, 10, 10, colour), text(left + width + 36, y + 1, f"{bits} bits", 11)]
    return svg(left + width + 110, top + height + 36, parts, f"accuracy against {words} and bits of the weights")


def energy(view: Mapping[str, Any], width: float = 1000) -> str:
    """Two bars for every layer, the spiking one above its INT8 twin, and for the whole; one scale for the layers."""
    pairs = [
        (spiking["name"], spiking["pj"], dense["pj"])
        for spiking, dense in zip(view["layers"], view["twin"]["layers"], strict=True)
        if spiking["pj"]["total"] or dense["pj"]["total"]
    ]
    parts, x = [], 0.0
    for name, colour in PARTS.items():
        parts += [rect(x, 2, 10, 10, colour), text(x + 15, 11, name, 11, SOFT)]
        x += 115
    parts.append(text(width, 11, "upper bar: spiking; lower bar: INT8 twin", 11, SOFT, "end"))
    y = 26.0
    whole = ("in all", view["total"]["pj"], view["twin"]["total"]["pj"])
    most = max([value["total"] for _, *both in pairs for value in both] + [1e-12])
    most_in_all = max(whole[1]["total"], whole[2]["total"], 1e-12)
    for name, *both in [*pairs, whole]:
        bold = name == "in all"
        parts.append(text(180, y + 16, name, 12, INK, "end", bold))
        for k, pj in enumerate(both):
            x = 190.0
            for part, colour in PARTS.items():
                wide = (width - 290) * pj[part] / (most_in_all if bold else most)
                parts.append(rect(x, y + 12 * k, wide, 10, colour, 1))
                x += wide
            parts.append(text(x + 6, y + 9 + 12 * k, f"{pj['total'] / 1000:,.3g} nJ", 10, SOFT))
        y += 32
    return svg(width, y, parts, "energy of an inference, layer by layer, beside the INT8 twin")
