"""Which accelerator has room on a device beside the generator of its weights."""

from __future__ import annotations

from typing import Any

from bittrue.rtl.boot.design import BootDesign, written_target
from bittrue.rtl.dataflow.estimate import DEVICES
from bittrue.rtl.dataflow.plan import Plan, intervals, plan
from bittrue.sim.errors import BittrueError
from bittrue.sim.system import System

#: Products of a multiplier and cycle, at most.
MOST = 2


def fit(system: System, generator: Plan, device: str, banks: int = 2, auto: bool = True, **options: Any) -> BootDesign:
    """The design whose accelerator has the smallest interval with which all of it is estimated to fit the device.

    generator   its plan, as it is;  options  of the accelerator's (`rtl.dataflow.plan.plan`)

    Searched by halves, as if what takes fewer cycles never took less room.
    """
    if device not in DEVICES:
        raise BittrueError(f"boot: no device {device!r}; known are {', '.join(sorted(DEVICES))}")
    room, target = DEVICES[device], written_target(system)
    if excess := generator.estimate.excess(room):
        raise BittrueError(
            f"boot: the generator alone does not fit {device}: {excess}; give it more cycles than "
            f"{generator.estimated_interval}"
        )
    least = target.macs / (MOST * max(1, room.dsp - generator.estimate.dsp))
    known = intervals(target)
    candidates = [n for n in known if n >= least] or known[-1:]
    best: BootDesign | None = None
    excess, low, high = "", 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        try:
            made = BootDesign(system, generator, plan(target, candidates[middle], **options), banks, auto)
            excess = made.estimate.excess(room)
        except BittrueError as error:
            made, excess = None, str(error)
        if made is not None and not excess:
            best, high = made, middle - 1
        else:
            low = middle + 1
    if best is None:
        raise BittrueError(
            f"boot: even the slowest accelerator does not fit {device} beside the generator: {excess}; give the "
            "generator more cycles a kernel, or take a larger device"
        )
    return best
