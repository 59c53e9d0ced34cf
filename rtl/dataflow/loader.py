"""Sets of weights from a stream into the tables of the stages, each exchanged as a whole between two frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, ResetSignal, Signal, Value

from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.stage import Structure, counting
from bittrue.rtl.parts.held import Exchange, Table
from bittrue.sim.contract import Format
from bittrue.sim.held import Set
from bittrue.sim.operation import TensorType

#: Cycles from the last value of a set to its exchange: it must lie in its memory before a stage can read it.
SETTLE = 2
#: Bits of the counters of sets and of refused ones.
COUNT_BITS = 8


class Words:
    """A set as the words of a stream: every value of every table, one a word, in the order of the tables' rows."""

    def __init__(self, tables: Sequence[Table]):
        self.tables = list(tables)
        self.lows, self.highs = ([getattr(table.held, end) for table in self.tables] for end in ("low", "high"))
        self.format = Format.covering(min(self.lows), max(self.highs))
        self.count = sum(table.index.size for table in self.tables)

    def port(self, prefix: str) -> StreamPort:
        """The stream: a frame is a set."""
        return StreamPort(prefix, TensorType((self.count,), self.format), 1, framed=False)

    def pack(self, values: Set) -> np.ndarray:
        """A set, int64 `[count]`."""
        return np.concatenate([np.asarray(values[t.held.name]).reshape(-1)[t.index.reshape(-1)] for t in self.tables])

    def describe(self) -> list[dict[str, object]]:
        """Where each held input begins: its name, its first word, rows, values of a row, bounds."""
        rows, first = [], 0
        for t in self.tables:
            rows.append(
                {"held": t.held.name, "first": first, "words": t.index.size, "rows": t.rows, "slots": t.slots}
                | {"low": t.held.low, "high": t.held.high}
            )
            first += t.index.size
        return rows


