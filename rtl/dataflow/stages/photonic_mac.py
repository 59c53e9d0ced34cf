"""The digital twin of a photonic array: what its tiles make of the light, noise and converter included, to the bit."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folded import FoldedStage, Products
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors, matrix_foldings
from bittrue.rtl.dataflow.stage import Structure, advance, counting, realises, register, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.noise import NoisePipe
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.requantize import Requantize


@realises(PhotonicMac)
class PhotonicMacStage(FoldedStage):
    """ADC codes of the tiles, `[tiles, N]` for every vector of K inputs, tile by tile.

    The sums of a tile count the difference of the two rails (`weight = plus - minus`); the light of the dark inputs is
    a constant of each output. Without noise it joins the offset of the converter in one adder; with noise the light
    itself goes through `rtl.parts.noise` first. `simd` inputs times `pe` outputs a cycle; `simd` divides the rows of a
    tile. The weights of the rows that the last tile lacks are 0: what the memory holds there is harmless.

    Latency     K / lanes + rows / simd - 1 + depth cycles; depth = memory 1, operand register 1, product 1, log2(simd)
                adders, accumulator (when folded) 1, pedestal and noise (`rtl.parts.noise.NoisePipe.cycles`), converter,
                output FIFO 1
    Throughput  one vector every max(K / lanes, tiles * (N / pe) * (rows / simd)) cycles, no bubble
    """

    def __init__(self, operation: PhotonicMac, *, lanes: int, simd: int, pe: int):
        outputs, rows = len(operation.plus), self.rows_of(operation)
        check_folding("photonic_mac", simd=(simd, rows), pe=(pe, outputs), lanes=(lanes, operation.input.channels))
        if simd % lanes:
            raise BittrueError(f"photonic_mac: {lanes} input lanes do not divide simd = {simd}")
        tall = np.zeros((operation.tiles * outputs, rows), np.int64)
        for k, part in operation.parts():
            tall[k * outputs : (k + 1) * outputs, : part.stop - part.start] = operation.weight[:, part]
        self.products = Products(tall, operation.input.format, simd, pe)
        self.pedestal, offset = operation.pedestal.reshape(-1), operation.offset.reshape(-1)
        full = operation.input.format.high
        low, high = np.minimum(tall, 0).sum(1) * full, np.maximum(tall, 0).sum(1) * full
        self.tiles, self.groups = operation.tiles, outputs // pe
        self.operation, self.pe = operation, pe
        self.noise = None
        if operation.noise is not None:
            highest = operation.light.high
            places = operation.input.tokens * operation.tiles
            arrival = self.front_depth + 1
            self.noise = NoisePipe(operation.noise, highest, places=places, outputs=outputs, lanes=pe, arrival=arrival)
            low, high = np.zeros_like(low), np.full_like(high, self.noise.result.high)
        shown = -offset if self.noise else self.pedestal - offset
        convert = Requantize(
            len(tall), np.array(operation.shift), bias_acc=shown, format=Format(operation.bits, signed=False)
        )
        self.convert = RequantizePipe(convert, low, high, pe)
        self.arrival = self.noise.cycles if self.noise else self.front_depth
        depth = self.arrival + self.convert.cycles + 1
        self.timing = Blocks(
            beats_in=operation.input.channels // lanes,
            beats_out=self.tiles * self.groups,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, self.products.steps),
            frame=operation.input.tokens,
        )
        super().__init__(operation, lanes=lanes, simd=simd, pe=pe, output=(operation.output.format, pe))

    # -- folding ---------------------------------------------------------------------------------------
    @staticmethod
    def rows_of(operation: PhotonicMac) -> int:
        """Rows of a tile that light reaches."""
        return min(operation.rows, operation.input.channels)

    @classmethod
    def foldings(cls, operation: PhotonicMac) -> list[Folding]:
        """Every legal folding."""
        return list(matrix_foldings(cls.rows_of(operation), len(operation.plus)))

    @classmethod
    def cycles(cls, operation: PhotonicMac, folding: Folding) -> int:
        """Cycles that a vector takes to be worked through."""
        return operation.tiles * (len(operation.plus) // folding.pe) * (cls.rows_of(operation) // folding.simd)

    @classmethod
    def intervals(cls, operation: PhotonicMac) -> set[int]:
        """The intervals that its foldings give."""
        return {operation.input.tokens * cls.cycles(operation, folding) for folding in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation: PhotonicMac, interval: int, name: str) -> Folding:
        """The folding with the fewest products that works a frame off within `interval` cycles.

        One that a fast enough input stream can feed without a converter is preferred.
        """
        vectors, inputs = operation.input.tokens, operation.input.channels
        budget = interval // vectors
        lanes = next((n for n in divisors(inputs) if inputs // n <= budget), inputs)
        fitting = [
            ((f.simd % lanes != 0, f.simd * f.pe, f.pe, f.simd), f)
            for f in cls.foldings(operation)
            if cls.cycles(operation, f) <= budget
        ]
        if not fitting:
            least = vectors * operation.tiles
            raise BittrueError(
                f"{name}: {vectors} tokens on {operation.tiles} tiles need at least {least} cycles a frame, "
                f"so an interval of {interval} cannot be reached"
            )
        return min(fitting, key=lambda pair: pair[0])[1]

    # -- hardware --------------------------------------------------------------------------------------
    @cached_property
    def words(self) -> int:
        return self.tiles * self.products.steps

    def word_at(self, m: Module, control: Control) -> Value:
        """Through the words of a tile for every group of its outputs, then on to the next tile."""
        steps = self.products.steps
        group, tile = Signal(counting(self.groups), name="tile_group"), Signal(counting(self.tiles), name="tile")
        word, start = Signal(counting(self.words), name="tile_word"), Signal(counting(self.words), name="tile_start")
        output_ends = Signal(name="tile_output_ends")
        m.d.comb += output_ends.eq(control.advance & (control.step == steps - 1))
        group_last = advance(m, group, self.groups - 1, output_ends)
        tile_last = advance(m, tile, self.tiles - 1, output_ends & group_last)
        following = Signal.like(word, name="tile_following")
        m.d.comb += following.eq(Mux(tile_last, 0, word + 1))
        with m.If(control.advance):
            m.d.sync += word.eq(word + 1)
        with m.If(output_ends):
            m.d.sync += word.eq(Mux(group_last, following, start))
            with m.If(group_last):
                m.d.sync += start.eq(following)
        return word

    def structure(self) -> Structure:
        built = super().structure() + self.convert.structure()
        last = self.words - 1
        built.count(self.groups - 1, self.tiles - 1, last, last)
        if self.noise:
            built += self.noise.structure()
            for _ in range(self.pe):
                built.add(self.noise.count_bits)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Refused: the array stands for light."""
        raise BittrueError(
            "energy: a program does not say what an array of light and its converters cost; "
            "the report of a photonic flow estimates it from the recipe (see `bittrue flow --help`)"
        )

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        sums = self.sums(m, control)
        issued = valid_chain(m, control.issue, self.timing.depth - 1)
        if self.noise:
            fields = {"pedestal": self.pedestal}
            dark = channel_constants(m, "pedestal", fields, self.pe, issued[self.front_depth - 1])["pedestal"]
            bits = self.noise.count_bits
            light = [register(m, total + dark[p], bits, name=f"light{p}") for p, total in enumerate(sums)]
            sums = self.noise.build(m, control.issue, light)
        result = self.convert.build(m, sums, issued[self.arrival - 1])
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(result[p]) for p in range(self.pe)]
        return m
