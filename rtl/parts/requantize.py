"""From accumulator to output code in hardware: one pipeline for linear, affine and mean.

Constants that are the same for every channel of a lane become wires; the others come from a small ROM that is
read in step with the data. Every adder is as wide as its exact range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory

from bittrue.rtl.dataflow.stage import Storage, Structure, counting, register, shape_of
from bittrue.rtl.parts.held import Table
from bittrue.sim.contract import Format, Range
from bittrue.sim.held import Held, Parameter, bounds
from bittrue.sim.requantize import Requantize


def channel_constants(
    m: Module,
    name: str,
    fields: Mapping[str, np.ndarray],
    lanes: int,
    next_group: Value,
    which: Value | None = None,
    row: Value | None = None,
) -> dict[str, list[Value]]:
    """The constants of the channels of each beat, per field and lane, one cycle after `next_group`.

    `fields` are integer arrays `[channels]`; channel `g * lanes + j` is lane j of beat g. `next_group` is high in
    the cycle before each beat, in order. Beats in another order come with their number `which`, two cycles before each.
    What comes from block RAM, late in its cycle, waits in a register for its beat. With `row`, the word that `words`
    tells of each beat comes with it, and there is no memory.
    """
    result: dict[str, list[Value]] = {}
    stored = _stored(fields, lanes)
    for key, values in fields.items():
        for lane in range(lanes):
            mine = values[lane::lanes]
            wired = f"{key}_{lane}" not in stored
            result.setdefault(key, []).append(Const(int(mine[0]), shape_of(Format.covering(mine)) if wired else 1))
    if stored and row is not None:
        read = data.View(_layout(stored), row)
    elif stored:
        groups = len(next(iter(fields.values()))) // lanes
        layout = _layout(stored)
        rows = [{key: int(values[g]) for key, (_, values) in stored.items()} for g in range(groups)]
        storage = Storage(layout.size, groups, table=True)
        m.submodules[f"{name}_rom"] = memory = storage.memory(layout, rows)
        held = storage.style == "block"
        if which is None:
            read = _in_order(m, name, memory, groups, next_group, held)
        else:
            read = _by_number(m, name, memory, which, held)
    for key in stored:
        field_name, _, lane = key.rpartition("_")
        result[field_name][int(lane)] = read[key]
    return result


def words(fields: Mapping[str, np.ndarray], lanes: int) -> tuple[int, list[int]]:
    """The bits of a word that holds the constants of a beat, and that of every beat in order."""
    stored, at = _stored(fields, lanes), 0
    found = [0] * (len(next(iter(fields.values()))) // lanes)
    for fmt, mine in stored.values():
        for beat, value in enumerate(mine):
            found[beat] |= (int(value) & ((1 << fmt.bits) - 1)) << at
        at += fmt.bits
    return at, found


def _stored(fields: Mapping[str, np.ndarray], lanes: int) -> dict[str, tuple[Format, np.ndarray]]:
    """The constants of a lane that are not the same for all its channels, by field and lane."""
    found = {f"{key}_{lane}": values[lane::lanes] for key, values in fields.items() for lane in range(lanes)}
    return {key: (Format.covering(mine), mine) for key, mine in found.items() if (mine != mine[0]).any()}


def _layout(stored: Mapping[str, tuple[Format, np.ndarray]]) -> data.StructLayout:
    return data.StructLayout({key: shape_of(fmt) for key, (fmt, _) in stored.items()})


def store_constants(built: Structure, bits: int, groups: int, numbered: bool = False) -> None:
    """Count what `channel_constants` builds for `bits` a beat: ROM, register behind block RAM, counter.

    Of beats that are `numbered` there is no counter, and a register for the number before what is no block RAM.
    """
    rom = Storage(bits, groups, table=True)
    built.store(rom)
    block = rom.style == "block"
    if not numbered:
        built.count(groups - 1)
    elif not block:
        built.registers += (groups - 1).bit_length()
    if block:
        built.registers += bits


def _in_order(m: Module, name: str, memory: Memory, groups: int, next_group: Value, held: bool) -> data.View:
    """The rows of a memory one after the other, each in the cycle after `next_group`.

    The port looks up the group *before* its beat arrives, and stays there: gaps between beats are harmless.
    """
    port = memory.read_port(domain="sync")
    group, after = Signal(counting(groups), name=f"{name}_group"), Signal(counting(groups), name=f"{name}_group_after")
    m.d.comb += after.eq(Mux(next_group, Mux(group == groups - 1, 0, group + 1), group))
    m.d.sync += group.eq(after)
    m.d.comb += [port.addr.eq(after if held else group), port.en.eq(1)]
    if not held:
        return port.data
    row = Signal(port.data.shape(), name=f"{name}_row")
    with m.If(next_group):
        m.d.sync += row.eq(port.data)
    return row


def _by_number(m: Module, name: str, memory: Memory, which: Value, held: bool) -> data.View:
    """The rows of a memory by number, each two cycles after its number."""
    port = memory.read_port(domain="sync")
    m.d.comb += [port.addr.eq(which if held else register(m, which, name=f"{name}_number")), port.en.eq(1)]
    return register(m, port.data, port.data.shape(), name=f"{name}_row") if held else port.data


def outside(x: Value, low: int, high: int) -> tuple[Value, Value]:
    """Whether a value is above `high`, 2^n - 1, and below `low`: by bits where `low` is a bound of bits, too.

    A value is above 2^n - 1 if it is not negative and has a bit from the n-th on, below -2^n if it is negative and
    lacks one, below 0 if it is negative.
    """
    signed = x.shape().signed
    bits = (high + 1).bit_length() - 1
    negative = x[-1] if signed else Const(0, 1)
    rest = x[min(bits, len(x) - signed) : len(x) - signed]
    over = ~negative & rest.any() if len(rest) else Const(0, 1)
    if not low:
        under = negative
    elif low == -high - 1:
        under = negative & ~rest.all() if len(rest) else Const(0, 1)
    else:
        under = x < low
    return over, under


@dataclass(frozen=True, eq=False)
class PipeStep:
    """One register stage: what it does, and each channel's exact range after it, int64 `[channels]`."""

    kind: str
    low: np.ndarray
    high: np.ndarray
    amount: int = 0


