"""RTL in cocotb, under Icarus Verilog or Verilator: cocotbext-axi drives the ports with seeded pauses.

Slower than `flow.run.compiled` by orders of magnitude, but independent of it: another driver, another simulator, four
states under Icarus, a verdict in JUnit XML, waveforms. The testbench is `flow/run/testbench.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cocotb_tools.config
import numpy as np
from cocotb_tools.runner import get_runner

import bittrue
from bittrue.flow.run import verilate
from bittrue.flow.run.result import (
    Beats,
    Codes,
    RtlRun,
    Source,
    by_output,
    check_batch,
    check_beats,
    check_limits,
    collect,
    probability,
)
from bittrue.flow.run.sets import ERRORS, SETS, Write, check_writes
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
    digest,
    generate,
    key,
    runtime,
    toolchain,
)
from bittrue.hls.host import build as build_kernel
from bittrue.rtl.bus.access import Access
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.design import BUS
from bittrue.rtl.verilog import Verilog
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.design import Design

SIMULATORS = ("icarus", "verilator")
TIMESCALE = ("1ns", "1ps")
#: Cycles without any handshake that are taken for a deadlock.
WATCHDOG = 200_000
#: Prefix that cocotb's main program for Verilator expects.
PREFIX = "Vtop"


def run(
    verilog: str,
    inputs: Sequence[StreamPort],
    outputs: Sequence[StreamPort],
    x: np.ndarray | Sequence[np.ndarray] = (),
    expected: Codes | None = None,
    simulator: str = "icarus",
    idle: float = 0.0,
    backpressure: float = 0.0,
    seed: int = 0,
    folder: Path | None = None,
    waves: bool = False,
    max_cycles: int | None = None,
    watchdog: int = WATCHDOG,
    kernel: Path | None = None,
    cache: Path | None = None,
    weights: StreamPort | None = None,
    writes: Sequence[Write] = (),
    beats: Sequence[Beats] | None = None,
    surroundings: Surroundings = ALONE,
    accesses: Sequence[Access] = (),
) -> RtlRun:
    """Run a batch through the RTL in a simulator.

    verilog       text with the module `bittrue_top`
    inputs        its input ports, in the order of `x`
    outputs       its output ports, in the order of the results
    x             codes `[n, *shape]`, or a sequence of such arrays, one per input
    expected      codes of the output, or a sequence of such arrays, one per output; only for the verdict in the JUnit
                  file (see `RtlRun.mismatches`)
    simulator     `icarus` or `verilator`
    idle          probability, 0 <= p < 1, that a source pauses in a cycle
    backpressure  probability, 0 <= p < 1, that a sink pauses in a cycle
    seed          seed of both; every port has its own generator; a run is repeatable, but the simulators' stalls differ
    folder        keeps `results.xml` (JUnit), the simulator's log and the waveform; None: nothing is kept
    waves         write a waveform into `folder`: FST under Icarus, VCD under Verilator
    max_cycles    stop after so many cycles; None: no limit
    watchdog      cycles without any handshake after which the design is called deadlocked; more than its latency
    kernel        folder of an HLS project (`hls.project.write`): its host build runs beside the RTL, in the simulator's
                  process, and every frame that leaves the RTL is compared with the kernel's
    weights       its port for weights, if these are written; `writes` are the sets to be written meanwhile
    cache         folder of compiled simulators; default `$XDG_CACHE_HOME/bittrue/rtl` or `~/.cache/bittrue/rtl`
    beats         instead of `x`, one per input: what the sources send, also with TLAST where it should not be, but not
                  without TLAST at the end; the outputs are those of the frames that `StreamPort.frames` finds in them
    surroundings  what is at its other ports
    accesses      AXI4-Lite accesses, for a design that has registers

    Returns a run whose `errors` tell protocol errors and deadlock, and whose outputs may differ: `RtlRun.check`
    raises either. A simulator that is absent, refuses the Verilog or crashes is a `BittrueError`.
    """
    check_simulator(simulator, waves, folder)
    inputs, outputs = tuple(inputs), tuple(outputs)
    if beats is None:
        sources = check_batch(inputs, [x] if isinstance(x, np.ndarray) else list(x))
    else:
        sources = check_beats(inputs, beats)
        if not all(source.beats.last[-1] for source in sources):
            raise BittrueError("cosim: the source ends what it sends with TLAST, so the last beat must have it")
    check_limits(watchdog, max_cycles)
    accesses = surroundings.check(accesses)
    stalls = {"idle": probability(idle, "idle"), "backpressure": probability(backpressure, "backpressure")}
    limits = {"watchdog": watchdog, "max_cycles": max_cycles or 0}
    job = describe(inputs, outputs, surroundings, accesses)
    job |= {"frames": sources[0].frames, "seed": seed, **stalls, **limits}
    if writes and kernel is not None:
        raise BittrueError("the HLS kernel beside the RTL is told of no sets; compare its results after the run")
    if writes and beats is not None:
        raise BittrueError("sets are written while frames are counted by their beats; give codes, not beats")
    sets = check_writes(weights, writes, sources[0].frames)
    job["weights"] = _describe(weights) if weights else None
    job["writes"] = [{"after": w.after, "by": w.by} for w in writes]
    job["kernel"] = str(Path(kernel).resolve()) if kernel is not None else None
    arrays = describe_sources(sources)
    arrays |= {f"feed{k}": feed.words for k, feed in enumerate(surroundings.feeds)}
    if writes:
        arrays["sets"] = sets.reshape(len(sets), -1)
    if expected is not None:
        wanted = by_output(expected, [port.prefix for port in outputs])
        for k, (port, codes) in enumerate(zip(outputs, wanted, strict=True)):
            arrays[f"expected{k}"] = port.pack(codes).reshape(-1, port.beat_bytes)
    if kernel is not None:
        build_kernel(kernel)  # now, so that what is wrong with it is told as it is
    ports = (*inputs, *outputs, *([weights] if weights else []), surroundings)
    cache = Path(cache or default_cache())
    build = _build(Verilog(verilog).placed(cache / MEMORIES), ports, simulator, waves, cache)
    with _folder(folder) as place:
        return _simulate(build, place, job, arrays, inputs, sources, outputs, simulator, waves, accesses)


def of(design: Design, x: Sequence[np.ndarray], verilog: str | None = None, **options: Any) -> RtlRun:
    """Run a batch through a `Design`, one array per input; `verilog` is another text than its own, `options` are those
    of `run`."""
    ports = {"weights": design.weights, "surroundings": Surroundings.of(design)}
    text = design.verilog() if verilog is None else verilog
    return run(text, design.inputs, design.outputs, list(x), **ports, **options)


def check_simulator(simulator: str, waves: bool, folder: Path | None) -> None:
    """Refuse a simulator that there is not, and waveforms without a place."""
    if simulator not in SIMULATORS:
        raise BittrueError(f"no simulator is named {simulator!r}; use one of {', '.join(SIMULATORS)}")
    if waves and folder is None:
        raise BittrueError("waveforms need a folder to be kept in; give one")


def describe(
    inputs: Sequence[StreamPort], outputs: Sequence[StreamPort], around: Surroundings, accesses: Sequence[Access]
) -> dict[str, Any]:
    """What the test bench is told of the ports."""
    return {
        "inputs": [_describe(port) for port in inputs],
        "outputs": [_describe(port) for port in outputs],
        "feeds": [{"prefix": f.prefix} for f in around.feeds],
        "bus": BUS if around.map is not None else None,
        "accesses": [access.row for access in accesses],
        "others": [[port.name, port.idle] for port in around.others if port.direction == "input"],
        "ports": around.signals,
    }


def describe_sources(sources: Sequence[Source]) -> dict[str, np.ndarray]:
    """What the test bench sends into input k (`beats{k}`, `last{k}`), the frames that come of it (`input{k}`), and how
    many of these are errors (`framing_errors`).
    """
    arrays = {f"input{k}": source.words.reshape(source.frames, -1) for k, source in enumerate(sources)}
    arrays["framing_errors"] = np.array([source.errors for source in sources], np.int64)
    for k, source in enumerate(sources):
        arrays |= {f"beats{k}": source.beats.words, f"last{k}": source.beats.last}
    return arrays


def _describe(port: StreamPort) -> dict[str, object]:
    kind = {"shape": port.tensor.shape, "format": str(port.tensor.format), "lanes": port.lanes}
    size = {"beats": port.beats, "bytes": port.beat_bytes, "framed": port.counts_errors}
    return {"prefix": port.prefix} | size | kind


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="bittrue-") as temporary:
            yield Path(temporary)
    else:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder).resolve()


def _simulate(
    build: Path,
    folder: Path,
    job: dict[str, object],
    arrays: dict[str, np.ndarray],
    inputs: tuple[StreamPort, ...],
    sources: Sequence[Source],
    outputs: Sequence[StreamPort],
    simulator: str,
    waves: bool,
    accesses: Sequence[Access],
) -> RtlRun:
    result, refused, log = folder / "result.npz", folder / "refused.txt", folder / f"{simulator}.log"
    for old in (result, refused, folder / "results.xml"):
        old.unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    np.savez(folder / "job.npz", **arrays)
    wave_file = folder / ("waves.fst" if simulator == "icarus" else "waves.vcd") if waves else None
    arguments, plusargs = [], []
    if wave_file:
        wave_file.unlink(missing_ok=True)
        arguments = ["--trace-file", str(wave_file)] if simulator == "verilator" else []
        plusargs = [f"+dumpfile_path={wave_file}"] if simulator == "icarus" else []
    start = time.perf_counter()
    with _quiet_environment():
        try:
            _runner(simulator).test(
                test_module="bittrue.flow.run.testbench",
                hdl_toplevel=TOP,
                hdl_toplevel_lang="verilog",
                build_dir=build,
                test_dir=folder,
                results_xml=str(folder / "results.xml"),
                seed=job["seed"],
                extra_env={"BITTRUE_JOB": str(folder)},
                test_args=arguments,
                plusargs=plusargs,
                waves=waves,
                timescale=TIMESCALE,
                log_file=log,
            )
        except (RuntimeError, SystemExit):
            # A failed test ends here as well; what counts is whether the testbench left its record.
            pass
    seconds = time.perf_counter() - start
    if refused.exists() and (reason := refused.read_text()):
        raise BittrueError(reason)
    if not result.exists():
        raise BittrueError(f"{simulator} ended without a result; the end of its log: {_tail(log)}")
    with np.load(result) as left:
        first_input_cycle, cycles, state, event_count = left["scalars"].tolist()
        return collect(
            simulator,
            outputs,
            inputs,
            sources,
            words=[left[f"words{k}"].reshape(-1, port.beats, port.beat_bytes) for k, port in enumerate(outputs)],
            beat_cycles=[left[f"beat_cycles{k}"].reshape(-1, port.beats) for k, port in enumerate(outputs)],
            accepted=left["accepted"].tolist(),
            framing_errors=left["framing_errors"].tolist(),
            first_input_cycle=first_input_cycle,
            cycles=cycles,
            seconds=seconds,
            state=state,
            events=[tuple(event) for event in left["events"].tolist()],
            event_count=event_count,
            watchdog=job["watchdog"],
            waves=wave_file,
            meets=left["meets"] if job["weights"] else None,
            refused=int(left["weights"][0]),
            unwritten=_words(arrays, job) - int(left["weights"][1]),
            accesses=accesses,
            answers=left["answers"].tolist(),
        )


def _words(arrays: dict[str, np.ndarray], job: dict[str, Any]) -> int:
    """Words of all sets that were to be written."""
    return arrays["sets"].size // job["weights"]["bytes"] if "sets" in arrays else 0


def _tail(log: Path, lines: int = 8) -> str:
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    text = [" ".join(line.split()) for line in text if line.strip() and "****" not in line]
    return " | ".join(text[-lines:]) or "(empty)"


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """What the runner reads from the process: our modules on the path, and no sign of pytest, which it would obey."""
    root = str(Path(bittrue.__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.append(root)
    hidden = {name: os.environ.pop(name) for name in ("PYTEST_CURRENT_TEST", "WAVES", "GUI") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _runner(simulator: str):  # noqa: ANN202  (cocotb's own class)
    try:
        return get_runner(simulator)
    except SystemExit:
        raise BittrueError(
            f"the simulator {simulator} is not installed; run `apt-get install iverilog`, "
            "or use simulator='verilator', which comes with bittrue"
        ) from None


# -- builds --------------------------------------------------------------------------------------------
def _build(
    verilog: str, ports: tuple[StreamPort | Surroundings, ...], simulator: str, waves: bool, cache: Path
) -> Path:
    if simulator == "icarus":
        return _build_icarus(verilog, waves, cache)
    return _build_verilator(verilog, ports, waves, cache)


def _build_icarus(verilog: str, waves: bool, cache: Path) -> Path:
    runner = _runner("icarus")
    banner = subprocess.run(["iverilog", "-V"], capture_output=True, text=True).stdout.splitlines()[:1]

    def make(folder: Path) -> None:
        source, log = folder / f"{TOP}.v", folder / "build.log"
        source.write_text(verilog)
        try:
            with _quiet_environment():
                runner.build(
                    sources=[source], hdl_toplevel=TOP, build_dir=folder, timescale=TIMESCALE, waves=waves, log_file=log
                )
        except (RuntimeError, SystemExit):
            raise BittrueError(f"Icarus refuses the Verilog: {_tail(log)}") from None

    return cached(cache, f"icarus-{digest(banner, verilog, waves, version('cocotb'))}", make)


def _build_verilator(verilog: str, ports: tuple[StreamPort | Surroundings, ...], waves: bool, cache: Path) -> Path:
    """cocotb's main program and the design in one executable, where its runner looks for it.

    Only the ports are visible to the testbench: making every signal public would cost most of Verilator's speed.
    """
    libraries = cocotb_tools.config.libs_dir
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    names = ["aclk", "aresetn", *(signal for port in ports for signal in port.signals)]
    names += [name for name in (SETS, ERRORS) if f" {name}" in verilog]
    control = "`verilator_config\n" + "".join(f'public_flat_rw -module "{TOP}" -var "{name}"\n' for name in names)

    def make(folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        (work / "ports.vlt").write_text(control)
        options = ["--vpi", "ports.vlt"] + (["--trace-vcd"] if waves else [])
        sources = generate(verilog, PREFIX, options, work)
        check_ports((work / f"{PREFIX}.h").read_text(), ports)
        shutil.copy(main, work / "main.cpp")
        flags = [f"-DVM_TRACE={int(waves)}", f"-DVM_TRACE_VCD={int(waves)}"]
        objects = compile_generated([*sources, work / "main.cpp"], flags, verilate.OPTIMIZE, work)
        objects += runtime(["verilated", "verilated_threads"] + (["verilated_vcd_c"] if waves else []))
        # cocotb's library finds the VPI functions in the executable.
        objects += runtime(["verilated_vpi"], ["-fvisibility=default"])
        words = [toolchain().gxx, *COMMON_FLAGS, "-rdynamic", "-pthread", *objects, f"-L{libraries}"]
        words += [f"-Wl,-rpath,{libraries}", "-lcocotbvpi_verilator", "-latomic", "-o", f"../{TOP}"]
        command(words, work, "g++ cannot link the simulator")
        (folder / f"{TOP}.v").write_text(verilog)
        shutil.rmtree(work)

    name = key(verilog, control, waves, verilate.OPTIMIZE, version("cocotb"), libraries)
    return cached(cache, f"verilator-{name}", make)
