"""Memories of which synthesis is told that no word in use is read while it is written: such a read gives garbage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory, ReadPort, WritePort

from bittrue.rtl.dataflow.structure import Storage


class Garbling(Elaboratable):
    """A memory whose read gives the wrong bits, all of them, when the word is written in the same cycle.

    A block RAM without collision logic promises nothing there; so what is computed stays right only if nobody uses it.
    """

    def __init__(self, memory: Memory):
        self.memory = memory
        self.writes: list[WritePort] = []
        self.reads: list[tuple[ReadPort, ReadPort]] = []

    def write_port(self, **options) -> WritePort:
        self.writes.append(self.memory.write_port(**options))
        return self.writes[-1]

    def read_port(self, *, domain: str) -> ReadPort:
        inner = self.memory.read_port(domain=domain)
        assert domain == "sync"
        self.reads.append((inner, inner.signature.create()))
        return self.reads[-1][1]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        m.submodules.memory = self.memory
        for k, (inner, outer) in enumerate(self.reads):
            met = Signal(name=f"met{k}")
            meets = [write.en.any() & (write.addr == inner.addr) for write in self.writes]
            with m.If(inner.en):
                m.d.sync += met.eq(Cat(*meets).any())
            code = Value.cast(inner.data)
            m.d.comb += [inner.addr.eq(outer.addr), inner.en.eq(outer.en)]
            m.d.comb += Value.cast(outer.data).eq(Mux(met, ~code, code))
        return m


@contextmanager
def garbling() -> Iterator[None]:
    """Memories built meanwhile garble what is read and written at once, where they are built `apart`."""
    build = Storage.memory

    def memory(self: Storage, shape, init=(), apart: bool = False) -> Memory | Garbling:
        built = build(self, shape, init, apart)
        return Garbling(built) if apart else built

    with patch.object(Storage, "memory", memory):
        yield
