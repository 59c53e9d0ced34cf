"""Synthesis of a `Design`: the figures of its text on a target, its own estimates beside, its own advice.

Several are synthesised side by side, one on every core, as no tool of them uses more than one; results do not depend on
it, as every one has a folder of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import machine
from bittrue.flow.synth.synthesis import synthesize
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.design import Design

#: Bytes of memory that a placement may take: nextpnr of an ECP5-85k takes some two gibibytes.
MEMORY = 3 << 30
#: Seconds between two words about progress.
PAUSE = 0.5


@dataclass(frozen=True)
class Job:
    """A design, its text, the target, and the folder for netlists and logs."""

    design: Design
    verilog: str
    target: str
    folder: Path


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


def synthesize_designs(
    jobs: Sequence[Job],
    frequency: float,
    seed: int,
    progress: Callable[[str, int, int], None],
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """The rows of `synthesize_design`, in the order of the jobs.

    progress   called in this thread with what each of those that run does, how many are done, and of how many
    workers    how many at a time; None: as many as there are cores, and memory for
    """
    told: dict[int, str] = {}
    ended = threading.Event()

    def work(k: int) -> dict[str, Any]:
        one = jobs[k]

        def tell(words: str) -> None:
            if ended.is_set():
                raise _EndedError
            told[k] = f"{one.design.name} on {one.target}: {words}"

        try:
            tell("begins")
            return synthesize_design(one.design, one.target, one.folder, frequency, tell, one.verilog, seed)
        except BaseException:
            ended.set()
            raise
        finally:
            told.pop(k, None)

    with ThreadPoolExecutor(workers or side_by_side(len(jobs))) as pool:
        running, said = [pool.submit(work, k) for k in range(len(jobs))], ""
        try:
            while (found := wait(running, PAUSE)).not_done and not ended.is_set():
                words = "; ".join(text for _, text in sorted(told.copy().items()))
                if words != said:
                    said = words
                    progress(words, len(found.done), len(jobs))
        finally:  # what fails in one of them, or in `progress`, ends the others at their next stage
            ended.set()
    errors = [future.exception() for future in running]
    for error in errors:
        if error is not None and not isinstance(error, _EndedError):
            raise error
    return [future.result() for future in running]


class _EndedError(Exception):
    """A synthesis was ended as another had failed."""


def side_by_side(count: int) -> int:
    """How many of so many designs are synthesised at a time: no more than cores, and than there is memory for."""
    memory = machine.memory()
    return max(1, min(count, machine.cores(), count if memory is None else memory // MEMORY))
