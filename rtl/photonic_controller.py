"""The digital controller of a photonic array: images in, results out, DAC and ADC codes on the analogue side."""

from __future__ import annotations

from dataclasses import asdict

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.photonic_buffers import ImageBuffer, ResultBuffer
from rtl.photonic_jobs import Geometry, Jobs
from rtl.photonic_ports import SETTLING_BITS, AxiLite, FrontEnd
from rtl.photonic_registers import Errors, Registers
from rtl.photonic_sums import Sums
from rtl.photonic_weights import Sender
from rtl.stage import Storage, beat, counting, register, valid_chain
from sim.program import Program


class PhotonicController(wiring.Component):
    """Drives an array of `geometry` through the jobs of `program`, image after image.

    program    a chain of PhotonicMac, TileSum and exact tables (`rtl.photonic_jobs`)
    settling   cycles the array needs between new codes and the sample: the least value of the register SETTLING
    weights    "memory": stored in the controller; "stream": they come in over `weights_in`, image by image

    images, results   streams: `lanes` codes a beat, one code a beat
    registers         AXI4-Lite (`rtl.photonic_registers`)
    front             the array (`rtl.photonic_ports.FrontEnd`)

    A job: inputs are loaded, weights and inputs change at `swap`, the array settles, `sample`, codes come in; meanwhile
    the weights of the next job go out. An image takes at least the weight beats of all its jobs,
    jobs * (rows + 1) * columns / lanes cycles.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, program: Program, geometry: Geometry, settling: int = 8, weights: str = "memory"):
        self.jobs = jobs = Jobs.of(program, geometry)
        self.table = Registers(jobs, settling)
        self.sender = Sender(jobs, weights)
        self.images_in, self.results_out, self.sums = ImageBuffer(jobs), ResultBuffer(jobs), Sums(jobs)
        members = {
            "images": In(stream.Signature(beat(jobs.codes, geometry.lanes))),
            "results": Out(stream.Signature(beat(jobs.output.format, 1))),
            "registers": Out(AxiLite(self.table.map.address_bits)),
            "front": Out(FrontEnd(jobs)),
        }
        if weights == "stream":
            members["weights_in"] = In(self.sender.i.signature.flip())
        super().__init__(members)

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.registers = table = self.table
        m.submodules.sender = sender = self.sender
        m.submodules.images = images = self.images_in
        m.submodules.results = results = self.results_out
        m.submodules.sums = self.sums
        connect(m, flipped(self.registers), table.axi)
        connect(m, flipped(self.images), images.i)
        connect(m, results.o, flipped(self.results))
        connect(m, sender.weight, flipped(self.front.weight))
        if sender.source == "stream":
            connect(m, flipped(self.weights_in), sender.i)
        m.d.comb += [table.address.eq(sender.address), sender.offsets.eq(table.offsets)]
        running, finished = self.images_under_way(m)
        self.measure(m, running, finished)
        return m

    def images_under_way(self, m: Module) -> tuple[Signal, Signal]:
        """Images that are started, when asked to or as they arrive: whether there are any; the strobe of their end."""
        table, images = self.table, self.images_in
        arrived, started = Signal(2), Signal(2)
        begin, finished = Signal(), Signal()
        m.d.comb += [
            begin.eq((arrived != started) & (table.auto | table.start)),
            table.started.eq(begin & table.start),
            self.sender.begin.eq(begin),
            table.busy.eq(started != 0),
            table.frame_done.eq(finished),
            images.release.eq(finished),
            self.results_out.finish.eq(finished),
        ]
        m.d.sync += [
            arrived.eq(arrived + images.arrived - finished),
            started.eq(started + begin - finished),
        ]
        return started != 0, finished

    def measure(self, m: Module, running: Signal, finished: Signal) -> None:
        """The sequence of a job, and of the jobs."""
        jobs, g, front = self.jobs, self.jobs.geometry, self.front
        table, sender, sums, results = self.table, self.sender, self.sums, self.results_out
        job, word, column_group = (
            Signal(counting(n), name=name)
            for n, name in ((len(jobs.work), "job"), (g.words, "word"), (g.groups, "column_group"))
        )
        now = self.numbers(m, job)
        wait = Signal(SETTLING_BITS)
        loading, taken, converting, unexpected = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            taken.eq(converting & front.adc_valid),
            unexpected.eq(front.adc_valid & ~converting),
        ]
        # The results of a layer may be there before the codes of the columns that it does not use.
        drained = Signal()
        with m.If(sums.layer_done):
            m.d.sync += drained.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(running & results.free):
                    m.next = "LOOK 1"
            with m.State("LOOK 1"):  # the numbers of a job follow its number two cycles later
                m.next = "LOOK 2"
            with m.State("LOOK 2"):
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += loading.eq(1)
                m.d.sync += word.eq(word + 1)
                with m.If(word == g.words - 1):
                    m.d.sync += word.eq(0)
                    m.next = "LOADED 1"
            with m.State("LOADED 1"):  # the last word needs two cycles to reach the input register
                m.next = "LOADED 2"
            with m.State("LOADED 2"):
                m.next = "READY"
            with m.State("READY"):
                with m.If(sender.filled):
                    m.d.comb += [front.swap.eq(1), front.input_valid.eq(1)]
                    m.d.sync += wait.eq(table.settling - 1)
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.comb += front.sample.eq(1)
                    m.next = "CONVERT"
            with m.State("CONVERT"):
                m.d.comb += converting.eq(1)
                with m.If(front.adc_valid):
                    m.d.sync += column_group.eq(column_group + 1)
                    with m.If(column_group == g.groups - 1):
                        m.d.sync += column_group.eq(0)
                        with m.If(now.layer_ends):
                            m.next = "DRAIN"
                        with m.Else():
                            m.d.sync += job.eq(job + 1)
                            m.next = "LOOK 1"
            with m.State("DRAIN"):
                with m.If(drained):
                    m.d.sync += [job.eq(job + 1), drained.eq(0)]
                    m.next = "LOOK 1"
                    with m.If(now.image_ends):
                        m.d.comb += finished.eq(1)
                        m.d.sync += job.eq(0)
                        m.next = "IDLE"
        m.d.comb += [
            sender.swap.eq(front.swap),
            sums.adc_valid.eq(taken),
            sums.adc_data.eq(front.adc_data),
            sums.column_group.eq(column_group),
            sums.first.eq(now.first),
            sums.final.eq(now.final),
            sums.groups.eq(now.used_groups),
            sums.numbers.eq(now.layer),
        ]
        # Records of the measurement in use: the controller's own numbers move on while its codes come in.
        with m.If(front.swap):
            m.d.sync += [front.job.eq(job), front.image.eq(table.image), front.shift.eq(now.shift)]
        fails = {
            Errors.FRAME: self.images_in.failed,
            Errors.CONVERTER: unexpected,
            Errors.WEIGHTS: sender.failed,
        }
        m.d.comb += [table.fail[bit].eq(strobe) for bit, strobe in fails.items()]
        self.inputs(m, now, loading, word)

    def inputs(self, m: Module, now: data.View, loading: Signal, word: Signal) -> None:
        """The codes of the rows, loaded word by word; results of the layers before the last, kept in two banks."""
        jobs, g, images, sums, results = self.jobs, self.jobs.geometry, self.images_in, self.sums, self.results_out
        address = Signal(range(max(images.beats, *(layer.groups for layer in jobs.layers)) + g.words))
        m.d.comb += [address.eq(now.top + word), images.address.eq(address)]
        loaded = images.word
        m.d.comb += [
            results.write.eq(sums.write & now.last_layer),
            results.group.eq(sums.group),
        ]
        m.d.comb += [results.codes[lane].eq(sums.codes[lane]) for lane in range(g.lanes)]
        hidden = [layer.groups for layer in jobs.layers[:-1]]
        if hidden:
            bits = (max(hidden) - 1).bit_length()
            storage = Storage(images.layout.size, 2 << bits)
            m.submodules.activations = memory = storage.memory(images.layout)
            read, write = memory.read_port(domain="sync"), memory.write_port()
            m.d.comb += [
                read.addr.eq(Cat(address[:bits], ~now.bank)),
                read.en.eq(1),
                write.addr.eq(Cat(sums.group[:bits], now.bank)),
                write.en.eq(sums.write & ~now.last_layer),
            ]
            m.d.comb += [write.data[lane].eq(sums.codes[lane]) for lane in range(g.lanes)]
            loaded = Mux(now.first_layer, images.word.as_value(), read.data.as_value())
        inside = register(m, word < now.used_words, name="inside", cycles=2)
        shifting = valid_chain(m, loading, 2)[2]
        held = register(m, loaded, images.layout.size, name="loaded")
        codes = Signal(self.front.input_data.shape().size)
        with m.If(shifting):
            m.d.sync += codes.eq(Cat(codes, Mux(inside, held, 0)) >> images.layout.size)
        m.d.comb += self.front.input_data.as_value().eq(codes)

    def numbers(self, m: Module, job: Signal) -> data.View:
        """What the job at hand needs, from a table; it follows the job's number two cycles later.

        top           word of the layer's input where its rows start; `used_words` of them are used
        used_groups   groups of columns that it uses
        shift         range of the converter
        first, final  row tile of its columns; `layer_ends`, `image_ends` with the last job of either
        bank          of the activations that the layer makes; it reads the other one
        """
        jobs, g = self.jobs, self.jobs.geometry
        most = max(images.mac.tiles for images in jobs.layers) * g.words
        layout = data.StructLayout(
            {
                "top": counting(most),
                "used_words": range(g.words + 1),
                "used_groups": range(g.groups + 1),
                "shift": self.front.shift.shape(),
                "first": 1,
                "final": 1,
                "layer_ends": 1,
                "image_ends": 1,
                "bank": 1,
                "first_layer": 1,
                "last_layer": 1,
                "layer": self.sums.layout,
            }
        )
        rows = []
        for work in jobs.work:
            layer = jobs.layers[work.layer]
            final = work.row_tile == layer.mac.tiles - 1
            ends = final and work.column_tile == layer.column_tiles - 1
            rows.append(
                {
                    "top": work.row_tile * g.words,
                    "used_words": -(-work.rows // g.lanes),
                    "used_groups": jobs.used_groups(work),
                    "shift": layer.mac.shift,
                    "first": int(work.row_tile == 0),
                    "final": int(final),
                    "layer_ends": int(ends),
                    "image_ends": int(ends and work.layer == len(jobs.layers) - 1),
                    "bank": work.layer & 1,
                    "first_layer": int(work.layer == 0),
                    "last_layer": int(work.layer == len(jobs.layers) - 1),
                    "layer": asdict(self.sums.numbers_of(work.layer)),
                }
            )
        m.submodules.jobs = rom = Storage(layout.size, max(2, len(rows)), table=True).memory(layout, rows)
        port = rom.read_port(domain="sync")
        m.d.comb += [port.addr.eq(job), port.en.eq(1)]
        return register(m, port.data, name="now")
