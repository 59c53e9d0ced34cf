"""The part of spiking networks in the report: neurons and spikes, accuracy against steps, rasters, energy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bittrue.flow.report.section import Section
from bittrue.flow.systems.fs import figures, raster


class Spikes(Section):
    """Shown where `quantize` counted spikes, or the step `spikes` ran."""

    template = Path(__file__).parent / "templates" / "spikes.html"
    words = {"events": "spikes"}

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "figures.py", "raster.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {key: results.get("spikes", {}).get(key) for key in ("rasters", "energy")}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        drawings = {
            "raster": figures.raster,
            "per_step": figures.per_step,
            "sweep": figures.sweep,
            "draw_energy": figures.energy,
        }
        return {key: content.get(key) for key in ("rasters", "energy")} | drawings

    def problems(self, content: Mapping[str, Any]) -> list[str]:
        rasters = content.get("rasters") or {"layers": []}
        return raster.problems([raster.Raster.from_json(layer) for layer in rasters["layers"]])

    def tiles(self, content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        seen = content["training"]["quantize"].get("spikes")
        if not seen:
            return []
        whole = seen["in_all"]
        return [
            ("spikes", f"{whole['spikes_per_neuron']:.2f}", f"a neuron and inference, {whole['neurons']:,} neurons")
        ]
