"""Pictures of the report as SVG text: small, sharp, without scripts, readable in light and dark.

Every function takes plain values (what `report.json` holds) and returns one `<svg>` element. Colours are CSS
variables with a fallback, so that the same picture stands alone, in a notebook and in `report.html`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

INK, SOFT, FAINT = "var(--ink,#1d2433)", "var(--soft,#667085)", "var(--line,#d5dae3)"
ACCENT, GOOD, BAD, WARM, PANEL = (
    "var(--accent,#2f6fde)",
    "var(--good,#14805a)",
    "var(--bad,#c8322b)",
    "var(--warm,#c2740a)",
    "var(--panel,#f5f7fa)",
)
FONT = "font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
#: Colours of several series in one picture, in this order.
SERIES = (ACCENT, WARM, GOOD, BAD, SOFT)
KINDS = {"clk-to-q": SOFT, "logic": ACCENT, "routing": WARM, "setup": GOOD}


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """A picture that shrinks with the page and says to screen readers what it shows."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'style="max-width:100%;height:auto;{FONT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def text(
    x: float, y: float, words: object, size: float = 12, fill: str = INK, anchor: str = "start", bold=False
) -> str:
    weight = ' font-weight="650"' if bold else ""
    place = f'x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"'
    return f"<text {place}{weight}>{escape(str(words))}</text>"


def rect(x: float, y: float, width: float, height: float, fill: str, radius: float = 2, stroke: str = "none") -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{height:.2f}" rx="{radius:g}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def line(
    points: Sequence[tuple[float, float]], stroke: str, width: float = 1.5, dash: str = "", fill: str = "none"
) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{path}" fill="{fill}" stroke="{stroke}" stroke-width="{width:g}"{dashes} '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )


# -- the chain -----------------------------------------------------------------------------------------
def chain(accuracy: Mapping[str, float | None]) -> dict[str, tuple[str, str]]:
    """The stages of a chain in order, by key: name, and where it is from; integers that were trained are two stages."""
    trained = accuracy.get("converted") is not None
    return {
        "float": ("float", "PyTorch"),
        **({"converted": ("quantised", "before training")} if trained else {}),
        "quantized": ("trained" if trained else "quantised", "PyTorch, exact integers"),
        "golden": ("golden", "integer simulator"),
        "rtl": ("RTL", "compiled Verilog"),
        "hls": ("HLS", "C++ kernels"),
    }


def accuracy_chain(accuracy: Mapping[str, float | None], fewer: Mapping[str, int] | None = None) -> str:
    """Accuracy from the float network to the hardware: a box a stage, and between two what changed.

    `fewer` says of how many images those stages are that did not run on all; they are not compared with the others.
    """
    fewer, titles = fewer or {}, chain(accuracy)
    shown = [(key, accuracy.get(key)) for key in titles]
    parts, width, gap = [], 148, 52
    learned = {"converted", "quantized"}  # integers that training may change; behind them every difference is an error
    for index, (key, value) in enumerate(shown):
        x = index * (width + gap)
        parts.append(rect(x + 0.5, 0.5, width - 1, 83, PANEL, 8, FAINT))
        parts.append(text(x + width / 2, 22, titles[key][0], 13, INK, "middle", True))
        words = "not run" if value is None else f"{100 * value:.2f} %"
        parts.append(
            text(
                x + width / 2, 51, words, 22 if value is not None else 15, INK if value is not None else SOFT, "middle"
            )
        )
        below = f"the first {fewer[key]:,} images" if key in fewer else titles[key][1]
        parts.append(text(x + width / 2, 72, below, 11, SOFT, "middle"))
        former, before = shown[index - 1] if index else (key, None)
        if value is not None and before is not None and fewer.get(key) == fewer.get(former):
            same = value == before
            points = 100 * (value - before)
            sign = "=" if same else f"{points:+.2f}".replace("-", "−")
            colour = GOOD if same else (SOFT if key in learned else BAD)
            parts.append(text(x - gap / 2, 48, sign, 20 if same else 13, colour, "middle", True))
    return svg(len(shown) * (width + gap) - gap, 84, parts, "accuracy along the chain")


def curves(series: Mapping[str, Sequence[Mapping[str, float]]], kept: Mapping[str, int] | None = None) -> str:
    """Loss and validation accuracy of every training, one pair of panels each; one of a single epoch is left out.

    `kept` has the number of the epoch that was kept, from 1, which gets a dot; 0: none of them.
    """
    parts, width, height, left = [], 430, 130, 44
    panels = [(name, key) for name, epochs in series.items() if len(epochs) > 1 for key in ("loss", "accuracy")]
    for place, (name, key) in enumerate(panels):
        column, row = place % 2, place // 2
        x0, y0 = column * (width + 30) + left, row * (height + 44) + 24
        values = [float(epoch[key]) for epoch in series[name]]
        low, high = min(values), max(values)
        low, high = (0.0, high) if key == "loss" else (low, high)
        if high == low:  # a flat line lies in the middle of a narrow axis
            low, high = max(0.0, low - 0.01), low + 0.01
        span = high - low
        inner = width - left
        title = f"{name}: {'training loss' if key == 'loss' else 'validation accuracy'}"
        parts.append(text(x0, y0 - 9, title, 12, INK, "start", True))
        for share in (0, 0.5, 1):
            y = y0 + height * (1 - share)
            value = low + share * span
            label = f"{100 * value:.1f} %" if key == "accuracy" else f"{value:.2g}"
            parts += [line([(x0, y), (x0 + inner, y)], FAINT, 1), text(x0 - 6, y + 4, label, 10, SOFT, "end")]
        step = inner / max(1, len(values) - 1)
        points = [(x0 + k * step, y0 + height * (1 - (v - low) / span)) for k, v in enumerate(values)]
        parts.append(line(points, ACCENT, 1.8))
        here = (kept or {}).get(name)
        if here:
            x, y = points[here - 1]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{GOOD}"/>')
        words = {None: "", 0: "; none kept"}.get(here, f"; epoch {here} kept")
        parts.append(text(x0 + inner, y0 + height + 14, f"{len(values)} epochs{words}", 10, SOFT, "end"))
    rows = (len(panels) + 1) // 2
    return svg(2 * (width + 30) - 30, max(1, rows) * (height + 44) + 6, parts, "training curves")


def chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    dots: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    width: float = 720,
    height: float = 260,
) -> str:
    """Points (x, y) joined to lines or as dots, a colour for each name, on two axes that say `across` and `up`.

    The axes reach from one round number to another.
    """
    points = [point for series in (*lines.values(), *dots.values()) for point in series]
    columns, rows = (_ticks(min(axis), max(axis)) for axis in zip(*points, strict=True))
    left, top, right = 60, 40, 18

    def at(x: float, y: float) -> tuple[float, float]:
        wide, high = (width - left - right) / (columns[-1] - columns[0]), height / (rows[-1] - rows[0])
        return left + wide * (x - columns[0]), top + height - high * (y - rows[0])

    parts = [text(0, 12, up, 11, SOFT), text(width - right, top + height + 34, across, 11, SOFT, "end")]
    for y in rows:
        start, end = at(columns[0], y), at(columns[-1], y)
        parts += [line([start, end], FAINT, 1), text(left - 6, start[1] + 4, f"{y:,.6g}", 10, SOFT, "end")]
    for x in columns:
        parts.append(text(at(x, rows[0])[0], top + height + 16, f"{x:,.6g}", 10, SOFT, "middle"))
    place = left
    for index, (name, series) in enumerate((*lines.items(), *dots.items())):
        colour = SERIES[index % len(SERIES)]
        if index < len(lines):
            parts.append(line([at(*point) for point in series], colour, 1.8))
        else:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}" fill-opacity="0.55"/>'
                for x, y in (at(*point) for point in series)
            ]
        parts += [rect(place, 22, 10, 10, colour), text(place + 15, 31, name, 11, INK)]
        place += 34 + 6.4 * len(name)
    return svg(width, top + height + 40, parts, f"{up} against {across}")


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most nine, that reach from below `low` to above `high`."""
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


# -- functions -----------------------------------------------------------------------------------------
def functions(knots: Sequence[Sequence[int]], low: int, high: int, most: int = 64, columns: int = 16) -> str:
    """Small multiples: one cell a channel, its knots over the input's range, the identity in grey.

    `low`..`high` is the range of the result's format; every cell has the same axes.
    """
    cell, gap = 52, 6
    shown = list(knots)[:most]
    parts = []
    for index, row in enumerate(shown):
        x0, y0 = index % columns * (cell + gap), index // columns * (cell + gap + 11)
        parts.append(rect(x0, y0, cell, cell, PANEL, 3))
        parts.append(line([(x0, y0 + cell), (x0 + cell, y0)], FAINT, 1))
        parts.append(line([(x0, y0 + cell / 2), (x0 + cell, y0 + cell / 2)], FAINT, 0.6))
        step = cell / max(1, len(row) - 1)
        points = [(x0 + k * step, y0 + cell * (high - value) / (high - low)) for k, value in enumerate(row)]
        parts.append(line(points, ACCENT, 1.4))
        parts.append(text(x0 + cell / 2, y0 + cell + 9, index, 8, SOFT, "middle"))
    rows = (len(shown) + columns - 1) // columns
    width = min(columns, len(shown)) * (cell + gap) - gap
    return svg(width, rows * (cell + gap + 11), parts, f"{len(shown)} learned functions")


# -- ranges --------------------------------------------------------------------------------------------
def span(low: int, high: int, seen_low: int, seen_high: int, width: float = 180) -> str:
    """Where the observed values lie in the range of their format."""
    scale = width / max(1, high - low)
    x0, x1 = (seen_low - low) * scale, (seen_high - low) * scale
    zero = (0 - low) * scale
    parts = [
        rect(0, 5, width, 8, FAINT, 4),
        rect(x0, 5, max(x1 - x0, 2), 8, ACCENT, 4),
        line([(zero, 2), (zero, 16)], SOFT, 1) if low < 0 else "",
    ]
    return svg(width, 18, parts, f"{seen_low} to {seen_high} within {low} to {high}")


def bar(share: float, width: float = 120, colour: str = ACCENT) -> str:
    """A share of a whole; more than the whole is red."""
    parts = [
        rect(0, 5, width, 8, FAINT, 4),
        rect(0, 5, width * min(max(share, 0), 1), 8, BAD if share > 1 else colour, 4),
    ]
    return svg(width, 18, parts, f"{100 * share:.1f} percent")


# -- the pipeline --------------------------------------------------------------------------------------
def pipeline(stages: Sequence[Mapping[str, Any]], interval: int) -> str:
    """The stages in order, who reads whom, FIFO depths, and how busy each stage is within the interval."""
    rows = {stage["name"]: index for index, stage in enumerate(stages)}
    step, top = 25, 34
    # Each edge that is not to the next row gets a lane of its own at the left, the shortest nearest to the rows.
    edges = [(rows[source], index) for index, stage in enumerate(stages) for source in stage["reads"]]
    lanes: list[list[tuple[int, int]]] = []
    placed = {}
    for edge in sorted((e for e in edges if e[1] - e[0] > 1), key=lambda e: e[1] - e[0]):
        for number, lane in enumerate(lanes):
            if all(edge[1] <= other[0] or edge[0] >= other[1] for other in lane):
                lane.append(edge)
                placed[edge] = number
                break
        else:
            placed[edge] = len(lanes)
            lanes.append([edge])
    rail = 22 + 16 * len(lanes)
    name_x, kind_x, fold_x, lane_x, bar_x, last_x = (rail + dx for dx in (14, 244, 330, 420, 510, 800))
    width, height = last_x + 70, top + step * len(stages) + 6
    parts = [
        text(name_x, 16, "stage", 11, SOFT),
        text(kind_x, 16, "kind", 11, SOFT),
        text(fold_x, 16, "simd × pe", 11, SOFT),
        text(lane_x, 16, "lanes", 11, SOFT),
        text(bar_x, 16, f"cycles a frame (interval {interval:,})", 11, SOFT),
        text(width, 16, "latency", 11, SOFT, "end"),
    ]
    for source, reader in edges:
        y0, y1 = top + step * source + step / 2, top + step * reader + step / 2
        if reader - source == 1:
            parts.append(line([(rail, y0), (rail, y1)], SOFT, 1.6))
        else:
            x = rail - 16 * (placed[source, reader] + 1)
            points = [(rail, y0), (x + 5, y0), (x, y0 + 5), (x, y1 - 5), (x + 5, y1), (rail, y1)]
            parts.append(line(points, WARM, 1.6))
    for index, stage in enumerate(stages):
        y = top + step * index
        middle = y + step / 2 + 4
        fifo = stage["entries"] is not None
        if index % 2 == 0:
            parts.insert(0, rect(rail + 8, y, width - rail - 8, step, PANEL, 3))
        parts.append(f'<circle cx="{rail}" cy="{y + step / 2:g}" r="4" fill="{WARM if fifo else ACCENT}"/>')
        parts.append(text(name_x, middle, stage["name"], 12, SOFT if stage["node"] is None else INK))
        parts.append(text(kind_x, middle, stage["kind"], 12, SOFT))
        folding = (
            f"{stage['simd']} × {stage['pe']}" if stage["simd"] else (f"{stage['entries']:,} deep" if fifo else "")
        )
        parts.append(text(fold_x, middle, folding, 12, WARM if fifo else INK))
        lane = (
            f"{stage['lanes_in']} → {stage['lanes_out']}"
            if stage["lanes_in"] != stage["lanes_out"]
            else stage["lanes_in"]
        )
        parts.append(text(lane_x, middle, lane, 12, SOFT))
        share = stage["interval"] / max(1, interval)
        parts.append(rect(bar_x, y + 9, 200, 8, FAINT, 4))
        parts.append(rect(bar_x, y + 9, 200 * min(1, share), 8, ACCENT if share < 1 else GOOD, 4))
        parts.append(text(bar_x + 210, middle, f"{stage['interval']:,}", 11, SOFT))
        parts.append(text(width, middle, f"{stage['latency']:,}", 12, INK, "end"))
    return svg(width, height, parts, "the pipeline")


# -- timing --------------------------------------------------------------------------------------------
def critical_path(steps: Sequence[Mapping[str, Any]], width: float = 900) -> str:
    """The critical path from register to register: every step as long as it takes."""
    total = sum(step["ns"] for step in steps) or 1.0
    parts, x = [], 0.0
    for step in steps:
        wide = width * step["ns"] / total
        parts.append(rect(x, 4, max(wide - 1, 0.5), 26, KINDS.get(step["kind"], SOFT), 2))
        if wide > 30:
            parts.append(text(x + wide / 2, 21, f"{step['ns']:.2f}", 10, "#fff", "middle"))
        x += wide
    x = 0.0
    for kind, colour in KINDS.items():
        share = sum(step["ns"] for step in steps if step["kind"] == kind)
        if share:
            parts += [rect(x, 40, 10, 10, colour, 2), text(x + 15, 49, f"{kind} {share:.2f} ns", 11, SOFT)]
            x += 135
    parts.append(text(width, 49, f"{total:.2f} ns in all", 11, INK, "end", True))
    return svg(width, 56, parts, "critical path")


def durations(seconds: Mapping[str, float], width: float = 900) -> str:
    """How long every step took."""
    most = max([*seconds.values(), 1e-9])
    parts = []
    for index, (name, value) in enumerate(seconds.items()):
        y = index * 22
        parts.append(text(80, y + 15, name, 12, INK, "end"))
        parts.append(rect(90, y + 5, max((width - 190) * value / most, 1.5), 12, ACCENT, 3))
        parts.append(text(96 + (width - 190) * value / most, y + 15, f"{value:,.1f} s", 11, SOFT))
    return svg(width, 22 * len(seconds) + 4, parts, "seconds a step")
