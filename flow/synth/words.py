"""A critical path in words: which stages it runs through, from what to what, where its time goes, what would help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: Kinds of cells by the beginning of their names, for the families that are placed and routed.
BLOCK_RAMS = ("DP16KD", "PDPW16KD", "SB_RAM40_4K", "SP", "DPB", "DPX9B", "pROM")
MULTIPLIERS = ("MULT", "SB_MAC16")
LUT_RAMS = ("TRELLIS_DPR16X4", "RAM16S")
CARRIES = ("CCU2C", "SB_CARRY", "ALU")
REGISTERS = ("TRELLIS_FF", "SB_DFF", "DFF")
#: What synthesis appends to the name of a signal for a cell that it made of it.
MADE = re.compile(
    r"_(?:TRELLIS_FF|TRELLIS_DPR16X4|LUT4|PFUMX|L6MUX21|CCU2C|MULT18X18D|DP16KD|SB_[A-Z0-9]+|DFF[A-Z]*)(?:_|$).*"
)
#: What a design is one of: the pipeline or controller below the ports, and the harness around it where there is one.
WHOLE = ("design", "pipeline", "controller")
#: A net that is longer than this is told by name, ns.
LONG_NET = 1.5
#: A block RAM whose output has no register takes longer than this, ns; a multiplier without registers longer than that.
SLOW_RAM, SLOW_MULTIPLIER = 3.0, 2.0


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

    @property
    def _names(self) -> list[str]:
        """The hierarchy from the stage on, without what holds all stages, and without the pin."""
        names = MADE.sub("", self.at.rpartition(".")[0]).split(".")
        while len(names) > 2 and names[0] in WHOLE:
            del names[0]
        return names

    @property
    def stage(self) -> str:
        """The part of the design that it ends in."""
        return self._names[0] if len(self._names) > 1 else "the ports"

    @property
    def what(self) -> str:
        """What it ends in, by name."""
        inner = self._names[1:] or self._names
        name = ".".join(n for n in inner if not n.partition("$")[0].isdigit() and n != "memory")
        named = name and not name.startswith("$")
        if self.cell.startswith(BLOCK_RAMS):
            return f"block RAM {name}" if named else "a block RAM"
        if self.cell.startswith(MULTIPLIERS):
            return "a multiplier"
        if self.cell.startswith(LUT_RAMS):
            return f"distributed RAM {name}" if named else "a distributed RAM"
        if self.cell.startswith(REGISTERS):
            return f"register {name}" if named else "a register"
        return "an adder" if self.cell.startswith(CARRIES) else "logic"


def where(path: Sequence[PathStep]) -> str:
    """Where a critical path goes, in a sentence; empty without one."""
    if not path:
        return ""
    kinds: Counter[str] = Counter()
    for step in path:
        kinds[step.kind] += step.ns
    shares = ", ".join(f"{ns:.1f} {kind}" for kind, ns in kinds.items() if ns >= 0.05)
    first, last = path[0], path[-1]
    through = _through([step for step in path[1:-1] if step.kind == "logic"])
    end = "the same" if last.stage == first.stage else last.stage
    return f"{_total(path):.1f} ns from {first.what} of {first.stage}{through} to {last.what} of {end} ({shares})"


def _through(logic: Sequence[PathStep]) -> str:
    parts = []
    if any(step.cell.startswith(MULTIPLIERS) for step in logic):
        parts.append("a multiplier")
    adders = {MADE.sub("", step.at) for step in logic if step.cell.startswith(CARRIES)}
    if adders:
        parts.append("an adder" if len(adders) == 1 else f"{len(adders)} adders")
    tables = sum(step.ns > 0.1 and not step.cell.startswith((*MULTIPLIERS, *CARRIES)) for step in logic)
    if tables:
        parts.append("1 LUT" if tables == 1 else f"{tables} LUTs")
    return f" through {' and '.join(parts)}" if parts else ""


def helps(path: Sequence[PathStep]) -> tuple[str, ...]:
    """What would make a critical path shorter, what takes most of it first; empty without one."""
    if not path:
        return ()
    total, found = _total(path), []
    first = path[0]
    if first.cell.startswith(BLOCK_RAMS) and first.ns > SLOW_RAM:
        found.append(
            (first.ns, f"a register right behind {first.what} of {first.stage}, which its block then takes in")
        )
    for step in path[1:]:
        if step.kind == "logic" and step.cell.startswith(MULTIPLIERS) and step.ns > SLOW_MULTIPLIER:
            found.append(
                (step.ns, f"a register on both sides of the multiplier of {step.stage}, which it then takes in")
            )
    routes = [step for step in path if step.kind == "routing"]
    routing = sum(step.ns for step in routes)
    far = max(routes, key=lambda step: step.ns, default=None)
    if far is not None and far.ns > LONG_NET and routing > 0.4 * total:
        begin = path[path.index(far) - 1]  # a path begins in a cell, with its clock-to-output
        net = f"the net from {begin.what} of {begin.stage} to {far.what} of {far.stage} takes {far.ns:.1f} ns"
        found.append(
            (routing, f"{net}: another seed of the placer, or a longer interval (fewer places that it goes to)")
        )
    adding = sum(step.ns for step in path if step.kind == "logic" and step.cell.startswith(CARRIES))
    if adding > 0.25 * total:
        found.append((adding, "narrower sums: fewer bits of weights or codes, or fewer terms"))
    tables = [s for s in path if s.kind == "logic" and s.ns > 0.1 and not s.cell.startswith((*MULTIPLIERS, *CARRIES))]
    if len(tables) >= 4:
        found.append(
            (sum(s.ns for s in tables), f"a register among the {len(tables)} LUTs in a row of {tables[0].stage}")
        )
    return tuple(text for _, text in sorted(found, key=lambda pair: -pair[0]))


def _total(path: Sequence[PathStep]) -> float:
    return sum(step.ns for step in path)
