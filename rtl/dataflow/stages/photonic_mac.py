"""The digital twin of a photonic array: what its tiles make of the light, noise and converter included, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors, matrix_foldings
from bittrue.rtl.dataflow.products import Products, fold_rows
from bittrue.rtl.dataflow.stage import Structure, advance, counting, realises, register, shape_of, valid_chain
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.noise import NoisePipe
from bittrue.rtl.parts.requantize import RequantizePipe, channel_constants, store_constants
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, bounds, constant
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.requantize import Requantize


class Rails(Products):
    """The same for two rails side by side, plus and minus of an input after each other: `plus q + minus (Q - q)`.

    An input reaches one rail as far as it leaves the other, so that their sum is at most Q times the more open of both.

    ends  of each rail the lowest and the highest that each cell can be, int64 `[N, K]`
    """

    def __init__(self, ends: Sequence[tuple[np.ndarray, ...]], fmt: Format, simd: int, pe: int):
        self.steps = ends[0][0].shape[1] // simd
        (a, b), (c, d) = ([fold_rows(end, simd, pe) * fmt.high for end in rail] for rail in ends)
        each = np.stack([b, d], axis=3).reshape(len(b), pe, 2 * simd)
        self.levels = []
        self.level(np.zeros_like(each), each)
        self.grow(np.minimum(a, c), np.maximum(b, d))


@realises(PhotonicMac)
class PhotonicMacStage(FoldedStage):
    """ADC codes of the tiles, `[tiles, N]` for every vector of K inputs, tile by tile.

    The sums of a tile count the difference of the two rails (`weight = plus - minus`); the light of the dark inputs is
    a constant of each output. Without noise it joins the offset of the converter in one adder; with noise the light
    itself goes through `rtl.parts.noise` first. `simd` inputs times `pe` outputs a cycle; `simd` divides the rows of a
    tile. The weights of the rows that the last tile lacks are 0: what the memory holds there is harmless.

    Where cells are held, both rails are memories and both are multiplied: plus with q, minus with Q - q; one that is
    always dark is left out. Of the rows that the last tile lacks nothing is multiplied, whatever the memories hold.

    Latency     K / lanes + rows / simd - 1 + depth cycles; depth = address 1, memory 1, operand registers
                1 to 3, product 1, log2(simd) adders, one more for two rails, accumulator (when folded) 1, pedestal
                and noise (`rtl.parts.noise.NoisePipe.cycles`), converter, output FIFO 1
    Throughput  one vector every max(K / lanes, tiles * (N / pe) * (rows / simd)) cycles, no bubble
    """

    told_lanes = False

    def __init__(self, operation: PhotonicMac, *, lanes: int, simd: int, pe: int, block_luts: int | None = None):
        self.block_luts = self.block_luts if block_luts is None else block_luts
        outputs, rows = len(operation.plus), self.rows_of(operation)
        check_folding("photonic_mac", simd=(simd, rows), pe=(pe, outputs), lanes=(lanes, operation.input.channels))
        if simd % lanes:
            raise BittrueError(f"photonic_mac: {lanes} input lanes do not divide simd = {simd}")
        self.tiles, self.groups = operation.tiles, outputs // pe
        self.operation, self.pe = operation, pe
        fmt, offset = operation.input.format, operation.offset
        wire = fmt == Format(1, signed=False)
        if operation.rails:
            #: The rails that are multiplied, and whether each has the codes of the dark inputs.
            rails = ((operation.plus, False), (operation.minus, True))
            self.rails = [(rail, dark) for rail, dark in rails if not constant(rail, 0)]
            ends = [tuple(self.tall(end) for end in bounds(rail)) for rail, _ in self.rails]
            products = Rails(ends, fmt, simd, pe) if len(ends) > 1 else Products(ends[0], fmt, simd, pe)
            cells = [
                Cells(rail, operation.cells, simd, pe, index=self.index)
                if isinstance(rail, Held)
                else Cells(self.tall(rail), operation.cells, simd, pe, wire=wire)
                for rail, _ in self.rails
            ]
        else:
            self.rails, tall = [], self.tall(operation.weight)
            products = Products(tall, fmt, simd, pe)
            cells = [Cells(tall, operation.weight_format, simd, pe, wire=wire)]
        self.lay_out(operation, products, simd, pe, cells)
        low, high = self.light = tuple(end.reshape(-1) for end in operation.ends)
        #: The light of dark inputs, where it is added by itself.
        self.pedestal: np.ndarray | None = None
        arrival = self.front_depth
        if not operation.rails and (operation.noise is not None or isinstance(offset, Held)):
            self.pedestal = operation.pedestal.reshape(-1)
            arrival += 1
        elif not operation.rails:
            low, high = (end - operation.pedestal.reshape(-1) for end in self.light)
        self.noise = None
        if operation.noise is not None:
            highest = operation.light.high
            places = operation.input.tokens * operation.tiles
            self.noise = NoisePipe(operation.noise, highest, places=places, outputs=outputs, lanes=pe, arrival=arrival)
            low, high, arrival = np.zeros_like(low), np.full_like(high, self.noise.result.high), self.noise.cycles
        if isinstance(offset, Held):
            shown = Held(offset.name, low.shape, -offset.high, -offset.low)
        else:
            dark = 0 if operation.rails or self.pedestal is not None else operation.pedestal
            shown = (dark - offset).reshape(-1)
        convert = Requantize(
            len(low), np.array(operation.shift), bias_acc=shown, format=Format(operation.bits, signed=False)
        )
        self.convert = RequantizePipe(convert, low, high, pe)
        for step in self.convert.tables:
            index = np.arange(offset.size).reshape(-1, pe)
            self.convert.tables[step] = Table(offset, index, negated=True)
        depth = arrival + self.convert.cycles + 1
        self.timing = Blocks(
            beats_in=operation.input.channels // lanes,
            beats_out=self.tiles * self.groups,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, self.products.steps),
            frame=operation.input.tokens,
        )
        super().__init__(
            lanes=lanes,
            output=(operation.output.format, pe),
            tables=self.convert.tables,
            arrival=arrival,
        )

    # -- tiles -----------------------------------------------------------------------------------------
    def tall(self, cells: np.ndarray) -> np.ndarray:
        """A matrix `[N, C]` tile below tile, `[tiles N, rows]`; 0 in the rows that the last tile lacks."""
        op, outputs = self.operation, len(cells)
        made = np.zeros((op.tiles * outputs, self.rows_of(op)), np.int64)
        for k, part in op.parts():
            made[k * outputs : (k + 1) * outputs, : part.stop - part.start] = cells[:, part]
        return made

    @property
    def index(self) -> np.ndarray:
        """Which entry (flat) of `[N, C]` lies where in that; the last of an output where there is none."""
        op, outputs = self.operation, len(self.operation.plus)
        row = np.arange(op.tiles)[:, None] * op.rows + np.arange(self.rows_of(op))
        row = np.minimum(row, op.input.channels - 1)
        place = np.arange(outputs)[:, None] * op.input.channels + row[:, None]
        return place.reshape(op.tiles * outputs, -1)

    # -- folding ---------------------------------------------------------------------------------------
    @staticmethod
    def rows_of(operation: PhotonicMac) -> int:
        """Rows of a tile that light reaches."""
        return min(operation.rows, operation.input.channels)

    @classmethod
    def foldings(cls, operation: PhotonicMac) -> list[Folding]:
        """Every legal folding."""
        return matrix_foldings(cls.rows_of(operation), len(operation.plus))

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
        self.last_tile = tile_last = advance(m, tile, self.tiles - 1, output_ends & group_last)
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
        if (last := self.words - 1) > 0:
            built.count(self.groups - 1, self.tiles - 1, last, last)
        if self.noise:
            built += self.noise.structure()
        if self.pedestal is not None:
            for lane in range(self.pe):
                built.add(self.noise.count_bits if self.noise else self.light_range(lane).bits)
            lanes = [self.pedestal[lane :: self.pe] for lane in range(self.pe)]
            if stored := sum(Format.covering(mine).bits for mine in lanes if (mine != mine[0]).any()):
                store_constants(built, stored, len(self.pedestal) // self.pe)
        if self.rails and self.lacking:
            built.select_bits += len(self.rails) * self.simd * self.format.bits
        return built

    def light_range(self, lane: int) -> Range:
        """Exact range of a lane's light without noise."""
        return Range.of(*(end[lane :: self.pe] for end in self.light))

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
        issued = valid_chain(m, control.issue, self.timing.depth - 1)
        bank, row = self.follow(m, control, issued)
        sums = self.sums(m, control, bank)
        if self.pedestal is not None:
            fields = {"pedestal": self.pedestal}
            dark = channel_constants(m, "pedestal", fields, self.pe, issued[self.front_depth - 1])["pedestal"]
            shapes = [self.noise.count_bits if self.noise else shape_of(self.light_range(p)) for p in range(self.pe)]
            sums = [register(m, total + dark[p], shapes[p], name=f"light{p}") for p, total in enumerate(sums)]
        if self.noise:
            sums = self.noise.build(m, control.issue, [self.count(m, total, p) for p, total in enumerate(sums)])
        result = self.convert.build(m, sums, issued[self.arrival - 1], held=row)
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(result[p]) for p in range(self.pe)]
        return m

    def count(self, m: Module, light: Value, lane: int) -> Value:
        """The light as wide as the noise reads it."""
        if len(light) == self.noise.count_bits:
            return light
        count = Signal(self.noise.count_bits, name=f"count{lane}")
        m.d.comb += count.eq(light)
        return count

    @property
    def lacking(self) -> int:
        """Rows that the last tile lacks."""
        return self.tiles * self.rows_of(self.operation) - self.operation.input.channels

    def factors(
        self, m: Module, control: Control, codes: Sequence[Value], bank: Value | None
    ) -> tuple[list[Value], list[list[Value]]]:
        """Of two rails that are held, what is multiplied of each side by side."""
        if not self.rails:
            return super().factors(m, control, codes, bank)
        shape, lit = shape_of(self.format), self.lit(m, control)
        (held, weights), (_, addresses) = self.operand_registers, self.address_registers
        x: list[list[Value]] = []
        w: list[list[list[Value]]] = []
        for cells, (_, dark) in zip(self.cells, self.rails, strict=True):
            name = "minus" if dark else "plus"
            rail = [~Value.cast(code) if dark else Value.cast(code) for code in codes]
            reaching = [code if on is None else Mux(on, code, 0) for code, on in zip(rail, lit, strict=True)]
            x.append([register(m, code, shape, name=f"{name}_x{k}", cycles=held) for k, code in enumerate(reaching)])
            w.append(cells.build(m, name, control.word, bank, addresses, weights))
        beside = [column for columns in zip(*x, strict=True) for column in columns]
        return beside, [
            [column for columns in zip(*(rail[p] for rail in w), strict=True) for column in columns]
            for p in range(self.pe)
        ]

    def lit(self, m: Module, control: Control) -> list[Value | None]:
        """By input of a step, whether its row is there, when its codes are read; None where it always is."""
        there: dict[int, Value] = {}
        left = self.rows_of(self.operation) - self.lacking
        result: list[Value | None] = []
        for k in range(self.simd):
            steps = -(-(left - k) // self.simd)  # of the last tile, in which this input has a row
            if steps >= self.products.steps:
                result.append(None)
                continue
            if steps not in there:
                on = ~self.last_tile | (control.step < max(0, steps))
                there[steps] = register(m, on, 1, name=f"lit{k}", cycles=1 + self.address_registers[0])
            result.append(there[steps])
        return result
