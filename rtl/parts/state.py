"""State that is read, changed and written back for one group of channels a cycle: membranes, sums over time."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Storage, Structure, register

#: From so many groups on, a group comes round late enough for the read and the write to have a cycle of their own.
PIPELINED = 3


def state(
    m: Module, name: str, layout: data.Layout, groups: int, early: Value, group: Value, valid: Value
) -> tuple[Value, Signal]:
    """What the state of `group` is, and the signal that takes what it becomes, both in the cycle of `valid`.

    `early` is the group of the next cycle. One group is a register; two are a memory that is read and written within
    the cycle; more are read the cycle before and written the cycle after.
    """
    after = Signal(layout, name=f"{name}_after")
    if groups == 1:
        held = Signal(layout, name=name, reset_less=True)
        with m.If(valid):
            m.d.sync += held.eq(after)
        return held, after
    m.submodules[name] = memory = Storage(layout.size, groups, clocked=False).memory(layout)
    read, write = memory.read_port(domain="comb"), memory.write_port()
    if groups < PIPELINED:
        m.d.comb += [read.addr.eq(group), write.addr.eq(group), write.data.eq(after), write.en.eq(valid)]
        return read.data, after
    writes = Signal(name=f"{name}_writes")
    m.d.sync += writes.eq(valid)
    m.d.comb += [
        read.addr.eq(early),
        write.addr.eq(register(m, group, name=f"{name}_at")),
        write.data.eq(register(m, after, layout, name=f"{name}_written")),
        write.en.eq(writes),
    ]
    return register(m, read.data, layout, name=f"{name}_held"), after


def structure(bits: int, groups: int) -> Structure:
    """What `bits` of state for each of so many groups cost."""
    if groups == 1:
        return Structure(registers=bits)
    memory = Structure(lutrams=-(-bits // 4) * -(-groups // 16), select_bits=bits * (-(-groups // 16) - 1))
    return memory if groups < PIPELINED else memory + Structure(registers=2 * bits + 1 + (groups - 1).bit_length())
