"""Compiled RTL: Verilator's C++ and our own batch loop in one shared library, for whole data sets.

Arrays go in and arrays come out of one C call for many cycles; no Python runs per cycle. Idle sources and a sink with
back-pressure come from seeded generators inside the loop, so a run is repeatable to the cycle. The loop also watches
the protocol (see `flow/batch_loop.cpp`): TLAST, a word that changes while stalled, a valid that is withdrawn or waits
for ready, surplus beats, deadlock.
"""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.run import monitors as event_counters
from bittrue.flow.run import verilate
from bittrue.flow.run.ports_header import PREFIX, ports_header
from bittrue.flow.run.registered import BENCH, behind_register
from bittrue.flow.run.result import (
    MAX_EVENTS,
    Beats,
    RtlRun,
    check_batch,
    check_beats,
    check_limits,
    collect,
    probability,
)
from bittrue.flow.run.sets import Write, check_writes
from bittrue.flow.run.surroundings import ALONE, Surroundings
from bittrue.flow.run.verilate import (
    COMMON_FLAGS,
    MEMORIES,
    TOP,
    cached,
    check_ports,
    command,
    compile_generated,
    default_cache,
    generate,
    key,
    runtime,
    toolchain,
)
from bittrue.rtl.bus.access import REPEATS, Access
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.verilog import Verilog
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.design import Design, Probe

#: Sources of the batch loop.
LOOP = ("batch_loop.cpp", "batch_job.h", "bus_master.h")
#: Cycles without any handshake that are taken for a deadlock. Longer than any latency seen; a fraction of a second
#: for a small design, some seconds for a large one.
WATCHDOG = 1 << 20
SECONDS_PER_CALL = 0.2


