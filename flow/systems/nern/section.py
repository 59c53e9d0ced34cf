"""The part of generated kernels in the report: bytes, accuracies, layers, the generator against golden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittrue.flow.report.section import Section


class Generated(Section):
    """Shown where `quantize` left a generator; its verification where the step `generator` ran."""

    template = Path(__file__).parent / "templates" / "generated.html"

    @property
    def code(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return tuple(str(here / name) for name in ("section.py", "templates"))

    def collect(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        trained, quantized, built = (results.get(name, {}) for name in ("train", "quantize", "generator"))
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
        return {"generated": found | {"cycles": built.get("cycles")}, "generator": built or None}

    def context(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {"generated": content.get("generated"), "generator": content.get("generator")}

    def rows(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return (content.get("generator") or {"rows": ()})["rows"]

    def skipped(self, content: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
        return (content.get("generator") or {"skipped": ()})["skipped"]
