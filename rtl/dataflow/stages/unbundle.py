"""A group's images apart again: every slot's codes in one memory, read image after image, the mean of its slots."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import BufferedStage
from bittrue.rtl.dataflow.effort import Effort, width
from bittrue.rtl.dataflow.groups import GroupStage
from bittrue.rtl.dataflow.stage import (
    Storage,
    Structure,
    advance,
    counting,
    realises,
    register,
    shape_of,
    valid_chain,
)
from bittrue.rtl.dataflow.timing import Blocks, Phase, Phases, Timing, enough_credits
from bittrue.sim.contract import Range
from bittrue.sim.operations.unbundle import Unbundle


@realises(Unbundle)
class UnbundleStage(GroupStage, BufferedStage):
    """`y_i[..., c] = floor((2 sum_t x[..., (t n + i) C + c] + r) / 2 r)`, r = N / n: a frame of N slots to n frames.

    Latency     N C / lanes (of all tokens) + r - 1 + depth cycles; depth = address 1, memory 1, sum 1, mean 1, output
                FIFO 1
    Throughput  a group every N C / lanes cycles, whatever n is; r cycles an output beat
    """

    DEPTH = 5

    def __init__(self, operation: Unbundle, *, lanes: int):
        self.operation = operation
        self.beats, self.total = operation.output.channels // lanes, operation.input.size // lanes
        self.tell(operation.modes, operation.held != {})
        self.storage = Storage(lanes * operation.input.format.bits, 2 << (self.total - 1).bit_length())
        fewest = max(operation.modes)  # steps of an output beat
        self.timing = Blocks(
            beats_in=self.total,
            beats_out=operation.input.tokens * fewest * self.beats,
            steps=operation.slots // fewest,
            blocks=2,
            depth=self.DEPTH,
            credits=enough_credits(self.DEPTH, operation.slots // fewest),
        )
        super().__init__([(operation.input.format, lanes)], (operation.input.format, lanes))

    @classmethod
    def legal_lanes(cls, operation: Unbundle, offered: int) -> int:
        """A beat holds codes of one slot."""
        return next(n for n in range(min(offered, operation.output.channels), 0, -1)
                    if not offered % n and not operation.output.channels % n)  # fmt: skip

    def timed(self, modes: Sequence[int]) -> Timing:
        phases: list[Phase] = []
        for n in modes:
            steps, beats = self.operation.slots // n, self.operation.input.tokens * n * self.beats
            block = Blocks(beats_in=self.total, beats_out=beats, steps=steps, blocks=2)
            phases += block.phases
        t = self.timing
        return Phases(tuple(phases), t.rooms, t.depth, t.credits)

    @property
    def sum_shape(self):
        return shape_of(self.operation.sum_range)

    def structure(self) -> Structure:
        built, op, lanes = super().structure(), self.operation, self.lanes_in
        bits, code, place = op.sum_range.bits, op.input.format.bits, (self.total - 1).bit_length()
        built.count(self.beats - 1, op.input.tokens - 1)
        built.counter_bits += max(1, place)
        built.registers += max(1, place) + place + 1 + max(1, place) + 1  # where a word lies, is read, is written
        built.registers += 1 + lanes * code + 4  # what is written; that there is a sum, and that it begins
        built.select_bits += 3 * place
        built.store(self.storage)
        for _ in range(lanes):
            if op.slots > min(self.modes):
                built.add(bits)
                built.select_bits += bits
            else:
                built.registers += bits
            built.registers += code
            built.select_bits += (len(self.modes) - 1) * code
            for r in (op.slots // n for n in self.modes if n < op.slots):
                for wide in mean_sums(r, op.sum_range):
                    built.add(wide, registered=False)
        if self.size is not None:
            most = op.slots // min(self.modes) - 1
            built.count(most)
            built.counter_bits -= (self.timing.steps - 1).bit_length()
            built.registers += 3 * len(self.size.payload) - (self.timing.steps - 1).bit_length()
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """Every code is written and read, and added to a sum; of a group."""
        op, effort = self.operation, Effort()
        bits = op.input.size * op.input.format.bits
        effort.access("values", self.storage.bits, bits, bits)
        effort.add(width([op.sum_range.low], [op.sum_range.high]), op.input.size)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet, op, lanes = self.outlet(m), self.operation, self.lanes_in
        slots, tokens, beats = op.slots, op.input.tokens, self.beats
        last_step = None
        if self.size is not None:
            last_step = Signal(counting(slots // min(self.modes)), name="last_step")
            m.d.comb += last_step.eq(self.of_group({n: slots // n - 1 for n in self.modes}))
        control = self.control(m, outlet, self.known, None, last_step)
        if self.size is not None:
            m.d.comb += self.size.ready.eq(control.release)

        # Where the next word lies: copies of a slot, codes of a slot, tokens, images.
        beat, token = Signal(counting(beats)), Signal(counting(tokens))
        copies_end = Signal(name="copies_end")
        m.d.comb += copies_end.eq(control.issue)
        beat_last = advance(m, beat, beats - 1, copies_end)
        token_last = advance(m, token, tokens - 1, copies_end & beat_last)
        size = (self.total - 1).bit_length()
        at, mask = Signal(size or 1, name="at"), (1 << (size or 1)) - 1
        row = slots * beats  # words of a token

        def jump(of) -> Value | int:
            return self.of_group({n: of(n) & mask for n in self.modes})

        onto = {
            "copy": jump(lambda n: n * beats),
            "code": jump(lambda n: 1 - (slots - n) * beats),
            "token": jump(lambda n: row - (slots - n) * beats - beats + 1),
            "image": jump(lambda n: 1 - (tokens - 1) * row - (slots - n) * beats),
        }
        step = Mux(
            ~copies_end,
            onto["copy"],
            Mux(~beat_last, onto["code"], Mux(~token_last, onto["token"], onto["image"])),
        )
        with m.If(control.advance):
            m.d.sync += at.eq(Mux(control.release, 0, at + step))

        shape = shape_of(op.input.format)
        memory = self.storage.memory(data.ArrayLayout(shape, lanes), apart=True)
        m.submodules.values = memory
        write, read = memory.write_port(), memory.read_port(domain="sync")
        m.d.comb += [
            write.addr.eq(
                Cat(
                    register(m, control.write_beat, name="write_at")[:size],
                    register(m, control.write_block, name="write_half"),
                )
            ),
            write.en.eq(valid_chain(m, control.write, 1)[1]),
            write.data.eq(register(m, self.i.payload, self.i.payload.shape(), name="write_codes")),
            read.addr.eq(register(m, Cat(at[:size], control.read_block), name="read_at")),
            read.en.eq(1),
        ]

        # Two cycles after a step its codes are there, and its sum a cycle later.
        moved, first = valid_chain(m, control.advance, 2)[2], register(m, control.step == 0, name="first", cycles=2)
        issued = valid_chain(m, control.issue, self.DEPTH - 1)
        n_then = None
        if self.size is not None:
            n_then = register(m, self.size.payload, name="size_then", cycles=3)
        for lane in range(lanes):
            total = Signal(self.sum_shape, name=f"sum{lane}", reset_less=True)
            with m.If(moved):
                m.d.sync += total.eq(read.data[lane] + (Mux(first, 0, total) if slots > min(self.modes) else 0))
            means = {n: mean(m, total, slots // n, op.sum_range) for n in self.modes}
            chosen: Value = means[self.modes[0]]
            for n in self.modes[1:]:
                chosen = Mux(n_then == n, means[n], chosen)
            m.d.comb += outlet.payload[lane].eq(register(m, chosen, shape, name=f"mean{lane}"))
        m.d.comb += outlet.push.eq(issued[self.DEPTH - 1])
        return m


def lifted_range(r: int, of: Range) -> tuple[int, int]:
    """`up`, so that no numerator `2 total + r + up 2 r` is negative, and the largest numerator."""
    up = -((2 * of.low + r) // (2 * r))
    return up, 2 * of.high + r + up * 2 * r


def mean_sums(r: int, of: Range) -> list[int]:
    """Widths of the sums that `mean` takes."""
    if r & (r - 1) == 0:
        return [of.bits]
    _, most = lifted_range(r, of)
    multiplier, shift = reciprocal(2 * r, most)
    ones = [bit for bit in range(multiplier.bit_length()) if multiplier >> bit & 1]
    parts = [(most * (multiplier & ((2 << bit) - 1))).bit_length() for bit in ones[1:]]
    return [most.bit_length(), *parts, (most * multiplier >> shift).bit_length() + 1]


def mean(m: Module, total: Value, r: int, of: Range) -> Value:
    """`floor((2 total + r) / 2 r)` for every total in the range, without a divider or a multiplier: shifts and adds."""
    if r & (r - 1) == 0:
        return (total + (r >> 1)) >> (r.bit_length() - 1)
    up, most = lifted_range(r, of)
    multiplier, shift = reciprocal(2 * r, most)
    lifted = Signal(range(most + 1))
    m.d.comb += lifted.eq((total << 1) + (r + up * 2 * r))
    product: Value | None = None
    for bit in range(multiplier.bit_length()):
        if multiplier >> bit & 1:
            product = lifted << bit if product is None else product + (lifted << bit)
    assert product is not None
    return (product >> shift) - up


def reciprocal(divisor: int, most: int) -> tuple[int, int]:
    """m and s, s the least, with `floor(v / divisor) = floor(v m / 2^s)` for 0 <= v <= most.

    m = ceil(2^s / divisor) is too large by e / divisor, e = m divisor - 2^s; so the quotient is by v e / (divisor 2^s),
    which must stay below the 1 / divisor that the largest remainder leaves: v e < 2^s.
    """
    for shift in range(64):
        m = -(-(1 << shift) // divisor)
        if (m * divisor - (1 << shift)) * most < 1 << shift:
            return m, shift
    raise ValueError(f"no reciprocal of {divisor} for 0..{most}")
