"""Two products in one multiplier: of one weight with the codes of two vectors, side by side in one wide operand.

    ((x1 << s) + x0) w = (x1 w << s) + x0 w

as `rtl.dataflow.packed` does with two weights and one code; for matrices with an odd number of outputs, which are no
pairs. Two vectors are worked through at once, by every weight that is read. A sum takes two steps at least, so that
the outputs of both vectors leave through one requantiser, alternately; a stage behind (`Unpair`) gives out one vector
after the other. The inputs of a step need not divide those of a vector: what the last step lacks has weights of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import BufferedStage, Control
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.folded import FoldedStage
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors
from bittrue.rtl.dataflow.packed import Packed, PackedProducts, too_wide
from bittrue.rtl.dataflow.products import Products
from bittrue.rtl.dataflow.stage import (
    PARALLEL,
    Stage,
    Storage,
    Structure,
    advance,
    beat,
    counting,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.dataflow.vectors import Vectors
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, bounds


def filled(weight: np.ndarray, simd: int) -> np.ndarray:
    """A matrix `[N, K]` with columns of zeros behind, up to a whole number of steps of `simd` inputs."""
    return np.pad(weight, ((0, 0), (0, -weight.shape[1] % simd)))


class PairedProducts(PackedProducts):
    """Ranges as of `PackedProducts`: of the `pe` outputs of the first vector, then of those of the second.

    Where both codes are the one that makes a product least, that of the second vector lacks a borrow as well: so what
    holds for one code of a pair of weights holds for any two.
    """

    def __init__(self, weight: np.ndarray | tuple[np.ndarray, np.ndarray], fmt: Format, simd: int, pe: int):
        def twice(end: np.ndarray) -> np.ndarray:
            """The rows at hand, and once more for the second vector."""
            rows = filled(end, simd).reshape(len(end) // pe, pe, -1)
            return np.concatenate([rows, rows], 1).reshape(2 * len(end), -1)

        super().__init__(tuple(map(twice, weight)) if isinstance(weight, tuple) else twice(weight), fmt, simd, 2 * pe)


class PairVectors:
    """Two blocks of two vectors each, read a word of both at a time: codes of the first, and those of the second less
    one where that of the first is negative: the wide operand without the copies of the first one's sign."""

    registered = 0

    def __init__(self, fmt: Format, simd: int, words: int, length: int, block_luts: int):
        self.format, self.above, self.length = fmt, Format.covering(fmt.low - fmt.signed, fmt.high, signed=True), length
        self.halves = [Vectors(kind, simd, words, block_luts) for kind in (fmt, self.above)]

    @property
    def style(self) -> str:
        styles = {half.style for half in self.halves}
        return "block" if "block" in styles else styles.pop()

    @property
    def bits(self) -> int:
        return sum(half.bits for half in self.halves)

    def structure(self, lanes: int, wait: int) -> Structure:
        built = Structure(registers=self.length if self.format.signed else 0)
        for half in self.halves:
            built += half.structure(lanes, wait)
        built.count(self.length // lanes - 1, 1)
        if self.format.signed:
            for _ in range(lanes):
                built.add(self.above.bits, registered=False)
        return built

    def build(self, m: Module, control: Control, word: Value, codes: data.View, beats: int, wait: int) -> list[Value]:
        """What is read, as in `Vectors.build`; two vectors take `beats`."""
        beats //= 2
        at, second = Signal(counting(beats), name="vector_beat"), Signal(name="second_vector")
        ends = control.write & advance(m, at, beats - 1, control.write)
        advance(m, second, 1, ends)
        upper = Signal(data.ArrayLayout(shape_of(self.above), len(codes)), name="upper_codes")
        borrows: Value = Const(0, len(codes))
        if self.format.signed:  # of the vector before, a vector's time ago
            signs = Signal(len(codes) * beats, name="signs", reset_less=True)
            with m.If(control.write):
                m.d.sync += signs.eq(Cat(*(code[-1] for code in codes), signs)[: len(signs)])
            borrows = signs[-len(codes) :]
        m.d.comb += [upper[k].eq(code - borrows[k]) for k, code in enumerate(codes)]
        parts = []
        for k, (half, given) in enumerate(zip(self.halves, (codes, upper), strict=True)):
            inner, mine = Module(), second == k
            told = replace(control, write=control.write & mine, write_full=ends & mine)
            parts.append(half.build(inner, told, word, given, beats, wait))
            m.submodules[f"vector{k}"] = inner
        return [Cat(Value.cast(low), Value.cast(high)) for low, high in zip(*parts, strict=True)]


class Paired(Packed):
    """What a folded matrix stage that works two vectors through at once does otherwise; see the module."""

    together = 2
    turns = 2
    ranges = PairedProducts

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """Every legal folding: two steps an output at least."""
        outputs, inputs = operation.weight.shape
        most = -(-inputs // 2)
        simds = range(1, most + 1) if inputs > 1 else ()
        if isinstance(operation.weight, Held):  # there is no place for weights of 0
            simds = [simd for simd in simds if not inputs % simd]
        return [Folding(simd, pe, cls.architecture) for pe in divisors(outputs) for simd in simds]

    @classmethod
    def intervals(cls, operation) -> set[int]:
        outputs, inputs = operation.weight.shape
        pairs = operation.input.tokens // 2
        return {pairs * (outputs // f.pe) * -(-inputs // f.simd) for f in cls.foldings(operation)}

    @classmethod
    def refusal(cls, operation) -> str | None:
        """Why the vectors of an operation cannot be worked through in pairs; None where they can."""
        weight, code = operation.weight_format, operation.input.format
        if code == Format(1, signed=False):
            return "codes of one bit choose weights, and multiply nothing"
        if reason := too_wide(code, weight, f"codes {code} and weights {weight}"):
            return reason
        if operation.input.tokens % 2:
            return f"{operation.input.tokens} vectors are no pairs"
        return None if operation.weight.shape[1] > 1 else "a sum of one product takes no two steps"

    @classmethod
    def fold(cls, operation, interval: int, name: str, lanes: int | None = None) -> Folding:
        """As of a product of twice as many inputs, for pairs of vectors."""
        outputs, inputs = operation.weight.shape
        pairs = operation.input.tokens // 2
        steps = interval // pairs
        lanes = lanes or next((n for n in divisors(inputs) if 2 * inputs // n <= steps), inputs)
        fitting = [f for f in cls.foldings(operation) if outputs // f.pe * -(-inputs // f.simd) <= steps]
        if not fitting:
            raise BittrueError(f"{name}: {pairs} pairs of vectors need more than {interval} cycles a frame")
        return min(fitting, key=lambda f: (f.simd % lanes != 0, f.simd * f.pe, f.pe, f.simd))

    @classmethod
    def products_of(cls, operation, lanes: int, simd: int, pe: int) -> Products:
        if reason := cls.refusal(operation):
            raise BittrueError(f"paired: {reason}; take the architecture {PARALLEL!r}")
        outputs, inputs = operation.weight.shape
        check_folding("paired", pe=(pe, outputs), lanes=(lanes, inputs))
        if Folding(simd, pe, cls.architecture) not in cls.foldings(operation):
            raise BittrueError(
                f"paired: simd = {simd} of {inputs} inputs: a sum has to take two steps, and where weights are written "
                "simd has to divide the inputs"
            )
        if simd % lanes:
            raise BittrueError(f"paired: {lanes} input lanes do not divide simd = {simd}")
        weight = operation.weight
        return cls.ranges(bounds(weight) if isinstance(weight, Held) else weight, operation.input.format, simd, pe)

    def lay_out(self, operation, products: Products, simd: int, pe: int, cells: Sequence[Cells] = ()) -> None:
        weight = operation.weight if isinstance(operation.weight, Held) else filled(operation.weight, simd)
        cells = cells or [Cells(weight, operation.weight_format, simd, pe, block_luts=self.block_luts)]
        FoldedStage.lay_out(self, operation, products, simd, pe, cells)
        inputs = operation.weight.shape[1]
        self.vectors = PairVectors(self.format, simd, self.words, inputs, self.block_luts)

    @property
    def behind(self) -> Stage:
        return Unpair(self.operation.output.format, self.given_at_once, self.timing.beats_out, self.timing.frame)

    @property
    def half(self) -> int:
        return self.pe

    @property
    def operand_bits(self) -> int:
        return self.format.bits + self.vectors.above.bits

    def structure(self) -> Structure:
        built = FoldedStage.structure(self) + self.requantize.structure(numbered=True)
        if not self.tables:  # else it is counted
            built.count(2 * self.timing.beats_out - 1)
        return built

    def factors(
        self, m: Module, control: Control, codes: Sequence[Value], bank: Value | None
    ) -> tuple[list[Value], list[list[Value]]]:
        """The wide operands of both vectors' codes, and the weights."""
        (held, weights), (_, addresses) = self.operand_registers, self.address_registers
        bits = self.format.bits
        copies = self.shift - bits
        x: list[Value] = []
        for k, code in enumerate(codes):
            pair = register(m, code, name=f"x{k}", cycles=held)
            sign = pair[bits - 1].replicate(copies) if self.format.signed else Cat(*[0] * copies)
            x.append(Cat(pair[:bits], sign, pair[bits:]).as_signed())
        return x, self.cells[0].build(m, "weights", control.word, bank, addresses, weights)

    def follow(self, m: Module, control: Control, issued: Sequence[Value]) -> tuple[Value | None, Value | None]:
        """As in `FoldedStage.follow`; both vectors' outputs have the same row of the tables."""
        beats = 2 * self.timing.beats_out
        beat_at = Signal(counting(beats), name="beat_at")
        advance(m, beat_at, beats - 1, issued[self.front_depth - 2])
        self.row = beat_at[1 : (beats - 1).bit_length()]
        if not self.tables:
            return None, None
        block = Signal(counting(self.timing.frame), name="block")
        ends = control.release & advance(m, block, self.timing.frame - 1, control.release)
        banks = self.exchange.follow(m, ends, self.arrival)
        return banks[0], Cat(self.row, banks[self.arrival - 2])

    def which(self, m: Module, issued: Sequence[Value]) -> Value:  # noqa: ARG002
        return self.row


class Unpair(BufferedStage):
    """Outputs of two vectors that come alternately, one vector after the other; a ping-pong buffer.

    Latency 2 * beats + 3 cycles; one beat a cycle.
    """

    def __init__(self, fmt: Format, lanes: int, beats: int, frame: int):
        self.beats = beats
        depth = 3
        self.timing = Blocks(
            beats_in=2 * beats, beats_out=2 * beats, blocks=2, depth=depth, credits=enough_credits(depth), frame=frame
        )
        self.storage = Storage(beat(fmt, lanes).size, 4 << (beats - 1).bit_length())
        super().__init__([(fmt, lanes)], (fmt, lanes))

    def structure(self) -> Structure:
        built = super().structure()
        built.store(self.storage)
        built.count(self.beats - 1, 1)
        built.registers += self.storage.width
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        at, second = Signal(counting(self.beats), name="vector_beat"), Signal(name="second_vector")
        ends = control.advance & advance(m, at, self.beats - 1, control.advance)
        advance(m, second, 1, ends)
        size = (self.beats - 1).bit_length()
        # A block is written again a cycle after its last step at the earliest, its first address first.
        m.submodules.memory = memory = self.storage.memory(self.i.payload.shape(), apart=True)
        write, read = memory.write_port(), memory.read_port(domain="sync")
        m.d.comb += [
            write.addr.eq(Cat(control.write_beat[1 : size + 1], control.write_beat[0], control.write_block)),
            write.data.eq(self.i.payload),
            write.en.eq(control.write),
            read.addr.eq(Cat(at[:size], second, control.read_block)),
            read.en.eq(1),
            outlet.push.eq(valid_chain(m, control.issue, 2)[-1]),
            outlet.payload.eq(register(m, read.data, self.i.payload.shape(), name="read")),
        ]
        return m
