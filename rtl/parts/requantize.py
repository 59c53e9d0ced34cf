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
from bittrue.sim.contract import Format, Range
from bittrue.sim.requantize import Requantize


def channel_constants(
    m: Module,
    name: str,
    fields: Mapping[str, np.ndarray],
    lanes: int,
    next_group: Value,
    which: Value | None = None,
) -> dict[str, list[Value]]:
    """The constants of the channels of each beat, per field and lane, one cycle after `next_group`.

    `fields` are integer arrays `[channels]`; channel `g * lanes + j` is lane j of beat g. `next_group` is high in
    the cycle before each beat, in order. Beats in another order come with their number `which`, two cycles before each.
    What comes from block RAM, late in its cycle, waits in a register for its beat.
    """
    result: dict[str, list[Value]] = {}
    stored: dict[str, tuple[Format, np.ndarray]] = {}
    for key, values in fields.items():
        for lane in range(lanes):
            mine = values[lane::lanes]
            fmt = Format.covering(mine)
            if (mine == mine[0]).all():
                result.setdefault(key, []).append(Const(int(mine[0]), shape_of(fmt)))
            else:
                stored[f"{key}_{lane}"] = (fmt, mine)
                result.setdefault(key, []).append(Const(0))
    if stored:
        groups = len(next(iter(fields.values()))) // lanes
        layout = data.StructLayout({key: shape_of(fmt) for key, (fmt, _) in stored.items()})
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


def store_constants(built: Structure, bits: int, groups: int) -> None:
    """Count what `channel_constants` builds for `bits` a beat: ROM, register behind block RAM, counter."""
    rom = Storage(bits, groups, table=True)
    built.store(rom)
    built.count(groups - 1)
    if rom.style == "block":
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


@dataclass(frozen=True)
class Step:
    """One register stage: what it does, and each channel's exact range after it, int64 `[channels]`."""

    kind: str
    low: np.ndarray
    high: np.ndarray
    amount: int = 0


class RequantizePipe:
    """`saturate(max(round_shift((acc + bias_acc) * multiplier, shift) + bias, floor))`, `cycles` register stages.

    `low` and `high` are the accumulator's exact range per channel. Steps that would do nothing are left out.
    """

    def __init__(self, requantize: Requantize, low: np.ndarray, high: np.ndarray, lanes: int):
        self.requantize, self.lanes = requantize, lanes
        r = requantize
        self.half = (np.int64(1) << r.shift) >> np.int64(1)
        self.before = r.bias_acc if not r.pure_shift else r.bias_acc + self.half
        self.after = self.half if not r.pure_shift else np.zeros_like(self.half)
        self.steps: list[Step] = []
        self.input_range = (low, high)

        def add(kind: str, low: np.ndarray, high: np.ndarray, amount: int = 0) -> tuple[np.ndarray, np.ndarray]:
            self.steps.append(Step(kind, low, high, amount))
            return low, high

        if self.before.any():
            low, high = add("before", low + self.before, high + self.before)
        if not r.pure_shift:
            low, high = add("multiply", low * r.multiplier, high * r.multiplier)
        if self.after.any():
            low, high = add("after", low + self.after, high + self.after)
        self.shift_base = int(r.shift.min())
        low, high = low >> self.shift_base, high >> self.shift_base
        self.shift_rest = r.shift - self.shift_base
        for bit in range(0, int(self.shift_rest.max()).bit_length(), 2):
            part = self.shift_rest & (3 << bit)
            low, high = add("shift", low >> part, high >> part, bit)
        if r.bias.any():
            low, high = add("bias", low + r.bias, high + r.bias)
        if low.min() < r.low or high.max() > r.format.high:
            clipped = np.clip(low, r.low, r.format.high), np.clip(high, r.low, r.format.high)
            low, high = add("saturate", *clipped)

    @property
    def cycles(self) -> int:
        return len(self.steps)

    def lane_range(self, step: Step, lane: int) -> Range:
        return Range.of(step.low[lane :: self.lanes], step.high[lane :: self.lanes])

    def structure(self) -> Structure:
        """Adders, shifters, clamps and the ROM of the constants."""
        built = Structure()
        r = self.requantize
        stored, delays = 0, 0
        constants = {"before": self.before, "multiply": r.multiplier, "after": self.after}
        constants |= {"shift": self.shift_rest, "bias": r.bias}
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
                mine = constants.get(step.kind, np.zeros(r.channels))[lane :: self.lanes]
                if not (mine == mine[0]).all():
                    width = Format.covering(mine).bits
                    delays += width * position
                    stored += width if not (step.kind == "shift" and step.amount) else 0
        if stored:
            store_constants(built, stored, r.channels // self.lanes)
        built.registers += delays
        return built

    def build(self, m: Module, acc: list[Value], early: Value, which: Value | None = None) -> list[Value]:
        """The output codes per lane, `cycles` later; `early` is high one cycle before each accumulator beat.

        Beats that do not come in the order of their channels come with their number `which`, two cycles before.
        """
        r = self.requantize
        fields = {"before": self.before, "multiply": r.multiplier, "after": self.after}
        fields |= {"shift": self.shift_rest, "bias": r.bias}
        used = {step.kind for step in self.steps}
        constants = channel_constants(
            m, "requantize", {k: v for k, v in fields.items() if k in used}, self.lanes, early, which
        )
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
                if step.kind in ("before", "after", "bias"):
                    y = x + operand
                elif step.kind == "multiply":
                    y = x * operand
                elif step.kind == "shift":
                    y = x >> (Value.cast(operand)[step.amount : step.amount + 2] << step.amount)
                else:
                    y = Mux(x > r.format.high, r.format.high, Mux(x < r.low, r.low, x))
                result[lane] = register(m, y, shape, name=f"{step.kind}{step.amount}_lane{lane}")
            if step.kind in ("before", "multiply", "after") and self._last_of_scaling(position):
                result = [value >> self.shift_base for value in result]
        return result

    def _last_of_scaling(self, position: int) -> bool:
        """Whether the constant part of the shift comes right after this step."""
        later = [step.kind for step in self.steps[position + 1 :]]
        return not set(later) & {"before", "multiply", "after"}
