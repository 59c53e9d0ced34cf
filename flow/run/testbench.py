"""The cocotb testbench of a `bittrue_top`, run inside the simulator: sources, sinks, a monitor of the protocol, and an
AXI4-Lite master where the design has registers.

`flow.run.cosim` writes a job (`job.json`, `job.npz`) into the folder that BITTRUE_JOB names, and reads `result.npz`
back; the verdict also goes to cocotb's JUnit XML. cocotbext-axi drives the ports with seeded pauses. The monitor sees
every cycle: it records beats and cycles as the compiled batch loop does, so that both report the same numbers.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from bittrue.flow.run.bus_bench import Bus
from bittrue.flow.run.sets import COUNT_BITS, ERRORS, SETS
from bittrue.hls.host import build
from bittrue.rtl.bus.ports import ERROR_BITS, StreamPort
from bittrue.sim.contract import Format
from bittrue.sim.operation import TensorType

RESET_CYCLES = 8
#: As in flow/run/result.py and batch_loop.cpp.
RUNNING, DONE, DEADLOCK, CYCLE_LIMIT, BROKEN = 0, 1, 2, 3, 4
LAST_MISSING, LAST_EARLY, DATA_CHANGED, VALID_WITHDRAWN, EXTRA_BEAT, VALID_IN_RESET = 1, 2, 3, 4, 5, 6
UNKNOWN_BITS, UNKNOWN_READY, KERNEL_DIFFERS = 8, 9, 10
MAX_EVENTS = 16
Tell = Callable[..., None]


def pauses(seed: str, probability: float) -> Iterator[bool]:
    """Endless seeded choice, one a cycle: pause or not. Every port has its own."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < probability


