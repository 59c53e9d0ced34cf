"""The sender of the photonic controller: brings the weights and offsets of the next job to the array ahead of time."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Outlet, Storage, advance, counting, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import enough_credits
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.ports import weight_beat
from bittrue.sim.errors import BittrueError

#: Where the weights come from: a memory of the controller, or its stream `s_axis_weights`.
SOURCES = ("memory", "stream")
#: Cycles from the issue of a beat to its being offered: memory, register, output FIFO.
DEPTH = 3
#: Cycles from a batch's `begin`, or from a `swap`, to `filled`, beside the beats of the job.
OVERHEAD = 3 + DEPTH


def rails_beat(jobs: Jobs) -> data.StructLayout:
    """Codes of both rails for `lanes` columns of a row, as stored or streamed."""
    cells = data.ArrayLayout(shape_of(jobs.cells), jobs.geometry.lanes)
    return data.StructLayout({"plus": cells, "minus": cells})


def stream_words(jobs: Jobs) -> np.ndarray:
    """The beats of the weight stream for a batch, as bytes `[beats, bytes]`, the lowest first.

    Codes without gaps: plus of all lanes, lane 0 lowest, then minus; the beat is filled up to whole bytes with 0.
    """
    bits, size = jobs.cells.bits, stream_bytes(jobs)
    words = np.zeros((jobs.beats, size), np.uint8)
    for beat, rails in zip(words, jobs.rails(), strict=True):
        word = sum(int(code) << bits * k for k, code in enumerate(np.concatenate(rails)))
        beat[:] = np.frombuffer(word.to_bytes(size, "little"), np.uint8)
    return words


def stream_bytes(jobs: Jobs) -> int:
    """Bytes of a beat of the weight stream."""
    return -(-rails_beat(jobs).size // 8)


class Sender(wiring.Component):
    """Sends job after job, row by row, each row by groups of columns, then the offsets of the job.

    While the array measures one job, the weights of the next one fill the other bank: `filled` says that they are there
    and stays until `swap`. The first job of a batch is sent once the batch has been started (`begin`), so that nothing
    is under way when the controller is idle.

    i         with source "stream": the beats of `Jobs.rails` for every batch
    address   of the offsets to be read; `offsets` are there two cycles later
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, source: str = "memory"):
        if source not in SOURCES:
            raise BittrueError(f"photonic controller: weights come from {' or '.join(SOURCES)}, not {source!r}")
        self.jobs, self.source = jobs, source
        g = jobs.geometry
        self.group_bits = (g.groups - 1).bit_length()
        members = {
            "begin": In(1),
            "swap": In(1),
            "filled": Out(1),
            "weight": Out(stream.Signature(weight_beat(jobs))),
            "address": Out(max(1, self.group_bits + (len(jobs.work) - 1).bit_length())),
            "offsets": In(data.ArrayLayout(shape_of(jobs.offset), g.lanes)),
        }
        if source == "stream":
            members["i"] = In(stream.Signature(rails_beat(jobs)))
        super().__init__(members)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        jobs, g = self.jobs, self.jobs.geometry
        m.submodules.outlet = outlet = Outlet(weight_beat(jobs), enough_credits(DEPTH))
        wanted, filled, sending = Signal(), Signal(), Signal()  # wanted: a batch has begun, its first job has not
        job, row, group = (
            Signal(counting(n), name=name)
            for n, name in ((len(jobs.work), "job"), (g.rows + 1, "row"), (g.groups, "group"))
        )
        used = self.used(m, job)
        m.d.comb += self.filled.eq(filled)

        # -- which beat comes next
        issue, inside, bias = Signal(), Signal(), Signal()
        m.d.comb += [bias.eq(row == g.rows), inside.eq((row < used.rows) & (group < used.groups))]
        fed = Const(1)
        if self.source == "stream":
            fed = ~inside | self.i.valid
            m.d.comb += self.i.ready.eq(sending & outlet.available & inside)
        m.d.comb += [issue.eq(sending & outlet.available & fed), outlet.issue.eq(issue)]
        group_last = advance(m, group, g.groups - 1, issue)
        advance(m, row, g.rows, issue & group_last)
        # A job begins when its bank is free, and stays at hand until it is in use. Its first beat waits two cycles for
        # the numbers of the job.
        under_way, begins, looked = Signal(), Signal(), Signal()
        first = job == 0
        m.d.comb += begins.eq(~under_way & (~first | wanted))
        m.d.sync += [looked.eq(begins), wanted.eq(self.begin | (wanted & ~begins))]
        with m.If(begins):
            m.d.sync += under_way.eq(1)
        with m.If(looked):
            m.d.sync += sending.eq(1)
        with m.If(issue & group_last & bias):
            m.d.sync += sending.eq(0)

        # -- its content
        run = valid_chain(m, issue, DEPTH - 1)
        m.d.comb += self.address.eq(Cat(group[: self.group_bits], job))
        rails = self.rails(m, issue & inside)
        dark = register(m, ~inside, name="dark", cycles=2)
        payload = outlet.payload
        for rail in ("plus", "minus"):
            for lane in range(g.lanes):
                m.d.comb += payload[rail][lane].eq(Mux(dark, 0, rails[rail][lane]))
        m.d.comb += [
            payload.row.eq(register(m, row, name="row_at", cycles=2)),
            payload.group.eq(register(m, group, name="group_at", cycles=2)),
            payload.bias.eq(register(m, bias, name="bias_at", cycles=2)),
            payload.offset.eq(self.offsets),
            outlet.push.eq(run[-1]),
            self.weight.valid.eq(outlet.o.valid),
            self.weight.payload.eq(outlet.o.payload),
            outlet.o.ready.eq(self.weight.ready),
        ]

        # -- full when the array has taken the last beat
        sent = Signal()
        final = outlet.o.payload.bias & (outlet.o.payload.group == g.groups - 1)
        m.d.comb += sent.eq(outlet.o.valid & self.weight.ready & final)
        with m.If(sent):
            m.d.sync += filled.eq(1)
        with m.If(self.swap):
            m.d.sync += [filled.eq(0), under_way.eq(0)]
            m.d.sync += job.eq(Mux(job == len(jobs.work) - 1, 0, job + 1))
        return m

    def used(self, m: Module, job: Signal):
        """Rows and groups that the job uses; they follow its number two cycles later."""
        jobs, g = self.jobs, self.jobs.geometry
        layout = data.StructLayout({"rows": range(g.rows + 1), "groups": range(g.groups + 1)})
        rows = [{"rows": w.rows, "groups": jobs.used_groups(w)} for w in jobs.work]
        m.submodules.used = rom = Storage(layout.size, max(2, len(rows)), table=True).memory(layout, rows)
        port = rom.read_port(domain="sync")
        m.d.comb += [port.addr.eq(job), port.en.eq(1)]
        return register(m, port.data, name="used")

    def rails(self, m: Module, take):
        """The codes of the beat taken two cycles ago."""
        jobs, layout = self.jobs, rails_beat(self.jobs)
        if self.source == "stream":
            return register(m, self.i.payload, layout, name="rails", cycles=2)
        at = Signal(counting(jobs.beats), name="beat")
        advance(m, at, jobs.beats - 1, take)
        rows = [{"plus": list(map(int, p)), "minus": list(map(int, q))} for p, q in jobs.rails()]
        m.submodules.weights = rom = Storage(layout.size, max(2, len(rows)), table=True).memory(layout, rows)
        port = rom.read_port(domain="sync")
        m.d.comb += [port.addr.eq(at), port.en.eq(1)]
        return register(m, port.data, layout, name="rails")
