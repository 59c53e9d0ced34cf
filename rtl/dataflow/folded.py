"""The front of every folded matrix stage: buffered vectors, weight memory, products, adder trees, running sums."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import BufferedStage, Control
from bittrue.rtl.dataflow.folding import (
    Folding,
    check_folding,
    divisors,
    fold_matrix,
    matrix_foldings,
)
from bittrue.rtl.dataflow.stage import (
    Storage,
    Structure,
    counting,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, bounds, content


def fold_rows(weight: np.ndarray, simd: int, pe: int) -> np.ndarray:
    """A matrix `[N, K]` as rows of the weight memory, `[(N / pe) (K / simd), pe, simd]`."""
    outputs, inputs = weight.shape
    return weight.reshape(outputs // pe, pe, inputs // simd, simd).transpose(0, 2, 1, 3).reshape(-1, pe, simd)


class Products:
    """Exact ranges of the products, of every node of the adder tree and of the running sums, per output lane.

    `weight[address, pe, simd]` is the content of the weight memory, at first where the weights are held; `level[0]` are
    the products, the last level the sum of one step, `sums` the accumulator over the steps of an output.
    """

    def __init__(self, weight: Parameter, fmt: Format, simd: int, pe: int):
        self.weight = fold_rows(content(weight), simd, pe)
        self.steps = weight.shape[1] // simd
        corners = [fold_rows(end, simd, pe) * x for end in bounds(weight) for x in (fmt.low, fmt.high)]
        if not isinstance(weight, Held):
            corners = corners[:2]
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
        self.levels: list[list[list[Range]]] = []
        while True:
            self.levels.append(
                [[Range.of(low[:, p, k], high[:, p, k]) for k in range(low.shape[2])] for p in range(pe)]
            )
            if low.shape[2] == 1:
                break
            pairs = range(0, low.shape[2], 2)
            low, high = (np.stack([v[:, :, k : k + 2].sum(2) for k in pairs], axis=2) for v in (low, high))
        running = (v[:, :, 0].reshape(-1, self.steps, pe).cumsum(1) for v in (low, high))
        low, high = running
        self.sums = [Range.of(low[:, :, p], high[:, :, p]) for p in range(pe)]

    @property
    def tree_depth(self) -> int:
        return len(self.levels) - 1


class FoldedStage(BufferedStage):
    """A matrix product `sum_k weight[n, k] x[k]`, folded: `simd` inputs times `pe` outputs a cycle.

    What is common to the stages that multiply a vector with stored weights; a subclass sets `timing`, calls `__init__`
    and turns the sums into output. A vector of K codes takes K / lanes cycles to come in and (N / pe) * (K / simd) to
    be worked through; both happen at once, in two blocks. Codes of one unsigned bit choose weights, so that no
    multiplier is used for them. A stage whose outputs see parts of the vector only says which word of the vector a
    step reads (`words`, `word_at`).
    """

    #: The depth of `sums`: memory, operand register, product register (the adder tree and the accumulator come on top).
    FRONT = 3

    def __init__(self, operation, *, lanes: int, simd: int, pe: int, output: tuple[Format, int]):
        self.format = operation.input.format
        self.operation, self.simd, self.pe = operation, simd, pe
        self.vectors = Storage(self.format.bits * simd, 2 << (self.words - 1).bit_length())
        self.weights = Storage(operation.weight_format.bits * simd * pe, len(self.products.weight), table=True)
        self.weight_table: Table | None = None
        if isinstance(operation.weight, Held):
            index = fold_rows(np.arange(operation.weight.size).reshape(operation.weight.shape), simd, pe)
            self.weight_table = Table(operation.weight, index.reshape(len(index), -1))
            self.weights = self.weight_table.storage
        super().__init__([(self.format, lanes)], output)

    @classmethod
    def products_of(cls, operation, lanes: int, simd: int, pe: int) -> Products:
        """The folded weights and their ranges, or an error that says which folding is legal."""
        stem = type(operation).__module__.rpartition(".")[2]
        outputs, inputs = operation.weight.shape
        check_folding(stem, simd=(simd, inputs), pe=(pe, outputs), lanes=(lanes, inputs))
        if simd % lanes:
            raise BittrueError(f"{stem}: {lanes} input lanes do not divide simd = {simd}")
        return Products(operation.weight, operation.input.format, simd, pe)

    folds = True

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """Every legal folding."""
        outputs, inputs = operation.weight.shape
        return list(matrix_foldings(inputs, outputs))

    @classmethod
    def intervals(cls, operation) -> set[int]:
        """The intervals that its foldings give."""
        outputs, inputs = operation.weight.shape
        return {operation.input.tokens * a * b for a in divisors(outputs) for b in divisors(inputs)}

    @classmethod
    def fold(cls, operation, interval: int, name: str) -> Folding:
        """The folding with the fewest products that works a frame off within `interval` cycles."""
        outputs, inputs = operation.weight.shape
        vectors = operation.input.tokens
        folding = fold_matrix(inputs, outputs, interval // vectors)
        if folding is None:
            raise BittrueError(
                f"{name}: {vectors} tokens need at least {vectors} cycles a frame, "
                f"so an interval of {interval} cannot be reached"
            )
        return folding

    @property
    def words(self) -> int:
        """Words of `simd` codes that a vector takes in memory."""
        return self.products.steps

    def word_at(self, m: Module, control: Control) -> Value:  # noqa: ARG002
        """The word of the vector that the step at hand multiplies."""
        return control.step

    @property
    def folded(self) -> bool:
        """Whether a sum takes several cycles, and so an accumulator."""
        return self.products.steps > 1

    @property
    def front_depth(self) -> int:
        """Cycles from the issue of a step to the sum that it completes."""
        return self.FRONT + self.products.tree_depth + self.folded

    @property
    def choosing(self) -> bool:
        """Whether the codes are single bits that choose weights."""
        return self.format == Format(1, signed=False)

    @property
    def wired(self) -> bool:
        """Whether the weights that single bits choose are the same in every cycle: then they are no memory."""
        return self.choosing and len(self.products.weight) == 1 and self.weight_table is None

    def structure(self) -> Structure:
        built = super().structure()
        op, simd, pe = self.operation, self.simd, self.pe
        built.multipliers += 0 if self.choosing else simd * pe
        built.registers += simd * self.format.bits + (0 if self.wired else simd * pe * op.weight_format.bits)
        for depth, ranges in enumerate(self.products.levels):
            for lane in ranges:
                for k, node in enumerate(lane):
                    summed = depth > 0 and 2 * k + 1 < len(self.products.levels[depth - 1][0])
                    if summed:
                        built.add(node.bits)
                    else:
                        built.registers += node.bits
        if self.folded:
            for total in self.products.sums:
                built.add(total.bits)
        if self.vectors.style == "block":
            built.store(self.vectors)
        else:
            part = Storage(self.lanes_in * self.format.bits, self.vectors.depth)
            built.store(part, simd // self.lanes_in)
        if self.weight_table is not None:
            built += self.weight_table.structure(early=True)
        elif not self.wired:
            built.store(self.weights)
        built.count(self.words - 1, simd // self.lanes_in - 1)
        return built

    def sums(self, m: Module, control: Control, bank: Value | None = None) -> list[Value]:
        """The sums of the `pe` outputs at hand, `front_depth` cycles after the step that completes them.

        Held weights are those of the `bank`.
        """
        x_shape = shape_of(self.format)
        w_shape = shape_of(self.operation.weight_format)
        simd, pe, lanes = self.simd, self.pe, self.lanes_in

        # Input vectors: two blocks of words, written lanes at a time.
        words = self.words
        size = max(1, (words - 1).bit_length())
        m.submodules.vectors = vectors = self.vectors.memory(data.ArrayLayout(x_shape, simd))
        write = vectors.write_port(granularity=lanes)
        parts = simd // lanes
        if words > 1:
            word, part = Signal(counting(words)), Signal(counting(parts))
            part_last = Signal()
            m.d.comb += part_last.eq(part == parts - 1)
            with m.If(control.write):
                m.d.sync += part.eq(Mux(part_last, 0, part + 1))
                with m.If(part_last):
                    m.d.sync += word.eq(word + 1)
            with m.If(control.write_full):  # the last word need not be full
                m.d.sync += [part.eq(0), word.eq(0)]
            m.d.comb += write.addr.eq(Cat(word[:size], control.write_block))
        else:
            part = control.write_beat
            m.d.comb += write.addr.eq(control.write_block)
        for k in range(simd):
            m.d.comb += write.data[k].eq(self.i.payload[k % lanes])
        for k in range(parts):
            m.d.comb += write.en[k].eq(control.write & (part == k))

        # Operands.
        read = vectors.read_port(domain="sync")
        address = Cat(self.word_at(m, control)[:size], control.read_block) if words > 1 else control.read_block
        m.d.comb += [read.addr.eq(address), read.en.eq(1)]
        x = [register(m, read.data[k], x_shape, name=f"x{k}") for k in range(simd)]
        if self.weight_table is not None:
            row = self.weight_table.build(m, "weights", self.weight_table.address(control.word, bank), early=True)
            w = [[register(m, row[p * simd + k], w_shape, name=f"w{p}_{k}") for k in range(simd)] for p in range(pe)]
        elif self.wired:
            w = [[Const(int(v), w_shape) for v in lane] for lane in self.products.weight[0]]
        else:
            rows = self.products.weight.reshape(-1, pe * simd)
            m.submodules.weights = weights = Rom(self.weights, w_shape, rows)
            m.d.comb += weights.addr.eq(control.word)
            row = weights.data
            w = [[register(m, row[p * simd + k], w_shape, name=f"w{p}_{k}") for k in range(simd)] for p in range(pe)]

        # Products and adder trees, registered at every level.
        sums: list[Value] = []
        for p in range(pe):
            level: list[Value] = [Mux(x[k], w[p][k], 0) if self.choosing else w[p][k] * x[k] for k in range(simd)]
            for depth, ranges in enumerate(self.products.levels[: self.products.tree_depth + 1]):
                shapes = [shape_of(r) for r in ranges[p]]
                registered = [
                    register(m, v, s, name=f"tree{depth}_{p}_{k}")
                    for k, (v, s) in enumerate(zip(level, shapes, strict=True))
                ]
                level = [
                    registered[k] + registered[k + 1] if k + 1 < len(registered) else registered[k]
                    for k in range(0, len(registered), 2)
                ]
            sums.append(registered[0])
        at = self.FRONT + self.products.tree_depth
        if self.folded:
            moved, first = Signal(), Signal()
            m.d.comb += [moved.eq(control.advance), first.eq(control.step == 0)]
            moving = valid_chain(m, moved, at)[at]
            starts = register(m, first, name="first", cycles=at)
            for p in range(pe):
                acc = Signal(shape_of(self.products.sums[p]), name=f"acc{p}", reset_less=True)
                with m.If(moving):
                    m.d.sync += acc.eq(Mux(starts, 0, acc) + sums[p])
                sums[p] = acc
        return sums
