"""The cocotb testbench of a photonic system, run inside the simulator: the streams' bench, and an AXI4-Lite master.

`flow.systems.light.cosim` writes the job and reads the record; the monitor is that of `flow.run.testbench`. Streamed
weights are offered by a source of their own. The master's channels pause at random, so that address and data of a
write come in any order and answers wait.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from bittrue.flow.run.testbench import (
    DONE,
    RESET_CYCLES,
    VALID_IN_RESET,
    Monitor,
    pauses,
    record,
    sent,
    wrong_port,
)


def lite_master(dut: Any, job: dict[str, Any]) -> AxiLiteMaster:
    """A master on `s_axi` whose channels pause a third of the time."""
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, dut.aresetn, False)
    write, read = master.write_if, master.read_if
    channels = {"aw": write.aw_channel, "w": write.w_channel, "b": write.b_channel}
    channels |= {"ar": read.ar_channel, "r": read.r_channel}
    for name, channel in channels.items():
        channel.set_pause_generator(pauses(f"{job['seed']} {name}", 0.33))
    for part in (write, read):
        part.log.setLevel(logging.WARNING)
    return master


def stream_source(dut: Any, job: dict[str, Any], prefix: str) -> AxiStreamSource:
    """A source of frames on the stream of this prefix, which pauses as the job says."""
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, prefix), dut.aclk, dut.aresetn, False, byte_size=8)
    source.log.setLevel(logging.WARNING)
    if job["idle"]:
        source.set_pause_generator(pauses(f"{job['seed']} {prefix}", job["idle"]))
    return source


async def repeat(source: AxiStreamSource, frame: bytes) -> None:
    """Offer a frame for ever: how many batches there will be, the controller decides."""
    source.queue_occupancy_limit_frames = 2
    while True:
        await source.send(AxiStreamFrame(frame))


async def perform(master: AxiLiteMaster, access: dict[str, Any]) -> tuple[int, int | None]:
    """One access: its response, and the word that was read."""
    if access["value"] is None:
        answer = await master.read(access["address"], 4)
        return int(answer.resp), int.from_bytes(answer.data, "little")
    answer = await master.write(access["address"], (access["value"] & 0xFFFFFFFF).to_bytes(4, "little"))
    return int(answer.resp), None


@cocotb.test()
async def system(dut: Any) -> None:
    """Registers first, then all images, with registers accessed meanwhile and at the end."""
    folder = Path(os.environ["BITTRUE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "job.npz") as arrays:
        packets = sent(arrays, 0)
        expected = arrays["expected"] if "expected" in arrays else None
        framing_errors = arrays["framing_errors"].tolist()
        weights = arrays["weights"].tobytes() if "weights" in arrays else None
    wrong = wrong_port(dut, job)
    (folder / "refused.txt").write_text(wrong or "")
    assert not wrong, wrong
    master = lite_master(dut, job)
    prefixes = job["inputs"][0]["prefix"], job["output"]["prefix"]
    source = stream_source(dut, job, prefixes[0])
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, prefixes[1]), dut.aclk, dut.aresetn, False, byte_size=8)
    sink.log.setLevel(logging.WARNING)
    if weights is not None:
        cocotb.start_soon(repeat(stream_source(dut, job, "s_axis_weights"), weights))
    monitor = Monitor(dut, job, None)
    dut.aresetn.value = 0
    Clock(dut.aclk, 10, unit="ns").start(start_high=False)
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.aclk)
    if str(monitor.valid.value) != "0":
        monitor.event(VALID_IN_RESET, 0)
    dut.aresetn.value = 1
    answers: dict[str, list] = {"before": [], "during": [], "after": []}
    for access in job["before"]:
        answers["before"].append(await perform(master, access))
    if job["backpressure"]:
        sink.set_pause_generator(pauses(f"{job['seed']} sink", job["backpressure"]))
    for packet in packets:
        source.send_nowait(AxiStreamFrame(packet))

    async def disturb() -> None:
        while job["during"] and monitor.produced < monitor.total:
            for access in job["during"]:
                answers["during"].append(await perform(master, access))

    disturbing = cocotb.start_soon(disturb())
    try:
        await monitor.run()
        if monitor.state == DONE:
            await disturbing
            for access in job["after"]:
                answers["after"].append(await perform(master, access))
    finally:
        (folder / "answers.json").write_text(json.dumps(answers))
        record(monitor)
    assert monitor.state == DONE, f"deadlock or cycle limit: {monitor.produced} of {monitor.total} beats produced"
    assert not monitor.event_count, f"{monitor.event_count} protocol errors (kind, cycle, beat): {monitor.events}"
    seen = monitor.framing_errors
    assert seen == framing_errors, f"the inputs count {seen} framing errors, {framing_errors} were made"
    if expected is not None:
        differ = (monitor.words != expected).any(axis=1)
        assert not differ.any(), f"{differ.sum()} beats differ, the first is beat {differ.argmax()}"
