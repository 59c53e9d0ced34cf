"""What a stage does for one frame: additions, products, bits read from memories and written.

Every stage tells it (`Stage.effort`), from its architecture, its folding and the widths of its exact ranges. Counted
are sums, comparisons and resets, products, parameters read from memories or the read-only memories of constants,
blocks of input that are held, and state. Left out are shifts, clamps, counters, the small output FIFOs and control.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.held import bounds

if TYPE_CHECKING:
    from bittrue.rtl.parts.requantize import RequantizePipe

#: What memories hold.
PURPOSES = ("weights", "state", "values")


@dataclass(frozen=True)
class Traffic:
    """Bits read and written in a memory of `size` bits, a frame."""

    purpose: str
    size: int
    read: float
    written: float = 0.0


@dataclass
class Effort:
    """What one stage does for one frame; the mean over the frames, where it depends on them.

    additions        how many, by width in bits
    multiplications  how many, by the widths of the two factors
    memory           the traffic of every memory
    """

    additions: Counter[int] = field(default_factory=Counter)
    multiplications: Counter[tuple[int, int]] = field(default_factory=Counter)
    memory: list[Traffic] = field(default_factory=list)

    def add(self, bits: int, times: float) -> None:
        """So many additions, subtractions or comparisons of this width."""
        if times:
            self.additions[bits] += times

    def multiply(self, a: int, b: int, times: float) -> None:
        """So many products of factors of a and b bits."""
        if times:
            self.multiplications[a, b] += times

    def access(self, purpose: str, size: int, read: float, written: float = 0.0) -> None:
        """Bits read and written in a memory of `size` bits that holds `purpose`, one of `PURPOSES`."""
        if size and (read or written):
            self.memory.append(Traffic(purpose, size, read, written))

    def shared(self, frames: int) -> Effort:
        """The part of one of so many frames that it is for."""
        if frames == 1:
            return self
        memory = [replace(t, read=t.read / frames, written=t.written / frames) for t in self.memory]
        additions = Counter({bits: n / frames for bits, n in self.additions.items()})
        return Effort(additions, Counter({bits: n / frames for bits, n in self.multiplications.items()}), memory)

    def requantize(self, pipe: RequantizePipe, vectors: float) -> None:
        """The adders and multipliers of a requantiser."""
        values, bits = vectors * pipe.requantize.channels, width(*pipe.input_range)
        for step in pipe.steps:
            after = width(step.low, step.high)
            if step.kind in ("before", "after", "bias"):
                self.add(after, values)
            elif step.kind == "multiply":
                most = int(np.max(bounds(pipe.requantize.multiplier)[1]))
                self.multiply(bits, Format.covering(most).bits, values)
            bits = after


def width(low: np.ndarray, high: np.ndarray) -> int:
    """Bits of values between these bounds, given per channel."""
    return Format.covering(int(np.min(low)), int(np.max(high))).bits
