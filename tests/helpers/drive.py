"""Streams and AXI4-Lite in Amaranth's simulator: sources and sinks with seeded pauses, stepped cycle by cycle.

In every cycle a bench lets all of them set their wires (`Drive.set`), then look at what the others set (`Drive.see`),
then lets the clock tick. A beat is one integer: the bits of a payload, or of TDATA with TLAST above it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat, Value


class Wires(NamedTuple):
    """A stream: what it carries in a beat, as one value, and its handshake."""

    word: Value
    valid: Value
    ready: Value

    @classmethod
    def of(cls, port) -> Wires:
        """Those of a stream of Amaranth's, or of an AXI4-Stream."""
        if hasattr(port, "payload"):
            return cls(Value.cast(port.payload), port.valid, port.ready)
        return cls(Cat(port.tdata, port.tlast), port.tvalid, port.tready)


def pack(codes: Iterable[int], bits: int) -> int:
    """Codes as one word, `bits` each, the first lowest."""
    word = 0
    for k, code in enumerate(codes):
        word |= (int(code) & (1 << bits) - 1) << bits * k
    return word


def unpack(word: int, bits: int, count: int, signed: bool) -> list[int]:
    """The codes that `pack` made a word of; what lies above them is left out."""
    half = 1 << bits - 1 if signed else 0
    return [((word >> bits * k & (1 << bits) - 1) ^ half) - half for k in range(count)]


class Source:
    """Offers words, each until it is taken; before each it waits another cycle with probability `idle`.

    words    those that are to go, and those that went (`append` and `+=` put more)
    taken    how many went
    cycles   when each of them went
    may      whether the word of this number may be offered yet
    then     called in the cycle in which the word of this number goes
    """

    def __init__(
        self,
        wires: Wires,
        words: Iterable[int] = (),
        *,
        idle: float = 0.0,
        seed: object = 0,
        may: Callable[[int], bool] = lambda _: True,
        then: Callable[[int], None] = lambda _: None,
    ):
        self.wires, self.words, self.idle, self.may, self.then = wires, list(words), idle, may, then
        self.rng = np.random.default_rng(seed)
        self.cycles: list[int] = []
        self.offers, self.valid = False, None

    @property
    def taken(self) -> int:
        return len(self.cycles)

    @property
    def left(self) -> int:
        """Words that have not gone yet."""
        return len(self.words) - len(self.cycles)

    def clear(self) -> None:
        """Nothing is to go or is offered any more, nothing went."""
        self.words, self.cycles, self.offers = [], [], False

    def set(self, ctx) -> None:
        if not self.offers and self.left and self.may(self.taken) and self.rng.random() >= self.idle:
            self.offers = True
            ctx.set(self.wires.word, self.words[self.taken])
        if self.offers != self.valid:  # setting a wire costs the simulator time, even to what it is
            self.valid = self.offers
            ctx.set(self.wires.valid, self.offers)

    def see(self, ctx, now: int) -> bool:
        """Whether a word goes in this cycle."""
        if not self.offers or not ctx.get(self.wires.ready):
            return False
        self.offers = False
        self.cycles.append(now)
        self.then(self.taken - 1)
        return True


class Sink:
    """Takes words; in a cycle it is not ready with probability `backpressure`. A word that waits must stay.

    words    what came
    cycles   when each of them came
    then     called with every word that comes
    """

    def __init__(
        self,
        wires: Wires,
        *,
        backpressure: float = 0.0,
        seed: object = 0,
        then: Callable[[int], None] = lambda _: None,
    ):
        self.wires, self.backpressure, self.then = wires, backpressure, then
        self.rng = np.random.default_rng(seed)
        self.clear()

    def clear(self) -> None:
        """Nothing came, nothing waits."""
        self.words: list[int] = []
        self.cycles: list[int] = []
        self.waiting: int | None = None
        self.ready: bool | None = None

    def set(self, ctx) -> None:
        ready = bool(self.rng.random() >= self.backpressure)
        if ready != self.ready:
            self.ready = ready
            ctx.set(self.wires.ready, ready)

    def see(self, ctx, now: int) -> bool:
        """Whether a word comes in this cycle."""
        word = ctx.get(self.wires.word) if ctx.get(self.wires.valid) else None
        assert self.waiting is None or word == self.waiting, "a beat changed while it waited, or was withdrawn"
        self.waiting = None if self.ready else word
        if word is None or not self.ready:
            return False
        self.words.append(word)
        self.cycles.append(now)
        self.then(word)
        return True


