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

import numpy as np

from bittrue.flow.run import monitors as spike_monitors
from bittrue.flow.run.monitors import Monitor
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
from bittrue.flow.run.sets import ERRORS, SETS, Write, check_writes
from bittrue.flow.run.verilate import (
    COMMON_FLAGS,
    TOP,
    cached,
    check_ports,
    command,
    compile_generated,
    default_cache,
    generate,
    key,
    mangle,
    runtime,
    toolchain,
)
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.errors import BittrueError

PREFIX = "Vbittrue"
#: Cycles without any handshake that are taken for a deadlock. Longer than any latency seen; a fraction of a second
#: for a small design, some seconds for a large one.
WATCHDOG = 1 << 20
SECONDS_PER_CALL = 0.2


class _Job(ctypes.Structure):
    """Mirror of `Job` in batch_loop.cpp."""

    _fields_ = [
        ("input", ctypes.c_void_p),
        ("input_beats", ctypes.c_void_p),
        ("frame_beats", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("beat_cycles", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("output_beats", "output_frame_beats", "seed", "idle", "backpressure")),
        ("watchdog", ctypes.c_int64),
        ("max_cycles", ctypes.c_int64),
        ("waves", ctypes.c_char_p),
        *((name, ctypes.c_int64) for name in ("cycles", "produced", "first_input_cycle", "event_count")),
        ("events", ctypes.c_int64 * 3 * MAX_EVENTS),
        ("accepted", ctypes.c_void_p),
        ("framing_errors", ctypes.c_void_p),
        ("ones", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("weights", "weight_after", "weight_by", "meets")),
        *((name, ctypes.c_int64) for name in ("weight_sets", "weight_words", "weight_beats", "refused")),
    ]


class CompiledRtl:
    """A design as machine code.

    verilog   text with the module `bittrue_top`
    inputs    its input ports, in the order of the arrays given to `run`
    output    its output port
    cache     folder of compiled designs; default `$XDG_CACHE_HOME/bittrue/rtl` or `~/.cache/bittrue/rtl`
    optimize  optimisation flag(s) of g++ for the design's code
    trace     build the slower variant that can write waveforms
    weights   its port for weights, if these are written
    monitors  stages whose spikes are counted (`flow.run.monitors`); the counts are `RtlRun.ones`

    Attributes: `library` (the `.so`), `build_seconds` (0 when it came from the cache, within a few ms).
    """

    def __init__(
        self,
        verilog: str,
        inputs: Sequence[StreamPort],
        output: StreamPort,
        cache: Path | None = None,
        optimize: str = "-O2",
        trace: bool = False,
        monitors: Sequence[Monitor] = (),
        weights: StreamPort | None = None,
    ) -> None:
        self.weights = weights
        self.verilog, self.inputs, self.output = verilog, tuple(inputs), output
        self.cache, self.optimize, self.trace = Path(cache or default_cache()), optimize, trace
        self.monitors = tuple(monitors)
        if not self.inputs:
            raise BittrueError("the RTL has no input port")
        start = time.perf_counter()
        loop = (Path(__file__).parent / "batch_loop.cpp").read_text()
        self._header = _ports_header(self.inputs, output, weights)
        self._bound = spike_monitors.verilog(self.monitors)
        name = key(verilog, self._bound, loop, self._header, optimize, trace)
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
        sources = generate(self.verilog, PREFIX, options, work)
        ports = [*self.inputs, self.output, *([self.weights] if self.weights else [])]
        check_ports((work / f"{PREFIX}.h").read_text(), ports)
        (work / "batch_ports.h").write_text(self._header)
        (work / "batch_loop.cpp").write_text((Path(__file__).parent / "batch_loop.cpp").read_text())
        flags = [f"-DVM_TRACE={int(self.trace)}", f"-DVM_TRACE_VCD={int(self.trace)}"]
        objects = compile_generated([*sources, work / "batch_loop.cpp"], flags, self.optimize, work)
        names = ["verilated", "verilated_threads"] + (["verilated_vcd_c"] if self.trace else [])
        objects += runtime(names, self.cache)
        words = [toolchain().gxx, *COMMON_FLAGS, "-shared", "-pthread", *objects, "-latomic", "-o", "../design.so"]
        command(words, work, "g++ cannot link the simulator")
        (folder / f"{TOP}.v").write_text(self.verilog)
        shutil.rmtree(work)

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
    ) -> RtlRun:
        """Run a batch.

        x             codes `[n, *shape]`, one array per input
        beats         instead of codes: what the sources send, also with TLAST where it should not be; the outputs are
                      those of the frames that `StreamPort.frames` finds in them
        stall_seed    seed of the stalls (None is 0); it matters only when a probability is above 0
        idle          probability, 0 <= p < 1, that a source waits another cycle before it offers its next beat
        backpressure  probability, 0 <= p < 1, that the sink is not ready in a cycle
        max_cycles    stop after so many cycles; None: no limit
        watchdog      cycles without any handshake after which the design is called deadlocked
        progress      called a few times a second with (frames completed, frames)
        waves         VCD file to write (only with `trace=True`); cycle c of the run rises at 80 + 10 c + 5 ns
        writes        sets of weights to be written meanwhile; `RtlRun.meets` says which of them each frame met

        Protocol errors, deadlock and missing beats are in the result's `errors`; `RtlRun.check` raises them.
        """
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
        output = np.zeros((frames, self.output.beats, self.output.beat_bytes), np.uint8)
        beat_cycles = np.full((frames, self.output.beats), -1, np.int64)
        accepted = np.zeros(count, np.int64)
        ones = np.zeros(len(self.monitors), np.int64)
        framing_errors = np.zeros(count, np.int64)
        frame_beats = np.array([port.beats for port in self.inputs], np.int64)
        input_beats = np.array([len(s.beats.words) for s in sources], np.int64)
        pointers = (ctypes.c_void_p * count)(*(s.beats.words.ctypes.data for s in sources))
        lasts = (ctypes.c_void_p * count)(*(s.beats.last.ctypes.data for s in sources))
        job = _Job(
            input=ctypes.addressof(pointers),
            input_beats=input_beats.ctypes.data,
            frame_beats=frame_beats.ctypes.data,
            last=ctypes.addressof(lasts),
            output=output.ctypes.data,
            beat_cycles=beat_cycles.ctypes.data,
            output_beats=frames * self.output.beats,
            output_frame_beats=self.output.beats,
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
                    progress(min(job.produced // self.output.beats, frames), frames)
        finally:
            self._lib.batch_close(bench)
        seconds = time.perf_counter() - start
        return collect(
            "compiled",
            self.output,
            self.inputs,
            sources,
            words=output,
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
            design = CompiledRtl(
                self.verilog, self.inputs, self.output, self.cache, self.optimize, trace=True, weights=self.weights
            )
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return design.run(*(v[:frames] for v in x), waves=Path(path), **options)


def _ports_header(inputs: Sequence[StreamPort], output: StreamPort, weights: StreamPort | None = None) -> str:
    """The C++ that binds the names and widths of the ports for the batch loop."""
    lines = [
        f'#include "{PREFIX}.h"',
        "#include <cstdint>",
        "#include <cstring>",
        f"using Model = {PREFIX};",
        f"constexpr int INPUTS = {len(inputs)};",
        f"constexpr int OUTPUT_BYTES = {output.beat_bytes};",
        "// Little-endian host: the low bytes of a port are its first bytes, also of a VlWide.",
        "template <int BYTES, class Port> inline void put(Port& port, const uint8_t* beat) {",
        "    Port value{}; std::memcpy(static_cast<void*>(&value), beat, BYTES); port = value;",
        "}",
    ]
    cases: dict[str, list[str]] = {"drive": [], "withdraw": [], "ready": [], "errors": []}
    for k, port in enumerate(inputs):
        data, valid, ready, last = (f"m.{mangle(s)}" for s in (port.tdata, port.tvalid, port.tready, port.tlast))
        cases["drive"].append(
            f"case {k}: put<{port.beat_bytes}>({data}, all + at * {port.beat_bytes}); "
            f"{last} = last; {valid} = 1; break;"
        )
        cases["withdraw"].append(f"case {k}: {valid} = 0; {last} = 0; break;")
        cases["ready"].append(f"case {k}: return {ready};")
        cases["errors"].append(f"case {k}: return m.{mangle(port.framing_errors)};")
    data, valid, ready, last = (f"m.{mangle(s)}" for s in (output.tdata, output.tvalid, output.tready, output.tlast))
    lines += [
        "inline void drive(Model& m, int k, const uint8_t* all, int64_t at, bool last) { switch (k) {",
        *cases["drive"],
        "} }",
        "inline void withdraw(Model& m, int k) { switch (k) {",
        *cases["withdraw"],
        "} }",
        "inline bool input_ready(Model& m, int k) { switch (k) {",
        *cases["ready"],
        "} return false; }",
        "inline int64_t framing_errors(Model& m, int k) { switch (k) {",
        *cases["errors"],
        "} return -1; }",
        f"inline void set_ready(Model& m, bool value) {{ {ready} = value; }}",
        f"inline bool output_valid(Model& m) {{ return {valid}; }}",
        f"inline bool output_last(Model& m) {{ return {last}; }}",
        f"inline void output_data(Model& m, uint8_t* word) {{ std::memcpy(word, &{data}, OUTPUT_BYTES); }}",
    ]
    if weights is None:
        lines += [
            "constexpr bool WEIGHTS = false;",
            "inline void drive_weight(Model&, const uint8_t*, int64_t, bool) {}",
            "inline void withdraw_weight(Model&) {}",
            "inline bool weight_ready(Model&) { return false; }",
            "inline int weight_sets(Model&) { return 0; }",
            "inline int weight_errors(Model&) { return 0; }",
        ]
        return "\n".join(lines) + "\n"
    data, valid, ready, last = (
        f"m.{mangle(s)}" for s in (weights.tdata, weights.tvalid, weights.tready, weights.tlast)
    )
    lines += [
        "constexpr bool WEIGHTS = true;",
        "inline void drive_weight(Model& m, const uint8_t* all, int64_t at, bool last) {",
        f"    put<{weights.beat_bytes}>({data}, all + at * {weights.beat_bytes}); {last} = last; {valid} = 1;",
        "}",
        f"inline void withdraw_weight(Model& m) {{ {valid} = 0; {last} = 0; }}",
        f"inline bool weight_ready(Model& m) {{ return {ready}; }}",
        f"inline int weight_sets(Model& m) {{ return m.{mangle(SETS)}; }}",
        f"inline int weight_errors(Model& m) {{ return m.{mangle(ERRORS)}; }}",
    ]
    return "\n".join(lines) + "\n"