class Outlet:
    """One output: what came out of it, when, and the beat that waits on it.

    kernel   frame number -> the bytes of its beats as the HLS kernel computes them
    tell     called with the kind of a protocol error
    """

    def __init__(
        self, dut: Any, port: dict[str, Any], frames: int, kernel: Callable[[int], np.ndarray] | None, tell: Tell
    ) -> None:
        self.prefix, self.kernel, self.tell = port["prefix"], kernel, tell
        self.valid, self.ready, self.last, self.data = (
            getattr(dut, f"{self.prefix}_{s}") for s in ("tvalid", "tready", "tlast", "tdata")
        )
        self.frame_beats, self.bytes = port["beats"], port["bytes"]
        self.total = frames * self.frame_beats
        self.words = np.zeros((self.total, self.bytes), np.uint8)
        self.beat_cycles = np.full(self.total, -1, np.int64)
        self.produced = 0
        self.held: tuple[int, bool] | None = None  # the stalled beat

    def look(self, cycle: int) -> bool:
        """What is on it at a rising edge; whether a beat was handed over."""
        valid, ready = self.valid.value, bool(self.ready.value)
        if not valid.is_resolvable:
            self.tell(UNKNOWN_BITS)
        if not (valid.is_resolvable and bool(valid)):
            if self.held is not None:
                self.tell(VALID_WITHDRAWN)
            self.held = None
            return False
        data, last = self.data.value, self.last.value
        if not (data.is_resolvable and last.is_resolvable):
            self.tell(UNKNOWN_BITS)
        beat = (int(str(data).translate(UNKNOWN_AS_0), 2), str(last) == "1")
        if self.held is not None and beat != self.held:
            self.tell(DATA_CHANGED)
        self.held = None if ready else beat
        if ready:
            self.take(*beat, cycle)
        return ready

    def take(self, word: int, last: bool, cycle: int) -> None:
        """A beat was handed over: keep it."""
        if self.produced >= self.total:
            self.tell(EXTRA_BEAT)
            self.produced += 1
            return
        if last != ((self.produced + 1) % self.frame_beats == 0):
            self.tell(LAST_EARLY if last else LAST_MISSING)
        self.words[self.produced] = np.frombuffer(word.to_bytes(self.bytes, "little"), np.uint8)
        self.beat_cycles[self.produced] = cycle
        self.produced += 1
        if self.kernel is not None and self.produced % self.frame_beats == 0:
            start = self.produced - self.frame_beats
            differ = (self.words[start : self.produced] != self.kernel(start // self.frame_beats)).any(axis=1)
            if differ.any():
                self.tell(KERNEL_DIFFERS, start + int(differ.argmax()))


class Monitor:
    """Watches all ports at every rising edge and keeps what a run is judged by."""

    def __init__(
        self, dut: Any, job: dict[str, Any], kernels: Sequence[Callable[[int], np.ndarray]] | None = None
    ) -> None:
        self.job = job
        self.outlets = [
            Outlet(dut, port, job["frames"], kernels and kernels[k], partial(self.event, k))
            for k, port in enumerate(job["outputs"])
        ]
        self.clock = dut.aclk
        self.inputs = [
            (getattr(dut, f"{p}_tvalid"), getattr(dut, f"{p}_tready")) for p in (i["prefix"] for i in job["inputs"])
        ]
        self.errors = [getattr(dut, f"{i['prefix']}_framing_errors") if i["framed"] else None for i in job["inputs"]]
        self.accepted = [0] * len(self.inputs)
        self.input_beats = [i["beats"] for i in job["inputs"]]
        self.meets = np.full(job["frames"], -1, np.int64)
        self.begun = self.effective = self.refused = self.weight_beats = 0
        self.weights = job["weights"] and {
            s: getattr(dut, name)
            for s, name in {
                "valid": f"{job['weights']['prefix']}_tvalid",
                "ready": f"{job['weights']['prefix']}_tready",
                "sets": SETS,
                "errors": ERRORS,
            }.items()
        }
        self.first_input_cycle = -1
        self.cycles = self.event_count = 0
        self.state = RUNNING
        self.events: list[tuple[int, int, int, int]] = []

    def event(self, output: int, kind: int, beat: int | None = None) -> None:
        """A protocol error of an output, at the beat that it is at."""
        if len(self.events) < MAX_EVENTS:
            beat = self.outlets[output].produced if beat is None else beat
            self.events.append((kind, self.cycles, beat, output))
        self.event_count += 1

    @property
    def all_out(self) -> bool:
        """Whether every output has given all of its beats."""
        return all(outlet.produced >= outlet.total for outlet in self.outlets)

    @property
    def far(self) -> str:
        """How far every output came."""
        return ", ".join(
            f"{outlet.prefix} produced {outlet.produced} of {outlet.total} beats" for outlet in self.outlets
        )

    @property
    def framing_errors(self) -> list[int]:
        """What every input's port counts; -1 where a bit is unknown, 0 where nothing is counted."""
        return [0 if count is None else int(count.value) if count.value.is_resolvable else -1 for count in self.errors]

    async def run(self) -> None:
        """Watch until all is through, nothing moves any more, or the limit of cycles."""
        edge = RisingEdge(self.clock)
        last_handshake, finish = 0, None
        while self.state == RUNNING:
            await edge
            moved = False
            for outlet in self.outlets:
                moved |= outlet.look(self.cycles)
            if finish is None and self.all_out:
                # A surplus beat may come a while later: wait for it as long as the first beats took, up to a limit.
                first = max(int(outlet.beat_cycles[0]) for outlet in self.outlets)
                finish = self.cycles + 64 + min(first - self.first_input_cycle, 4096)
            if self.weights:
                moved |= self.watch_weights()
            for k, (valid, ready) in enumerate(self.inputs):
                if str(valid.value) == "1" and str(ready.value) == "1":
                    moved = True
                    if self.accepted[k] == self.begun * self.input_beats[k]:
                        self.meets[self.begun] = self.effective
                        self.begun += 1
                    self.accepted[k] += 1
                    if self.first_input_cycle < 0:
                        self.first_input_cycle = self.cycles
            if moved:
                last_handshake = self.cycles
            now = self.cycles
            self.cycles += 1
            if finish is not None and now >= finish:
                self.state = DONE
            elif finish is None and now - last_handshake >= self.job["watchdog"]:
                self.state = DEADLOCK
            elif self.job["max_cycles"] and self.cycles >= self.job["max_cycles"]:
                self.state = CYCLE_LIMIT

    def watch_weights(self) -> bool:
        """Count the sets that have taken effect and those that were refused; whether a word was taken."""
        if self.weights["sets"].value.is_resolvable and self.weights["errors"].value.is_resolvable:
            self.effective += (int(self.weights["sets"].value) - self.effective) % (1 << COUNT_BITS)
            self.refused = int(self.weights["errors"].value)
        taken = str(self.weights["valid"].value) == "1" and str(self.weights["ready"].value) == "1"
        self.weight_beats += taken
        return taken

    def waits(self, frame: int) -> bool:
        """Whether a frame waits for a set that has not yet taken effect."""
        later = self.job["writes"][self.effective + self.refused :]
        return any(w["by"] is not None and frame >= w["by"] for w in later)


UNKNOWN_AS_0 = str.maketrans({c: "0" for c in "xXzZuUwW-lLhH"})


def wrong_port(dut: Any, job: dict[str, Any]) -> str | None:
    """What is wrong with the ports of the top, or None."""
    wanted = {"aclk": 1, "aresetn": 1, **job["ports"]}
    wanted |= {f"{port['prefix']}_framing_errors": ERROR_BITS for port in job["inputs"] if port["framed"]}
    for port in (*job["inputs"], *job["outputs"], *([job["weights"]] if job["weights"] else [])):
        widths = {"tdata": 8 * port["bytes"], "tvalid": 1, "tready": 1, "tlast": 1}
        wanted |= {f"{port['prefix']}_{name}": width for name, width in widths.items()}
    for name, width in wanted.items():
        if not hasattr(dut, name):
            return f"module {dut._name} has no port {name}"
        if len(getattr(dut, name)) != width:
            return f"module {dut._name}: port {name} is {len(getattr(dut, name))} bits wide, {width} were expected"
    return None


def record(monitor: Monitor, answers: list[tuple[int, int, int, int]]) -> None:
    """Write what was seen for `flow.run.cosim`."""
    np.savez(
        Path(os.environ["BITTRUE_JOB"]) / "result.npz",
        **{f"words{k}": outlet.words for k, outlet in enumerate(monitor.outlets)},
        **{f"beat_cycles{k}": outlet.beat_cycles for k, outlet in enumerate(monitor.outlets)},
        accepted=np.array(monitor.accepted, np.int64),
        meets=monitor.meets,
        framing_errors=np.array(monitor.framing_errors, np.int64),
        answers=np.array(answers, np.int64).reshape(-1, 4),
        events=np.array(monitor.events, np.int64).reshape(-1, 4),
        scalars=np.array([monitor.first_input_cycle, monitor.cycles, monitor.state, monitor.event_count], np.int64),
        weights=np.array([monitor.refused, monitor.weight_beats], np.int64),
    )


def kernel_words(job: dict[str, Any], inputs: list[np.ndarray]) -> list[Callable[[int], np.ndarray]] | None:
    """By output, frame number -> the bytes of its beats as the HLS kernel computes them, or None without a kernel."""
    if job["kernel"] is None:
        return None
    sources, outputs = (
        [StreamPort(p["prefix"], TensorType(p["shape"], Format.parse(p["format"])), p["lanes"]) for p in job[ports]]
        for ports in ("inputs", "outputs")
    )
    kernel = build(job["kernel"])
    known: dict[int, list[np.ndarray]] = {}  # the outputs of a frame end at different times

    def words(output: int, frame: int) -> np.ndarray:
        if frame in known:
            return known[frame][output]
        beats = (w[frame].reshape(1, port.beats, port.beat_bytes) for port, w in zip(sources, inputs, strict=True))
        codes = (port.unpack(b) for port, b in zip(sources, beats, strict=True))
        results = kernel.run(*codes, first=frame)
        known[frame] = [port.pack(codes)[0] for port, codes in zip(outputs, results, strict=True)]
        return known[frame][output]

    return [partial(words, k) for k in range(len(outputs))]


def sent(arrays: Mapping[str, np.ndarray], k: int) -> list[bytes]:
    """What the source of input k sends, cut where TLAST is."""
    ends = np.flatnonzero(arrays[f"last{k}"]) + 1
    return [part.tobytes() for part in np.split(arrays[f"beats{k}"], ends[:-1])]


async def feed(dut: Any, source: Any, packets: list[bytes], waits: list[Callable[[int], bool]]) -> None:
    """Send packets one after the other, each as soon as it need not wait; at once, those that wait for nothing."""
    for k, (packet, wait) in enumerate(zip(packets, waits, strict=True)):
        while wait(k):
            await RisingEdge(dut.aclk)
        source.send_nowait(AxiStreamFrame(packet))


def stream_source(dut: Any, job: dict[str, Any], prefix: str, name: str) -> AxiStreamSource:
    """A source of frames, which pauses as the job says."""
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, prefix), dut.aclk, dut.aresetn, False, byte_size=8)
    source.log.setLevel(logging.WARNING)  # it would print every frame
    if job["idle"]:
        source.set_pause_generator(pauses(f"{job['seed']} {name}", job["idle"]))
    return source


