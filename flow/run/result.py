"""What a run of the RTL leaves, whichever simulator ran it: codes, cycles, protocol errors, first divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittrue.rtl.bus import access as bus
from bittrue.rtl.bus.access import Access, Answer
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.errors import BittrueError

#: How a run ended. The values are those of `State` in batch_loop.cpp.
DONE, DEADLOCK, CYCLE_LIMIT, BROKEN = 1, 2, 3, 4
#: Protocol errors that are told one by one; the rest is counted.
MAX_EVENTS = 16
#: Protocol errors of the output, by the number that batch_loop.cpp and testbench.py give them.
EVENTS = {
    1: "the last beat of frame {frame} came without TLAST",
    2: "TLAST on beat {beat} of frame {frame}, which has {beats}",
    3: "TDATA or TLAST changed while TVALID was high and TREADY low (frame {frame}, beat {beat})",
    4: "TVALID was withdrawn before TREADY (frame {frame}, beat {beat})",
    5: "a beat more than the {beats} of each of the {frames} frames",
    6: "TVALID is not low in reset",
    7: "TVALID, TDATA or TLAST depends on TREADY in the same cycle (frame {frame}, beat {beat})",
    8: "unknown bits (X or Z) in TVALID, TDATA or TLAST (frame {frame}, beat {beat})",
    9: "unknown bits (X or Z) in the TREADY of an input",
    10: "the HLS kernel beside the RTL gives another word (frame {frame}, beat {beat})",
}


class Beats(NamedTuple):
    """What a source sends into one port: the beats' bytes, uint8 `[n, beat_bytes]`, and their TLAST, bool `[n]`."""

    words: np.ndarray
    last: np.ndarray


