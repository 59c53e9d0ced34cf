"""The part of networks that take several images in one pass in the report: every mode, the keys, cross-talk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittrue.flow.report.figures import ACCENT, PANEL, rect, svg
from bittrue.flow.report.section import Section


class Modes(Section):
    """Shown where `quantize` measured modes."""

    template = Path(__file__).parent / "templates" / "modes.html"

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        quantized, design = results.get("quantize", {}), results.get("rtl", {})
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
        told = {"slots": quantized["slots"], "modes": rows, "ordinary": quantized["ordinary"], "mhz": mhz}
        told |= {"keys": quantized["keys"], "trained": bool(quantized.get("history"))}
        return {"images_at_a_time": told}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "images_at_a_time": content.get("images_at_a_time"),
            "draw_spectrum": spectrum,
        }


def spectrum(magnitudes: Sequence[float]) -> str:
    """The magnitudes of a key's Fourier coefficients, 0..1, from the lowest frequency on."""
    wide, height, parts = 4, 28, []
    for k, magnitude in enumerate(magnitudes):
        parts.append(rect(k * (wide + 1), 0, wide, height, PANEL, 1))
        parts.append(rect(k * (wide + 1), height * (1 - magnitude), wide, height * magnitude, ACCENT, 1))
    return svg(len(magnitudes) * (wide + 1), height, parts, "magnitudes of the key's Fourier coefficients")
