"""The noise of the array's digital twin: that of whichever layer is on the array, a column in each cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import counting, shape_of, valid_chain
from bittrue.rtl.light.jobs import Job, Jobs
from bittrue.rtl.light.ports import INDEX_BITS
from bittrue.rtl.parts.noise import GAUSSIAN, WORD, NoiseLanes, Numbers
from bittrue.sim.contract import Format
from bittrue.sim.noise import ROUNDS, Noise

#: Adds nothing to a count.
SILENT = Noise(0, 0, shift=0)


class TwinNoise(wiring.Component):
    """The counts of a measurement with their noise, a column a cycle, bit for bit `sim.noise.Noise.added`.

    arrival   cycles from `issue` to the counts

    start     strobe: `job` and `image` are those of the measurement that begins
    common    strobe, 2 cycles after `start` at the earliest: its g0 is drawn
    issue     strobe, after `common`: the words of the next column are drawn; columns come in order
    count     of that column, `arrival` cycles later
    y         the same with its noise, `cycles` after `issue`; in a layer without noise, the count

    One cipher draws g0 as well as what is each column's. Round keys and factors are registers that follow the layer.
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, jobs: Jobs, arrival: int):
        self.jobs = jobs
        self.noises = [layer.mac.noise or SILENT for layer in jobs.layers]
        highest = [layer.mac.light.high for layer in jobs.layers]
        self.sums = NoiseLanes(list(zip(self.noises, highest, strict=True)), arrival)
        #: A measurement moves its site on by one for each column of the array.
        self.sites = 1 + max(self.first_site(job) + jobs.geometry.columns for job in jobs.work)
        super().__init__(
            {
                "start": In(1),
                "job": In(counting(len(jobs.work))),
                "image": In(INDEX_BITS),
                "common": In(1),
                "issue": In(1),
                "count": In(self.sums.count_bits),
                "y": Out(shape_of(self.sums.result)),
            }
        )

    @property
    def cycles(self) -> int:
        return self.sums.cycles

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        sums = self.sums
        layer, site, common = self.place(m)
        numbers, image = self.numbers(m, layer)
        with m.If(self.issue):
            m.d.sync += site.eq(site + 1)
        words = sums.cipher(m, "cipher", numbers.keys, image, Mux(self.common, common, site))
        # g0 is drawn in the cycle before the first column at the latest, and stays until the next measurement's.
        g0 = Signal(shape_of(GAUSSIAN))
        drawn = sums.gaussian(m, words[0], "drawn")
        with m.If(valid_chain(m, self.common, sums.WORDS)[-1]):
            m.d.sync += g0.eq(drawn)
        (noisy,) = sums.add(m, [self.count], [words], g0, numbers)
        m.d.comb += self.y.eq(noisy)
        return m

    def first_site(self, job: Job) -> int:
        """The site of the first column of a measurement."""
        tile = job.row_tile * (self.jobs.layers[job.layer].outputs + 1)
        return tile + job.column_tile * self.jobs.geometry.columns

    def place(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """Layer of the measurement, site of its next column, site of its g0: from `start` on."""
        layer = Signal(counting(len(self.jobs.layers)))
        site, common = (Signal(counting(self.sites), name=name) for name in ("site", "common_site"))
        with m.If(self.start), m.Switch(self.job):
            for job in self.jobs.work:
                outputs = self.jobs.layers[job.layer].outputs
                last = job.row_tile * (outputs + 1) + outputs
                with m.Case(job.number):
                    m.d.sync += [layer.eq(job.layer), site.eq(self.first_site(job)), common.eq(last)]
        return layer, site, common

    def numbers(self, m: Module, layer: Signal) -> tuple[Numbers, Signal]:
        """Keys and factors of the layer, and the word of the image: 2 cycles after `start`."""
        names = ("relative", "shot", "thermal", "shift")
        rows = [{name: int(getattr(noise, name)) for name in names} for noise in self.noises]
        for row in rows:
            row["half"] = (1 << row["shift"]) >> 1
        kept = {
            name: Signal(shape_of(Format.covering(*(row[name] for row in rows))), name=name)
            for name in (*names, "half")
        }
        keys = [Signal(WORD, name=f"key{k}") for k in range(ROUNDS)]
        image, index = Signal(WORD, name="image_word"), Signal(INDEX_BITS, name="image_index")
        started = valid_chain(m, self.start, 1)[1]
        with m.If(self.start):
            m.d.sync += index.eq(self.image)
        with m.If(started), m.Switch(layer):
            for k, (noise, row) in enumerate(zip(self.noises, rows, strict=True)):
                with m.Case(k):
                    m.d.sync += image.eq(index + noise.first)
                    m.d.sync += [kept[name].eq(value) for name, value in row.items()]
                    m.d.sync += [key.eq(int(value)) for key, value in zip(keys, noise.keys, strict=True)]
        return Numbers(keys, **kept), image
