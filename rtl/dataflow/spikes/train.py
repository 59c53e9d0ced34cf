"""The shell of the stages that make spike trains: a vector of values is held while its time steps are given out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.buffered import BufferedStage, Control
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors
from bittrue.rtl.dataflow.stage import Storage, Structure, advance, counting, counting_bits, register, shape_of
from bittrue.rtl.dataflow.timing import Blocks, enough_credits
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.encode import SPIKE


@dataclass(frozen=True)
class Values:
    """What the shell hands to a stage, `reading` cycles after the issue of a beat.

    codes    the values of the beat's channels
    group    which beat of the time step it is, 0 .. C / lanes - 1
    step     the time step, 0 .. K - 1
    """

    codes: list[Value]
    group: Signal
    step: Signal


class SpikeTrainStage(BufferedStage):
    """Value `[..., C]` to spike train `[..., K, C]`, one neuron per lane.

    The beats of a time step follow each other, then the next step: a vector takes K * C / lanes cycles, and the next
    one comes in meanwhile, so that every lane takes a new value every K cycles. Many values wait in block RAM.
    """

    #: Beats come in as wide as they go out.
    whole_beats = True
    folds = True

    #: Cycles from the issue of a beat to its spikes being pushed.
    cycles: int

    def __init__(self, operation, *, lanes: int, simd: int, pe: int):
        stem = operation.stem
        check_folding(stem, simd=(simd, operation.input.channels))
        if not lanes == simd == pe:
            raise BittrueError(f"{stem}: simd = {simd} and pe = {pe} are its lanes, one neuron each: give the same")
        self.operation, self.groups = operation, operation.input.channels // lanes
        kept = Storage(lanes * operation.input.format.bits, 2 * self._rows)
        self.kept = kept if kept.style == "block" else replace(kept, clocked=False)
        #: Cycles from the issue of a beat to its values: a register, behind block RAM that is read with the clock.
        self.reading = 2 if self.kept.clocked else 1
        depth = self.cycles + 1
        self.timing = Blocks(
            beats_in=self.groups,
            beats_out=operation.steps * self.groups,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth),
            frame=operation.input.tokens,
        )
        super().__init__([(operation.input.format, lanes)], (SPIKE, lanes))

    @classmethod
    def foldings(cls, operation) -> list[Folding]:
        """Every legal number of lanes."""
        return [Folding(lanes, lanes) for lanes in divisors(operation.input.channels)]

    @classmethod
    def intervals(cls, operation) -> set[int]:
        """The intervals that its foldings give."""
        return {operation.output.size // lanes for lanes in divisors(operation.input.channels)}

    @classmethod
    def fold(cls, operation, interval: int, name: str) -> Folding:
        """The fewest neurons that are through with a frame within `interval` cycles."""
        for folding in cls.foldings(operation):
            if operation.output.size // folding.simd <= interval:
                return folding
        least = operation.output.size // operation.input.channels
        raise BittrueError(
            f"{name}: {least} time steps need at least {least} cycles a frame, "
            f"so an interval of {interval} cannot be reached"
        )

    def structure(self) -> Structure:
        built = super().structure()
        built.store(self.kept)
        built.count(self.groups - 1, self.operation.steps - 1)
        built.registers += self.kept.width
        built.registers += self.reading * (counting_bits(self.groups) + counting_bits(self.operation.steps))
        return built

    def effort(self, **seen: float) -> Effort:  # noqa: ARG002
        """The values are held while their steps are given out."""
        op, effort = self.operation, Effort()
        bits = op.input.format.bits
        effort.access("values", 2 * self.groups * self.lanes_in * bits, op.output.size * bits, op.input.size * bits)
        return effort

    @property
    def _rows(self) -> int:
        """Words of memory for a block: a power of two, so that the block's number is an address bit."""
        return 1 << (self.groups - 1).bit_length()

    def values(self, m: Module, control: Control) -> Values:
        """The values at hand, read from the block that is worked through."""
        shape = shape_of(self.operation.input.format)
        layout = data.ArrayLayout(shape, self.lanes_in)
        group = Signal(counting(self.groups), name="group")
        step = Signal(counting(self.operation.steps), name="step")
        advance(
            m, step, self.operation.steps - 1, control.advance & advance(m, group, self.groups - 1, control.advance)
        )
        # A block is written before it is worked through, and again when it is not any more.
        m.submodules.values = memory = self.kept.memory(layout, apart=self.kept.clocked)
        write, read = memory.write_port(), memory.read_port(domain="sync" if self.kept.clocked else "comb")
        m.d.comb += [
            write.addr.eq(control.write_beat + self._rows * control.write_block),
            write.data.eq(self.i.payload),
            write.en.eq(control.write),
            read.addr.eq(group + self._rows * control.read_block),
        ]
        codes = [register(m, read.data[k], shape, name=f"x{k}") for k in range(self.lanes_in)]
        if self.kept.clocked:
            m.d.comb += read.en.eq(1)
        group, step = (register(m, n, name=f"{n.name}_at", cycles=self.reading) for n in (group, step))
        return Values(codes, group, step)
