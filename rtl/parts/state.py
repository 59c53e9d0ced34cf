"""State that is read, changed and written back for one group of channels a cycle: membranes, sums over time."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Storage, Structure, register, valid_chain

#: From so many cycles on, a group comes round late enough for the read and the write to have a cycle of their own.
PIPELINED = 3


def state(
    m: Module,
    name: str,
    layout: data.Layout,
    groups: int,
    early: Value,
    group: Value,
    valid: Value,
    cycles: int = 0,
    spacing: int = 1,
) -> tuple[Value, Signal]:
    """What the state of `group` is, in the cycle of `valid`, and the signal that takes what it becomes.

    `early` is the group of the next cycle. One group is a register; those that come round within two cycles are a
    memory that is read and written within the cycle; others are read the cycle before and written the cycle after. What
    it becomes may be told so many `cycles` after `valid`, if the group comes round that much later.

    spacing   cycles from a group to the next, at least
    """
    after = Signal(layout, name=f"{name}_after")
    if cycles and not rests(groups, spacing, cycles):
        raise ValueError(f"{name}: {groups} groups come round before what they became is stored")
    if groups == 1:
        held = Signal(layout, name=name, reset_less=True)
        with m.If(valid):
            m.d.sync += held.eq(after)
        return held, after
    m.submodules[name] = memory = Storage(layout.size, groups, clocked=False).memory(layout)
    read, write = memory.read_port(domain="comb"), memory.write_port()
    if not rests(groups, spacing):
        m.d.comb += [read.addr.eq(group), write.addr.eq(group), write.data.eq(after), write.en.eq(valid)]
        return read.data, after
    writes = valid_chain(m, valid, 1 + cycles)[-1]
    m.d.comb += [
        read.addr.eq(early),
        write.addr.eq(register(m, group, name=f"{name}_at", cycles=1 + cycles)),
        write.data.eq(register(m, after, layout, name=f"{name}_written")),
        write.en.eq(writes),
    ]
    return register(m, read.data, layout, name=f"{name}_held"), after


def rests(groups: int, spacing: int = 1, cycles: int = 0) -> bool:
    """Whether a group comes round late enough to be read and written in other cycles, and so many later."""
    return groups > 1 and groups * spacing >= PIPELINED + cycles


def structure(bits: int, groups: int, cycles: int = 0, spacing: int = 1) -> Structure:
    """What `bits` of state for each of so many groups cost."""
    if groups == 1:
        return Structure(registers=bits)
    memory = Structure(lutrams=-(-bits // 4) * -(-groups // 16), select_bits=bits * (-(-groups // 16) - 1))
    if not rests(groups, spacing):
        return memory
    return memory + Structure(registers=2 * bits + (1 + cycles) * (1 + (groups - 1).bit_length()))
