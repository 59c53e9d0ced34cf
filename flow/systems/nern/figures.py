"""Pictures of generated kernels for the report: kernels beside their originals, tours, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bittrue.flow.report.figures import ACCENT, BAD, FAINT, INK, SOFT, line, rect, svg, text


def kernels(rows: Sequence[Mapping[str, Any]], cell: float = 9) -> str:
    """Of each layer some kernels along its tour: the original above, the generated one below. Blue is more than 0, red
    less; what is strongest in a layer has the full colour in both."""
    parts, y = [], 4.0
    width = 0.0
    for row in rows:
        most = max((abs(v) for key in ("original", "generated") for kernel in row[key] for v in kernel), default=0) or 1
        side = row["side"]
        parts.append(text(0, y + side * cell, row["path"], 11))
        for key, below in (("original", 0.0), ("generated", side * cell + 3)):
            parts.append(text(190, y + below + side * cell / 2 + 4, key, 10, SOFT, "end"))
            for k, kernel in enumerate(row[key]):
                x = 200 + k * (side * cell + 8)
                width = max(width, x + side * cell)
                for place, value in enumerate(kernel):
                    across, down = place % side, place // side
                    square = rect(x + across * cell, y + below + down * cell, cell - 0.5, cell - 0.5, FAINT, 0)
                    parts.append(square)
                    strong = f'<g fill-opacity="{min(1.0, abs(value) / most):.2f}">'
                    colour = ACCENT if value > 0 else BAD
                    parts.append(
                        strong
                        + rect(x + across * cell, y + below + down * cell, cell - 0.5, cell - 0.5, colour, 0)
                        + "</g>"
                    )
        y += 2 * side * cell + 16
    return svg(width + 4, y, parts, "kernels of the original and generated ones, layer by layer")


def neighbours(rows: Sequence[Mapping[str, Any]], width: float = 700) -> str:
    """The mean cosine of neighbouring kernels of each layer, in plain order and along the tour, from 0 to 1."""
    parts, y, left, wide = [], 4.0, 200.0, width - 270
    for row in rows:
        parts.append(text(0, y + 18, row["path"], 11))
        for key, name, colour in (("plain", "in plain order", SOFT), ("along", "along the tour", ACCENT)):
            parts += [text(190, y + 10, name, 10, SOFT, "end"), rect(left, y, wide * max(0.0, row[key]), 11, colour, 1)]
            parts.append(text(left + wide * max(0.0, row[key]) + 6, y + 10, f"{row[key]:.3f}", 10, INK))
            y += 14
        y += 6
    return svg(width, y, parts, "mean cosine of neighbouring kernels, in plain order and along the tour")


def tours(rows: Sequence[Mapping[str, Any]], size: float = 210) -> str:
    """The tours that are short enough: filters downward, channels across, a line from kernel to kernel."""
    parts, x = [], 0.0
    for row in (row for row in rows if row["tour"]):
        step = size / max(row["filters"], row["channels"])
        points = [
            (x + (k % row["channels"] + 0.5) * step, 24 + (k // row["channels"] + 0.5) * step) for k in row["tour"]
        ]
        parts += [text(x, 12, row["path"], 11), line(points, ACCENT, 0.7)]
        (ax, ay), (bx, by) = points[0], points[-1]
        parts.append(f'<circle cx="{ax:.1f}" cy="{ay:.1f}" r="3" fill="{INK}"/>')
        parts.append(f'<circle cx="{bx:.1f}" cy="{by:.1f}" r="3" fill="{BAD}"/>')
        x += max(row["channels"] * step, 7.0 * len(row["path"])) + 20
    return svg(max(x, 1), size + 28, parts, "tours over the kernels of a layer")


def errors(rows: Sequence[Mapping[str, Any]], width: float = 160, height: float = 70) -> str:
    """How far generated codes are from the original, in steps of the layer: a histogram a layer; the outermost bars
    hold what is beyond."""
    parts = []
    for k, row in enumerate(rows):
        x0, y0 = k % 4 * (width + 24), k // 4 * (height + 46) + 20
        counts, most = row["errors"], max(max(row["errors"]), 1)
        each, reach = width / len(counts), len(counts) // 2
        parts.append(text(x0, y0 - 6, row["path"], 11))
        for place, count in enumerate(counts):
            tall = height * count / most
            colour = SOFT if place in (0, len(counts) - 1) else ACCENT
            parts.append(rect(x0 + place * each, y0 + height - tall, each - 1, tall, colour, 0))
        for at, words in ((0, f"-{reach}"), (reach, "0"), (2 * reach, f"{reach}")):
            parts.append(text(x0 + (at + 0.5) * each, y0 + height + 12, words, 9, SOFT, "middle"))
        parts.append(text(x0 + width, y0 + height + 24, f"rms {row['rms']:.4f}", 9, SOFT, "end"))
    rows_high = (len(rows) + 3) // 4
    return svg(4 * (width + 24), rows_high * (height + 46) + 10, parts, "differences of generated codes, in steps")
