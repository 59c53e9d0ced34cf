"""The AXI4-Lite master of the cocotb testbench: accesses at the frames they belong to, with pauses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from bittrue.rtl.bus.access import END, MEANWHILE, REPEATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bittrue.flow.run.testbench import Monitor


#: What an access is, as `Access.row` says it.
WRITE, POLL = 1, 2


class Bus:
    """The AXI4-Lite master, and what comes when: see `rtl.bus.access`. Without a bus there is nothing to wait for."""

    def __init__(
        self, dut: Any, job: dict[str, Any], monitor: Monitor, pauses: Callable[[str, float], Iterator[bool]]
    ) -> None:
        self.monitor, self.clock = monitor, dut.aclk
        self.beats = [port["beats"] for port in job["inputs"]]
        rows = list(enumerate(job["accesses"]))
        self.due = [(k, access) for k, access in rows if access[0] != MEANWHILE]
        self.others = [(k, access) for k, access in rows if access[0] == MEANWHILE]
        self.answers: list[tuple[int, int, int, int]] = []
        self.master = None
        if job["bus"] is not None:
            self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, job["bus"]), dut.aclk, dut.aresetn, False)
            write, read = self.master.write_if, self.master.read_if
            channels = {"aw": write.aw_channel, "w": write.w_channel, "b": write.b_channel}
            channels |= {"ar": read.ar_channel, "r": read.r_channel}
            for name, channel in channels.items():  # address and data come in any order, answers wait
                channel.set_pause_generator(pauses(f"{job['seed']} {name}", 0.33))
            for part in (write, read):
                part.log.setLevel(logging.WARNING)

    def open(self, frame: int) -> bool:
        """Whether a frame may go in."""
        return not self.due or self.due[0][1][0] > frame

    def ready(self, frame: int) -> bool:
        """Whether the accesses of a frame may be made."""
        if frame == END:
            return self.monitor.all_out
        return all(a >= frame * beats for a, beats in zip(self.monitor.accepted, self.beats, strict=True))

    async def run(self) -> None:
        """All accesses."""
        edge, repeats = RisingEdge(self.clock), 0
        while self.due or (self.others and not self.monitor.all_out):
            if self.due and self.ready(self.due[0][1][0]):
                await self.perform(*self.due[0])
                self.due.pop(0)
            elif self.others and repeats < REPEATS and not self.monitor.all_out:
                await self.perform(*self.others[repeats % len(self.others)])
                repeats += 1
            else:
                await edge

    async def perform(self, index: int, access: list) -> None:
        """One access: its response, and the word that was read."""
        _, address, kind, value = access
        if kind != WRITE:
            while True:
                answer = await self.master.read(address, 4)
                word = int.from_bytes(answer.data, "little")
                if kind != POLL or word == value or int(answer.resp):
                    break
        else:
            answer, word = await self.master.write(address, value.to_bytes(4, "little")), 0
        self.answers.append((index, int(answer.resp), word, self.monitor.cycles))
