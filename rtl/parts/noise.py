"""Deterministic noise in hardware: a pipelined block cipher per lane, a pipelined square root, three products.

The equations and the numbering of sites are those of `sim.noise`. Nothing here ever stops: a beat that is issued gets
its words after a fixed number of cycles, and they meet the counts that were issued with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.stage import Structure, advance, counting, register, shape_of
from bittrue.sim.contract import Range, round_shift
from bittrue.sim.noise import MEAN, ROUNDS, Noise, root

#: A sum of four bytes less its mean.
GAUSSIAN = Range(-MEAN, MEAN)
WORD = 32


@dataclass(frozen=True)
class Sites:
    """The blocks that the cipher encrypts for the beat that is issued: its image, and the sites of its numbers."""

    image: Value
    common: Value
    lanes: list[Value]


@dataclass(frozen=True)
class Numbers:
    """What the hardware reads of a noise: constants, or registers that hold the numbers of the layer in use.

    keys   the round keys
    half   half of 2^shift; 0 for a shift of 0
    """

    keys: Sequence[Value | int]
    relative: Value | int
    shot: Value | int
    thermal: Value | int
    shift: Value | int
    half: Value | int


def _bounds(sources: Iterable[tuple[int, int]]) -> tuple[Range, Range]:
    """Of `value * gaussian`, and of that times its factor, for factors and the highest of their values.

    A value whose factor is 0 does not count: of its product, whatever digits are kept, nothing is left.
    """
    used = [(MEAN * highest, factor) for factor, highest in sources if factor]
    before = max((most for most, _ in used), default=0)
    after = max((most * factor for most, factor in used), default=0)
    return Range(-before, before), Range(-after, after)


class NoiseLanes:
    """`max(u + round_shift(relative * u * g0 + shot * floor(sqrt(u)) * g1 + thermal * g2, shift), 0)` on every lane.

    noises    every noise that it is to be wide enough for, with the highest of its counts u, which are at least 0
    arrival   cycles from the blocks of a beat, which go to the cipher, to its counts

    `cycles` from the blocks to the result: the words take 1 for the block, 27 for the rounds and 2 for the bytes, the
    root one for each of its bits; whichever is there first waits. Then 6: products 2, sums 2, count 1, clip at zero 1.
    """

    #: Cycles from the blocks to g0, g1 and g2.
    WORDS = 1 + ROUNDS + 2
    #: Cycles from counts, roots and words to the result.
    TAIL = 6

    def __init__(self, noises: Sequence[tuple[Noise, int]], arrival: int):
        self.arrival = arrival
        self.relative, self.shot, self.thermal = (
            max(getattr(noise, name) for noise, _ in noises) for name in ("relative", "shot", "thermal")
        )
        self.count = Range(0, max(highest for _, highest in noises))
        # Of what relative and shot noise scale, before and after: the bound of each noise with its own counts.
        self.relative_bounds = _bounds((noise.relative, highest) for noise, highest in noises)
        self.shot_bounds = _bounds((noise.shot, int(root(np.int64(highest)))) for noise, highest in noises)
        self.count_bits = max(1, self.count.high.bit_length())
        self.root_bits = -(-self.count_bits // 2)
        self.meeting = max(arrival + (self.root_bits if self.shot else 0), self.WORDS)
        self.sum = self.total = Range(0, 0)
        for noise, highest in noises:
            bound, half = noise.bound(highest), (1 << noise.shift) >> 1
            self.sum |= Range(bound.low + half, bound.high + half)
            most, least = (int(round_shift(np.int64(v), noise.shift)) for v in (bound.high, bound.low))
            self.total |= Range(least, highest + most)

    @property
    def cycles(self) -> int:
        return self.meeting + self.TAIL

    @property
    def result(self) -> Range:
        """Exact bounds of what comes out."""
        return Range(0, self.total.high)

    def add(
        self,
        m: Module,
        counts: Sequence[Value],
        words: Sequence[tuple[Signal, Signal]],
        common: Value | None,
        numbers: Numbers,
    ) -> list[Signal]:
        """The counts of every lane with their noise.

        counts   `arrival` cycles after the blocks
        words    of every lane, from `cipher`; not read where there is neither shot nor thermal noise
        common   g0, `meeting` cycles after the blocks; not read where there is no relative noise
        """
        at, wait = self.meeting, self.meeting - self.WORDS
        result = []
        for lane, count in enumerate(counts):
            held = self.later(m, count, f"count{lane}_held", at - self.arrival)
            terms: list[Value] = []
            drift: Value = Value.cast(numbers.half)
            if self.relative:
                terms.append(self.scaled(m, f"relative{lane}", held, common, numbers.relative, self.relative_bounds))
            if self.shot:
                g1 = self.later(m, self.gaussian(m, words[lane][0], f"g1_{lane}"), f"g1_{lane}_held", wait)
                size = self.root(m, f"root{lane}", count)
                size = self.later(m, size, f"root{lane}_held", at - self.arrival - self.root_bits)
                terms.append(self.scaled(m, f"shot{lane}", size, g1, numbers.shot, self.shot_bounds))
            if self.thermal:
                g2 = self.later(m, self.gaussian(m, words[lane][1], f"g2_{lane}"), f"g2_{lane}_held", wait)
                shape = shape_of(Range(-MEAN * self.thermal, MEAN * self.thermal))
                product = register(m, g2 * numbers.thermal, shape, name=f"thermal{lane}")
                drift = register(m, product + numbers.half, shape_of(self.sum), name=f"drift{lane}", cycles=2)
            total = sum(terms, Const(0))
            first = register(m, total, shape_of(self.sum), name=f"noise{lane}")
            second = register(m, first + drift, shape_of(self.sum), name=f"noise{lane}_all")
            held = self.later(m, held, f"count{lane}_late", 4)
            noisy = register(m, held + (second >> numbers.shift), shape_of(self.total), name=f"noisy{lane}")
            clipped = Mux(noisy < 0, 0, noisy)
            result.append(register(m, clipped, shape_of(self.result), name=f"clipped{lane}"))
        return result

    # -- parts -----------------------------------------------------------------------------------------
    @staticmethod
    def cipher(m: Module, name: str, keys: Sequence[Value | int], high: Value, low: Value) -> tuple[Signal, Signal]:
        """The block (high, low) encrypted, 28 cycles later: one round of Speck64/128 a register."""
        x = register(m, high, WORD, name=f"{name}_x")
        y = register(m, low, WORD, name=f"{name}_y")
        for k, key in enumerate(keys):
            mixed = Signal(WORD, name=f"{name}_mixed{k}")
            m.d.comb += mixed.eq((x.rotate_right(8) + y) ^ key)
            y = register(m, y.rotate_left(3) ^ mixed, WORD, name=f"{name}_y{k}")
            x = register(m, mixed, WORD, name=f"{name}_x{k}")
        return x, y

    @staticmethod
    def gaussian(m: Module, word: Signal, name: str) -> Signal:
        """The sum of the bytes of a word less its mean, 2 cycles later."""
        pairs = [register(m, word[k : k + 8] + word[k + 8 : k + 16], 9, name=f"{name}_bytes{k}") for k in (0, 16)]
        return register(m, pairs[0] + pairs[1] - MEAN, shape_of(GAUSSIAN), name=name)

    def root(self, m: Module, name: str, value: Value) -> Signal:
        """`floor(sqrt(value))`, `root_bits` cycles later: restoring, a bit a register from the highest."""
        rest: Value = value
        found: Value = Const(0)
        remainder: Value = Const(0)
        for k in range(self.root_bits):
            left = 2 * (self.root_bits - 1 - k)  # digits below the pair that is brought down
            grown = (remainder << 2) | rest[left : left + 2]
            trial = (found << 2) | 1
            fits = Signal(name=f"{name}_fits{k}")
            m.d.comb += fits.eq(grown >= trial)
            # remainder <= 2 * found, so it has one bit more than the root so far
            remainder = register(m, Mux(fits, grown - trial, grown), k + 2, name=f"{name}_rest{k}")
            found = register(m, (found << 1) | fits, k + 1, name=f"{name}_bits{k}")
            rest = register(m, rest[:left], max(1, left), name=f"{name}_digits{k}")
        return found

    @staticmethod
    def scaled(
        m: Module, name: str, value: Value, gaussian: Value, factor: Value | int, bounds: tuple[Range, Range]
    ) -> Signal:
        """`factor * value * gaussian`, 2 cycles later; `bounds` of `value * gaussian` and of the result."""
        before, after = (shape_of(bound) for bound in bounds)
        product = register(m, value * gaussian, before, name=name)
        return register(m, product * factor, after, name=f"{name}_scaled")

    @staticmethod
    def later(m: Module, value: Value, name: str, cycles: int) -> Value:
        return register(m, value, name=name, cycles=cycles) if cycles else value


class NoisePipe(NoiseLanes):
    """The noise of one layer, beat by beat and image by image.

    noise      factors, key and index of the first image
    highest    of the counts u, which are at least 0
    places     blocks of `outputs` sites in an image: tokens times tiles
    outputs    of a tile; a place has one site each, and one more for g0
    lanes      counts of a beat
    arrival    cycles from the issue of a beat to its counts

    Images are counted from reset: each is `places * outputs / lanes` beats issued, whatever the stalls.
    """

    def __init__(self, noise: Noise, highest: int, *, places: int, outputs: int, lanes: int, arrival: int):
        super().__init__([(noise, highest)], arrival)
        self.noise, self.places, self.outputs, self.lanes = noise, places, outputs, lanes
        self.keys = [int(key) for key in noise.keys]

    def structure(self) -> Structure:
        """Ciphers, roots, products, sums and what waits."""
        built, n = Structure(), self.noise
        ciphers = self.lanes * bool(n.shot or n.thermal) + bool(n.relative)
        for _ in range(ciphers):
            built.registers += 2 * WORD * (ROUNDS + 1)
            built.select_bits += 2 * WORD * ROUNDS  # the exclusive ors
            for _ in range(ROUNDS):
                built.add(WORD, registered=False)
        sites = self.places * (self.outputs + 1) - 1
        built.count(self.outputs // self.lanes - 1, self.places - 1, (1 << WORD) - 1, sites, sites)
        if n.relative:
            built.registers += self.waiting_gaussian
        for _ in range(self.lanes):
            built.registers += self.lane_registers
            if n.shot:
                for k in range(self.root_bits):
                    built.add(k + 3, registered=False)
                built.multipliers += 2
            built.multipliers += (2 if n.relative else 0) + bool(n.thermal)
            for _ in range(4):
                built.add(self.sum.bits, registered=False)
            built.add(self.total.bits, registered=False)
            built.select_bits += self.total.bits
        return built

    @property
    def waiting_gaussian(self) -> int:
        """Registers of a Gaussian number: two sums of bytes, their sum, and until it meets what it scales."""
        return 2 * 9 + (1 + self.meeting - self.WORDS) * GAUSSIAN.bits

    @property
    def lane_registers(self) -> int:
        """Registers of a lane: the count while its noise is made, the noise, and the sum of both."""
        waits = self.meeting - self.arrival
        bits = (waits + 4) * self.count_bits + 2 * self.sum.bits + self.total.bits + self.result.bits
        if self.relative:
            bits += sum(bound.bits for bound in self.relative_bounds)
        if self.shot:
            pairs = [2 * (self.root_bits - 1 - k) for k in range(self.root_bits)]
            bits += sum(2 * k + 3 + max(1, left) for k, left in enumerate(pairs))
            bits += (waits - self.root_bits) * self.root_bits + sum(bound.bits for bound in self.shot_bounds)
            bits += self.waiting_gaussian
        if self.thermal:
            bits += Range(-MEAN * self.thermal, MEAN * self.thermal).bits + 2 * self.sum.bits + self.waiting_gaussian
        return bits

    def build(self, m: Module, issue: Value, counts: list[Value]) -> list[Signal]:
        """The counts of every lane with their noise; `issue` is high `arrival` cycles before the counts of a beat."""
        n = self.noise
        numbers = Numbers(self.keys, n.relative, n.shot, n.thermal, n.shift, (1 << n.shift) >> 1)
        sites = self.sites(m, issue)
        common, words = None, []
        if n.relative:
            word, _ = self.cipher(m, "common", numbers.keys, sites.image, sites.common)
            common = self.later(m, self.gaussian(m, word, "g0"), "g0_held", self.meeting - self.WORDS)
        if n.shot or n.thermal:
            words = [
                self.cipher(m, f"lane{lane}", numbers.keys, sites.image, site) for lane, site in enumerate(sites.lanes)
            ]
        return self.add(m, counts, words, common, numbers)

    def sites(self, m: Module, issue: Value) -> Sites:
        """Counters of images and sites, moved on by every beat that is issued."""
        groups, sites = self.outputs // self.lanes, self.places * (self.outputs + 1)
        image = Signal(WORD, init=self.noise.first, name="image")
        group, place = Signal(counting(groups), name="site_group"), Signal(counting(self.places), name="site_place")
        site = Signal(counting(sites), name="site")
        common = Signal(counting(sites), init=self.outputs, name="site_common")
        group_last = advance(m, group, groups - 1, issue)
        ending = Signal(name="site_group_ends")
        m.d.comb += ending.eq(issue & group_last)
        place_last = advance(m, place, self.places - 1, ending)
        with m.If(issue):
            m.d.sync += site.eq(site + self.lanes)
        with m.If(ending):
            m.d.sync += [site.eq(site + self.lanes + 1), common.eq(common + self.outputs + 1)]
            with m.If(place_last):
                m.d.sync += [site.eq(0), common.eq(self.outputs), image.eq(image + 1)]
        return Sites(image, common, [site + lane for lane in range(self.lanes)])
