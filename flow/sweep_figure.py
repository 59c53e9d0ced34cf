"""The picture of a sweep: accuracy of every seed and their mean, across the values of the first axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flow.figures import FAINT, INK, SERIES, SOFT, line, rect, svg, text

#: Strokes of the lines, behind every round of colours.
DASHES = ("", "6 3", "2 3")
LEFT, TOP, WIDTH, HEIGHT = 56, 34, 560, 240


def draw(sweep: Mapping[str, Any]) -> str:
    """The picture of a `sweep.json`: one line for every choice of the further axes.

    The values of the first axis stand at equal distances, in the order in which they were given: they may be powers
    of ten, or words.
    """
    first, *others = sweep["axes"]
    places, rows = first["values"], sweep["points"]
    seen = [one["accuracy"] for row in rows for one in row["seeds"]] + [sweep["accuracy_float"]]
    low, high = max(0.0, min(seen) - 0.02), min(1.0, max(seen) + 0.01)

    def at(place: int, accuracy: float) -> tuple[float, float]:
        step = WIDTH / len(places)
        return LEFT + step * (place + 0.5), TOP + HEIGHT * (high - accuracy) / (high - low)

    words = f"accuracy of {sweep['recipe']} on {sweep['images']:,} test images"
    parts = [text(0, 14, words, 12, INK, "start", True)]
    for k in range(5):
        value = low + k * (high - low) / 4
        y = at(0, value)[1]
        parts += [line([(LEFT, y), (LEFT + WIDTH, y)], FAINT, 1)]
        parts += [text(LEFT - 6, y + 4, f"{100 * value:.1f} %", 10, SOFT, "end")]
    for place, value in enumerate(places):
        parts.append(text(at(place, low)[0], TOP + HEIGHT + 16, show(value), 10, SOFT, "middle"))
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 34, first["key"], 11, SOFT, "middle"))
    y = at(0, sweep["accuracy_float"])[1]
    parts += [line([(LEFT, y), (LEFT + WIDTH, y)], SOFT, 1, "3 3")]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        name = ", ".join(f"{other['key']} = {show(row['values'][other['key']])}" for other in others)
        groups.setdefault(name or "mean of the seeds", []).append(row)
    legend = LEFT + WIDTH + 20
    for index, (name, group) in enumerate(groups.items()):
        colour, dash = SERIES[index % len(SERIES)], DASHES[index // len(SERIES) % len(DASHES)]
        means = [at(places.index(row["values"][first["key"]]), row["mean"]) for row in group]
        for row, (x, _) in zip(group, means, strict=True):
            for one in row["seeds"]:
                dot = at(0, one["accuracy"])[1]
                parts.append(f'<circle cx="{x:.1f}" cy="{dot:.1f}" r="2.4" fill="{colour}" fill-opacity="0.5"/>')
        parts.append(line(means, colour, 1.8, dash))
        parts += [rect(legend, TOP + 18 * index, 10, 10, colour), text(legend + 16, TOP + 9 + 18 * index, name, 11)]
    bottom = TOP + 18 * len(groups) + 9
    parts.append(text(legend, bottom, f"dashed: float, {100 * sweep['accuracy_float']:.2f} %", 11, SOFT))
    wide = legend + 30 + 6.4 * max(len(name) for name in (*groups, "dashed: float, 100.00 %"))
    return svg(wide, max(TOP + HEIGHT + 42, bottom + 10), parts, f"{words} against {first['key']}")


def show(value: Any) -> str:
    """A value of an axis as people read it."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
