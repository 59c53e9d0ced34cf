"""The part of generated kernels in the report: bytes, accuracies, layers, pictures, the generator and the boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittrue.flow.report.section import Section
from bittrue.flow.systems.nern import figures


class Generated(Section):
    """Shown where `quantize` left a generator; its verification where the step `generator` ran, and that of the
    accelerator which boots where the step `boot` did."""

    template = Path(__file__).parent / "templates" / "generated.html"
    designs = {"pipeline": "weights as constants", "boot": "generator and accelerator"}

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "figures.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        names = ("train", "quantize", "generator", "boot")
        trained, quantized, built, booted = (results.get(name, {}) for name in names)
        if "generated" not in quantized:
            return {}
        found = dict(quantized["generated"])
        accuracies = {
            "original": trained.get("accuracy_original"),
            "generated in floats": trained.get("accuracy"),
            "generated in INT8": quantized.get("accuracy_converted"),
            "trained in integers": quantized.get("accuracy"),
        }
        found["accuracies"] = {name: value for name, value in accuracies.items() if value is not None}
        rms = {row[0]: row[1:] for row in trained.get("rms", ())}
        found["rows"] = [[name, unit, *rms.get(name.partition(" (")[0], ())] for name, unit in found.pop("layers")]
        found["inference"] = trained.get("size", {}).get("macs", {}).get("inference")
        found |= {"cycles": built.get("cycles"), "pictures": quantized.get("pictures")}
        return {"generated": found, "generator": built or None, "boot": booted or None}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        names = ("generated", "generator", "boot")
        drawn = {f"draw_{name}": getattr(figures, name) for name in ("kernels", "neighbours", "tours", "errors")}
        return {name: content.get(name) for name in names} | drawn

    def rows(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self._both(content, "rows")

    def skipped(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
        return self._both(content, "skipped")

    @staticmethod
    def _both(content: Mapping[str, Any], key: str) -> list[Any]:
        return [row for name in ("generator", "boot") for row in (content.get(name) or {key: ()})[key]]

    def tiles(self, content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        if not (boot := content.get("boot")):
            return []
        return [("boot", f"{boot['cycles']:,}", "cycles from reset to the first image, all weights generated")]
