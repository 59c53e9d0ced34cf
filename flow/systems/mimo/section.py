"""The part of networks that take several images in one pass in the report: every mode and what it costs, keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittrue.flow.report.figures import ACCENT, PANEL, chart, rect, svg
from bittrue.flow.report.section import Section


class Modes(Section):
    """Shown where `quantize` measured modes."""

    template = Path(__file__).parent / "templates" / "modes.html"

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        quantized, design, cost = (results.get(step, {}) for step in ("quantize", "rtl", "modes"))
        if "modes" not in quantized:
            return {}
        targets = results.get("synth", {}).get("targets", ())
        clocks = [row["fmax_mhz"] for row in targets if row.get("design", "pipeline") == "pipeline"]
        mhz = next((clock for clock in clocks if clock), None)
        rows = []
        for n, accuracies in quantized["modes"].items():
            latency, cycles = design.get("modes", {}).get(n, (None, None))
            each = None if cycles is None else -(-cycles // int(n))
            rows.append({"images": int(n), **accuracies, **quantized["macs"][n], "latency": latency, "cycles": each})
            rows[-1]["rate"] = round(1e6 * mhz * int(n) / cycles) if mhz and cycles else None
            rows[-1]["changed"] = quantized["cross_talk"].get(n)
            rows[-1]["pj"] = cost.get("energy", {}).get(n)
        beside = [row | {"speed_up": quantized["ordinary"] / row["macs"]} for row in cost.get("beside", ())]
        beside = [row | {"rate": round(1e6 * mhz / row["cycles"]) if mhz else None} for row in beside]
        told = {"slots": quantized["slots"], "modes": rows, "ordinary": quantized["ordinary"], "mhz": mhz}
        told |= {"keys": quantized["keys"], "trained": bool(quantized.get("history")), "beside": beside}
        told |= {name: cost.get(name) for name in ("interval", "products", "estimated", "source")}
        told |= {"crossover": quantized.get("crossover"), "bound": quantized.get("bound")}
        return {"images_at_a_time": told}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "images_at_a_time": content.get("images_at_a_time"),
            "draw_spectrum": spectrum,
            "draw_crossover": crossover,
        }


def crossover(found: Mapping[str, Any], bound: int) -> str:
    """By how many channels are bound, how many times fewer multiply-accumulates an image takes than in the ordinary
    network, a line for each mode; dots where this network is. Below 1 binding costs more than it saves."""
    lines = {f"{n} at a time": points for n, points in found["curves"].items()}
    (first, *_, last) = next(iter(lines.values()))
    here = [point for points in lines.values() for point in points if point[0] == bound]
    lines["as many"] = [[first[0], 1], [last[0], 1]]
    return chart(lines, {"this network": here}, "channels that are bound", "times fewer multiply-accumulates")


def spectrum(magnitudes: Sequence[float]) -> str:
    """The magnitudes of a key's Fourier coefficients, 0..1, from the lowest frequency on."""
    wide, height, parts = 4, 28, []
    for k, magnitude in enumerate(magnitudes):
        parts.append(rect(k * (wide + 1), 0, wide, height, PANEL, 1))
        parts.append(rect(k * (wide + 1), height * (1 - magnitude), wide, height * magnitude, ACCENT, 1))
    return svg(len(magnitudes) * (wide + 1), height, parts, "magnitudes of the key's Fourier coefficients")
