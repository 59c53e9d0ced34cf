"""What synthesis, place and route found: cells, clock and critical path of a design on a target."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PathStep:
    """One step of a critical path: `kind` is clk-to-q, logic, routing or setup; `at` the cell and pin it ends in."""

    kind: str
    ns: float
    at: str
    cell: str

    def to_dict(self) -> dict:
        """As JSON."""
        return {"kind": self.kind, "ns": self.ns, "at": self.at, "cell": self.cell}


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
        if not self.path:
            return ""
        total = sum(step.ns for step in self.path)
        kinds: Counter[str] = Counter()
        for step in self.path:
            kinds[step.kind] += step.ns
        parts = ", ".join(f"{ns:.1f} {kind}" for kind, ns in kinds.items() if ns >= 0.05)
        hops = sum(step.kind == "logic" and step.ns > 0.1 for step in self.path)
        first, last = self.path[0], self.path[-1]
        cells = "1 cell" if hops == 1 else f"{hops} cells"
        return f"{total:.1f} ns ({parts}) through {cells}: {first.at} ({first.cell}) to {last.at} ({last.cell})"

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
            "critical_path": [step.to_dict() for step in self.path],
            "utilization": {site: {"used": used, "available": most} for site, (used, most) in self.utilization.items()},
            "cells": dict(self.cells),
            "tools": dict(self.tools),
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }
