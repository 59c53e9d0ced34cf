"""Several images as one: each through the matrix of its slot, all into one map of sums, requantised with the last.

A pixel of an image is multiplied as a folded matrix stage does it; its sums are added to those of the images before it,
which lie in one memory for the whole map, and leave with the last image of the group, into a FIFO. So no image's own
map is kept.
The matrices of an image that fills several slots are added beforehand. They come from a memory, or, where each is that
of a circular convolution, from a register of D codes that turns (`rotating`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import Control
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.folding import check_folding
from bittrue.rtl.dataflow.groups import GroupStage
from bittrue.rtl.dataflow.plumbing import Fifo
from bittrue.rtl.dataflow.products import Products, fold_rows
from bittrue.rtl.dataflow.stage import (
    Storage,
    Structure,
    advance,
    counting,
    counting_bits,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Blocks, Phase, Phases, Timing, enough_credits
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.bundle import Bundle


@dataclass(frozen=True, eq=False)
class Stacked:
    """The matrices of all images in all modes, below each other, as one that the folded front multiplies."""

    weight: np.ndarray
    weight_format: Format
    input: TensorType
    stem: str = "bundle"


@realises(Bundle)
class BundleStage(GroupStage, FoldedStage):
    """`z[..., j] = requantize(sum_s sum_i weight[s, j, i] x_{s mod n}[..., i])`: n frames to one.

    Latency     n - 1 frames, and D / lanes + D / simd - 1 + depth cycles to the first output beat; depth = address 1,
                memory 1, operand registers 1 to 3, product 1, log2(simd) adders, accumulator (when folded) 1, sum over
                the images 1 (unless n is 1), requantiser, output FIFO 1
    Throughput  a pixel of an image every max(D / lanes, (outputs / pe) * (D / simd)) cycles, whatever n is, no bubble
    """

    def __init__(self, operation: Bundle, *, lanes: int, simd: int, pe: int, block_luts: int | None = None):
        self.block_luts = self.block_luts if block_luts is None else block_luts
        self.bundle = operation
        self.tell(operation.modes, operation.held != {})
        _, outputs, inputs = operation.weight.shape
        check_folding("bundle", simd=(simd, inputs), pe=(pe, outputs), lanes=(lanes, inputs))
        if simd % lanes:
            raise BittrueError(f"bundle: {lanes} input lanes do not divide simd = {simd}")
        matrices = np.concatenate([operation.summed(n) for n in self.modes])
        stacked = Stacked(matrices.reshape(-1, inputs), operation.summed_format, operation.input)
        products = Products(stacked.weight, operation.input.format, simd, pe)
        self.groups = outputs // pe
        self.lay_out(stacked, products, simd, pe, self.keys_of(matrices, stacked, simd, pe))
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, pe)
        self.pixels = operation.input.tokens
        self.turns_of_map = self.pixels * self.groups
        total = Range.of(*operation.sums)
        self.total = total | Range(0, 0)
        #: A map of sums that is read early enough to lie in a memory with a clocked port.
        spaced = self.turns_of_map * products.steps >= 4
        self.map = Storage(pe * self.total.bits, self.turns_of_map, clocked=spaced) if self.adds else None
        depth = self.front_depth + self.adds + self.requantize.cycles + 1
        self.timing = Bundled(
            beats_in=inputs // lanes,
            beats_out=self.groups,
            steps=products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, products.steps),
            images=max(self.modes),
            pixels=self.pixels,
        )
        super().__init__(lanes=lanes, output=(operation.output.format, pe), tables=None, arrival=self.front_depth)

    def keys_of(self, matrices: np.ndarray, stacked: Stacked, simd: int, pe: int) -> Sequence[Cells]:  # noqa: ARG002
        """What the weights come from: here rows of every matrix, each matrix from a power of two on."""
        return [Matrices(matrices, stacked.weight_format, simd, pe, block_luts=self.block_luts)]

    @property
    def behind(self) -> Fifo | None:
        """Room for a whole bundle where several images make one: else the next group would wait at its first image
        until what follows has worked through the map, at its own pace."""
        if not self.adds:
            return None
        return Fifo(self.bundle.output.format, self.pe, max(2, self.turns_of_map), self.turns_of_map)

    def timed(self, modes: Sequence[int]) -> Timing:
        t = self.timing
        phases = tuple(phase for n in modes for phase in replace(t, images=n).phases)
        return Phases(phases, t.rooms, t.depth, t.credits)

    @property
    def adds(self) -> bool:
        """Whether there may be images before, whose sums are added."""
        return max(self.modes) > 1

    # -- cost ------------------------------------------------------------------------------------------
    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        built.count(self.pixels - 1, max(self.modes) - 1)
        if self.map is not None:
            late, place = self.map.clocked, counting_bits(self.turns_of_map)
            built.store(self.map)
            built.count(self.turns_of_map - 1)
            built.registers += 2 * self.front_depth + late  # that there are sums, and the first
            built.registers += late * (3 * place + self.pe * self.total.bits)
            for _ in range(self.pe):
                built.add(self.total.bits)
                built.select_bits += self.total.bits
        return built

    def effort(self, **seen: float) -> Effort:
        """For a frame that comes in: a product and an addition each, and its sums in and out of the map; `images` of
        a group, by default the most, share its requantiser."""
        op, effort = self.bundle, Effort()
        _, outputs, inputs = op.weight.shape
        bits, cells = op.input.format.bits, op.summed_format.bits
        effort.multiply(bits, cells, op.macs)
        effort.add(width(*op.sums), op.macs)
        effort.access("weights", self.weights.bits, op.macs * cells)
        effort.access("values", self.vectors.bits, self.pixels * inputs * bits * self.groups, op.input.size * bits)
        if self.map is not None:
            moved = self.pixels * outputs * self.total.bits
            effort.access("state", self.map.bits, moved, moved)
            effort.add(self.total.bits, self.pixels * outputs)
        effort.requantize(self.requantize, self.pixels / seen.get("images", max(self.modes)))
        return effort

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        pixel, image = Signal(counting(self.pixels)), Signal(counting(max(self.modes)))
        first, last = Signal(name="first_image"), Signal(name="last_image")
        control = self.control(m, outlet, self.known, last)
        m.d.comb += [first.eq(image == 0), last.eq(image == self.told - 1)]
        pixel_last = advance(m, pixel, self.pixels - 1, control.release)
        frame_ends = Signal(name="frame_ends")
        m.d.comb += frame_ends.eq(control.release & pixel_last)
        if self.adds:
            with m.If(frame_ends):
                m.d.sync += image.eq(Mux(last, 0, image + 1))
        if self.size is not None:
            m.d.comb += self.size.ready.eq(frame_ends & last)
        bits = (sum(self.modes) - 1).bit_length()
        self.key = Signal(bits, name="key") if bits else Const(0, 0)
        before = {n: sum(k for k in self.modes if k < n) for n in self.modes}
        if len(self.key):
            m.d.comb += self.key.eq(self.of_group(before) + image)
        self.turn = Signal(name="turn")  # the first step of an image
        m.d.comb += self.turn.eq((pixel == 0) & (control.word == 0))

        at = self.front_depth
        issued = valid_chain(m, control.issue, self.timing.depth - 1)
        sums = self.sums(m, control)
        if self.map is not None:
            done = valid_chain(m, control.complete, at + self.map.clocked)
            sums = self.with_those_before(m, sums, done, register(m, first, name="first_then", cycles=at))
        result = self.requantize.build(m, list(sums), issued[at + self.adds - 1])
        m.d.comb += outlet.push.eq(issued[self.timing.depth - 1])
        m.d.comb += [outlet.payload[p].eq(code) for p, code in enumerate(result)]
        return m

    def with_those_before(self, m: Module, sums: Sequence[Value], done: Sequence[Value], first: Value) -> list[Value]:
        """Sums over the images so far, a cycle later, kept in the map."""
        assert self.map is not None
        layout = data.ArrayLayout(shape_of(self.total), self.pe)
        m.submodules.map = memory = self.map.memory(layout, apart=self.map.clocked)
        write, read = memory.write_port(), memory.read_port(domain="sync" if self.map.clocked else "comb")
        at, place = self.front_depth, Signal(counting(self.turns_of_map), name="place")
        if self.map.clocked:
            # The word is read two cycles before its sums are there, and written two cycles after.
            advance(m, place, self.turns_of_map - 1, done[at - 2])
            where = register(m, place, name="where", cycles=3)
            m.d.comb += [read.addr.eq(place), read.en.eq(1), write.addr.eq(where), write.en.eq(done[at + 1])]
            before = register(m, read.data, layout, name="before")
        else:
            advance(m, place, self.turns_of_map - 1, done[at])
            m.d.comb += [read.addr.eq(place), write.addr.eq(place), write.en.eq(done[at])]
            before = read.data
        totals = []
        for p, own in enumerate(sums):
            total = Signal(shape_of(self.total), name=f"all{p}")
            m.d.comb += total.eq(own + Mux(first, 0, before[p]))
            totals.append(register(m, total, name=f"all{p}_then"))
            m.d.comb += write.data[p].eq(totals[p] if self.map.clocked else total)
        return totals

    def row_of(self, m: Module, control: Control, bank: Value | None) -> list[list[Value]]:
        (_, weights), (_, addresses) = self.operand_registers, self.address_registers
        rows = (self.groups * self.products.steps - 1).bit_length()
        row = Cat(control.word[: rows if len(self.key) else max(1, rows)], self.key)
        return self.cells[0].build(m, "weights", row, bank, addresses, weights)


class Matrices(Cells):
    """The memory of several matrices `[matrices, outputs, inputs]`, the rows of each from a power of two on."""

    def folded(self, weight: np.ndarray) -> np.ndarray:
        each = np.stack([fold_rows(matrix, self.simd, self.pe) for matrix in weight])
        spare = (1 << (each.shape[1] - 1).bit_length()) - each.shape[1]
        return np.pad(each, ((0, 0), (0, spare), (0, 0), (0, 0))).reshape(-1, self.pe, self.simd)


@dataclass(frozen=True)
class Bundled(Blocks):
    """Blocks of pixels of which only those of the last of `images` frames give anything out."""

    images: int = 1
    pixels: int = 1

    @property
    def phases(self) -> tuple[Phase, ...]:  # type: ignore[override]
        whole = (self.beats_in,)
        silent = Phase(whole, whole, self.beats_out * self.steps, emits=0, times=(self.images - 1) * self.pixels)
        gives = super().phases
        return (*((silent,) if silent.times else ()), *gives * self.pixels)

    @property
    def interval(self) -> int:
        """Cycles between groups."""
        return self.images * self.pixels * super().period

    @property
    def supply(self) -> tuple[int, ...]:
        """Beats of a frame that comes in."""
        return (self.pixels * self.beats_in,)


class Keys:
    """A register of a key's D codes that turns: `weight[j, i] = k[(j - i) mod D]` needs each code once.

    With every step all codes move on by `simd` places, and at the end of an output beat back by `pe`; with an image's
    first step its key comes from a memory, a row a key.
    """

    table, wired, beside_bits, beside = None, False, 0, None

    def __init__(self, keys: np.ndarray, fmt: Format, simd: int, pe: int):
        self.keys, self.format, self.simd, self.pe = keys, fmt, simd, pe
        self.storage = Storage(fmt.bits * keys.shape[1], len(keys), table=True, worth=1 << 30)

    def structure(self, addresses: int, registers: int) -> Structure:
        """Key, what turns it, and registers of what is taken of it."""
        built, bits = Structure(), self.storage.width
        built.store(self.storage)
        built.registers += bits + registers * self.simd * self.pe * self.format.bits
        built.registers += addresses * (len(self.keys) - 1).bit_length()
        built.registers += 3 * (addresses + 1)  # that it turns, that a beat ends, that an image begins
        built.select_bits += bits * (2 if self.pe < self.keys.shape[1] else 1)
        return built


@realises(Bundle, "rotating")
class RotatingBundleStage(BundleStage):
    """The same where every matrix is that of a circular convolution: a key of D codes turns in a register.

    Latency, Throughput  as of the other
    """

    @classmethod
    def refusal(cls, operation: Bundle) -> str | None:
        return None if operation.circulant else "its matrices are not those of circular convolutions"

    @classmethod
    def preferred(cls, operation: Bundle, interval: int) -> bool:  # noqa: ARG003
        return operation.circulant

    def keys_of(self, matrices: np.ndarray, stacked: Stacked, simd: int, pe: int) -> Sequence[Cells]:
        return [Keys(matrices[:, :, 0], stacked.weight_format, simd, pe)]  # type: ignore[list-item]

    def row_of(self, m: Module, control: Control, bank: Value | None) -> list[list[Value]]:  # noqa: ARG002
        (_, weights), (_, addresses) = self.operand_registers, self.address_registers
        cells = self.cells[0]
        size, code = cells.keys.shape[1], shape_of(cells.format)
        m.submodules.keys = memory = Rom(cells.storage, code, cells.keys)
        if len(self.key):
            m.d.comb += memory.addr.eq(register(m, self.key, name="key_then", cycles=addresses))
        moved = valid_chain(m, control.advance, addresses + 1)[-1]
        ends, turn = (
            register(m, value, name=name, cycles=addresses + 1)
            for name, value in (("beat_ends", control.step == self.products.steps - 1), ("turn_then", self.turn))
        )
        key = [Signal(code, name=f"key{j}", reset_less=True) for j in range(size)]
        now = [Signal(code, name=f"now{j}") for j in range(size)]
        for j in range(size):
            m.d.comb += now[j].eq(Mux(turn, memory.data[j], key[j]))
        with m.If(moved):
            for j in range(size):
                onward, back = now[(j - self.simd) % size], now[(j + self.pe - self.simd) % size]
                m.d.sync += key[j].eq(onward if self.pe == size else Mux(ends, back, onward))
        return [
            [register(m, now[(p - k) % size], code, name=f"w{p}_{k}", cycles=weights) for k in range(self.simd)]
            for p in range(self.pe)
        ]
