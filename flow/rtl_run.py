"""What a run of the RTL leaves, whichever simulator ran it: codes, cycles, protocol errors, first divergence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim.errors import BittrueError


class Divergence(NamedTuple):
    """The first code that differs: where it is in the output, what it should be, and when it left the design."""

    frame: int
    flat: int  # index in the frame, channels innermost
    index: tuple[int, ...]  # the same, as index into the output's shape
    expected: int
    got: int | None  # None when the design never produced it
    cycle: int | None

    def __str__(self) -> str:
        where = f"frame {self.frame}, output{list(self.index)}"
        if self.got is None:
            return f"{where}: expected {self.expected}, never produced"
        return f"{where}: expected {self.expected}, got {self.got} in cycle {self.cycle}"


@dataclass(frozen=True, eq=False)
class RtlRun:
    """One batch through the RTL. Cycle 0 is the first rising edge of `aclk` with `aresetn` high.

    simulator          `compiled`, `icarus` or `verilator`
    outputs            codes `[n, *shape]`; what was never produced is 0 and counts as a mismatch
    beat_cycles        int64 `[n, beats]`, cycle of the handshake of every output beat, -1 where there was none
    first_input_cycle  cycle of the first accepted beat of any input, -1 if none was accepted
    cycles             cycles simulated, those after the last output included
    seconds            wall time of the simulation, the build not included
    errors             protocol errors, deadlock, wrong padding; empty for a correct design
    waves              waveform file, when one was asked for
    """

    simulator: str
    outputs: np.ndarray
    beat_cycles: np.ndarray
    first_input_cycle: int
    cycles: int
    seconds: float
    errors: tuple[str, ...] = ()
    waves: Path | None = None

    # -- time ------------------------------------------------------------------------------------------
    @property
    def produced(self) -> int:
        """Output beats that were handed over."""
        return int(np.count_nonzero(self.beat_cycles >= 0))

    @property
    def complete(self) -> bool:
        return self.produced == self.beat_cycles.size

    @property
    def first_output_cycle(self) -> int | None:
        return int(self.beat_cycles.flat[0]) if self.produced else None

    @property
    def latency(self) -> int | None:
        """Cycles from the first accepted input beat to the first output beat; None if there was no output."""
        return self.first_output_cycle - self.first_input_cycle if self.produced else None

    @property
    def frame_end_cycles(self) -> np.ndarray:
        """Cycle of the last output beat of every frame, int64 `[n]`."""
        return self.beat_cycles[:, -1]

    @property
    def intervals(self) -> np.ndarray:
        """Cycles between the last output beats of consecutive frames, int64 `[n - 1]`."""
        return np.diff(self.frame_end_cycles) if self.complete else np.empty(0, np.int64)

    @property
    def interval(self) -> int | None:
        """Cycles between frames in steady state: the value that the last half of `intervals` shares.

        None if they differ (stalls, or too few frames to fill the FIFOs) or if there are fewer than two,
        hence with fewer than three frames.
        """
        tail = self.intervals[min(len(self.intervals) // 2, max(len(self.intervals) - 2, 0)) :]
        return int(tail[0]) if len(tail) >= 2 and (tail == tail[0]).all() else None

    @property
    def images_per_second(self) -> float:
        """Frames completed a second of wall time."""
        return int(np.count_nonzero(self.frame_end_cycles >= 0)) / self.seconds if self.seconds > 0 else 0.0

    # -- values ----------------------------------------------------------------------------------------
    def _wrong(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        expected = np.asarray(expected)
        if expected.shape != self.outputs.shape:
            raise BittrueError(f"expected outputs have shape {expected.shape}, the RTL's {self.outputs.shape}")
        lanes = expected[0].size // self.beat_cycles.shape[1]
        missing = np.repeat(self.beat_cycles.reshape(-1) < 0, lanes)
        got, wanted = self.outputs.reshape(-1).astype(np.int64), expected.reshape(-1).astype(np.int64)
        return (got != wanted) | missing, missing

    def mismatches(self, expected: np.ndarray) -> int:
        """How many codes of `[n, *shape]` differ or were never produced. Protocol errors are not counted here."""
        return int(np.count_nonzero(self._wrong(expected)[0]))

    def first_divergence(self, expected: np.ndarray) -> Divergence | None:
        """The first code, in the order of the stream, that differs or is missing; None when all are equal."""
        wrong, missing = self._wrong(expected)
        if not wrong.any():
            return None
        at = int(wrong.argmax())
        shape = self.outputs.shape[1:]
        frame, flat = divmod(at, self.outputs[0].size)
        got = None if missing[at] else int(self.outputs.reshape(-1)[at])
        lanes = self.outputs[0].size // self.beat_cycles.shape[1]
        cycle = None if missing[at] else int(self.beat_cycles[frame, flat // lanes])
        index = tuple(int(k) for k in np.unravel_index(flat, shape))
        return Divergence(frame, flat, index, int(np.asarray(expected).reshape(-1)[at]), got, cycle)

    def check(self, expected: np.ndarray | None = None) -> RtlRun:
        """This run, or a `BittrueError` that tells every protocol error and the first divergence."""
        problems = list(self.errors)
        if not self.complete and not problems:
            problems.append(f"only {self.produced} of {self.beat_cycles.size} output beats were produced")
        if expected is not None and (divergence := self.first_divergence(expected)):
            count = self.mismatches(expected)
            problems.append(f"{count} of {self.outputs.size} codes differ, the first at {divergence}")
        if problems:
            waves = f"; see the waveform {self.waves}" if self.waves else ""
            raise BittrueError(f"RTL ({self.simulator}): {'; '.join(problems)}{waves}")
        return self
