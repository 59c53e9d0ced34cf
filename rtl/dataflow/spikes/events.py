"""Spiking fully connected layer, event-driven: only inputs that spike cost a cycle; weights come from block RAM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.folding import Folding, check_folding, divisors
from bittrue.rtl.dataflow.spikes.accumulate import Accumulators
from bittrue.rtl.dataflow.stage import (
    Outlet,
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
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.rtl.parts.requantize import RequantizePipe
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, bounds
from bittrue.sim.operations.spiking_linear import SpikingLinear

#: Most spikes of a beat that the search for the next event looks at in a cycle, for 100 MHz.
WIDEST = 32


class AddressEvents:
    """The address-event stream of a spike train: one event for every spike, in order.

    Built into a stage: takes beats of spikes from `stage.i`, two of them at a time, and says in every working cycle

    moves     accumulators change in this cycle, those of the outputs of `group`
    hit       there is a spike, at the place `lowest` (one-hot) of the beat `part` of time step `step`
    clear     nothing of this train was accumulated before
    double    the time step begins, and so do accumulators that double
    issue     its group of outputs is complete after it: the last event of the train
    ends      nothing of this train is left after it
    """

    def __init__(self, m: Module, stage: EventLinearStage, outlet: Outlet):
        lanes, groups, parts, steps = stage.lanes_in, stage.groups, stage.parts, stage.operation.steps
        spikes, waiting = Signal(lanes), Signal(lanes)
        active, full, taken, release = Signal(), Signal(), Signal(), Signal()
        room = Signal(init=1)
        m.d.comb += [stage.i.ready.eq(room), taken.eq(stage.i.valid & room)]
        incoming = Cat(*stage.i.payload)

        # The beat at hand and the one that waits behind it.
        empty = Signal()  # after this cycle, unless a beat comes in
        m.d.comb += empty.eq(~active | (release & ~full))
        behind = Signal()
        m.d.comb += behind.eq((full & ~release) | (taken & ~empty))
        m.d.sync += [active.eq(~empty | taken), full.eq(behind), room.eq(~behind)]
        with m.If(taken):
            m.d.sync += waiting.eq(incoming)

        # Where the beat lies in its train.
        self.part, self.step = Signal(counting(parts)), Signal(counting(steps))
        part_last = advance(m, self.part, parts - 1, release)
        step_last = advance(m, self.step, steps - 1, release & part_last)

        # The lowest spike, and whether it is the only one left.
        self.lowest, self.hit, alone = Signal(lanes), Signal(), Signal()
        rest = Signal(lanes)
        m.d.comb += [
            rest.eq(spikes & (spikes - 1)[:lanes]),
            self.lowest.eq(spikes & ~rest),
            self.hit.eq(spikes.any()),
            alone.eq(~rest.any()),
        ]
        final, begins = Signal(), Signal()
        m.d.comb += [final.eq(part_last & step_last), begins.eq((self.part == 0) & Const(int(stage.doubles)))]

        # Every event is held for all groups of outputs; an empty beat is passed over, unless outputs wait for it.
        self.group, self.moves, self.issue = Signal(counting(groups)), Signal(), Signal()
        skips, group_last, complete = Signal(), Signal(), Signal()
        fresh = Signal(init=1)  # nothing of this beat was worked on yet
        go = Signal()
        m.d.comb += [
            skips.eq(~self.hit & ~final & ~begins),
            group_last.eq(skips | (self.group == groups - 1)),
            complete.eq(final & alone),
            go.eq(active & (outlet.available | ~complete)),
            self.issue.eq(go & complete),
            outlet.issue.eq(self.issue),
            self.moves.eq(go & ~skips),
            release.eq(go & group_last & alone),
        ]
        self.ends = release & final
        with m.If(go):
            m.d.sync += self.group.eq(Mux(group_last, 0, self.group + 1))
            with m.If(group_last):
                m.d.sync += [spikes.eq(rest), fresh.eq(alone)]
        with m.If(release | ~active):
            with m.If(full):
                m.d.sync += spikes.eq(waiting)
            with m.Else():
                m.d.sync += spikes.eq(incoming)
        self.clear, self.double = Signal(init=1), Signal()
        with m.If(self.moves & group_last):
            m.d.sync += self.clear.eq(complete)
        m.d.comb += self.double.eq(begins & fresh)


@realises(SpikingLinear, "events")
class EventLinearStage(Stage):
    """`acc[n] += decode[t] * weight[n, i]` for every spike of input i at step t, then `y[n] = requantize(acc[n])`.

    The cycles of a frame depend on its spikes: a beat with e > 0 of them takes e * N / pe cycles and a beat without
    takes one; but a beat that ends a train, and with a halving decode one that begins a time step (the accumulators
    double there), takes N / pe at least. `work` counts them for given spikes. `simd` is the spikes of a beat, and
    `pe` the outputs to which a weight is added in a cycle. With a halving decode there is no multiplier, otherwise one
    per output lane.

    Latency, throughput   as the schedule gives them for the spikes at hand; `timing` states the most
    """

    folds = True
    whole_beats = True
    dynamic = True

    def __init__(self, operation: SpikingLinear, *, lanes: int, simd: int, pe: int):
        outputs, inputs = operation.weight.shape
        check_folding("spiking_linear", simd=(simd, inputs), pe=(pe, outputs))
        if lanes != simd:
            raise BittrueError(f"spiking_linear: an event-driven layer takes simd = {simd} spikes a beat, not {lanes}")
        self.operation, self.pe = operation, pe
        self.groups, self.parts, self.doubles = outputs // pe, inputs // lanes, operation.halving
        self.accumulators = Accumulators(operation, pe)
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, pe)
        self.worth_cycles = 0 if operation.halving else 1
        self.arrival = 5 + self.worth_cycles
        depth = self.arrival + self.requantize.cycles + 1
        self.timing = Blocks(
            beats_out=self.groups,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth),
            frame=operation.input.size // lanes,
            gather=operation.steps * self.parts,
            work=lanes * self.groups,
        )
        self.weights = Storage(operation.weight_format.bits * pe, inputs * self.groups, table=True)
        self.weight_table: Table | None = None
        if isinstance(operation.weight, Held):
            index = np.arange(operation.weight.size).reshape(outputs, inputs)
            self.weight_table = Table(operation.weight, self.rows(index))
            self.weights = self.weight_table.storage
        super().__init__([(operation.input.format, lanes)], (operation.output.format, pe))
        held = [] if self.weight_table is None else [self.weight_table]
        self.tables = [*held, *self.requantize.tables.values()]

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """A matrix `[N, C]` as words of the weight memory: word `channel * groups + group` holds the `pe` weights of a
        channel for a group of outputs."""
        return weight.T.reshape(-1, self.pe)

    # -- cycles ----------------------------------------------------------------------------------------
    def work(self, spikes: np.ndarray) -> np.ndarray:
        """The cycles of every beat, for spike trains `[n, ..., K, C]`: int64, in the order of the stream."""
        trains = spikes.reshape(-1, self.operation.steps, self.parts, self.lanes_in)
        events = trains.sum(axis=3, dtype=np.int64)
        least = np.ones_like(events)
        least[:, -1, -1] = self.groups
        if self.doubles:
            least[:, :, 0] = self.groups
        return np.maximum(events * self.groups, least).reshape(-1)

    @classmethod
    def foldings(cls, operation: SpikingLinear) -> list[Folding]:
        """Every legal folding."""
        outputs, inputs = operation.weight.shape
        return [Folding(simd, pe, "events") for simd in divisors(inputs) for pe in divisors(outputs) if simd <= WIDEST]

    @classmethod
    def intervals(cls, operation: SpikingLinear) -> set[int]:
        """The intervals that its foldings give when every input spikes."""
        outputs, inputs = operation.weight.shape
        return {operation.input.size * n for n in divisors(outputs)}

    @classmethod
    def fold(cls, operation: SpikingLinear, interval: int, name: str, activity: float = 1.0) -> Folding:
        """The fewest adders that are through with a frame within `interval` cycles, when a share `activity` spikes."""
        events = operation.input.size * activity
        for folding in sorted(cls.foldings(operation), key=lambda f: (f.pe, f.simd)):
            beats = operation.input.size // folding.simd
            groups = len(operation.weight) // folding.pe
            if max(beats, events * groups + operation.input.tokens * groups) <= interval:
                return folding
        raise BittrueError(
            f"{name}: {events:.0f} events a frame do not fit an interval of {interval} cycles, whatever the folding; "
            "choose the parallel architecture for it or a longer interval"
        )

    def product_range(self, lane: int) -> Range:
        """Exact range of a lane's weight, or none, times what a spike is worth."""
        least, most = (ends[lane :: self.pe] for ends in bounds(self.operation.weight))
        ends = np.outer([least.min(), most.max(), 0], self.operation.decode)
        return Range.of(ends, ends)

    def structure(self) -> Structure:
        built = super().structure() + self.accumulators.structure() + self.requantize.structure()
        lanes, bits = self.lanes_in, self.operation.weight_format.bits
        if self.weight_table is None:
            built.store(self.weights)
        else:
            built += self.weight_table.structure(early=True)
        if self.tables:
            built += Exchange.structure(self.exchange_bits, self.arrival)
            built.count(self.operation.tokens - 1, self.groups - 1)
        built.count(self.parts - 1, self.operation.steps - 1, self.groups - 1)
        at, group, part = 4 + self.worth_cycles, counting_bits(self.groups), counting_bits(self.parts)
        # the beat, the one behind it, the event and what is known of them; where it lies; then its weights
        built.registers += 3 * lanes + 9 - self.worth_cycles + part + (self.groups == 1) + group
        built.registers += counting_bits(self.operation.input.channels * self.groups) + self.pe * bits
        built.registers += at * (group + 4)  # the group, and whether it moves, is the first, doubles or falls
        built.add(lanes, registered=False)
        built.select_bits += 3 * lanes + self.pe * bits
        if self.worth_cycles:
            built.multipliers += self.pe
            built.registers += sum(self.product_range(p).bits for p in range(self.pe))
            built.registers += 4 * Format.covering(self.operation.decode, signed=True).bits
        return built

    def counts(self, *operands: np.ndarray) -> dict[str, int]:
        """Events (ones) that come in, and moves: cycles in which accumulators change."""
        (spikes,) = operands
        beats = spikes.reshape(-1, self.operation.steps, self.parts, self.lanes_in).any(axis=3)
        passed = ~beats  # a beat without an event takes a cycle in which nothing moves, unless outputs wait for it
        passed[:, -1, -1] = False
        if self.doubles:
            passed[:, :, 0] = False
        moves = int(self.work(spikes).sum()) - int(np.count_nonzero(passed))
        return {"events": int(spikes.sum(dtype=np.int64)), "moves": moves}

    def effort(self, *, events: float, moves: float) -> Effort:  # type: ignore[override]
        """A row of weights is read and added for every event; accumulators also move where they double."""
        op, effort, n = self.operation, Effort(), len(self.operation.weight)
        held = self.accumulators.bits
        effort.add(held // n, events * n)
        if not op.halving:
            effort.multiply(op.weight_format.bits, Format.covering(op.decode, signed=True).bits, events * n)
        effort.access("weights", self.weights.bits, events * n * op.weight_format.bits)
        moved = moves * self.pe * held / n
        effort.access("state", held, moved, moved)
        effort.requantize(self.requantize, op.tokens)
        return effort

    # -- hardware --------------------------------------------------------------------------------------
    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        events = AddressEvents(m, self, outlet)
        op, groups, pe = self.operation, self.groups, self.pe
        depth = self.timing.depth

        # One-hot to address, one cycle after the search; the word of the weight memory another one later.
        hit = register(m, events.hit, name="hit")
        onehot = register(m, events.lowest, name="onehot")
        channel = Signal(counting(self.lanes_in))
        bits = len(channel)
        for k in range(bits):
            places = [onehot[n] for n in range(self.lanes_in) if n >> k & 1]
            m.d.comb += channel[k].eq(Cat(*places).any() if places else 0)
        part, group = register(m, events.part, name="part_at"), register(m, events.group, name="group_at")
        place = times(part, self.lanes_in * groups) + times(channel, groups) + group
        address = register(m, place, counting(op.input.channels * groups), name="address")
        issued = valid_chain(m, events.issue, depth - 1)
        banks, constants = self.follow(m, events, issued)
        shape = shape_of(op.weight_format)
        if self.weight_table is not None:
            row = self.weight_table.build(m, "weights", self.weight_table.address(address, banks[2]), early=True)
        else:
            m.submodules.weights = read = Rom(self.weights, shape, self.rows(op.weight))
            m.d.comb += read.addr.eq(address)
            row = read.data
        # What is read goes into a register as it is, one that the block takes in; where there is no spike, 0 is added.
        hit, weights = register(m, hit, name="hit_late", cycles=2), [row[p] for p in range(pe)]
        weights = [register(m, weight, shape, name=f"weight{p}") for p, weight in enumerate(weights)]
        if self.worth_cycles:
            worths = Format.covering(op.decode, signed=True)
            worth = register(m, Array(int(d) for d in op.decode)[events.step], shape_of(worths), name="worth", cycles=3)
            worth = register(m, Mux(hit, worth, 0), shape_of(worths), name="worth_now")
            shapes = [shape_of(self.product_range(p)) for p in range(pe)]
            terms: list[Value] = [
                register(m, weight * worth, shapes[p], name=f"product{p}") for p, weight in enumerate(weights)
            ]
        else:
            hit = register(m, hit, name="hit_now")
            terms = [Mux(hit, weight, 0) for weight in weights]

        at = 4 + self.worth_cycles
        falls = Signal()
        m.d.comb += falls.eq(Array(int(d < 0) for d in op.decode)[events.step])
        totals = self.accumulators.build(
            m,
            terms,
            valid=valid_chain(m, events.moves, at)[at],
            early=(early := register(m, events.group, name="group_late", cycles=at - 1)),
            group=register(m, early, name="group_now"),
            clear=register(m, events.clear, name="clear", cycles=at),
            double=register(m, events.double, name="double", cycles=at),
            falls=register(m, falls, name="falls_late", cycles=at),
        )
        result = self.requantize.build(m, totals, issued[at], held=constants)
        m.d.comb += outlet.push.eq(issued[depth - 1])
        m.d.comb += [outlet.payload[p].eq(result[p]) for p in range(pe)]
        return m

    def follow(self, m: Module, events: AddressEvents, issued: Sequence[Value]) -> tuple[Sequence[Value], Value | None]:
        """The bank of the event at hand, now and so many cycles ago; and the row of the requantiser's tables two cycles
        before each result reaches it."""
        if not self.tables:
            return (), None
        train, group, ahead = Signal(counting(self.operation.tokens)), Signal(counting(self.groups)), self.arrival - 2
        train_last = advance(m, train, self.operation.tokens - 1, events.ends)
        banks = self.exchange.follow(m, events.ends & train_last, self.arrival)
        advance(m, group, self.groups - 1, issued[ahead])
        return banks, Cat(group[: (self.groups - 1).bit_length()], banks[ahead])


def times(value: Value, factor: int) -> Value:
    """`value * factor` by shifts and additions, so that no multiplier is taken for an address."""
    parts = [value << bit for bit in range(factor.bit_length()) if factor >> bit & 1]
    return sum(parts[1:], parts[0])
