"""Integrate-and-fire neurons: one membrane per channel in a small memory, updated as each time step passes."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.stage import (
    Stage,
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
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.rtl.parts.requantize import channel_constants, store_constants
from bittrue.sim.contract import Format, Range
from bittrue.sim.operations.lif import Lif

#: Cycles of an update when the groups of channels leave that much time: add, compare and reset, multiply, round.
#: There are three places for a register between them, so no more than four.
LONGEST_LOOP = 4


@realises(Lif)
class LifStage(Stage):
    """`v = decay(m) + x 2^guard`, spike and reset: the state is C / lanes words in a distributed memory.

    A membrane is needed again C / lanes beats after it was read, so that the update may take as many cycles, up to
    four register stages; with one group of channels it is a single cycle's path.

    Latency     3 cycles, 4 with several groups of channels
    Throughput  one beat a cycle
    """

    def __init__(self, operation: Lif, *, lanes: int):
        self.operation = operation
        self.groups = operation.input.channels // lanes
        self.loop = min(self.groups, LONGEST_LOOP)
        depth = 3 + (self.loop >= 2)
        frame = operation.input.size // lanes
        self.timing = Blocks(depth=depth, credits=enough_credits(depth), frame=frame)
        super().__init__([(operation.input.format, lanes)], (operation.output.format, lanes))

    @property
    def scaled(self) -> Range:
        """Exact range of `keep * m`, before half is added and it is shifted."""
        product = self.operation.ranges[2]
        return Range(product.low, product.high - ((1 << self.operation.shift) >> 1))

    def structure(self) -> Structure:
        built = super().structure()
        op, lanes = self.operation, self.lanes_in
        v, m, product, kept = op.ranges
        built.count(self.groups - 1, op.steps - 1)
        # the first step's mark, the group and where it goes back to, and how long the loop is valid beyond the outlet
        built.registers += 1 + self.loop * counting_bits(self.groups)
        built.registers += max(0, self.loop - (self.timing.depth - 1))
        stored, late = 0, int(self.loop >= 2)
        behind = (self.loop >= 3) + (self.loop >= 4) if op.delayed else 0
        cycles = {"threshold": late, "reset": late + behind, "keep": late + (self.loop >= 3)}
        for lane in range(lanes):
            built.registers += op.input.format.bits + op.output.format.bits + behind
            built.registers += (m.bits if self.loop >= 3 else 0) + (self.scaled.bits if self.loop >= 4 else 0)
            built.add(v.bits, registered=self.loop >= 2)
            if op.fires:
                built.add(v.bits, registered=False)
                built.select_bits += kept.bits if op.delayed else m.bits
                if op.subtract:
                    built.add(kept.bits if op.delayed else m.bits, registered=False)
            if op.shift:
                built.multipliers += 1
                built.add(product.bits, registered=False)
            for name, waits in cycles.items():
                values = getattr(op, name)
                mine = None if values is None else values[lane::lanes]
                if mine is not None and not (mine == mine[0]).all():
                    stored += Format.covering(mine).bits
                    built.registers += Format.covering(mine).bits * waits
        if op.keep.any() or op.delayed:
            built.lutrams += -(-lanes * kept.bits // 4) * -(-self.groups // 16)
            built.select_bits += lanes * kept.bits
        if stored:
            store_constants(built, stored, self.groups)
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """In every step: the leak, the input, and where it fires a comparison and a reset."""
        op, effort, bits = self.operation, Effort(), self.operation.membrane.bits
        effort.add(bits, (2 + op.subtract if op.fires else 1) * op.input.size)
        effort.multiply(bits, Format.covering(op.keep).bits, op.macs)
        effort.access("state", op.input.channels * bits, op.input.size * bits, op.input.size * bits)
        constants = 2 * bits * op.input.channels if op.fires else 0
        effort.access("weights", constants, 2 * bits * op.input.size)
        return effort

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        op, lanes = self.operation, self.lanes_in
        outlet = self.outlet(m)
        go = self.accept(m, outlet)
        membrane, after, _, kept = (shape_of(r) for r in op.ranges)
        product = shape_of(self.scaled)
        valid = valid_chain(m, go, max(self.loop, self.timing.depth - 1))

        group, step = Signal(counting(self.groups)), Signal(counting(op.steps))
        group_last = advance(m, group, self.groups - 1, go)
        advance(m, step, op.steps - 1, go & group_last)
        where = register(m, group, name="where")
        first = register(m, step == 0, name="first")
        layout = data.ArrayLayout(kept, lanes)
        m.submodules.membranes = memory = Storage(layout.size, self.groups, clocked=False).memory(layout)
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.d.comb += [
            read.addr.eq(where),
            write.addr.eq(register(m, where, name="back", cycles=self.loop - 1)),
            write.en.eq(valid[self.loop]),
        ]

        fields = {"keep": op.keep}
        if op.fires:
            fields |= {"threshold": op.threshold, "reset": op.reset}
        constants = channel_constants(m, "lif", fields, lanes, go)

        def constant(name: str, lane: int, cycles: int) -> Value:
            """A channel's constant, as many cycles after the channel's first."""
            value = Value.cast(constants[name][lane])
            return value if isinstance(value, Const) else register(m, value, name=f"{name}{lane}", cycles=cycles)

        def cut(value: Value, shape, name: str, position: int) -> Value:
            """The value in its shape, behind a register where the loop has so many cycles."""
            if position < self.loop:
                return register(m, value, shape, name=name)
            exact = Signal(shape, name=name)
            m.d.comb += exact.eq(value)
            return exact

        late = int(self.loop >= 2)
        for lane in range(lanes):
            x = register(m, self.i.payload[lane], shape_of(op.input.format), name=f"x{lane}")
            u = Mux(first, 0, read.data[lane]) if op.keep.any() or op.delayed else Const(0)
            v = cut(u + (x << op.guard), membrane, f"v{lane}", 1)
            result, left = v, v
            if op.fires:
                result = v > constant("threshold", lane, late)
            if op.fires and not op.delayed:
                reset = constant("reset", lane, late)
                left = Mux(result, v - reset if op.subtract else reset, v)
            left = cut(left, after, f"m{lane}", 2)
            scaled = cut(left * constant("keep", lane, late + (self.loop >= 3)), product, f"scaled{lane}", 3)
            remains = (scaled + ((1 << op.shift) >> 1)) >> op.shift
            if op.delayed:  # the spike and its reset come along with the product
                behind = (self.loop >= 3) + (self.loop >= 4)
                fired = register(m, result, name=f"fired{lane}", cycles=behind)
                remains = remains - Mux(fired, constant("reset", lane, late + behind), 0)
            m.d.comb += write.data[lane].eq(remains)
            m.d.comb += outlet.payload[lane].eq(register(m, result, shape_of(op.output.format), name=f"y{lane}"))
        m.d.comb += [outlet.issue.eq(go), outlet.push.eq(valid[self.timing.depth - 1])]
        return m
