"""Synthesis of a `Design`: the figures of its text on a target, its own estimates beside, its own advice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow.synth.synthesis import synthesize
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.design import Design


def synthesize_design(
    design: Design,
    target: str,
    folder: Path,
    frequency: float = 100,
    progress: Callable[[str], None] | None = None,
    verilog: str | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """One target's row of the report: `SynthResult` as JSON, the design's name, and what it `estimated` (for an ECP5).

    `verilog` is the design's text, where it is at hand; `seed` that of the placer, which is in the row.
    """
    if reason := design.unsuited(target):
        raise BittrueError(reason)
    text = design.verilog() if verilog is None else verilog
    told = {"progress": progress, "remedy": lambda name, _: design.remedy(name)}
    result = synthesize(text, target, folder, frequency, seed, **told)
    area = design.estimate if target.startswith("ecp5") else None
    estimated = {name: area and getattr(area, name) for name in ("lut", "dsp", "bram")}
    return {"design": design.name, "seed": seed} | result.to_dict() | {"estimated": estimated}