class Loader(Elaboratable):
    """Takes the words of a set, checks them, writes them to the bank that no frame reads, and exchanges the banks.

    A set ends with `last`. A set with a word too few or too many, or with a value out of its bounds, changes nothing
    and counts as an error. A frame meets the set that `sets` counts in the cycle in which the first of its beats comes
    in, on whatever input. While an exchange is under way the next set waits (`ready` is low); frames never wait.

    word, valid, ready, last  the stream, a word sign-extended to whole bytes
    begins    by input: a beat is taken that begins a frame
    sets      sets that were exchanged, modulo 2^8; 0 after reset, which leaves the newest set in force
    errors    sets that were refused, up to 2^8 - 1;  refused  strobe
    settling  an exchange is under way;  exchanged  strobe, in the cycle after which `sets` counts it

    Tables that are scattered are written value by value, and not from the stream alone:

    boot      somebody else writes: nothing is taken from the stream, and a set that has begun there is refused
    put       strobe: `put_value` goes to `put_slot` of `put_row` of table `put_table`
    finish    strobe, behind the last of these: the set is whole
    """

    _MustUse__silence = True  # planning makes one that is never elaborated

    def __init__(self, words: Words, exchanges: Sequence[Exchange], inputs: int):
        self.words, self.exchanges = words, list(exchanges)
        self.bits = self.exchanges[0].bits
        port = words.port("s_axis_weights")
        self.word = Signal(Format(port.width, True).bits)
        self.valid, self.ready, self.last = Signal(), Signal(), Signal()
        self.begins = [Signal(name=f"begins_{k}") for k in range(inputs)]
        self.sets, self.errors, self.refused = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal()
        self.settling, self.exchanged = Signal(), Signal()
        self.scattered = words.tables[0].scattered
        self.boot, self.put, self.finish = Signal(), Signal(), Signal()
        self.put_table = Signal(counting(len(words.tables)))
        self.put_slot = Signal(counting(max(t.slots for t in words.tables)))
        self.put_row = Signal(counting(max(t.rows for t in words.tables)))
        self.put_value = Signal(Format.covering(min(words.lows), max(words.highs), signed=True).bits)

    def structure(self) -> Structure:
        built = Structure()
        tables, bits = self.words.tables, self.words.format.bits
        built.count(len(tables), max(t.slots for t in tables) - 1, max(t.rows for t in tables) - 1)
        built.count(*[(1 << COUNT_BITS) - 1] * 2, *[(1 << self.bits) - 1] * len(self.begins))
        built.add(bits, registered=False)  # two bounds
        built.add(bits, registered=False)
        built.registers += self.bits + bits + max(t.row_bits for t in tables) + 2 * len(tables) + 8
        built.select_bits += 2 * (len(tables) - 1) * bits // 4
        if self.scattered:
            places = len(self.put_table) + len(self.put_slot) + len(self.put_row)
            built.registers += len(self.put_table) + len(self.put_slot)
            built.select_bits += places + bits
        return built

    def _among(self, word: Value) -> Value:
        """Whether a word is one of the values of the held input, where that is not all between two bounds; what has
        such values is alone in a program (`sim.groups`)."""
        among = self.words.tables[0].held.among
        return Const(1) if among is None else Cat(word == value for value in among).any()

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        tables = self.words.tables
        signed = self.words.format.signed
        word = self.word.as_signed() if signed else self.word

        # Where the next word belongs.
        table = Signal(counting(len(tables) + 1))
        slot = Signal(counting(max(t.slots for t in tables)))
        row = Signal(counting(max(t.rows for t in tables)))
        taken, good, over = Signal(), Signal(init=1, name="good"), Signal()
        fits, slot_last, row_last, last_table = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            taken.eq(self.valid & self.ready),
            fits.eq((word >= _of(table, self.words.lows)) & (word <= _of(table, self.words.highs)) & self._among(word)),
            slot_last.eq(slot == _of(table, [t.slots - 1 for t in tables])),
            row_last.eq(row == _of(table, [t.rows - 1 for t in tables])),
            last_table.eq(table == len(tables) - 1),
            over.eq(table == len(tables)),
        ]
        complete = Signal()
        m.d.comb += complete.eq(last_table & row_last & slot_last & fits & good)
        refused, accepted = self.refused, Signal()
        m.d.comb += [accepted.eq(taken & self.last & complete), refused.eq(taken & self.last & ~complete)]
        with m.If(taken):
            m.d.sync += good.eq(good & fits & ~over)
            with m.If(~over):
                m.d.sync += slot.eq(Mux(slot_last, 0, slot + 1))
                with m.If(slot_last):
                    m.d.sync += row.eq(Mux(row_last, 0, row + 1))
                    with m.If(row_last):
                        m.d.sync += table.eq(table + 1)
            with m.If(self.last):
                m.d.sync += [slot.eq(0), row.eq(0), table.eq(0), good.eq(1)]
        if self.scattered:
            with m.If(self.boot & Cat(slot, row, table).any()):
                m.d.sync += good.eq(0)
        with m.If(refused & (self.errors != (1 << COUNT_BITS) - 1)):
            m.d.sync += self.errors.eq(self.errors + 1)

        # The value goes out in the next cycle, its row in the one after.
        bank, idle = Signal(name="bank", reset_less=True), Signal(name="idle_bank")
        m.d.comb += idle.eq(~bank)
        if self.scattered:
            self._put(m, word, taken & ~over, (table, slot, row), idle)
        else:
            self._shift(m, word, taken, (table, slot_last, row), idle)

        # The exchange.
        entered, after = [], []
        for k, begins in enumerate(self.begins):
            count, behind = Signal(self.bits, name=f"entered_{k}"), Signal(self.bits, name=f"entered_after_{k}")
            m.d.comb += behind.eq(count + begins)
            m.d.sync += count.eq(behind)
            entered.append(count)
            after.append(behind)
        newest: Value = after[0]
        for k, count in enumerate(after[1:]):
            ahead = Signal(self.bits, name=f"ahead_{k}")
            m.d.comb += ahead.eq(count - newest)
            newest = Mux(ahead[-1], newest, count)
        turn, armed, busy = Signal(self.bits), Signal(), Signal()
        waiting: list[Value] = [accepted | self.finish if self.scattered else accepted]
        for k in range(SETTLE):
            waiting.append(Signal(name=f"accepted_{k + 1}"))
            m.d.sync += waiting[-1].eq(waiting[-2])
        settled = Signal()
        m.d.comb += settled.eq(Cat(x.settled for x in self.exchanges).all())
        with m.If(waiting[0]):
            m.d.sync += busy.eq(1)
        with m.Elif(armed & settled):
            m.d.sync += [busy.eq(0), armed.eq(0)]
        with m.If(waiting[-1]):
            m.d.sync += [turn.eq(newest), armed.eq(1), self.sets.eq(self.sets + 1)]
        with m.If(waiting[-1] & ~ResetSignal()):
            m.d.sync += bank.eq(~bank)
        m.d.comb += [
            self.ready.eq(~busy & ~self.boot if self.scattered else ~busy),
            self.settling.eq(busy),
            self.exchanged.eq(waiting[-1]),
        ]
        for exchange in self.exchanges:
            m.d.comb += [exchange.bank.eq(bank), exchange.turn.eq(turn), exchange.armed.eq(armed)]
        return m

    def _shift(self, m: Module, word: Value, taken: Value, place: Sequence[Value], idle: Value) -> None:
        """A row is shifted together, and then written."""
        tables, (table, slot_last, row) = self.words.tables, place
        value, address = Signal.like(word, name="value"), Signal.like(row, name="value_row")
        m.d.sync += [value.eq(word), address.eq(row)]
        later = Signal.like(address, name="written_row")
        m.d.sync += later.eq(address)
        for k, target in enumerate(tables):
            shift, whole, write = Signal(name=f"shift_{k}"), Signal(name=f"whole_{k}"), Signal(name=f"write_{k}")
            m.d.sync += [shift.eq(taken & (table == k)), whole.eq(taken & (table == k) & slot_last), write.eq(whole)]
            p = target.port
            m.d.comb += [p.value.eq(value), p.shift.eq(shift), p.write.eq(write), p.row.eq(later), p.bank.eq(idle)]

    def _put(self, m: Module, word: Value, taken: Value, place: Sequence[Value], idle: Value) -> None:
        """Every value is written by itself, from the stream or while `boot`."""
        value = Signal.like(word, name="value")
        table, slot, row = (
            Signal.like(like, name=f"value_{name}") for name, like in zip(("table", "slot", "row"), place, strict=True)
        )
        theirs = self.put_value.as_signed() if self.words.format.signed else self.put_value
        write = Signal(name="value_write")
        m.d.sync += [value.eq(Mux(self.boot, theirs, word)), write.eq(Mux(self.boot, self.put, taken))]
        puts = zip((table, slot, row), (self.put_table, self.put_slot, self.put_row), place, strict=True)
        m.d.sync += [out.eq(Mux(self.boot, put, here)) for out, put, here in puts]
        for k, target in enumerate(self.words.tables):
            p = target.port
            m.d.comb += [p.value.eq(value), p.write.eq(write & (table == k)), p.row.eq(row), p.slot.eq(slot)]
            m.d.comb += p.bank.eq(idle)


def _of(table: Signal, numbers: Sequence[int]) -> Value:
    """The number of the table at hand."""
    if len(set(numbers)) == 1:
        return Const(numbers[0])
    return Array(map(Const, numbers))[table]


def beats_begin(m: Module, name: str, beats: int, taken: Value) -> Value:
    """Whether the beat that is `taken` in this cycle is the first of a frame of so many beats."""
    at = Signal(counting(beats), name=f"{name}_beat")
    with m.If(taken):
        m.d.sync += at.eq(Mux(at == beats - 1, 0, at + 1))
    return taken & (at == 0)


def order(tables: Mapping[str, Sequence[Table]]) -> list[Table]:
    """The tables of the stages, by node, in the order in which a set is written."""
    return [table for of in tables.values() for table in of]