def stream_sink(dut: Any, job: dict[str, Any], prefix: str, name: str) -> AxiStreamSink:
    """A sink, which pauses as the job says."""
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, prefix), dut.aclk, dut.aresetn, False, byte_size=8)
    sink.log.setLevel(logging.WARNING)
    if job["backpressure"]:
        sink.set_pause_generator(pauses(f"{job['seed']} {name}", job["backpressure"]))
    return sink


async def repeat(source: AxiStreamSource, frame: bytes) -> None:
    """Offer a frame for ever: how often it is taken, the design decides."""
    source.queue_occupancy_limit_frames = 2
    while True:
        await source.send(AxiStreamFrame(frame))


async def simulate(
    dut: Any,
    job: dict[str, Any],
    packets: list[list[bytes]],
    kernels: Sequence[Callable[[int], np.ndarray]] | None,
    sets: Sequence[bytes] = (),
    feeds: Sequence[bytes] = (),
) -> Monitor:
    """Reset, drive all packets through the design and watch."""
    for name, idle in job["others"]:
        getattr(dut, name).value = idle
    ends = [stream_source(dut, job, port["prefix"], f"source {k}") for k, port in enumerate(job["inputs"])]
    beside = [stream_source(dut, job, port["prefix"], port["prefix"]) for port in job["feeds"]]
    sinks = [
        stream_sink(dut, job, port["prefix"], f"sink {k}" if k else "sink") for k, port in enumerate(job["outputs"])
    ]
    monitor = Monitor(dut, job, kernels)
    bus = Bus(dut, job, monitor, pauses)
    dut.aresetn.value = 0
    Clock(dut.aclk, 10, unit="ns").start(start_high=False)
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.aclk)
    for outlet in monitor.outlets:
        if str(outlet.valid.value) != "0":
            outlet.tell(VALID_IN_RESET)
    for source, mine in zip(ends, packets, strict=True):
        if job["accesses"] or any(w["by"] is not None for w in job["writes"]):
            waits = lambda frame: monitor.waits(frame) or not bus.open(frame)  # noqa: E731
            cocotb.start_soon(feed(dut, source, mine, [waits] * len(mine)))
        else:
            for packet in mine:
                source.send_nowait(AxiStreamFrame(packet))
    for source, words in zip(beside, feeds, strict=True):
        cocotb.start_soon(repeat(source, words))
    if job["weights"]:
        early = [lambda _, after=w["after"]: monitor.begun < after for w in job["writes"]]
        writer = stream_source(dut, job, job["weights"]["prefix"], "weights")
        cocotb.start_soon(feed(dut, writer, sets, early))
    dut.aresetn.value = 1
    accessing = cocotb.start_soon(bus.run())
    try:
        await monitor.run()
        if monitor.state == DONE and job["accesses"]:
            await with_timeout(accessing, 10 * job["watchdog"], "ns")
    except SimTimeoutError:
        monitor.state = DEADLOCK
    finally:
        # A driver that meets an unknown TREADY raises, and cocotb then ends the test: say what it met.
        if monitor.state == RUNNING:
            monitor.state = BROKEN
            if any(not ready.value.is_resolvable for _, ready in monitor.inputs):
                monitor.event(0, UNKNOWN_READY, 0)
        record(monitor, bus.answers)
    for sink, outlet in zip(sinks, monitor.outlets, strict=True):
        received = b"".join(bytes(sink.recv_nowait().tdata) for _ in range(sink.count()))
        seen = outlet.words[: min(outlet.produced, outlet.total)].tobytes()
        # A sink ends a frame at TLAST, so what it holds is a prefix of what the monitor saw.
        if not monitor.event_count and received != seen[: len(received)]:
            raise AssertionError(f"{outlet.prefix}: sink and monitor saw different beats: an error of the testbench")
    return monitor


