"""What a run of the RTL leaves, whichever simulator ran it: codes, cycles, protocol errors, first divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bittrue.rtl.bus import access as bus
from bittrue.rtl.bus.access import Access, Answer
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import alone

#: How a run ended. The values are those of `State` in batch_loop.cpp.
DONE, DEADLOCK, CYCLE_LIMIT, BROKEN = 1, 2, 3, 4
#: Protocol errors that are told one by one; the rest is counted.
MAX_EVENTS = 16
#: Protocol errors of an output, by the number that batch_loop.cpp and testbench.py give them.
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


#: Codes `[n, *shape]` of the only output, or one such array per output.
Codes = np.ndarray | Sequence[np.ndarray]


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
    """The first code that differs: where it is in an output, what it should be, and when it left the design."""

    output: int  # which of the outputs
    port: str  # its prefix
    frame: int
    flat: int  # index in the frame, channels innermost
    index: tuple[int, ...]  # the same, as index into the output's shape
    expected: int
    got: int | None  # None when the design never produced it
    cycle: int | None

    def __str__(self) -> str:
        where = f"frame {self.frame}, {self.port if self.port != 'm_axis' else 'output'}{list(self.index)}"
        if self.got is None:
            return f"{where}: expected {self.expected}, never produced"
        return f"{where}: expected {self.expected}, got {self.got} in cycle {self.cycle}"


@dataclass(frozen=True, eq=False)
class RtlRun:
    """One batch through the RTL. Cycle 0 is the first rising edge of `aclk` with `aresetn` high.

    simulator          `compiled`, `icarus` or `verilator`
    ports              prefix of every output, in the order of the program's results
    results            codes `[n, *shape]` of every output; what was never produced is 0 and counts as a mismatch
    handshakes         int64 `[n, beats]` of every output, cycle of the handshake of each beat, -1 where there was none
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
    ports: tuple[str, ...]
    results: tuple[np.ndarray, ...]
    handshakes: tuple[np.ndarray, ...]
    first_input_cycle: int
    cycles: int
    seconds: float
    errors: tuple[str, ...] = ()
    waves: Path | None = None
    ones: Mapping[str, int] = field(default_factory=dict)
    meets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    refused: int = 0
    answers: tuple[Answer, ...] = ()

    @property
    def outputs(self) -> Any:
        """The codes of the only output, or of all."""
        return alone(self.results)

    @property
    def beat_cycles(self) -> Any:
        """The handshakes of the only output, or of all."""
        return alone(self.handshakes)

    @property
    def streams(self) -> int:
        """Streams that its frames came in (`flow.run.shares`)."""
        return 1

    # -- time ------------------------------------------------------------------------------------------
    @property
    def produced(self) -> int:
        """Output beats that were handed over, on all outputs."""
        return sum(int(np.count_nonzero(cycles >= 0)) for cycles in self.handshakes)

    @property
    def expected_beats(self) -> int:
        """Beats that were to come, on all outputs."""
        return sum(cycles.size for cycles in self.handshakes)

    @property
    def complete(self) -> bool:
        return self.produced == self.expected_beats

    @property
    def first_output_cycle(self) -> int | None:
        """Cycle of the first beat of the output that begins last; None if there is one that never began."""
        first = [int(cycles.flat[0]) for cycles in self.handshakes]
        return max(first) if min(first) >= 0 else None

    @property
    def latency(self) -> int | None:
        """Cycles from the first accepted input beat to `first_output_cycle`; None if an output never began."""
        first = self.first_output_cycle
        return None if first is None else first - self.first_input_cycle

    @property
    def output_end_cycles(self) -> np.ndarray:
        """Cycle of the last beat of every frame on every output, int64 `[outputs, n]`; -1 where it never came."""
        return np.stack([cycles[:, -1] for cycles in self.handshakes])

    @property
    def frame_end_cycles(self) -> np.ndarray:
        """Cycle in which every frame ended: of the last beat of the last of its outputs, int64 `[n]`; -1: never."""
        ends = self.output_end_cycles
        return np.where((ends < 0).any(axis=0), -1, ends.max(axis=0))

    @property
    def intervals(self) -> np.ndarray:
        """Cycles between the ends of consecutive frames, int64 `[n - 1]`: the most that an output takes."""
        return np.diff(self.output_end_cycles).max(axis=0) if self.complete else np.empty(0, np.int64)

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
    def _wrong(self, k: int, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of output k, flat: which codes differ or are missing, and which are missing."""
        outputs, cycles, expected = self.results[k], self.handshakes[k], np.asarray(expected)
        if expected.shape != outputs.shape:
            of = f" of {self.ports[k]}" if len(self.ports) > 1 else ""
            raise BittrueError(f"expected outputs{of} have shape {expected.shape}, the RTL's {outputs.shape}")
        lanes = outputs[0].size // cycles.shape[1]
        missing = np.repeat(cycles.reshape(-1) < 0, lanes)
        got, wanted = outputs.reshape(-1).astype(np.int64), expected.reshape(-1).astype(np.int64)
        return (got != wanted) | missing, missing

    def mismatches(self, expected: Codes) -> int:
        """How many codes of `[n, *shape]`, of every output, differ or were never produced.

        Protocol errors are not counted here.
        """
        return sum(self.wrong_codes(expected))

    def wrong_codes(self, expected: Codes) -> list[int]:
        """The same for each output."""
        wanted = by_output(expected, self.ports)
        return [int(np.count_nonzero(self._wrong(k, codes)[0])) for k, codes in enumerate(wanted)]

    def first_divergence(self, expected: Codes) -> Divergence | None:
        """The first code that differs or is missing: in the first frame that has one, on the first such output, in the
        order of the stream; None when all are equal."""
        found = [self._divergence(k, codes) for k, codes in enumerate(by_output(expected, self.ports))]
        return min((d for d in found if d), key=lambda d: (d.frame, d.output), default=None)

    def _divergence(self, k: int, expected: np.ndarray) -> Divergence | None:
        wrong, missing = self._wrong(k, expected)
        if not wrong.any():
            return None
        outputs, cycles, at = self.results[k], self.handshakes[k], int(wrong.argmax())
        frame, flat = divmod(at, outputs[0].size)
        got = None if missing[at] else int(outputs.reshape(-1)[at])
        cycle = None if missing[at] else int(cycles[frame, flat // (outputs[0].size // cycles.shape[1])])
        index = tuple(int(i) for i in np.unravel_index(flat, outputs.shape[1:]))
        wanted = int(np.asarray(expected).reshape(-1)[at])
        return Divergence(k, self.ports[k], frame, flat, index, wanted, got, cycle)

    def check(self, expected: Codes | None = None) -> RtlRun:
        """This run, or a `BittrueError` that tells every protocol error and the first divergence.

        expected   codes `[n, *shape]` of the only output, or a sequence of such arrays, one per output
        """
        problems = list(self.errors)
        if not self.complete and not problems:
            problems.append(f"only {self.produced} of {self.expected_beats} output beats were produced")
        if expected is not None and (divergence := self.first_divergence(expected)):
            count, size = self.mismatches(expected), sum(codes.size for codes in self.results)
            problems.append(f"{count} of {size} codes differ, the first at {divergence}")
        if problems:
            waves = f"; see the waveform {self.waves}" if self.waves else ""
            raise BittrueError(f"RTL ({self.simulator}): {'; '.join(problems)}{waves}")
        return self


def by_output(expected: Codes, ports: Sequence[str]) -> tuple[np.ndarray, ...]:
    """One array per output, of an array for the only output or of a sequence with one for each."""
    wanted = tuple(expected) if isinstance(expected, tuple | list) else (expected,)
    if len(wanted) != len(ports):
        raise BittrueError(
            f"the RTL has {len(ports)} outputs ({', '.join(ports)}), codes of {len(wanted)} are expected; "
            "give one array for each, in this order"
        )
    return wanted


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
    outputs: Sequence[StreamPort],
    inputs: Sequence[StreamPort],
    sources: Sequence[Source],
    *,
    words: Sequence[np.ndarray],
    beat_cycles: Sequence[np.ndarray],
    accepted: Sequence[int],
    framing_errors: Sequence[int],
    first_input_cycle: int,
    cycles: int,
    seconds: float,
    state: int,
    events: Sequence[tuple[int, int, int, int]],
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
    words     uint8 `[n, beats, bytes]` of every output, 0 where nothing was produced; `beat_cycles` as in `RtlRun`
    accepted  beats accepted, per input
    framing_errors  what every input's port counts in the end; -1: unknown bits
    state     DONE, DEADLOCK, CYCLE_LIMIT, or BROKEN: $finish, $fatal, a driver that met unknown bits
    events    the first protocol errors: number in `EVENTS`, cycle, beat, output; `event_count` of them in all
    ones      events by watched node
    meets     sets that had taken effect when each frame began; `refused` were, and `unwritten` words never went in
    accesses  those that were asked for; `answers` as in `rtl.bus.access.answers`
    """
    frames = len(words[0])
    errors = []
    for kind, cycle, value, k in events:
        output = outputs[k]
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
        done = ", ".join(
            f"{port.prefix} produced {np.count_nonzero(cycles >= 0)} of {cycles.size}"
            for port, cycles in zip(outputs, beat_cycles, strict=True)
        )
        errors.append(f"{why}: {taken} beats, {done}")
    if unwritten:
        errors.append(f"the frames ended before {unwritten} words of the sets were written; give more frames")
    if state == DONE and (wrong := [k for k, source in enumerate(sources) if framing_errors[k] != source.errors]):
        errors += [
            f"{inputs[k].framing_errors} counts {framing_errors[k]} framing errors, {sources[k].errors} were made"
            for k in wrong
        ]
    codes = tuple(port.integers(w) for port, w in zip(outputs, words, strict=True))
    errors += [padding for port, c in zip(outputs, codes, strict=True) if (padding := port.padding_error(c))]
    answered = bus.answers(accesses, answers)
    errors += bus.problems(accesses, answered)
    return RtlRun(
        simulator=simulator,
        ports=tuple(port.prefix for port in outputs),
        results=codes,
        handshakes=tuple(beat_cycles),
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