class Drive:
    """Sources and sinks of one clock, and its cycles.

    now        number of this cycle
    patience   cycles in which nothing moves that are taken for a deadlock
    """

    def __init__(self, *streams: Source | Sink, patience: int):
        self.streams, self.patience = streams, patience
        self.now = self.quiet = 0

    def set(self, ctx) -> None:
        """The first half of a cycle: every source offers or does not, every sink is ready or not."""
        for one in self.streams:
            one.set(ctx)

    def see(self, ctx) -> None:
        """The second half, when all wires are what they are in this cycle."""
        moved = [one.see(ctx, self.now) for one in self.streams]
        self.quiet = 0 if any(moved) else self.quiet + 1
        self.now += 1
        assert self.quiet < self.patience, f"deadlock: {'; '.join(map(self.told, self.streams))}"

    @staticmethod
    def told(one: Source | Sink) -> str:
        """How far a stream came."""
        if isinstance(one, Source):
            return f"{one.taken} of {len(one.words)} words went in"
        return f"{len(one.words)} words came out"

    async def cycle(self, ctx) -> None:
        """A whole cycle of the clock of the testbench."""
        self.set(ctx)
        self.see(ctx)
        await ctx.tick()


async def edge(ctx, clock) -> None:
    """A rising edge of a top's own clock, and the rest of its cycle."""
    ctx.set(clock, 1)
    await ctx.delay(5e-9)
    ctx.set(clock, 0)
    await ctx.delay(5e-9)


class Lite:
    """Accesses over AXI4-Lite, one at a time; every channel waits with probability `idle` in a cycle.

    wire     the signal of a name, such as "awaddr"
    cycle    lets a cycle of `streams` pass
    """

    #: Cycles after which an access that is not answered never will be.
    PATIENCE = 1000

    def __init__(
        self,
        wire: Callable[[str], Value],
        cycle: Callable[[], Awaitable[None]],
        *,
        idle: float = 0.0,
        seed: object = 0,
    ):
        def channel(name: str, *signals: str) -> Wires:
            return Wires(Cat(*map(wire, signals)), wire(f"{name}valid"), wire(f"{name}ready"))

        self.cycle = cycle
        self.address = Source(channel("aw", "awaddr"), idle=idle, seed=[seed, 0])
        self.data = Source(channel("w", "wdata", "wstrb"), idle=idle, seed=[seed, 1])
        self.written = Sink(channel("b", "bresp"), backpressure=idle, seed=[seed, 2])
        self.place = Source(channel("ar", "araddr"), idle=idle, seed=[seed, 3])
        self.read_data = Sink(channel("r", "rdata", "rresp"), backpressure=idle, seed=[seed, 4])
        self.streams = (self.address, self.data, self.written, self.place, self.read_data)

    async def write(self, address: int, value: int, strobe: int = 0xF, data_first: bool = False) -> int:
        """The response to a write."""
        self.address.words.append(address)
        self.data.words.append(value & 0xFFFFFFFF | strobe << 32)
        self.address.may = lambda _: not data_first or not self.data.left
        return await self.answer(self.written)

    async def read(self, address: int) -> tuple[int, int]:
        """The value that a read gives, and its response."""
        self.place.words.append(address)
        word = await self.answer(self.read_data)
        return word & 0xFFFFFFFF, word >> 32

    async def answer(self, sink: Sink) -> int:
        had = len(sink.words)
        for _ in range(self.PATIENCE):
            await self.cycle()
            if len(sink.words) > had:
                return sink.words[-1]
        raise AssertionError("AXI4-Lite: an access is not answered")
