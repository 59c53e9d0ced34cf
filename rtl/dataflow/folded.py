"""The front of every folded matrix stage: buffered vectors, weight memory, products, adder trees, running sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.buffered import BufferedStage, Control, Steps
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.folding import (
    Folding,
    check_folding,
    fold_matrix,
    matrix_foldings,
)
from bittrue.rtl.dataflow.products import Partial, Products
from bittrue.rtl.dataflow.stage import (
    Structure,
    advance,
    counting,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.structure import BLOCK_LUTS
from bittrue.rtl.dataflow.vectors import Vectors
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, bounds


class FoldedStage(BufferedStage):
    """A matrix product `sum_k weight[n, k] x[k]`, folded: `simd` inputs times `pe` outputs a cycle.

    What is common to the stages that multiply a vector with stored weights; a subclass calls `lay_out`, sets `timing`,
    calls `__init__` and turns the sums into output. A vector of K codes takes K / lanes cycles to come in and
    (N / pe) * (K / simd) to be worked through; both happen at once, in two blocks. Codes of one unsigned bit choose
    weights, so that no multiplier is used for them. A stage whose outputs see parts of the vector only says which word
    of the vector a step reads (`words`, `word_at`). Weights, and what a subclass builds of held inputs (`tables`), are
    those of the set that a frame meets.
    """

    #: Outputs at a time from which on a code of the vector, which goes to all of them, gets a register more.
    BROAD = 4
    #: Beats in which the sums of the outputs at hand leave, one after the other.
    turns = 1
    #: Vectors that are worked through at once.
    together = 1
    #: LUTs that a block RAM is worth (`Folding.block_luts`).
    block_luts = BLOCK_LUTS
    #: What knows the ranges of its products.
    ranges = Products

    def __init__(self, *, lanes: int, output: tuple[Format, int], tables: Mapping[str, Table] | None, arrival: int):
        super().__init__([(self.format, lanes)], output)
        self.arrival = arrival
        self.tables = [*(c.table for c in self.cells if c.table is not None), *(tables or {}).values()]

    def lay_out(self, operation, products: Products, simd: int, pe: int, cells: Sequence[Cells] = ()) -> None:
        """What is multiplied and where it lies; comes before `timing`, for the depth follows from it."""
        self.operation, self.products, self.simd, self.pe = operation, products, simd, pe
        self.format = operation.input.format
        self.vectors = self.store()
        options = {"wire": self.choosing, "block_luts": self.block_luts}
        self.cells = cells or [Cells(operation.weight, operation.weight_format, simd, pe, **options)]
        self.weights = self.cells[0].storage

    def store(self) -> Any:
        """Where what is multiplied lies."""
        return Vectors(self.format, self.simd, self.words, self.block_luts)

    @classmethod
    def products_of(cls, operation, lanes: int, simd: int, pe: int) -> Products:
        """The folded weights and their ranges, or an error that says which folding is legal."""
        stem = operation.stem
        *_, outputs, inputs = operation.weight.shape
        check_folding(stem, simd=(simd, inputs), pe=(pe, outputs), lanes=(lanes, inputs))
        if simd % lanes:
            raise BittrueError(f"{stem}: {lanes} input lanes do not divide simd = {simd}")
        weight = operation.weight
        return cls.ranges(bounds(weight) if isinstance(weight, Held) else weight, operation.input.format, simd, pe)

    folds = True
    told_lanes = True

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """Every legal folding."""
        *_, outputs, inputs = operation.weight.shape
        return matrix_foldings(inputs, outputs, cls.architecture)

    @classmethod
    def intervals(cls, operation) -> set[int]:
        """The intervals that its foldings give."""
        *_, outputs, inputs = operation.weight.shape
        return {operation.input.tokens * (outputs // f.pe) * (inputs // f.simd) for f in cls.foldings(operation)}

    @classmethod
    def fold(cls, operation, interval: int, name: str, lanes: int | None = None) -> Folding:
        """The folding with the fewest products that works a frame off within `interval` cycles."""
        *_, outputs, inputs = operation.weight.shape
        vectors = operation.input.tokens
        folding = fold_matrix(inputs, outputs, interval // vectors, cls.foldings(operation), lanes)
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
    def operand_registers(self) -> tuple[int, int]:
        """Registers between memory and multiplier, of codes and of weights.

        One that the multiplier can take, before it one that a block RAM can take, and between them one for codes that
        go to many multipliers: so neither a block nor a long way is in one cycle with another.
        """
        blocks = self.vectors.style == "block", any(c.storage.style == "block" for c in self.cells)
        codes, weights = (1 + (block and not self.choosing) for block in blocks)
        return codes + (self.pe >= self.BROAD and not self.choosing), 0 if self.wired else weights

    @property
    def address_registers(self) -> tuple[int, int]:
        """Registers of the addresses of both memories: at least one, and so many that codes and weights meet."""
        codes, weights = self.operand_registers
        return 1 + max(0, weights - codes), 1 + max(0, codes - weights)

    @property
    def tree_starts(self) -> int:
        """Cycles from the issue of a step to its products: address, memory, operands, product register."""
        return 3 + max(self.operand_registers)

    @property
    def front_depth(self) -> int:
        """Cycles from the issue of a step to the sum that it completes."""
        return self.tree_starts + self.products.tree_depth + self.finished

    @property
    def finished(self) -> bool:
        """Whether a register follows the adder tree."""
        return self.folded

    @property
    def choosing(self) -> bool:
        """Whether the codes are single bits that choose weights."""
        return self.format == Format(1, signed=False)

    @property
    def wired(self) -> bool:
        """Whether the weights that single bits choose are the same in every cycle: then they are no memory."""
        return all(cells.wired for cells in self.cells)

    @property
    def beats_of_vector(self) -> int:
        """Steps of a vector that end in output."""
        return self.timing.beats_out

    @property
    def vectors_of_frame(self) -> int:
        """Blocks of input that are worked through for a frame."""
        return self.timing.frame

    def front(self) -> Structure:
        """What brings the codes of every step, and counts the steps."""
        return super().structure() + self.vectors.structure(self.lanes_in, self.address_registers[0])

    def structure(self) -> Structure:
        built = self.front()
        simd = self.simd
        built.multipliers += self.multipliers
        (codes, weights), (_, row) = self.operand_registers, self.address_registers
        codes -= self.vectors.registered
        built.registers += len(self.cells) * codes * simd * self.operand_bits
        self.grow_trees(built)
        built.inside += self.absorbed
        if self.folded:
            for total, partial in zip(self.products.sums, self.products.partial, strict=True):
                built.add(total.bits)
                built.registers += partial.bits  # the sum as it ends, and as it is before
            built.registers += 2 * (self.tree_starts + self.products.tree_depth)  # when it moves, when it ends
        for cells in self.cells:
            built += cells.structure(row, weights)
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.arrival)
            built.count(self.vectors_of_frame - 1, self.beats_of_vector * self.turns - 1)
        return built

    @property
    def operand_bits(self) -> int:
        """Bits of what is read of a vector for a multiplier."""
        return self.format.bits

    @property
    def given_at_once(self) -> int:
        """Outputs of a beat."""
        return self.pe * self.together // self.turns

    @property
    def multipliers(self) -> int:
        """Multipliers that a step keeps busy."""
        return 0 if self.choosing else len(self.cells) * self.simd * self.pe

    @property
    def product_bits(self) -> int:
        """Bits of the registers behind the multipliers."""
        return sum(node.bits for lane in self.products.levels[0] for node in lane)

    @property
    def absorbed(self) -> int:
        """Register bits that multipliers take: the last of the operands and the first of the products."""
        if self.choosing:
            return 0
        operands = self.format.bits + self.pe * np.array([cells.format.bits for cells in self.cells])
        return int(self.simd * operands.sum()) + self.product_bits

    def grow_trees(self, built: Structure) -> None:
        """Add the registers of the products and the adder trees of every output."""
        built.registers += self.product_bits
        for below, ranges in pairwise(self.products.levels):
            for lane, under in zip(ranges, below, strict=True):
                for k, node in enumerate(lane):
                    if 2 * k + 1 < len(under):
                        built.add(node.bits)
                    else:
                        built.registers += node.bits

    def follow(self, m: Module, control: Steps, issued: Sequence[Value]) -> tuple[Value | None, Value | None]:
        """The bank of the step at hand, and the row of `tables` two cycles before each result is requantised.

        `issued[k]` says k cycles after it was issued that a beat was. Both are None where nothing is held.
        """
        if not self.tables:
            return None, None
        rows, vectors = self.beats_of_vector * self.turns, self.vectors_of_frame
        block, group = Signal(counting(vectors)), Signal(counting(rows))
        ends = control.release & advance(m, block, vectors - 1, control.release)
        banks = self.exchange.follow(m, ends, self.arrival)
        ahead = self.arrival - 2  # of the last of the beats of a step; before it the bank was the same
        advance(m, group, rows - 1, issued[ahead + 1 - self.turns])
        return banks[0], Cat(group[: (rows - 1).bit_length()], banks[ahead])

    def factors(
        self, m: Module, control: Steps, codes: Sequence[Value], bank: Value | None
    ) -> tuple[list[Value], list[list[Value]]]:
        """What is multiplied in a step, `x[k]` and `w[p][k]`, in registers: from the codes that were read."""
        held, shape = self.operand_registers[0] - self.vectors.registered, shape_of(self.format)
        x: list[Value] = [register(m, code, shape, name=f"x{k}", cycles=held) for k, code in enumerate(codes)]
        return x, self.row_of(m, control, bank)

    def row_of(self, m: Module, control: Steps, bank: Value | None) -> list[list[Value]]:
        """The weights `w[p][k]` of the step at hand."""
        (_, weights), (_, addresses) = self.operand_registers, self.address_registers
        return self.cells[0].build(m, "weights", control.word, bank, addresses, weights)

    def read(self, m: Module, control: Any) -> list[Value]:
        """The codes of the step at hand, as late as the vectors give them."""
        word, wait = self.word_at(m, control) if self.words > 1 else Const(0), self.address_registers[0]
        return self.vectors.build(m, control, word, self.i.payload, self.timing.beats_in, wait)

    def sums(self, m: Module, control: Steps, bank: Value | None = None) -> list[Value]:
        """The sums of the `pe` outputs at hand, `front_depth` cycles after the step that completes them.

        Held weights are those of the `bank`.
        """
        x, w = self.factors(m, control, self.read(m, control), bank)

        sums = self.trees(m, x, w)
        at = self.tree_starts + self.products.tree_depth
        if self.folded:
            moved, last = Signal(), Signal()
            m.d.comb += [
                moved.eq(control.advance),
                last.eq(control.complete),
            ]
            moving = valid_chain(m, moved, at)[at]
            ends = Signal(init=1, name="ends")  # so a reset clears, too, and no logic joins the two on their long way
            m.d.sync += ends.eq(valid_chain(m, last, at - 1)[at - 1])
            for p, total in enumerate(sums):
                # Cleared behind the last step, by the reset of its registers: choosing 0 would take LUTs.
                shape = shape_of(self.products.sums[p] | Range(0, 0))
                acc = Signal(shape_of(self.products.partial[p]), name=f"acc{p}", reset_less=True)
                after = Signal(shape, name=f"after{p}")
                m.d.comb += after.eq(total.plus(acc))
                with m.If(moving):
                    m.d.sync += acc.eq(after)
                with m.If(ends):
                    m.d.sync += acc.eq(0)
                sums[p] = Partial(register(m, after, shape, name=f"total{p}"))
        elif self.finished:
            shapes = map(shape_of, self.products.sums)
            sums = [
                Partial(register(m, total.plus(), shape, name=f"total{p}"))
                for p, (total, shape) in enumerate(zip(sums, shapes, strict=True))
            ]
        return [total.value for total in sums]

    def trees(self, m: Module, x: Sequence[Value], w: Sequence[Sequence[Value]]) -> list[Partial]:
        """Products and adder trees, registered at every level: the sum of a step for each of the outputs at hand."""
        sums = []
        for p in range(self.pe):
            pairs = zip(x, w[p], strict=True)
            level: list[Value] = [Mux(code, weight, 0) if self.choosing else weight * code for code, weight in pairs]
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
            sums.append(Partial(registered[0]))
        return sums