class Source(NamedTuple):
    """A source's beats, the frames that the design makes of them, and how many of these are framing errors."""

    beats: Beats
    words: np.ndarray  # uint8 `[frames, beats, beat_bytes]`
    errors: int

    @property
    def frames(self) -> int:
        return len(self.words)


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
    meets              int64 `[n]`, sets of weights that had taken effect when a frame began (-1: it never did); of a
                       design without written weights empty
    refused            sets that the design refused
    ones               events that passed the probe of each watched node (`flow.run.monitors`), reset excluded
    answers            what came back to AXI4-Lite accesses, in order
    """

    simulator: str
    outputs: np.ndarray
    beat_cycles: np.ndarray
    first_input_cycle: int
    cycles: int
    seconds: float
    errors: tuple[str, ...] = ()
    waves: Path | None = None
    ones: Mapping[str, int] = field(default_factory=dict)
    meets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    refused: int = 0
    answers: tuple[Answer, ...] = ()

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


def probability(value: float, name: str) -> float:
    """A stall probability: at least 0 and below 1, so that the run ends."""
    if not 0.0 <= value < 1.0:
        raise BittrueError(f"{name} is a probability of at least 0 and below 1, not {value}")
    return value


def check_limits(watchdog: int, max_cycles: int | None) -> None:
    """Refuse limits that would stop every run at once."""
    if watchdog < 1 or (max_cycles is not None and max_cycles < 1):
        raise BittrueError(f"watchdog and max_cycles are at least 1 cycle, not {watchdog} and {max_cycles}")


def check_batch(inputs: Sequence[StreamPort], x: Sequence[np.ndarray]) -> list[Source]:
    """Codes as every input's source sends them, TLAST on the last beat of a frame, after the checks that all simulators
    share.
    """
    if not inputs:
        raise BittrueError("the RTL has no input port")
    if len(x) != len(inputs):
        names = ", ".join(port.prefix for port in inputs)
        raise BittrueError(f"the RTL has {len(inputs)} inputs ({names}), got {len(x)}")
    words = [port.pack(codes) for port, codes in zip(inputs, x, strict=True)]
    if len({len(w) for w in words}) > 1:
        raise BittrueError(f"inputs have different batch sizes: {', '.join(str(len(w)) for w in words)}")
    if not len(words[0]):
        raise BittrueError("the RTL was given an empty batch; give at least one frame")
    sources = []
    for port, frames in zip(inputs, words, strict=True):
        last = np.zeros(frames.shape[:2], bool)
        last[:, -1] = True
        sources.append(Source(Beats(frames.reshape(-1, port.beat_bytes), last.reshape(-1)), frames, 0))
    return sources


def check_beats(inputs: Sequence[StreamPort], beats: Sequence[Beats]) -> list[Source]:
    """Beats with any TLAST, and what the ports make of them; all inputs must get the same number of whole frames."""
    if len(beats) != len(inputs):
        names = ", ".join(port.prefix for port in inputs)
        raise BittrueError(f"the RTL has {len(inputs)} inputs ({names}), got beats for {len(beats)}")
    sources = []
    for port, (words, last) in zip(inputs, beats, strict=True):
        words, last = np.ascontiguousarray(words, np.uint8), np.ascontiguousarray(last, bool)
        if words.ndim != 2 or words.shape[1] != port.beat_bytes or last.shape != words.shape[:1]:
            raise BittrueError(
                f"port {port.prefix}: beats are bytes (n, {port.beat_bytes}) and n flags, "
                f"got {words.shape} and {last.shape}"
            )
        sources.append(Source(Beats(words, last), *port.frames(words, last)))
    if len({s.frames for s in sources}) > 1 or not sources[0].frames:
        counts = ", ".join(str(s.frames) for s in sources)
        raise BittrueError(f"the beats make {counts} frames; give every input the beats of as many, and one at least")
    return sources


def collect(
    simulator: str,
    output: StreamPort,
    inputs: Sequence[StreamPort],
    sources: Sequence[Source],
    *,
    words: np.ndarray,
    beat_cycles: np.ndarray,
    accepted: Sequence[int],
    framing_errors: Sequence[int],
    first_input_cycle: int,
    cycles: int,
    seconds: float,
    state: int,
    events: Sequence[tuple[int, int, int]],
    event_count: int,
    watchdog: int,
    waves: Path | None,
    ones: Mapping[str, int] | None = None,
    meets: np.ndarray | None = None,
    refused: int = 0,
    unwritten: int = 0,
    accesses: Sequence[Access] = (),
    answers: Sequence[Sequence[int]] = (),
) -> RtlRun:
    """What a simulator recorded, as a result with sentences for its errors.

    sources   what every input was sent
    words     uint8 `[n, beats, bytes]` of the output, 0 where nothing was produced
    accepted  beats accepted, per input
    framing_errors  what every input's port counts in the end; -1: unknown bits
    state     DONE, DEADLOCK, CYCLE_LIMIT, or BROKEN: $finish, $fatal, a driver that met unknown bits
    events    the first protocol errors: number in `EVENTS`, cycle, output beat; `event_count` of them in all
    ones      events by watched node
    meets     sets that had taken effect when each frame began; `refused` were, and `unwritten` words never went in
    accesses  those that were asked for; `answers` as in `rtl.bus.access.answers`
    """
    frames = len(words)
    errors = []
    for kind, cycle, value in events:
        frame, beat = divmod(value, output.beats)
        text = EVENTS[kind].format(frame=frame, beat=beat, beats=output.beats, frames=frames)
        errors.append(f"{output.prefix}: {text}" + ("" if kind == 6 else f" in cycle {cycle}"))
    if event_count > len(events):
        errors.append(f"{event_count - len(events)} more protocol errors")
    offered = [len(source.beats.words) for source in sources]
    if state != DONE or list(accepted) != offered:
        why = {
            BROKEN: "the simulation ended early",
            DONE: "all outputs came before all inputs were taken",
            DEADLOCK: f"deadlock, no handshake for {watchdog} cycles",
            CYCLE_LIMIT: f"stopped by max_cycles after {cycles} cycles",
        }[state]
        taken = ", ".join(
            f"{port.prefix} accepted {a} of {n}" for a, n, port in zip(accepted, offered, inputs, strict=True)
        )
        done = f"{output.prefix} produced {np.count_nonzero(beat_cycles >= 0)} of {output.beats * frames}"
        errors.append(f"{why}: {taken} beats, {done}")
    if unwritten:
        errors.append(f"the frames ended before {unwritten} words of the sets were written; give more frames")
    if state == DONE and (wrong := [k for k, source in enumerate(sources) if framing_errors[k] != source.errors]):
        errors += [
            f"{inputs[k].framing_errors} counts {framing_errors[k]} framing errors, {sources[k].errors} were made"
            for k in wrong
        ]
    codes = output.integers(words)
    if padding := output.padding_error(codes):
        errors.append(padding)
    answered = bus.answers(accesses, answers)
    errors += bus.problems(accesses, answered)
    return RtlRun(
        simulator=simulator,
        outputs=codes,
        beat_cycles=beat_cycles,
        first_input_cycle=first_input_cycle,
        cycles=cycles,
        seconds=seconds,
        errors=tuple(errors),
        waves=Path(waves) if waves is not None else None,
        ones=dict(ones or {}),
        meets=np.zeros(0, np.int64) if meets is None else meets,
        refused=refused,
        answers=answered,
    )