class _Job(ctypes.Structure):
    """Mirror of `Job` in batch_job.h."""

    _fields_ = [
        ("input", ctypes.c_void_p),
        ("input_beats", ctypes.c_void_p),
        ("frame_beats", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("beat_cycles", ctypes.c_void_p),
        ("output_beats", ctypes.c_void_p),
        ("output_frame_beats", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("seed", "idle", "backpressure")),
        ("watchdog", ctypes.c_int64),
        ("max_cycles", ctypes.c_int64),
        ("waves", ctypes.c_char_p),
        *((name, ctypes.c_int64) for name in ("cycles", "first_input_cycle", "event_count")),
        ("events", ctypes.c_int64 * 4 * MAX_EVENTS),
        ("produced", ctypes.c_void_p),
        ("accepted", ctypes.c_void_p),
        ("framing_errors", ctypes.c_void_p),
        ("ones", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("weights", "weight_after", "weight_by", "meets")),
        *((name, ctypes.c_int64) for name in ("weight_sets", "weight_words", "weight_beats", "refused")),
        ("feed", ctypes.c_void_p),
        ("feed_beats", ctypes.c_void_p),
        ("accesses", ctypes.c_void_p),
        ("access_count", ctypes.c_int64),
        ("answers", ctypes.c_void_p),
        ("answer_limit", ctypes.c_int64),
        ("answer_count", ctypes.c_int64),
    ]


class CompiledRtl:
    """A design as machine code.

    verilog   text with the module `bittrue_top`
    inputs    its input ports, in the order of the arrays given to `run`
    outputs   its output ports, in the order of the arrays that `run` gives
    cache     folder of compiled designs; default `$XDG_CACHE_HOME/bittrue/rtl` or `~/.cache/bittrue/rtl`
    optimize  optimisation flag(s) of g++ for the design's code; default `flow.run.verilate.OPTIMIZE`
    trace     build the slower variant that can write waveforms
    weights   its port for weights, if these are written
    monitors  streams within it whose events are counted (`flow.run.monitors`); the counts are `RtlRun.ones`
    surroundings  what is at its other ports

    Attributes: `library` (the `.so`), `build_seconds` (0 when it came from the cache, within a few ms).
    """

    def __init__(
        self,
        verilog: str,
        inputs: Sequence[StreamPort],
        outputs: Sequence[StreamPort],
        cache: Path | None = None,
        optimize: str | None = None,
        trace: bool = False,
        monitors: Sequence[Probe] = (),
        weights: StreamPort | None = None,
        surroundings: Surroundings = ALONE,
    ) -> None:
        self.weights = weights
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.around = surroundings
        self.cache, self.trace = Path(cache or default_cache()), trace
        self.optimize = optimize or verilate.OPTIMIZE
        self.verilog = Verilog(verilog).placed(self.cache / MEMORIES)
        self.monitors = tuple(monitors)
        if not self.inputs:
            raise BittrueError("the RTL has no input port")
        if not self.outputs:
            raise BittrueError("the RTL has no output port")
        start = time.perf_counter()
        self._header = ports_header(self.inputs, self.outputs, weights, surroundings)
        files = [(Path(__file__).parent / name).read_text() for name in LOOP]
        self._bound = event_counters.verilog(self.monitors)
        # Waveforms begin at the design itself.
        self._bench = None if trace else behind_register(self.verilog)
        name = key(self.verilog, self._bench, self._bound, *files, self._header, self.optimize, trace)
        folder = cached(self.cache, f"compiled-{name}", self._build)
        self.library = folder / "design.so"
        self.build_seconds = time.perf_counter() - start
        self._lib = ctypes.CDLL(str(self.library))
        self._lib.batch_job_bytes.restype = ctypes.c_int64
        self._lib.batch_open.restype = ctypes.c_void_p
        self._lib.batch_open.argtypes = [ctypes.POINTER(_Job)]
        self._lib.batch_advance.restype = ctypes.c_int64
        self._lib.batch_advance.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self._lib.batch_close.argtypes = [ctypes.c_void_p]
        if self._lib.batch_job_bytes() != ctypes.sizeof(_Job):
            raise BittrueError(f"{self.library}: made by another version of bittrue; remove {self.cache}")

    def _build(self, folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        options: list[str | Path] = ["--trace-vcd"] if self.trace else []
        if self.monitors:
            (work / "monitors.sv").write_text(self._bound)
            options.append("monitors.sv")
        if self._bench is None:
            sources = generate(self.verilog, PREFIX, options, work)
        else:
            sources = generate(self.verilog + self._bench, PREFIX, options, work, BENCH)
        ports = [*self.inputs, *self.outputs, *([self.weights] if self.weights else []), self.around]
        check_ports((work / f"{PREFIX}.h").read_text(), ports)
        (work / "batch_ports.h").write_text(self._header)
        for name in LOOP:
            shutil.copy(Path(__file__).parent / name, work)
        flags = [f"-DVM_TRACE={int(self.trace)}", f"-DVM_TRACE_VCD={int(self.trace)}"]
        flags.append(f"-DRESET_REGISTERED={int(self._bench is not None)}")
        objects = compile_generated([*sources, work / "batch_loop.cpp"], flags, self.optimize, work)
        names = ["verilated", "verilated_threads"] + (["verilated_vcd_c"] if self.trace else [])
        objects += runtime(names)
        words = [toolchain().gxx, *COMMON_FLAGS, "-shared", "-pthread", *objects, "-latomic", "-o", "../design.so"]
        command(words, work, "g++ cannot link the simulator")
        (folder / f"{TOP}.v").write_text(self.verilog)
        shutil.rmtree(work)

    @classmethod
    def of(
        cls, design: Design, verilog: str | None = None, *, monitors: Sequence[Probe] = (), **options: Any
    ) -> CompiledRtl:
        """A `Design`; `verilog` is another text than its own, `options` are those of the class."""
        text = design.verilog() if verilog is None else verilog
        around = Surroundings.of(design)
        ports = {"weights": design.weights, "surroundings": around}
        return cls(text, design.inputs, design.outputs, monitors=monitors, **ports, **options)

    # -- run -------------------------------------------------------------------------------------------
    def run(
        self,
        *x: np.ndarray,
        beats: Sequence[Beats] | None = None,
        stall_seed: int | None = None,
        idle: float = 0.0,
        backpressure: float = 0.0,
        max_cycles: int | None = None,
        watchdog: int = WATCHDOG,
        progress: Callable[[int, int], None] | None = None,
        waves: Path | None = None,
        writes: Sequence[Write] = (),
        accesses: Sequence[Access] = (),
    ) -> RtlRun:
        """Run a batch.

        x             codes `[n, *shape]`, one array per input
        beats         instead of codes: what the sources send, also with TLAST where it should not be; the outputs are
                      those of the frames that `StreamPort.frames` finds in them
        stall_seed    seed of the stalls (None is 0); it matters only when a probability is above 0
        idle          probability, 0 <= p < 1, that a source waits another cycle before it offers its next beat
        backpressure  probability, 0 <= p < 1, that a sink is not ready in a cycle; every output has its own generator
        max_cycles    stop after so many cycles; None: no limit
        watchdog      cycles without any handshake after which the design is called deadlocked
        progress      called a few times a second with (frames completed, frames)
        waves         VCD file to write (only with `trace=True`); cycle c of the run rises at 80 + 10 c + 5 ns
        writes        sets of weights to be written meanwhile; `RtlRun.meets` says which of them each frame met

        accesses      AXI4-Lite accesses (`rtl.bus.access`), for a design that has registers

        Protocol errors, deadlock, missing beats and wrong answers are in the result's `errors`; `RtlRun.check` raises
        them.
        """
        accesses = self.around.check(accesses)
        sources = check_batch(self.inputs, x) if beats is None else check_beats(self.inputs, beats)
        if waves is not None and not self.trace:
            raise BittrueError("waveforms need the traced variant: make it with CompiledRtl(..., trace=True)")
        check_limits(watchdog, max_cycles)
        frames, count = sources[0].frames, len(self.inputs)
        if writes and beats is not None:
            raise BittrueError("sets are written while frames are counted by their beats; give codes, not beats")
        sets = check_writes(self.weights, writes, frames)
        after = np.array([w.after for w in writes], np.int64)
        by = np.array([frames if w.by is None else w.by for w in writes], np.int64)
        meets = np.full(frames, -1, np.int64)
        words = [np.zeros((frames, port.beats, port.beat_bytes), np.uint8) for port in self.outputs]
        beat_cycles = [np.full((frames, port.beats), -1, np.int64) for port in self.outputs]
        into = (ctypes.c_void_p * len(words))(*(w.ctypes.data for w in words))
        when = (ctypes.c_void_p * len(words))(*(cycles.ctypes.data for cycles in beat_cycles))
        output_beats = np.array([port.beats for port in self.outputs], np.int64)
        all_beats, produced = frames * output_beats, np.zeros(len(words), np.int64)
        accepted = np.zeros(count, np.int64)
        ones = np.zeros(len(self.monitors), np.int64)
        framing_errors = np.zeros(count, np.int64)
        frame_beats = np.array([port.beats for port in self.inputs], np.int64)
        input_beats = np.array([len(s.beats.words) for s in sources], np.int64)
        pointers = (ctypes.c_void_p * count)(*(s.beats.words.ctypes.data for s in sources))
        lasts = (ctypes.c_void_p * count)(*(s.beats.last.ctypes.data for s in sources))
        streams = [np.ascontiguousarray(source.words) for source in self.around.feeds]
        feeds = (ctypes.c_void_p * len(streams))(*(w.ctypes.data for w in streams))
        feed_beats = np.array([len(w) for w in streams], np.int64)
        script = np.array([access.row for access in accesses], np.int64).reshape(-1, 4)
        answers = np.zeros((len(accesses) + REPEATS, 4), np.int64)
        job = _Job(
            input=ctypes.addressof(pointers),
            input_beats=input_beats.ctypes.data,
            frame_beats=frame_beats.ctypes.data,
            last=ctypes.addressof(lasts),
            output=ctypes.addressof(into),
            beat_cycles=ctypes.addressof(when),
            output_beats=all_beats.ctypes.data,
            output_frame_beats=output_beats.ctypes.data,
            produced=produced.ctypes.data,
            seed=(stall_seed or 0) & 0xFFFF_FFFF,
            idle=int(probability(idle, "idle") * (1 << 53)),
            backpressure=int(probability(backpressure, "backpressure") * (1 << 53)),
            watchdog=watchdog,
            max_cycles=max_cycles or 0,
            waves=str(waves).encode() if waves is not None else None,
            accepted=accepted.ctypes.data,
            framing_errors=framing_errors.ctypes.data,
            ones=ones.ctypes.data,
            weights=sets.ctypes.data,
            weight_after=after.ctypes.data,
            weight_by=by.ctypes.data,
            meets=meets.ctypes.data,
            weight_sets=len(writes),
            weight_words=sets.shape[1],
            feed=ctypes.addressof(feeds),
            feed_beats=feed_beats.ctypes.data,
            accesses=script.ctypes.data,
            access_count=len(script),
            answers=answers.ctypes.data,
            answer_limit=len(answers),
        )
        start = time.perf_counter()
        bench = self._lib.batch_open(ctypes.byref(job))
        try:
            # Some calls instead of one, so that progress is shown and Ctrl-C works.
            state, step = 0, 1 << 12
            while state == 0:
                before = time.perf_counter()
                state = self._lib.batch_advance(bench, step)
                if time.perf_counter() - before < SECONDS_PER_CALL / 2:
                    step *= 2
                if progress:
                    progress(min(int((produced // output_beats).min()), frames), frames)
        finally:
            self._lib.batch_close(bench)
        seconds = time.perf_counter() - start
        return collect(
            "compiled",
            self.outputs,
            self.inputs,
            sources,
            words=words,
            beat_cycles=beat_cycles,
            accepted=accepted.tolist(),
            framing_errors=framing_errors.tolist(),
            first_input_cycle=job.first_input_cycle,
            cycles=job.cycles,
            seconds=seconds,
            state=state,
            events=[tuple(e) for e in job.events[: min(job.event_count, MAX_EVENTS)]],
            event_count=job.event_count,
            watchdog=watchdog,
            waves=waves,
            accesses=accesses,
            answers=answers[: job.answer_count].tolist(),
            ones={monitor.node: int(total) for monitor, total in zip(self.monitors, ones, strict=True)},
            meets=meets if self.weights else None,
            refused=job.refused,
            unwritten=len(writes) * sets.shape[1] - job.weight_beats,
        )

    def vcd(self, path: Path, *x: np.ndarray, frames: int | None = None, **options: object) -> RtlRun:
        """Write the waveform of the first `frames` frames to a VCD file, with a traced build of the same design.

        `options` are those of `run`: with the seed and the probabilities of an earlier run the stalls are the same.
        """
        design = self
        if not self.trace:
            ports = (self.inputs, self.outputs, self.cache, "-O0")
            around = {"weights": self.weights, "surroundings": self.around}
            design = CompiledRtl(self.verilog, *ports, trace=True, **around)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return design.run(*(v[:frames] for v in x), waves=Path(path), **options)
