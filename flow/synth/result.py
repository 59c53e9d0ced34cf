"""What synthesis, place and route found: cells, clock and critical path of a design on a target."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bittrue.flow.synth import words
from bittrue.flow.synth.words import PathStep


@dataclass(frozen=True)
class SynthResult:
    """What a design costs on a target.

    lut, ff, dsp, bram  cells of the design itself, in the target's units (`units`)
    fmax_mhz            highest clock after routing, None for a target of cell counts only
    freq_mhz            the clock that place and route aimed at
    path                steps of the critical path (clock to clock), from register to register
    utilization         nextpnr's own figures, {site: (used, available)} of the sites that are used
    cells               cells of the netlist by type
    tools               versions; seconds: by stage; notes: what a reader of the figures should know
    """

    target: str
    part: str
    units: str
    lut: int
    ff: int
    dsp: int
    bram: int
    fmax_mhz: float | None
    freq_mhz: float
    path: tuple[PathStep, ...] = ()
    utilization: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Where the critical path goes, in a sentence; empty without place and route."""
        return words.where(self.path)

    @property
    def helps(self) -> tuple[str, ...]:
        """What would make the critical path shorter, the most first."""
        return words.helps(self.path)

    def to_dict(self) -> dict:
        """As JSON: the report's keys target, lut, ff, dsp, bram, fmax_mhz, and the rest beside them."""
        return {
            "target": self.target,
            "lut": self.lut,
            "ff": self.ff,
            "dsp": self.dsp,
            "bram": self.bram,
            "fmax_mhz": self.fmax_mhz,
            "freq_mhz": self.freq_mhz,
            "part": self.part,
            "units": self.units,
            "where": self.where,
            "helps": list(self.helps),
            "critical_path": [step.to_dict() for step in self.path],
            "utilization": {site: {"used": used, "available": most} for site, (used, most) in self.utilization.items()},
            "cells": dict(self.cells),
            "tools": dict(self.tools),
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }
