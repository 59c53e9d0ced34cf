"""From a constant matrix to adders that its rows share.

Weights are written in canonical signed digits, so a row is a list of terms `+-(value << shift)` that are to be added.
Two terms that stand together in several places, at any common shift and sign, are added once: the pair that saves the
most bits of adders becomes a value of its own, again and again, until no pair is left that two places share (the
greedy elimination of common two-term subexpressions; Hartley 1996, and weighted by bits as in Sun et al. 2025). Then
each row adds up what it still has.

Latency is watched meanwhile: terms of levels l1, l2, ... can be added up within L levels exactly if
sum 2^l <= 2^L, so a pair is made a value only in rows where that stays true.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from bittrue.rtl.dataflow.adders.graph import Adder, Graph, Output, signed_digits
from bittrue.sim.contract import Format, Range

#: A pair: first value, second value, how much further the second is shifted, whether their signs differ.
Pair = tuple[int, int, int, bool]
#: A term: value, shift, sign.
Term = tuple[int, int, int]
#: What an adder costs beside its bits, in bits: its carry is let in and out.
ENDS = 4


def count_terms(weight: np.ndarray) -> np.ndarray:
    """How many signed digits each row has, int64 `[N]`: the bits in which w and 3 w differ."""
    weight = np.asarray(weight, np.int64)
    return np.bitwise_count(weight ^ 3 * weight).sum(axis=1).astype(np.int64)


def least_levels(weight: np.ndarray, constant: np.ndarray) -> int:
    """Adders one after the other that the longest row needs."""
    terms = int((count_terms(weight) + (np.asarray(constant) != 0)).max(initial=1))
    return max(terms - 1, 0).bit_length()


def solve(
    weight: np.ndarray,
    constant: np.ndarray,
    fmt: Format,
    levels: int | None = None,
    scale: np.ndarray | None = None,
    after: np.ndarray | None = None,
) -> Graph:
    """The adders of `scale (weight x + constant) + after`, exact.

    weight           int64 `[N, K]`
    constant, after  int64 `[N]`
    scale            int64 `[N]`, at least 1
    fmt              of the codes x: what bits a value has decides what is worth sharing
    levels           adders one after the other up to the scale at most; by default, and at least, `least_levels`
    """
    weight, constant = (np.asarray(v, np.int64) for v in (weight, constant))
    scale = np.ones(len(weight), np.int64) if scale is None else np.asarray(scale, np.int64)
    after = np.zeros(len(weight), np.int64) if after is None else np.asarray(after, np.int64)
    arrays = tuple((v.tobytes(), v.shape) for v in (weight, constant, scale, after))
    return _solved(arrays, fmt, levels)


@lru_cache(maxsize=64)
def _solved(arrays: tuple[tuple[bytes, tuple[int, ...]], ...], fmt: Format, levels: int | None) -> Graph:
    """A plan is made and read back many times, and its matrices stay the same."""
    weight, constant, scale, after = (np.frombuffer(text, np.int64).reshape(shape) for text, shape in arrays)
    graph = _Solver(weight, constant, scale, after, fmt, levels).run()
    wanted = np.concatenate([weight * scale[:, None], (constant * scale + after)[:, None]], axis=1)
    if not np.array_equal(graph.matrix, wanted):
        raise AssertionError("the adders do not compute the matrix; this is a fault of the solver, please report it")
    return graph


class _Solver:
    def __init__(
        self,
        weight: np.ndarray,
        constant: np.ndarray,
        scale: np.ndarray,
        after: np.ndarray,
        fmt: Format,
        levels: int | None,
    ):
        self.inputs = weight.shape[1]
        #: By row: by value, shift to sign.
        self.rows = [{k: dict(signed_digits(w)) for k, w in enumerate(row) if w} for row in weight.tolist()]
        #: What is added to each row, and to each row times its scale.
        self.constant, self.scale, self.after = constant.tolist(), scale.tolist(), after.tolist()
        odd = {_odd(c)[0] for c in (*self.constant, *self.after)}
        #: Odd parts of the constants; and 0, from which a row is subtracted that nothing else stands in.
        self.constants = tuple(sorted(odd | {0}))
        self.level = [0] * (self.inputs + len(self.constants))
        self.range = [Range(fmt.low, fmt.high)] * self.inputs + [Range(c, c) for c in self.constants]
        self.adders: list[Adder] = []
        self.levels = max(least_levels(weight, constant), levels or 0)
        terms = count_terms(weight) + (constant != 0)
        #: How much more than 2^level its terms may come to, by row.
        self.room = [(1 << self.levels) - int(n) for n in terms]
        #: Rows in which a value stands.
        self.where: dict[int, set[int]] = defaultdict(set)
        for n, row in enumerate(self.rows):
            for value in row:
                self.where[value].add(n)
        self.counts: dict[Pair, int] = defaultdict(int)

    def run(self) -> Graph:
        self.share()
        outputs = []
        for n in range(len(self.rows)):
            terms, room = [*self.terms(n), *self.literal(self.constant[n])], self.room[n]
            whole = self.add_up(terms, room)
            if whole is not None and self.scale[n] != 1:
                digits = signed_digits(self.scale[n])
                terms = [(whole[0], whole[1] + shift, sign) for shift, sign in digits]
                terms += self.literal(self.after[n])
                whole = self.add_up(terms)
            elif self.after[n]:
                whole = self.add_up([*([] if whole is None else [whole]), *self.literal(self.after[n])])
            outputs.append(Output(None) if whole is None else Output(whole[0], whole[1]))
        return Graph(self.inputs, self.constants, tuple(self.adders), tuple(outputs))

    # -- pairs -----------------------------------------------------------------------------------------
    @staticmethod
    def pair(one: Term, other: Term) -> Pair:
        """The pair of two terms: the less shifted first, of two that are shifted alike the older one."""
        (a, s, p), (b, r, q) = one, other
        if s < r or (s == r and a < b):
            return a, b, r - s, p != q
        return b, a, s - r, p != q

    def terms(self, n: int) -> Iterator[Term]:
        """The terms of a row."""
        return ((value, shift, sign) for value, digits in self.rows[n].items() for shift, sign in digits.items())

    def worth(self, pair: Pair, places: int) -> tuple[int, int]:
        """What sharing a pair saves, as the heap wants it: least first; of equals that of the newest value."""
        a, b, shift, _ = pair
        overlap = max(1, min(self.range[a].bits, self.range[b].bits + shift) - shift)
        return -(2 * places - 1) * (overlap + ENDS), -max(a, b)

    def places(self, pair: Pair) -> list[tuple[int, int]]:
        """Rows and shifts where it stands and can be a value within the levels."""
        a, b, shift, differ = pair
        more, found = self.more(a, b), []
        for n in sorted(self.where[a] & self.where[b]):
            first, second, room = self.rows[n][a], self.rows[n][b], self.room[n]
            taken: set[int] = set()
            for s in sorted(first):
                q = second.get(s + shift)
                if room < more or q is None or (q != first[s]) != differ or (a == b and s in taken):
                    continue
                taken.add(s + shift)
                found.append((n, s))
                room -= more
        return found

    def more(self, a: int, b: int) -> int:
        """What the sum of 2^level grows by when two values are added first."""
        return (2 << max(self.level[a], self.level[b])) - (1 << self.level[a]) - (1 << self.level[b])

    def share(self) -> None:
        """Make values of pairs while there is one that stands in two places."""
        for n in range(len(self.rows)):
            terms = list(self.terms(n))
            for k, one in enumerate(terms):
                for other in terms[:k]:
                    self.counts[self.pair(one, other)] += 1
        heap = [(self.worth(pair, n), pair) for pair, n in self.counts.items() if n > 1]
        heapq.heapify(heap)
        while heap:
            claimed, pair = heapq.heappop(heap)
            if self.counts[pair] < 2:
                continue
            places = self.places(pair)  # fewer and fewer: what was claimed is the most that it can be
            if len(places) < 2:
                self.counts[pair] = 0
                continue
            now = self.worth(pair, len(places))
            if now > claimed and heap and heap[0][0] < now:
                heapq.heappush(heap, (now, pair))
                continue
            for new in self.replace(pair, places):
                if self.counts[new] > 1:
                    heapq.heappush(heap, (self.worth(new, self.counts[new]), new))

    def replace(self, pair: Pair, places: list[tuple[int, int]]) -> set[Pair]:
        """Make a pair a value, in these places; the pairs that it stands in."""
        a, b, shift, differ = pair
        made, new = self.add(a, b, shift, False, differ), set()
        for n, s in places:
            sign = self.rows[n][a][s]
            self.drop(n, (a, s, sign))
            self.drop(n, (b, s + shift, -sign if differ else sign))
            for term in self.terms(n):
                stands = self.pair((made, s, sign), term)
                self.counts[stands] += 1
                new.add(stands)
            self.rows[n].setdefault(made, {})[s] = sign
            self.where[made].add(n)
            self.room[n] -= self.more(a, b)
        return new

    def drop(self, n: int, term: Term) -> None:
        """Take a term out of a row."""
        value, shift, _ = term
        del self.rows[n][value][shift]
        if not self.rows[n][value]:
            del self.rows[n][value]
            self.where[value].discard(n)
        for other in self.terms(n):
            self.counts[self.pair(term, other)] -= 1

    def add(self, a: int, b: int, shift: int, minus_a: bool, minus_b: bool) -> int:
        """A new value; its range is that of independent operands, for they are only compared."""
        self.adders.append(Adder(a, b, shift, minus_a, minus_b))
        self.level.append(1 + max(self.level[a], self.level[b]))
        self.range.append(_sum(self.range[a], self.range[b], shift, minus_a, minus_b))
        return len(self.level) - 1

    # -- what is left ----------------------------------------------------------------------------------
    def literal(self, constant: int) -> list[Term]:
        """A constant as a term, if it is not 0."""
        odd, shift = _odd(constant)
        return [(self.inputs + self.constants.index(odd), shift, 1)] if odd else []

    def add_up(self, terms: list[Term], room: int | None = None) -> Term | None:
        """Add up terms, again and again the pair that is shortest then, where the levels allow it; None is 0.

        room   how much more than 2^level they may come to; by default as little as can be
        """
        if terms and all(sign < 0 for _, _, sign in terms):
            terms = [*terms, (self.inputs + self.constants.index(0), 0, 1)]
            room = None if room is None else room - 1
        if room is None or room < 0:
            total = sum(1 << self.level[value] for value, _, _ in terms)
            room = (1 << max(total - 1, 0).bit_length()) - total
        while len(terms) > 1:
            positive = sum(sign > 0 for _, _, sign in terms)
            _, one, other = min(
                (self.price(one, other), one, other)
                for k, one in enumerate(terms)
                for other in terms[:k]
                if self.more(one[0], other[0]) <= room
            )
            terms = [term for term in terms if term not in (one, other)]
            room -= self.more(one[0], other[0])
            a, b, shift, differ = self.pair(one, other)
            first = one if one[:2] == (a, min(one[1], other[1])) else other
            turned = differ and first[2] < 0 and positive == 1  # else nothing would be left to subtract from
            made = self.add(a, b, shift, turned, differ and not turned)
            terms.append((made, first[1], 1 if turned else first[2]))
        return terms[0] if terms else None

    def price(self, one: Term, other: Term) -> tuple[int, int]:
        """Of an adder: the bits of its sum, which the next one has to add, for more than those that it adds."""
        a, b, shift, differ = self.pair(one, other)
        return 3 * _sum(self.range[a], self.range[b], shift, False, differ).bits - shift, max(
            self.level[a], self.level[b]
        )


def _odd(constant: int) -> tuple[int, int]:
    """A constant as an odd number and a shift; 0 as (0, 0)."""
    shift = (constant & -constant).bit_length() - 1 if constant else 0
    return constant >> shift, shift


def _sum(a: Range, b: Range, shift: int, minus_a: bool, minus_b: bool) -> Range:
    ends = b.low << shift, b.high << shift
    low, high = (-ends[1], -ends[0]) if minus_b else ends
    first = (-a.high, -a.low) if minus_a else (a.low, a.high)
    return Range(first[0] + low, first[1] + high)