@cocotb.test()
async def stream(dut: Any) -> None:
    """All frames through the design: order, values, TLAST and protocol."""
    folder = Path(os.environ["BITTRUE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "job.npz") as arrays:
        packets = [sent(arrays, k) for k in range(len(job["inputs"]))]
        kernels = kernel_words(job, [arrays[f"input{k}"] for k in range(len(job["inputs"]))])
        feeds = [arrays[f"feed{k}"].tobytes() for k in range(len(job["feeds"]))]
        expected = [arrays[name] for k in range(len(job["outputs"])) if (name := f"expected{k}") in arrays]
        sets = [words.tobytes() for words in arrays["sets"]] if "sets" in arrays else []
        framing_errors = arrays["framing_errors"].tolist()
    wrong = wrong_port(dut, job)
    (folder / "refused.txt").write_text(wrong or "")
    assert not wrong, wrong
    monitor = await simulate(dut, job, packets, kernels, sets, feeds)
    assert monitor.state == DONE, f"deadlock or cycle limit: {monitor.far}"
    told = f"{monitor.event_count} protocol errors (kind, cycle, beat, output): {monitor.events}"
    assert not monitor.event_count, told
    seen = monitor.framing_errors
    assert seen == framing_errors, f"the inputs count {seen} framing errors, {framing_errors} were made"
    for outlet, words in zip(monitor.outlets, expected, strict=False):
        wrong = (outlet.words != words).any(axis=1)
        assert not wrong.any(), f"{outlet.prefix}: {wrong.sum()} beats differ, the first is beat {wrong.argmax()}"
