"""The digital controller of a photonic array: images in, results out, DAC and ADC codes on the analogue side."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bittrue.rtl.bus.lite import AxiLite, Slave
from bittrue.rtl.dataflow.stage import beat
from bittrue.rtl.light.buffers import ImageBuffer, ResultBuffer
from bittrue.rtl.light.inputs import NEXT_JOB, SAME_JOB, Loader
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.ports import FrontEnd
from bittrue.rtl.light.registers import Offsets, register_map
from bittrue.rtl.light.sequence import Sequence
from bittrue.rtl.light.sums import Sums
from bittrue.rtl.light.weights import OVERHEAD, Sender
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program


class PhotonicController(wiring.Component):
    """Drives an array of `geometry` through the jobs of `program`, batch after batch.

    program    a chain of PhotonicMac, TileSum and exact tables (`rtl.light.jobs`)
    settling   cycles the array needs between new codes and the sample: the least value of the register SETTLING
    weights    "memory": stored in the controller; "stream": they come in over `weights_in`, once for every batch
    images     capacity of a batch

    images_in, results_out   streams: `lanes` codes a beat, one code a beat
    frame_failed, weights_failed   strobes: framing errors of the images, of the weights (`rtl.bus.framing`)
    registers                AXI4-Lite (`rtl.light.registers`)
    front                    the array (`rtl.light.ports.FrontEnd`)

    A batch: when the controller is idle, it takes all images that have arrived, as many as the register BATCH allows.
    The weights of a job are set once and used for every image of the batch; meanwhile those of the next job go out.
    A measurement: inputs are applied, the array settles, `sample`, codes come in; meanwhile the inputs of the next one
    are loaded. The results of a batch leave in order while the next one is under way. They do not depend on how images
    were put into batches. `cycles` says how long a batch takes.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(
        self, program: Program, geometry: Geometry, settling: int = 8, weights: str = "memory", images: int = 16
    ):
        self.jobs = jobs = Jobs.of(program, geometry)
        self.map = register_map(jobs, settling, images)
        self.slave = Slave(self.map)
        self.offsets = Offsets(jobs, self.map.window("CALIBRATION"))
        self.sender = Sender(jobs, weights)
        self.image_buffer, self.result_buffer = ImageBuffer(jobs, images), ResultBuffer(jobs, images)
        self.loader, self.sums = Loader(jobs, images), Sums(jobs, images)
        self.sequence = Sequence(jobs, self.sums)
        self.capacity = images
        members = {
            "images_in": In(stream.Signature(beat(jobs.codes, geometry.lanes))),
            "results_out": Out(stream.Signature(beat(jobs.output.format, 1))),
            "frame_failed": In(1),
            "weights_failed": In(1),
            "registers": Out(AxiLite(self.map.address_bits)),
            "front": Out(FrontEnd(jobs)),
        }
        if weights == "stream":
            members["weights_in"] = In(self.sender.i.signature.flip())
        super().__init__(members)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.registers = slave = self.slave
        m.submodules.offsets = offsets = self.offsets
        m.submodules.sender = sender = self.sender
        m.submodules.images = self.image_buffer
        m.submodules.results = self.result_buffer
        m.submodules.loader = self.loader
        m.submodules.sequence = self.sequence
        m.submodules.sums = self.sums
        connect(m, flipped(self.registers), slave.axi)
        connect(m, slave.calibration, offsets.bus)
        connect(m, flipped(self.images_in), self.image_buffer.i)
        connect(m, self.result_buffer.o, flipped(self.results_out))
        connect(m, sender.weight, flipped(self.front.weight))
        if sender.source == "stream":
            connect(m, flipped(self.weights_in), sender.i)
        m.d.comb += [offsets.address.eq(sender.address), sender.offsets.eq(offsets.offsets)]
        self.batches(m)
        self.inputs(m)
        self.measurements(m)
        self.results(m)
        m.d.comb += [
            slave.errors_frame.eq(self.frame_failed),
            slave.errors_converter.eq(self.sequence.unexpected),
            slave.errors_weights.eq(self.weights_failed),
            slave.errors_timeout.eq(self.sequence.late),
        ]
        return m

    def batches(self, m: Module) -> None:
        """Batches begin, when asked to or as images arrive, and end."""
        slave, images, results = self.slave, self.image_buffer, self.result_buffer
        busy, size, begin, finished = Signal(), Signal(range(self.capacity + 1)), Signal(), self.sequence.finished
        frames, started, asked = Signal(32), Signal(), slave.written[:2]
        auto, start, batch = slave.control_auto, slave.control_start, slave.batch
        m.d.comb += begin.eq(~busy & (images.arrived != 0) & results.free & (auto | start))
        with m.If(begin):
            m.d.sync += [busy.eq(1), size.eq(Mux(images.arrived < batch, images.arrived, batch))]
        with m.If(finished):
            m.d.sync += [busy.eq(0), frames.eq(frames + size)]
        m.d.comb += [
            started.eq(begin & start),
            slave.control_start_done.eq(started),
            slave.control_refused.eq(asked[1] & (asked[0] | (start & ~started))),
            slave.busy.eq(busy),
            slave.status_busy.eq(busy),
            slave.status_done.eq(~busy & frames.any()),
            slave.frames.eq(frames),
            slave.image_set.eq(finished),
            slave.image_next.eq(slave.image + size),
            self.offsets.busy.eq(busy),
            images.release.eq(finished),
            images.count.eq(size),
            results.finish.eq(finished),
            results.count.eq(size),
            self.sender.begin.eq(begin),
            self.loader.begin.eq(begin),
            self.loader.size.eq(size),
            self.sequence.begin.eq(begin),
            self.sequence.size.eq(size),
        ]

    def inputs(self, m: Module) -> None:
        """From the images to the array."""
        loader, images = self.loader, self.image_buffer
        m.d.comb += [
            images.image.eq(loader.image),
            images.address.eq(loader.address),
            loader.word.eq(images.word),
            loader.measuring.eq(self.sequence.measuring),
            loader.apply.eq(self.sequence.apply),
            self.front.input_data.eq(loader.input_data),
        ]

    def measurements(self, m: Module) -> None:
        """Between the sequence and the array."""
        sequence, slave, front = self.sequence, self.slave, self.front
        m.d.comb += [
            sequence.index.eq(slave.image),
            sequence.settling.eq(slave.settling),
            sequence.timeout.eq(slave.timeout),
            sequence.filled.eq(self.sender.filled),
            sequence.loaded.eq(self.loader.loaded),
            sequence.adc_valid.eq(front.adc_valid),
            self.sender.swap.eq(sequence.swap),
        ]
        for name in ("swap", "input_valid", "sample", "shift", "job", "image"):
            m.d.comb += getattr(front, name).eq(getattr(sequence, name))

    def results(self, m: Module) -> None:
        """From the array to the results of the last layer, and of the others back to the loader."""
        sequence, sums, loader, results = self.sequence, self.sums, self.loader, self.result_buffer
        now = sequence.now
        m.d.comb += [
            sums.adc_valid.eq(sequence.taken | sequence.missing),
            sums.column_group.eq(sequence.column_group),
            sums.image.eq(sequence.batch_image),
            sums.first.eq(now.first),
            sums.final.eq(now.final),
            sums.ends.eq(sequence.ends),
            sums.groups.eq(now.used_groups),
            sums.place.eq(now.place),
            sums.numbers.eq(now.layer),
            sequence.layer_done.eq(sums.layer_done),
            results.write.eq(sums.write & now.last_layer),
            results.image.eq(sums.result_image),
            results.group.eq(sums.group),
            loader.write.eq(sums.write & ~now.last_layer),
            loader.result_image.eq(sums.result_image),
            loader.group.eq(sums.group),
            loader.bank.eq(now.bank),
        ]
        for lane in range(self.jobs.geometry.lanes):
            m.d.comb += [
                sums.adc_data[lane].eq(Mux(sequence.missing, 0, self.front.adc_data[lane])),
                results.codes[lane].eq(sums.codes[lane]),
                loader.codes[lane].eq(sums.codes[lane]),
            ]

    def cycles(self, images: int, settling: int, first: int, pace: int = 1) -> int:
        """Cycles of a batch of so many images, from its begin to the strobe that ends it; exact.

        settling   the register SETTLING
        first      cycles from `sample` to the first group of codes
        pace       cycles from one group of codes to the next

        For an array that takes a beat of weights in every cycle, and a weight stream that always has one. With
        `G = columns / lanes`, a measurement takes `M = settling + first + pace (G - 1) + 2` cycles or, if that is more,
        `rows / lanes + 5` (the inputs of the next one); a job takes `images M + 2` or, if that is more,
        `(rows + 1) G + 7` (the weights of the next one); at the end of a layer its last results are waited for.
        """
        if not 1 <= images <= self.capacity:
            raise BittrueError(f"photonic controller: a batch of {images} images; it has 1 to {self.capacity}")
        jobs, g = self.jobs, self.jobs.geometry
        sending = (g.rows + 1) * g.groups + OVERHEAD
        ready, filled, loaded = 3, sending, g.words + NEXT_JOB  # cycles after `begin` in which each may be applied
        for job in jobs.work:
            layer = jobs.layers[job.layer]
            swap = max(ready, filled, loaded) + 1
            apply = swap + (images - 1) * max(settling + first + pace * (g.groups - 1) + 2, g.words + SAME_JOB)
            sample = apply + settling
            last = sample + first + pace * (g.groups - 1)
            ready, filled, loaded = last + 3, swap + sending, apply - 1 + g.words + NEXT_JOB
            if (job.row_tile, job.column_tile) == (layer.mac.tiles - 1, layer.column_tiles - 1):
                written = sample + first + pace * (jobs.used_groups(job) - 1) + self.sums.cycles
                drained = max(last + 1, written)
                ready, loaded = drained + 3, drained + g.words + 5
        return drained + 1
