"""The sequence of measurements in the photonic controller: apply, settle, sample, convert; image after image."""

from __future__ import annotations

from dataclasses import asdict

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Storage, counting, register
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.ports import INDEX_BITS, SETTLING_BITS, TIMEOUT_BITS
from bittrue.rtl.light.sums import Sums


class Sequence(wiring.Component):
    """Walks through a batch: job after job, and in every job image after image.

    begin, size        a batch of `size` images begins; `size` holds from the next cycle on
    index              of the batch's first image
    settling, timeout  as in the registers
    filled, loaded     weights and inputs of the next measurement are there; `apply`: they are in use from the next
                       cycle on
    swap, input_valid, sample, shift, job, image
                       to the front end
    adc_valid          from it
    taken, missing     the codes of group `column_group` are to be summed; of a missing group as 0
    unexpected, late   strobes: codes that nobody waits for; codes that did not come in time
    batch_image        image of the batch that is measured; `ends`: nothing is measured after it in this layer
    layer_done         the last result of the layer is there
    now                what the job at hand needs (`numbers`)
    finished           strobe, at the end of a batch
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, sums: Sums):
        self.jobs, self.sums, images = jobs, sums, sums.images
        g = jobs.geometry
        self.shifts = counting(max(layer.mac.shift for layer in jobs.layers) + 1)
        self.layout = data.StructLayout(
            {
                "used_groups": range(g.groups + 1),
                "place": sums.place.shape(),
                "shift": self.shifts,
                "first": 1,
                "final": 1,
                "layer_ends": 1,
                "batch_ends": 1,
                "bank": 1,
                "last_layer": 1,
                "layer": sums.layout,
            }
        )
        super().__init__(
            {
                "begin": In(1),
                "size": In(range(images + 1)),
                "index": In(INDEX_BITS),
                "settling": In(SETTLING_BITS),
                "timeout": In(TIMEOUT_BITS),
                "filled": In(1),
                "loaded": In(1),
                "apply": Out(1),
                "swap": Out(1),
                "input_valid": Out(1),
                "sample": Out(1),
                "shift": Out(self.shifts),
                "job": Out(counting(len(jobs.work))),
                "image": Out(INDEX_BITS),
                "adc_valid": In(1),
                "taken": Out(1),
                "missing": Out(1),
                "unexpected": Out(1),
                "late": Out(1),
                "column_group": Out(counting(g.groups)),
                "batch_image": Out(counting(images)),
                "ends": Out(1),
                "layer_done": In(1),
                "measuring": Out(counting(len(jobs.work))),
                "now": Out(self.layout),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        g = self.jobs.geometry
        job, image, column_group = (
            Signal.like(self.measuring),
            Signal.like(self.batch_image),
            Signal(counting(g.groups)),
        )
        wait, left = Signal(SETTLING_BITS), Signal(TIMEOUT_BITS)
        now = self.numbers(m, job)
        converting, last_image, ended = Signal(), Signal(), Signal()
        m.d.comb += [
            self.taken.eq(converting & self.adc_valid),
            self.unexpected.eq(self.adc_valid & ~converting),
            self.measuring.eq(job),
            self.batch_image.eq(image),
            self.column_group.eq(column_group),
            self.ends.eq(now.layer_ends & last_image),
            self.now.eq(now),
            self.finished.eq(ended),
        ]
        # What decides comes from registers: an image is looked at for some cycles, and an end is told a cycle later.
        m.d.sync += [last_image.eq(image + 1 == self.size), ended.eq(0)]
        # The results of a layer may be there before the codes of the columns that it does not use.
        drained = Signal()
        with m.If(self.layer_done):
            m.d.sync += drained.eq(1)
        m.d.sync += [self.input_valid.eq(self.apply), self.swap.eq(self.apply & (image == 0))]

        def group_done():
            m.d.sync += column_group.eq(column_group + 1)
            with m.If(column_group == g.groups - 1):
                m.d.sync += [column_group.eq(0), image.eq(image + 1)]
                m.next = "READY"
                with m.If(last_image):
                    m.d.sync += image.eq(0)
                    m.next = "LOOK 1"
                    with m.If(now.layer_ends):
                        m.next = "DRAIN"
                    with m.Else():
                        m.d.sync += job.eq(job + 1)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.begin):
                    m.next = "LOOK 1"
            with m.State("LOOK 1"):  # the numbers of a job follow its number two cycles later
                m.next = "LOOK 2"
            with m.State("LOOK 2"):
                m.next = "READY"
            with m.State("READY"):
                with m.If(self.loaded & (self.filled | (image != 0))):
                    m.d.comb += self.apply.eq(1)
                    m.d.sync += [wait.eq(self.settling - 1), self.image.eq(self.index + image)]
                    m.d.sync += [self.job.eq(job), self.shift.eq(now.shift)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "SAMPLE"
            with m.State("SAMPLE"):
                m.d.comb += self.sample.eq(1)
                m.d.sync += left.eq(self.timeout)
                m.next = "CONVERT"
            with m.State("CONVERT"):
                m.d.comb += converting.eq(1)
                with m.If(self.adc_valid):
                    m.d.sync += left.eq(self.timeout)
                    group_done()
                with m.Elif(left == 1):
                    m.d.comb += self.late.eq(1)
                    m.next = "MISSING"
                with m.Elif(left != 0):  # a limit of 0 stays there
                    m.d.sync += left.eq(left - 1)
            with m.State("MISSING"):
                m.d.comb += self.missing.eq(1)
                group_done()
            with m.State("DRAIN"):
                with m.If(drained | self.layer_done):
                    m.d.sync += [job.eq(job + 1), drained.eq(0)]
                    m.next = "LOOK 1"
                    with m.If(now.batch_ends):
                        m.d.sync += [job.eq(0), ended.eq(1)]
                        m.next = "IDLE"
        return m

    def numbers(self, m: Module, job: Signal) -> data.View:
        """What measuring a job needs, from a table; it follows the job's number two cycles later.

        used_groups   groups of columns that it uses, from beat `place` of all layers' outputs on
        shift         range of the converter
        first, final  row tile of its columns; `layer_ends`, `batch_ends` with the last job of either
        bank          of the activations that the layer makes
        """
        jobs, g = self.jobs, self.jobs.geometry
        rows = []
        for work in jobs.work:
            layer, numbers = jobs.layers[work.layer], asdict(self.sums.numbers_of(work.layer))
            final = work.row_tile == layer.mac.tiles - 1
            ends = final and work.column_tile == layer.column_tiles - 1
            last_layer = work.layer == len(jobs.layers) - 1
            rows.append(
                {
                    "used_groups": jobs.used_groups(work),
                    "place": numbers["start"] + work.column_tile * g.groups,
                    "shift": layer.mac.shift,
                    "first": int(work.row_tile == 0),
                    "final": int(final),
                    "layer_ends": int(ends),
                    "batch_ends": int(ends and last_layer),
                    "bank": work.layer & 1,
                    "last_layer": int(last_layer),
                    "layer": numbers,
                }
            )
        m.submodules.jobs = rom = Storage(self.layout.size, max(2, len(rows)), table=True).memory(self.layout, rows)
        port = rom.read_port(domain="sync")
        m.d.comb += [port.addr.eq(job), port.en.eq(1)]
        return register(m, port.data, name="now")
