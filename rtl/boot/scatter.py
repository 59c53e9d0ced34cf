"""From the codes of a generator to places in the tables of an accelerator: one code a cycle, and their checksum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from bittrue.rtl.boot.places import Section
from bittrue.rtl.dataflow.stage import Storage, Structure, beat, counting, counting_bits, register, shape_of
from bittrue.rtl.parts.held import Table
from bittrue.rtl.parts.rom import Rom
from bittrue.sim.contract import Format

#: Cycles from a code that is taken to its `put`.
LATENCY = 5
#: Values of a field up to which a part is a table in LUTs even where it is a sum over bits.
SMALL = 64


class Scatter(wiring.Component):
    """Takes codes, sample after sample, and says where each goes.

    sections  of a boot (`rtl.boot.places`);  tables  of the accelerator;  fmt  of the codes;  codes  of a sample
    i         a code a beat, always taken
    start     strobe: a boot begins; the checksum is that of nothing
    put, table, row, slot, value   `LATENCY` cycles after a code is taken; `put` only where it goes somewhere
    done      strobe, with the last code's
    sum       CRC-32 of the codes that are put, each in whole bytes, the lowest first; from the cycle after the code on
    """

    _MustUse__silence = True  # made to be looked at, too

    def __init__(self, sections: Sequence[Section], tables: Sequence[Table], fmt: Format, codes: int):
        self.sections, self.tables, self.format, self.codes = list(sections), list(tables), fmt, codes
        self.row_bits = counting_bits(max(table.rows for table in tables))
        self.slot_bits = counting_bits(max(table.slots for table in tables))
        self.bytes = -(-fmt.bits // 8)
        self.storages = [Storage(sum(s.bits), len(s), table=True) if sum(s.bits) else None for s in self.sections]
        super().__init__(
            {
                "i": In(stream.Signature(beat(fmt, 1))),
                "start": In(1),
                "put": Out(1),
                "table": Out(self.table_shape),
                "row": Out(self.row_bits),
                "slot": Out(self.slot_bits),
                "value": Out(shape_of(fmt)),
                "done": Out(1),
                "sum": Out(32),
            }
        )

    def structure(self) -> Structure:
        """Counters, the words of the samples, the arithmetic behind them, and the checksum."""
        built = Structure()
        row, slot = self.row_bits, self.slot_bits
        built.count(self.codes - 1, max(len(s) for s in self.sections) - 1, len(self.sections) - 1)
        for storage, section in zip(self.storages, self.sections, strict=True):
            if storage is not None:
                built.store(storage)
            for part in section.parts or ():
                built.table_bits += part.size // 3 * (row + 2 * slot) if len(part) <= SMALL else 0
                for _ in range((len(part) - 1).bit_length() if len(part) > SMALL else 0):
                    built.add(row, registered=False)
        built.select_bits += (len(self.sections) - 1) * (row + 2 * slot)
        built.registers += 3 * (row + 3 * slot + self.format.bits + 8) + 2 * (self.format.bits + 2)
        built.registers += sum(storage is not None for storage in self.storages) * (row + 2 * slot)
        built.registers += 2 * (counting_bits(self.codes) + counting_bits(len(self.sections)))
        built.add(row)
        built.add(slot)
        built.select_bits += 32 * 4 * self.bytes
        built.registers += 32
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        sections, codes = self.sections, self.codes
        code, sample = Signal(counting(codes), name="code"), Signal(counting(max(map(len, sections))), name="sample")
        section = Signal(counting(len(sections)), name="section")
        taken, code_last, sample_last, section_last = (
            Signal(name=n) for n in ("taken", "code_ends", "sample_ends", "ends")
        )
        m.d.comb += [
            self.i.ready.eq(1),
            taken.eq(self.i.valid),
            code_last.eq(code == codes - 1),
            sample_last.eq(sample == _of(section, [len(s) - 1 for s in sections])),
            section_last.eq(section == len(sections) - 1),
        ]
        # The word of the sample is read, and what it says in each section; meanwhile the code waits.
        origins = [self._origin(m, k, sample) for k in range(len(sections))]
        goes = Signal(name="goes")
        m.d.comb += goes.eq(_chosen(section, [_of(code, [int(kind >= 0) for kind in s.tables]) for s in sections]))
        with m.If(taken):
            m.d.sync += code.eq(Mux(code_last, 0, code + 1))
            with m.If(code_last):
                m.d.sync += sample.eq(Mux(sample_last, 0, sample + 1))
            with m.If(code_last & sample_last):
                m.d.sync += section.eq(Mux(section_last, 0, section + 1))
        ended = taken & code_last & sample_last & section_last
        code, section = (register(m, v, name=f"{v.name}_waits", cycles=2) for v in (code, section))

        # Of the sample: R, H, A.
        row, high, low = (
            register(m, _chosen(section, [origin[n] for origin in origins]), width, name=name)
            for n, (name, width) in enumerate(
                (("row", self.row_bits), ("high", self.slot_bits), ("low", self.slot_bits))
            )
        )

        # Of the code: its table, Q, B, W.
        def told(name: str, of, width) -> Value:
            rows = [[int(of(s, k)) for k in range(codes)] for s in sections]
            if all(len(set(numbers)) == 1 for numbers in rows):
                value = _of(section, [numbers[0] for numbers in rows])
            else:
                value = _chosen(section, [_of(code, numbers) for numbers in rows])
            return register(m, value, width, name=name)

        rows = (1 << self.row_bits) - 1
        move = told("move", lambda s, k: s.steps[k, 0] & rows, self.row_bits)
        step = told("step", lambda s, k: s.steps[k, 1], self.slot_bits)
        wrap = told("wrap", lambda s, k: s.wrap, self.slot_bits + 1)  # noqa: ARG005
        table = told("table", lambda s, k: max(0, s.tables[k]), self.table_shape)

        # Sums, and then what is carried.
        total = Signal(self.slot_bits + 1, name="total")
        m.d.sync += total.eq(low + step)
        row_2, high_2, move_2, wrap_2 = (
            register(m, v, name=n) for v, n in ((row, "row_2"), (high, "high_2"), (move, "move_2"), (wrap, "wrap_2"))
        )
        over = Signal(name="over")
        m.d.comb += over.eq(total >= wrap_2)
        m.d.sync += [
            self.row.eq(row_2 + move_2 + over),
            self.slot.eq(high_2 + total - Mux(over, wrap_2, 0)),
            self.table.eq(register(m, table, name="table_2")),
            self.value.eq(register(m, self.i.payload[0], shape_of(self.format), name="value", cycles=LATENCY - 1)),
        ]
        put, done = (Signal(LATENCY - 1, name=n) for n in ("put_waits", "done_waits"))
        m.d.sync += [put.eq(Cat(taken & goes, put[:-1])), self.put.eq(put[-1])]
        m.d.sync += [done.eq(Cat(ended, done[:-1])), self.done.eq(done[-1])]

        m.submodules.checksum = checksum = catalog.CRC32_ISO_HDLC(8 * self.bytes).create()
        code_word = self.i.payload[0]
        m.d.comb += [
            checksum.start.eq(self.start),
            checksum.valid.eq(taken & goes),
            checksum.data.eq(code_word),  # extended by its sign
            self.sum.eq(checksum.crc),
        ]
        return m

    @property
    def table_shape(self):
        return counting(len(self.tables))

    def _origin(self, m: Module, number: int, sample: Value) -> list[Value]:
        """R, H and A of a sample in one section, two cycles later."""
        section, storage = self.sections[number], self.storages[number]
        fields: list[Value] = [Const(0, 1)] * len(section.bits)
        if storage is not None:
            packed = np.zeros((len(section), 1), np.int64)
            low = 0
            for field, bits in zip(section.words.T, section.bits, strict=True):
                packed[:, 0] |= field << low
                low += bits
            m.submodules[f"words_{number}"] = memory = Rom(
                storage, shape_of(Format(storage.width, signed=False)), packed
            )
            m.d.comb += memory.addr.eq(sample[: max(1, (len(section) - 1).bit_length())])
            low = 0
            for k, bits in enumerate(section.bits):
                fields[k] = memory.data[0][low : low + bits] if bits else Const(0, 1)
                low += bits
        widths = (self.row_bits, self.slot_bits, self.slot_bits)
        if section.parts is not None:
            given = list(zip(fields, section.parts, strict=True))
            fields = [_sum([_part(f, part[:, k], width) for f, part in given], width) for k, width in enumerate(widths)]
        return [
            field if isinstance(field, Const) else register(m, field, width, name=f"{name}_{number}")
            for field, width, name in zip(fields, widths, ("row", "high", "low"), strict=True)
        ]


def _sum(parts: Sequence[Value], width: int) -> Value:
    total: Value = Const(0, width)
    for part in parts:
        total = part if isinstance(total, Const) and total.value == 0 else (total + part)[:width]
    return total


def _part(field: Value, values: np.ndarray, width: int) -> Value:
    """What a field adds: a sum over its bits where it is one and those are bits of the result or many, else a table."""
    bits = (len(values) - 1).bit_length()
    weights = [int(values[1 << k]) - int(values[0]) for k in range(bits)]
    places = np.arange(len(values))
    linear = values[0] + sum((weight * (places >> k & 1) for k, weight in enumerate(weights)), 0 * places)
    disjoint = all(w >= 0 for w in weights) and int(values[0]) == 0 and _apart([w for w in weights if w])
    if np.array_equal(linear, values) and (disjoint or len(values) > SMALL):
        total: Value = Const(int(values[0]), width)
        for k, weight in enumerate(weights):
            add = Mux(field[k], Const(weight & (1 << width) - 1, width), 0)
            total = total | add if disjoint else (total + add)[:width]
        return total
    return _of(field, [int(v) for v in values])


def _apart(weights: Sequence[int]) -> bool:
    """Whether no two of them share a bit, so that their sum is no adder."""
    seen = 0
    for weight in weights:
        if seen & weight:
            return False
        seen |= weight
    return True


def _of(at: Value, numbers: Sequence[int]) -> Value:
    """The number at an index."""
    if len(set(numbers)) == 1:
        return Const(int(numbers[0]))
    return Array(Const(int(number)) for number in numbers)[at]


def _chosen(at: Value, values: Sequence[Value]) -> Value:
    """The value at an index."""
    return values[0] if len(values) == 1 else Array(values)[at]