class RequantizePipe:
    """`saturate(max(round_shift((acc + bias_acc) * multiplier, shift) + bias, floor))`, `cycles` register stages.

    `low` and `high` are the accumulator's exact range per channel. Steps that would do nothing are left out. Of held
    inputs (`tables`, by step) the widths follow from the bounds; half of 2^shift is made from a held shift.
    """

    def __init__(self, requantize: Requantize, low: np.ndarray, high: np.ndarray, lanes: int):
        self.requantize, self.lanes = requantize, lanes
        r = requantize
        shifts = bounds(r.shift)
        half = [(np.int64(1) << shift) >> np.int64(1) for shift in shifts]
        #: By step, the numbers that it works with: arrays `[channels]`, or held inputs.
        self.numbers: dict[str, Parameter] = {"multiply": r.multiplier, "bias": r.bias}
        joined = r.pure_shift and not isinstance(r.shift, Held) and not isinstance(r.bias_acc, Held)
        self.numbers["before"] = r.bias_acc + half[0] if joined else r.bias_acc  # type: ignore[operator]
        self.moving = isinstance(r.shift, Held)
        if joined:
            half = [np.zeros_like(end) for end in half]
        elif not self.moving:
            self.numbers["after"] = half[0]
        self.steps: list[PipeStep] = []
        self.input_range = (low, high)

        def add(kind: str, low: np.ndarray, high: np.ndarray, amount: int = 0) -> tuple[np.ndarray, np.ndarray]:
            self.steps.append(PipeStep(kind, low, high, amount))
            return low, high

        least, most = bounds(self.numbers["before"])
        if least.any() or most.any():
            low, high = add("before", low + least, high + most)
        if not r.pure_shift:
            least, most = bounds(r.multiplier)
            low, high = add("multiply", np.minimum(low * least, low * most), np.maximum(high * least, high * most))
        if half[0].any() or half[1].any():
            low, high = add("after", low + half[0], high + half[1])
        self.shift_base = int(shifts[0].min())
        low, high = low >> self.shift_base, high >> self.shift_base
        rest = [shift - self.shift_base for shift in shifts]
        if not self.moving:
            self.numbers["shift"] = rest[0]
        for bit in range(0, int(rest[1].max()).bit_length(), 2):
            most = rest[1] & (3 << bit) if not self.moving else np.minimum(rest[1] >> bit, 3) << bit
            least = np.zeros_like(most) if self.moving else most
            ends = np.minimum(low >> least, low >> most), np.maximum(high >> least, high >> most)
            low, high = add("shift", *ends, bit)
        least, most = bounds(r.bias)
        if least.any() or most.any():
            low, high = add("bias", low + least, high + most)
        if low.min() < r.low or high.max() > r.format.high:
            clipped = np.clip(low, r.low, r.format.high), np.clip(high, r.low, r.format.high)
            low, high = add("saturate", *clipped)
        used = {step.kind for step in self.steps}
        index = np.arange(r.channels).reshape(-1, lanes)
        self.tables: dict[str, Table] = {}
        for kind, numbers in (self.numbers | {"shift": r.shift if self.moving else self.numbers["shift"]}).items():
            if isinstance(numbers, Held) and (kind in used or kind == "shift"):
                self.tables[kind] = Table(numbers, index, self.shift_base if kind == "shift" else 0)

    @property
    def cycles(self) -> int:
        return len(self.steps)

    @property
    def fixed(self) -> dict[str, np.ndarray]:
        """The constants of the steps, arrays `[channels]`."""
        numbers = {k: self.numbers.get(k) for k in ("before", "multiply", "after", "shift", "bias")}
        return {k: v for k, v in numbers.items() if v is not None and not isinstance(v, Held)}

    @property
    def words(self) -> tuple[int, list[int]]:
        """The bits of a word that holds the constants of a beat, and that of every beat in order."""
        return words(self.fixed, self.lanes) if self.fixed else (0, [])

    def lane_range(self, step: PipeStep, lane: int) -> Range:
        return Range.of(step.low[lane :: self.lanes], step.high[lane :: self.lanes])

    def structure(self, numbered: bool = False, beside: bool = False) -> Structure:
        """Adders, shifters, clamps and the ROM of the constants; as of `store_constants` for beats with numbers.

        The ROM is left out where the constants come with the beats (`beside`).
        """
        built = Structure()
        r = self.requantize
        stored, delays = 0, 0
        for position, step in enumerate(self.steps):
            for lane in range(self.lanes):
                bits = self.lane_range(step, lane).bits
                if step.kind == "multiply":
                    built.multipliers += 1
                    built.registers += bits
                elif step.kind in ("shift", "saturate"):
                    built.select(bits)
                else:
                    built.add(bits)
                table = self.tables.get("shift" if step.kind == "after" and self.moving else step.kind)
                if table is not None:
                    delays += table.format.bits * position
                    continue
                mine = self.numbers.get(step.kind, np.zeros(r.channels))[lane :: self.lanes]  # type: ignore[index]
                if not (mine == mine[0]).all():
                    width = Format.covering(mine).bits
                    delays += width * position
                    stored += width if not (step.kind == "shift" and step.amount) else 0
        if stored and not beside:
            store_constants(built, stored, r.channels // self.lanes, numbered)
        built.registers += delays
        for table in self.tables.values():
            built += table.structure()
        if "after" in {step.kind for step in self.steps} and self.moving:
            built.select_bits += self.lanes * self.tables["shift"].held.high
        return built

    def build(
        self,
        m: Module,
        acc: list[Value],
        early: Value,
        which: Value | None = None,
        held: Value | None = None,
        row: Value | None = None,
    ) -> list[Value]:
        """The output codes per lane, `cycles` later; `early` is high one cycle before each accumulator beat.

        Beats that do not come in the order of their channels come with their number `which`, two cycles before; where
        there are `tables`, two cycles before each beat comes its row in them, `held`. With `row`, the word of `words`
        comes with each beat.
        """
        used, fixed = {step.kind for step in self.steps}, self.fixed
        constants = channel_constants(m, "requantize", fixed, self.lanes, early, which, row) if fixed else {}
        for kind, table in self.tables.items():
            row = table.build(m, kind, held)
            constants[kind] = [row[lane] for lane in range(self.lanes)]
        if self.moving:
            constants["after"] = constants["shift"]
        if not used & {"before", "multiply", "after"}:
            acc = [value >> self.shift_base for value in acc]
        result = list(acc)
        for position, step in enumerate(self.steps):
            for lane in range(self.lanes):
                x, shape = result[lane], shape_of(self.lane_range(step, lane))
                if step.kind in constants:
                    operand = constants[step.kind][lane]
                    if not isinstance(operand, Const):
                        operand = register(
                            m, Value.cast(operand), name=f"{step.kind}_{position}_{lane}", cycles=position
                        )
                    if step.kind == "after" and self.moving:
                        operand = self._half(operand)
                if step.kind in ("before", "after", "bias"):
                    y = x + operand
                elif step.kind == "multiply":
                    y = x * operand
                elif step.kind == "shift":
                    y = x >> (Value.cast(operand)[step.amount : step.amount + 2] << step.amount)
                else:
                    y = self._saturated(x)
                result[lane] = register(m, y, shape, name=f"{step.kind}{step.amount}_lane{lane}")
            if step.kind in ("before", "multiply", "after") and self._last_of_scaling(position):
                result = [value >> self.shift_base for value in result]
        return result

    def _saturated(self, x: Value) -> Value:
        """The value within `low` and the format's highest."""
        r = self.requantize
        over, under = outside(x, r.low, r.format.high)
        return Mux(over, r.format.high, Mux(under, r.low, x))

    def _half(self, rest: Value) -> Value:
        """Half of 2^shift for a held shift, of which the constant part is taken off."""
        most = self.tables["shift"].held.high - self.shift_base
        one = (Const(1) << rest)[: most + 1]
        return one << (self.shift_base - 1) if self.shift_base else one >> 1

    def _last_of_scaling(self, position: int) -> bool:
        """Whether the constant part of the shift comes right after this step."""
        later = [step.kind for step in self.steps[position + 1 :]]
        return not set(later) & {"before", "multiply", "after"}
