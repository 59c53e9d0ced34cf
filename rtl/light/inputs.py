"""The loader of the photonic controller: brings the inputs of the next measurement while the present one converts."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import Storage, counting, register, shape_of, valid_chain
from bittrue.rtl.light.jobs import Jobs

#: Cycles from `apply` to `loaded`, beside one for every word of the rows: with the weights as they are, and with the
#: next job of the same layer.
SAME_JOB, NEXT_JOB = 5, 7


class Loader(wiring.Component):
    """Fills the input register for every image of every job of a batch, in the order in which they are measured.

    Inputs of the first layer come from the image buffer; those of the others are activations, which two banks keep for
    all images of a batch: one is read while the results of the layer at hand go into the other.

    begin, size       a batch of `size` images begins; `size` holds from the next cycle on
    measuring         the job that is being measured: a layer is loaded once the one before is complete
    loaded            `input_data` holds the codes of the next measurement
    apply             strobe: they are in use from the next cycle on, in which `input_data` still holds
    image, address    word of an image of the batch to be read (`rtl.light.buffers.ImageBuffer`): `word`
    write             a beat of activations: of image `result_image`, number `group` of its layer, into bank `bank`
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, images: int):
        self.jobs, self.images = jobs, images
        g = jobs.geometry
        self.hidden = max((layer.groups for layer in jobs.layers[:-1]), default=0)
        self.layout = data.ArrayLayout(shape_of(jobs.codes), g.lanes)
        words = max(jobs.input.channels // g.lanes, *(layer.groups for layer in jobs.layers))
        super().__init__(
            {
                "begin": In(1),
                "size": In(range(images + 1)),
                "measuring": In(counting(len(jobs.work))),
                "loaded": Out(1),
                "apply": In(1),
                "input_data": Out(data.ArrayLayout(shape_of(jobs.codes), g.rows)),
                "image": Out(counting(images)),
                "address": Out(range(words + g.words)),
                "word": In(self.layout),
                "write": In(1),
                "result_image": In(counting(images)),
                "group": In(counting(max(layer.groups for layer in jobs.layers))),
                "bank": In(1),
                "codes": In(self.layout),
            }
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        jobs, g = self.jobs, self.jobs.geometry
        job, image = Signal(counting(len(jobs.work)), name="job"), Signal(counting(self.images), name="image_at")
        word, loading = Signal(counting(g.words)), Signal()
        now = self.numbers(m, job)
        m.d.comb += self.image.eq(image)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.begin):
                    m.next = "LOOK 1"
            with m.State("LOOK 1"):  # the numbers of a job follow its number two cycles later
                m.next = "LOOK 2"
            with m.State("LOOK 2"):
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(~now.waits | (self.measuring == job)):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += loading.eq(1)
                m.d.sync += word.eq(word + 1)
                with m.If(word == g.words - 1):
                    m.d.sync += word.eq(0)
                    m.next = "LOADED 1"
            with m.State("LOADED 1"):  # the last word needs three cycles to reach the input register
                m.next = "LOADED 2"
            with m.State("LOADED 2"):
                m.next = "LOADED 3"
            with m.State("LOADED 3"):
                m.next = "LOADED"
            with m.State("LOADED"):
                m.d.comb += self.loaded.eq(1)
                with m.If(self.apply):
                    m.d.sync += image.eq(image + 1)
                    m.next = "WAIT"
                    with m.If(image + 1 == self.size):
                        m.d.sync += [image.eq(0), job.eq(job + 1)]
                        m.next = "LOOK 1"
                        with m.If(job == len(jobs.work) - 1):
                            m.d.sync += job.eq(0)
                            m.next = "IDLE"
        m.d.comb += self.address.eq(now.top + word)
        loaded = register(m, self.word.as_value(), name="image_word")  # of block RAM, which is slow
        if self.hidden:
            activation = register(m, self.activations(m, now.reads), name="activation_word")
            loaded = Mux(now.first_layer, loaded, activation)
        inside = register(m, word < now.used_words, name="inside", cycles=3)
        shifting = valid_chain(m, loading, 3)[3]
        held = register(m, loaded, self.layout.size, name="held")
        codes = Signal(self.input_data.shape().size)
        with m.If(shifting):
            m.d.sync += codes.eq(Cat(codes, Mux(inside, held, 0)) >> self.layout.size)
        m.d.comb += self.input_data.as_value().eq(codes)
        return m

    def activations(self, m: Module, reads: Signal):
        """The word at `address` of what the layer before made of the image, from bank `reads`; a cycle later."""
        group_bits, image_bits = (self.hidden - 1).bit_length(), (self.images - 1).bit_length()
        storage = Storage(self.layout.size, 2 << (group_bits + image_bits))
        # A layer reads one bank when it is whole, and its results go to the other.
        m.submodules.activations = memory = storage.memory(self.layout, apart=True)
        read, write = memory.read_port(domain="sync"), memory.write_port()
        m.d.comb += [
            read.addr.eq(Cat(self.address[:group_bits], self.image[:image_bits], reads)),
            read.en.eq(1),
            write.addr.eq(Cat(self.group[:group_bits], self.result_image[:image_bits], self.bank)),
            write.data.eq(self.codes),
            write.en.eq(self.write),
        ]
        return read.data.as_value()

    def numbers(self, m: Module, job: Signal) -> data.View:
        """What loading a job needs, from a table; it follows the job's number two cycles later.

        top          word of the layer's input where its rows start; `used_words` of them are used
        reads        bank of activations that the layer reads
        first_layer  it reads the image instead
        waits        the first job of another layer: the one before has to be complete
        """
        jobs, g = self.jobs, self.jobs.geometry
        most = max(layer.mac.tiles for layer in jobs.layers) * g.words
        layout = data.StructLayout(
            {"top": counting(most), "used_words": range(g.words + 1), "reads": 1, "first_layer": 1, "waits": 1}
        )
        rows = [
            {
                "top": work.row_tile * g.words,
                "used_words": -(-work.rows // g.lanes),
                "reads": ~work.layer & 1,
                "first_layer": int(work.layer == 0),
                "waits": int(work.layer > 0 and work.row_tile == work.column_tile == 0),
            }
            for work in jobs.work
        ]
        m.submodules.jobs = rom = Storage(layout.size, max(2, len(rows)), table=True).memory(layout, rows)
        port = rom.read_port(domain="sync")
        m.d.comb += [port.addr.eq(job), port.en.eq(1)]
        return register(m, port.data, name="now")
