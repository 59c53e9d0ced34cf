"""The picture of a sweep: accuracy of every seed, their mean and deviation, across the values of one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bittrue.flow.report.figures import FAINT, INK, SERIES, SOFT, line, rect, svg, text

#: Strokes of the lines, behind every round of colours.
DASHES = ("", "6 3", "2 3")
LEFT, TOP, WIDTH, HEIGHT, PANEL = 74, 42, 560, 240, 318


def draw(sweep: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The picture of a `sweep.json`; `names` say what keys mean, with units, and another key stands for itself.

    The first axis that takes several values runs across, the second makes the lines, and every choice of the further
    ones has a panel of its own below. Values stand at equal distances, in the order in which they were given: they may
    be powers of ten, or words. A dot is a seed, a line goes through the means, a bar is the deviation to both sides.
    """
    varied = [axis for axis in sweep["axes"] if len(axis["values"]) > 1] or sweep["axes"][:1]
    across, lines, others = varied[0], varied[1:2], varied[2:]
    reference = sweep[f"accuracy_{sweep['reference']}"]
    seen = [reference]
    for row in sweep["points"]:
        seen += [one["accuracy"] for one in row["seeds"]]
        seen += [row["mean"] - row["deviation"], row["mean"] + row["deviation"]]
    low, high, step = _scale(min(seen), max(seen))
    several = max(len(row["seeds"]) for row in sweep["points"]) > 1

    panels: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in sweep["points"]:
        titles = (named(row["values"], axes, names) for axes in (others, lines))
        panel, name = next(titles), next(titles) or ("mean of the seeds" if several else "accuracy")
        panels.setdefault(panel, {}).setdefault(name, []).append(row)

    first = {axis["key"]: axis["values"][0] for axis in sweep["axes"]}
    fixed = named(first, [axis for axis in sweep["axes"] if axis not in varied], names)
    words = f"Accuracy of {sweep['recipe']} on {sweep['images']:,} test images"
    parts = [text(0, 14, words + (f", {fixed}" if fixed else ""), 12, INK, "start", True)]
    notes = [f"dashed: {sweep['reference']}, {100 * reference:.2f} %"]
    if several:
        notes.append("dot: a seed; bar: ± one deviation")
    labels = list(dict.fromkeys(name for groups in panels.values() for name in groups))
    legend = LEFT + WIDTH + 20
    for index, name in enumerate(labels):
        y = TOP + 18 * index
        parts += [rect(legend, y, 10, 10, SERIES[index % len(SERIES)]), text(legend + 16, y + 9, name, 11)]
    for index, note in enumerate(notes, len(labels)):
        parts.append(text(legend, TOP + 18 * index + 9, note, 11, SOFT))
    for number, (title, groups) in enumerate(panels.items()):
        top = TOP + number * (PANEL + 10 * bool(others))

        def at(accuracy: float, top: int = top) -> float:
            return top + HEIGHT * (high - accuracy) / (high - low)

        if title:
            parts.append(text(LEFT, top - 8, title, 11, INK))
        parts += _frame(across, names, top, at, (low, high, step))
        y = at(reference)
        parts.append(line([(LEFT, y), (LEFT + WIDTH, y)], SOFT, 1, "3 3"))
        for name, group in groups.items():
            parts += _series(group, across, labels.index(name), len(labels), at)
    wide = max(legend + 30 + 6.4 * max(len(name) for name in (*labels, *notes)), 8 * len(words + fixed))
    tall = max(TOP + len(panels) * (PANEL + 10 * bool(others)), TOP + 18 * (len(labels) + len(notes)) + 10)
    return svg(wide, tall, parts, f"{words} against {names.get(across['key'], across['key'])}")


def _scale(least: float, most: float) -> tuple[float, float, float]:
    """Ends and step of the axis of accuracy, round numbers around what is shown."""
    room = max(most - least, 0.004)
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if room / s <= 5 or s == 0.2)
    low, high = (int(least / step + 1e-9) * step, -int(-(most / step - 1e-9) // 1) * step)
    return low, max(high, low + step), step


def _frame(
    across: Mapping[str, Any], names: Mapping[str, str], top: int, at: Any, scale: tuple[float, float, float]
) -> list[str]:
    """Grid, values and names of the axes."""
    low, high, step = scale
    parts = []
    for k in range(round((high - low) / step) + 1):
        y = at(low + k * step)
        parts.append(line([(LEFT, y), (LEFT + WIDTH, y)], FAINT, 1))
        parts.append(text(LEFT - 6, y + 4, f"{100 * (low + k * step):.{1 if step < 0.01 else 0}f}", 10, SOFT, "end"))
    for place, value in enumerate(across["values"]):
        parts.append(text(_place(across, place), top + HEIGHT + 16, show(value), 10, SOFT, "middle"))
    key = across["key"]
    name = f"{names[key]}  ({key})" if key in names else key
    parts.append(text(LEFT + WIDTH / 2, top + HEIGHT + 34, name, 11, SOFT, "middle"))
    middle = top + HEIGHT / 2
    turned = text(14, middle, "test accuracy, %", 11, SOFT, "middle")
    return [*parts, f'<g transform="rotate(-90 14 {middle:.0f})">{turned}</g>']


def _place(across: Mapping[str, Any], place: float) -> float:
    return LEFT + WIDTH / len(across["values"]) * (place + 0.5)


def _series(
    group: Sequence[Mapping[str, Any]], across: Mapping[str, Any], index: int, count: int, at: Any
) -> list[str]:
    """A line with its seeds; lines stand a little beside each other, so that no bar hides another."""
    colour, dash = SERIES[index % len(SERIES)], DASHES[index // len(SERIES) % len(DASHES)]
    aside = 7 * (index - (count - 1) / 2) if count < 8 else 0.0
    parts, means = [], []
    for row in group:
        x = _place(across, across["values"].index(row["values"][across["key"]])) + aside
        means.append((x, at(row["mean"])))
        for one in row["seeds"]:
            parts.append(
                f'<circle cx="{x:.1f}" cy="{at(one["accuracy"]):.1f}" r="2.4" fill="{colour}" fill-opacity="0.5"/>'
            )
        if len(row["seeds"]) > 1:
            ends = [at(row["mean"] + sign * row["deviation"]) for sign in (-1, 1)]
            parts.append(line([(x, y) for y in ends], colour, 1.2))
            parts += [line([(x - 4, y), (x + 4, y)], colour, 1.2) for y in ends]
    return [*parts, line(means, colour, 1.8, dash)]


def named(values: Mapping[str, Any], axes: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """`bits of a code = 8, ...` for the keys of these axes."""
    return ", ".join(f"{names.get(axis['key'], axis['key'])} = {show(values[axis['key']])}" for axis in axes)


def show(value: Any) -> str:
    """A value of an axis as people read it."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
