"""Two products in one multiplier: of two weights with the same code, side by side in one wide operand.

    ((w1 << s) + w0) x = (w1 x << s) + w0 x

The s low bits of the product are `w0 x`, in two's complement. The bits above are `w1 x`, less one where `w0 x` is
negative, for it borrows; its sign is added where the tree adds anyway, as the carry into an adder. An INT8 pair takes
an operand of 25 bits, which the multipliers of AMD's 7 series (25x18) and UltraScale+ (27x18) have and those of ECP5,
iCE40 and Gowin (18x18, 16x16) do not.

Of the outputs at hand the first half shares its multipliers with the second. Where a sum takes several steps the two
halves leave one after the other, through one requantiser: so the stages behind have as few lanes as without packing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed

from bittrue.rtl.dataflow.buffered import Steps
from bittrue.rtl.dataflow.cells import Cells
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.products import Partial, Products, fold_rows
from bittrue.rtl.dataflow.stage import PARALLEL, Storage, Structure, register, shape_of
from bittrue.rtl.dataflow.structure import BLOCK_LUTS
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Parameter

#: Signed operands of the multiplier that packing is for: what AMD's 7 series has, and UltraScale+ more than that.
WIDE, NARROW = 25, 18
#: The architectures of such multipliers: of two weights and a code, and of a weight and two codes.
WIDE_ONES = ("packed", "paired")
#: Targets that have them.
TARGETS = ("xilinx-7", "xilinx-us+")


def suited(targets: Iterable[str]) -> str | None:
    """The architecture that suits all these targets: two products in a multiplier, where each has a wide one.

    None where the planner may choose (`rtl.dataflow.plan.plan`).
    """
    names = list(targets)
    return "packed" if names and all(name in TARGETS for name in names) else None


def unsuited(folding: Mapping[str, Folding], target: str) -> str | None:
    """Why operations that are folded so cannot go to a target, as a sentence; None where they can."""
    packed = [name for name, chosen in folding.items() if chosen.architecture in WIDE_ONES]
    if not packed or target in TARGETS:
        return None
    return (
        f"{packed[0]}: packed products need multipliers of {WIDE}x{NARROW} bits, which {target} does not have; "
        f"take the architecture {PARALLEL!r}, or one of the targets {', '.join(TARGETS)}"
    )


def offset(weight: Format, code: Format) -> int:
    """s, bits of the lower product: every `w0 x` fits them, signed."""
    corners = [w * x for w, x in product((weight.low, weight.high), (code.low, code.high))]
    return Format.covering(min(corners), max(corners), signed=True).bits


def operand_bits(weight: Format, code: Format) -> int:
    """Bits of a packed pair of weights, signed."""
    return offset(weight, code) + Format.covering(weight.low - 1, weight.high, signed=True).bits


def too_wide(paired: Format, other: Format, what: str) -> str | None:
    """Why no multiplier has the operands of a pair and of what both are multiplied by; None where it has."""
    bits = operand_bits(paired, other), Format.covering(other.low, other.high, signed=True).bits
    if bits[0] <= WIDE and bits[1] <= NARROW:
        return None
    return f"{what} need a multiplier of {bits[0]}x{bits[1]} bits, over {WIDE}x{NARROW}"


def pack(lower: np.ndarray, upper: np.ndarray, shift: int) -> np.ndarray:
    """The wide operand `(upper << shift) + lower`, int64."""
    return (upper.astype(np.int64) << shift) + lower


class PackedProducts(Products):
    """Ranges as of `Products`; those of the upper output of a pair are what its trees hold, which lack a carry.

    A node lacks that of its last leaf: an adder takes the carry of its first operand and passes on that of the second.
    `carries[pair][k]` says whether leaf k has one, which it has not where the lower product is never negative.
    """

    def __init__(self, weight: np.ndarray | tuple[np.ndarray, np.ndarray], fmt: Format, simd: int, pe: int):
        super().__init__(weight, fmt, simd, pe)
        ends = [fold_rows(end, simd, pe) for end in (weight if isinstance(weight, tuple) else (weight,))]
        codes, upper, lower = (fmt.low, fmt.high), [e[:, pe // 2 :] for e in ends], [e[:, : pe // 2] for e in ends]
        whole = [w * x for w in upper for x in codes]
        short = [w * x - (v * x < 0) for w in upper for v in lower for x in codes]
        if not isinstance(weight, tuple):  # a constant pair is one row's, and not any two of the corners
            short = [upper[0] * x - (lower[0] * x < 0) for x in codes]
        full = [np.minimum.reduce(whole), np.maximum.reduce(whole)]
        last = [np.minimum.reduce(short), np.maximum.reduce(short)]
        self.carries = [[self.levels[0][p][k].low < 0 for k in range(simd)] for p in range(pe // 2)]
        for level in self.levels:
            for pair in range(pe // 2):
                level[pe // 2 + pair] = [Range.of(*(e[:, pair, k] for e in last)) for k in range(last[0].shape[2])]
            nodes = last[0].shape[2]
            # The first operand of an adder has its carry by then, the second lacks that of its last leaf.
            last = [
                np.stack([f[:, :, k] + e[:, :, k + 1] if k + 1 < nodes else e[:, :, k] for k in range(0, nodes, 2)], 2)
                for f, e in zip(full, last, strict=True)
            ]
            full = [np.stack([f[:, :, k : k + 2].sum(2) for k in range(0, nodes, 2)], 2) for f in full]

    def passed(self, pair: int, depth: int) -> list[bool]:
        """Whether the nodes of a level pass a carry on."""
        leaves, span = self.carries[pair], 1 << depth
        return [leaves[min(k + span, len(leaves)) - 1] for k in range(0, len(leaves), span)]


class PackedCells(Cells):
    """The memory of a matrix whose rows are pairs of weights.

    A pair in memory is the lower weight and, above it, the upper one less one where the lower is negative: the wide
    operand without the copies of the lower one's sign. Written weights are stored as they are, and a pair made of them
    before its last register.
    """

    def __init__(self, weight: Parameter, fmt: Format, code: Format, simd: int, pe: int, block_luts: int = BLOCK_LUTS):
        super().__init__(weight, fmt, simd, pe)
        self.shift, self.above = offset(fmt, code), Format.covering(fmt.low - 1, fmt.high, signed=True)
        self.pair_bits = fmt.bits + self.above.bits
        if self.table is None:
            self.storage = Storage(self.pair_bits * simd * pe // 2, len(self.rows), table=True, worth=block_luts)

    @property
    def words(self) -> np.ndarray:
        """What is stored of the pairs of constant weights, `[rows, pe / 2, simd]`: all but the copies of the sign."""
        half, bits = self.pe // 2, self.format.bits
        wide = pack(self.rows[:, :half], self.rows[:, half:], self.shift)
        return ((wide >> self.shift) & ((1 << self.above.bits) - 1)) << bits | wide & ((1 << bits) - 1)

    @property
    def code_bits(self) -> int:
        return self.pair_bits

    def structure(self, addresses: int, registers: int) -> Structure:
        built, pairs = super().structure(addresses, 0), self.simd * self.pe // 2
        early = self.pair_bits if self.table is None else 2 * self.format.bits  # in the registers before the last
        built.registers += pairs * (self.pair_bits + early * (registers - 1))
        if self.table is not None:
            for _ in range(pairs):
                built.add(self.above.bits, registered=False)
        return built

    def build(
        self, m: Module, name: str, word: Value, bank: Value | None, addresses: int, registers: int
    ) -> list[list[Value]]:
        """The wide operands `[pe / 2][simd]` of the row `word`."""
        signed, shape = self.format.signed, shape_of(self.format)
        places = [(q, k) for q in range(self.pe // 2) for k in range(self.simd)]
        pairs: list[Value] = []
        if self.table is not None:
            where = register(m, self.table.address(word, bank), name=f"{name}_address", cycles=addresses)
            row = self.table.build(m, name, where, early=True)
            for q, k in places:
                low, high = (
                    register(m, row[p * self.simd + k], shape, name=f"w{p}_{k}", cycles=registers - 1)
                    for p in (q, self.pe // 2 + q)
                )
                above = (high - (low[-1] if signed else 0)).as_signed()[: self.above.bits]
                pairs.append(register(m, Cat(low, above), name=f"pair{q}_{k}"))
        else:
            shape = shape_of(Format(self.pair_bits, signed=False))
            m.submodules[name] = memory = Rom(self.storage, shape, self.words.reshape(len(self.rows), -1))
            m.d.comb += memory.addr.eq(register(m, word, name=f"{name}_address", cycles=addresses))
            pairs = [
                register(m, memory.data[i], name=f"pair{q}_{k}", cycles=registers) for i, (q, k) in enumerate(places)
            ]
        bits = self.format.bits
        copies = self.shift - bits
        wide = [
            Cat(pair[:bits], pair[bits - 1].replicate(copies) if signed else Cat(*[0] * copies), pair[bits:])
            for pair in pairs
        ]
        return [[w.as_signed() for w in wide[q * self.simd : (q + 1) * self.simd]] for q in range(self.pe // 2)]


class Packed:
    """What a folded matrix stage with two products in a multiplier does otherwise; see the module.

    A register follows the tree of a sum that takes one step, for its last carry.
    """

    finished = True
    #: Fewer than elsewhere: with half the multipliers vectors are read in words, whole no longer, so that what was
    #: flip-flops would be distributed RAM, a quarter more LUTs in wide networks; these devices are rich in blocks.
    block_luts = 30
    ranges = PackedProducts

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """Every legal folding: pairs of outputs at a time."""
        return [folding for folding in super().foldings(operation) if not folding.pe % 2]

    def lay_out(self, operation, products: Products, simd: int, pe: int, cells: Sequence[Cells] = ()) -> None:
        weight, fmt = operation.weight, operation.weight_format
        cells = cells or [PackedCells(weight, fmt, operation.input.format, simd, pe, self.block_luts)]
        super().lay_out(operation, products, simd, pe, cells)

    @classmethod
    def products_of(cls, operation, lanes: int, simd: int, pe: int) -> Products:
        if reason := cls.refusal(operation):
            raise BittrueError(f"packed: {reason}; take the architecture {PARALLEL!r}")
        if pe % 2:
            raise BittrueError(f"packed: pe = {pe} is odd, and pairs of outputs share a multiplier; take an even one")
        return super().products_of(operation, lanes, simd, pe)

    @classmethod
    def refusal(cls, operation) -> str | None:
        """Why the products of an operation cannot be packed; None where they can."""
        weight, code = operation.weight_format, operation.input.format
        if code == Format(1, signed=False):
            return "codes of one bit choose weights, and multiply nothing"
        if operation.weight.shape[0] % 2:
            return f"{operation.weight.shape[0]} outputs are no pairs"
        return too_wide(weight, code, f"weights {weight} and codes {code}")

    @property
    def turns(self) -> int:
        return 2 if self.folded else 1

    @property
    def half(self) -> int:
        """Pairs of sums at hand."""
        return self.pe // 2

    @property
    def shift(self) -> int:
        """Bits of the lower product of a pair."""
        return offset(self.operation.weight_format, self.format)

    @property
    def multipliers(self) -> int:
        return self.simd * self.half

    @property
    def product_bits(self) -> int:
        return sum(self.shift + node.bits for lane in self.products.levels[0][self.half :] for node in lane)

    @property
    def absorbed(self) -> int:
        return 0  # what has multipliers that are wide enough is no ECP5

    def grow_trees(self, built: Structure) -> None:
        super().grow_trees(built)
        products = self.products
        for pair in range(self.half):
            built.registers += sum(sum(products.passed(pair, depth)) for depth in range(1, products.tree_depth + 1))
        if not self.folded:
            for p, total in enumerate(products.sums):
                if p >= self.half and products.passed(p - self.half, products.tree_depth)[0]:
                    built.add(total.bits)
                else:
                    built.registers += total.bits
            return
        built.registers += 2  # that the second half is issued, and is at hand
        for first, second in zip(products.sums[: self.half], products.sums[self.half :], strict=True):
            built.registers += second.bits
            built.select_bits += max(first.bits, second.bits)

    def trees(self, m: Module, x: Sequence[Value], w: Sequence[Sequence[Value]]) -> list[Partial]:
        products, shift, half = self.products, self.shift, self.half
        sums = []
        for q, row in enumerate(w):
            low, high = ([level[p] for level in products.levels] for p in (q, half + q))
            lower: list[Partial] = []
            upper: list[Partial] = []
            for k, (code, pair) in enumerate(zip(x, row, strict=True)):
                both = register(m, pair * code, signed(shift + high[0][k].bits), name=f"both{q}_{k}")
                lower.append(Partial(both[: low[0][k].bits].as_signed()))
                carry = both[shift - 1] if products.carries[q][k] else None
                upper.append(Partial(both[shift:].as_signed(), carry))
            for depth in range(1, products.tree_depth + 1):
                lower = grown(m, lower, low[depth], f"tree{depth}_{q}")
                upper = grown(m, upper, high[depth], f"tree{depth}_{half + q}")
            sums.append((lower[0], upper[0]))
        return [lower for lower, _ in sums] + [upper for _, upper in sums]

    def given(self, m: Module, control: Steps) -> Value:
        if self.turns == 1:
            return control.issue
        later = Signal(name="later")
        m.d.sync += later.eq(control.issue)
        return control.issue | later

    def in_turn(self, m: Module, sums: Sequence[Value], at_hand: Value) -> Sequence[Value]:
        if self.turns == 1:
            return sums
        half, second = self.half, Signal(name="second")
        with m.If(at_hand):
            m.d.sync += second.eq(~second)
        upper = [register(m, total, name=f"upper{q}") for q, total in enumerate(sums[half:])]
        return [Mux(second, high, low) for low, high in zip(sums[:half], upper, strict=True)]


def grown(m: Module, level: Sequence[Partial], ranges: Sequence[Range], name: str) -> list[Partial]:
    """The next level of a tree in registers: the carry of the first operand is taken, that of the second passed on."""
    nodes = []
    for k, kept in enumerate(ranges):
        first, *rest = level[2 * k : 2 * k + 2]
        total, carry = (first.plus(rest[0].value), rest[0].carry) if rest else (first.value, first.carry)
        passed = None if carry is None else register(m, carry, name=f"{name}_{k}_carry")
        nodes.append(Partial(register(m, total, shape_of(kept), name=f"{name}_{k}"), passed))
    return nodes
