"""Where the hard blocks of a netlist lie: on sites near those that they are connected with.

Multipliers and block RAMs have few sites, in rows across the whole chip. nextpnr places them with everything else as if
they could lie anywhere and then puts each on the nearest site that is free, so that in a design with many of them
products of one sum end up far apart, and no later step brings them together. Here they are placed first; nextpnr then
places all else around them.

The wires are springs: between the pins of a net of k pins one of stiffness 1 / (k - 1) each, so that the energy is half
the sum of stiffness times squared length. What is not a hard block goes where the springs pull it, which takes it out
of the equations: with the matrix of stiffness `L` of hard blocks (h) and all else (s)

    K = L_hh - L_hs L_ss^-1 L_sh,    energy = 1/2 sum_ij -K_ij |p_i - p_j|^2 over pairs of hard blocks,

so a way of n registers pulls with 1 / n of a direct wire. Annealing then swaps blocks of a kind, or moves one to a site
that is free. Stiffness is whole numbers by then, so that a seed gives the same places on every machine. A register that
still goes to blocks far apart, as the address of a wide memory may, is made again for each group that lies together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.flow.synth.targets import Site
from bittrue.sim.extras import explained
from bittrue.sim.kernels.jit import jit

MULTIPLIER = "MULT18X18D"
#: The share of the multipliers that a design takes from which on blocks are placed first. Of 156 of an ECP5-85k 65 went
#: from 144 to 162 MHz, mean of three seeds (a network 784-64-10), but 32 from 185 to 161 (a layer 96x96), and designs
#: without any from 134 to 125 (78 block RAMs) and from 134 to 127 (a controller, 23).
CROWDED = 0.3
#: Nets of more pins pull nothing: resets and enables, which go everywhere.
MOST_PINS = 64
#: Up to so many pins a net is springs between all of them, else springs to a point in its middle.
PAIRS = 8
#: Stiffness between neighbours of a carry chain, which lie beside each other.
CHAIN = 100.0
#: What holds loose parts; and steps of stiffness, of the stiffest.
LOOSE, STEPS = 1e-6, 10_000
#: The type of cell that is a register.
REGISTER = "TRELLIS_FF"
#: Columns and rows, added, over which blocks may lie that one register goes to.
REACH = 64
#: Moves that are tried, by block; the last temperature, of the first: the mean change of energy by a move.
MOVES, COLD = 20_000, 1e-5


class Floorplan:
    """The hard blocks of a flat module (yosys' JSON), what pulls them together, and sites for them.

    sites   by type of cell; cells of other types are no hard blocks
    """

    def __init__(self, module: dict[str, Any], sites: Mapping[str, Sequence[Site]]):
        self.cells, self.sites = module["cells"], sites
        self.blocks = [name for name, cell in self.cells.items() if cell["type"] in sites]
        held = Counter(self.cells[name]["type"] for name in self.blocks)
        self.kinds = list(held)
        self.undo: list[tuple[dict[str, list], str, list]] = []
        self.copies: list[str] = []
        self.fits = all(count <= len(sites[kind]) for kind, count in held.items())

    @property
    def pays(self) -> bool:
        """Whether these places are better than nextpnr's: of a design that has them and many multipliers."""
        held = sum(self.cells[name]["type"] == MULTIPLIER for name in self.blocks)
        return self.fits and held >= CROWDED * len(self.sites.get(MULTIPLIER, ())) > 0

    @cached_property
    def pulls(self) -> np.ndarray:
        """The stiffness between every two blocks, int64 `[blocks, blocks]`, 0 to `STEPS`, symmetric."""
        with explained():
            from scipy import sparse
            from scipy.sparse.linalg import splu
        soft = [name for name, cell in self.cells.items() if cell["type"] not in self.sites]
        index = {name: k for k, name in enumerate([*self.blocks, *soft])}
        nets: dict[int, set[int]] = defaultdict(set)
        chains = set()
        for name, cell in self.cells.items():
            for pin, bits in cell["connections"].items():
                nets_here = [bit for bit in bits if isinstance(bit, int)]
                for bit in nets_here:
                    nets[bit].add(index[name])
                chains.update(nets_here if pin in ("CIN", "COUT") else ())
        points, *springs = _springs([(sorted(pins), bit in chains) for bit, pins in nets.items()], len(index))
        stiffness = sparse.csr_matrix((springs[0], springs[1:]), shape=(points, points))
        count = len(self.blocks)
        laplace = (sparse.diags(np.asarray(stiffness.sum(1)).ravel() + LOOSE) - stiffness).tocsc()
        across = laplace[count:, :count]
        if across.shape[0]:
            follows = splu(laplace[count:, count:].tocsc()).solve(across.toarray())
            kept = across.T @ follows - laplace[:count, :count].toarray()
        else:
            kept = -laplace.toarray()
        np.fill_diagonal(kept, 0)
        most = kept.max(initial=0.0)
        return np.rint((kept + kept.T) * (STEPS / 2 / most if most > 0 else 0)).astype(np.int64)

    def places(self, seed: int) -> dict[str, Site]:
        """A site for every block; none where there are more blocks than sites, which nextpnr will say."""
        if not self.blocks or not self.fits:
            return {}
        sites = [site for kind in self.kinds for site in self.sites[kind]]
        numbers = np.array([len(self.sites[kind]) for kind in self.kinds])
        first = numbers.cumsum() - numbers
        kind = np.array([self.kinds.index(self.cells[name]["type"]) for name in self.blocks])
        order, place = np.random.default_rng(seed), np.zeros(len(kind), np.int64)
        for k, (start, number) in enumerate(zip(first, numbers, strict=True)):
            mine = np.flatnonzero(kind == k)
            place[mine] = start + order.permutation(number)[: len(mine)]
        x, y = (np.array([getattr(site, axis) for site in sites]) for axis in "xy")
        _anneal(self.pulls, x, y, place, first[kind], numbers[kind], MOVES * len(place), order)
        return {name: sites[at] for name, at in zip(self.blocks, place, strict=True)}

    def place(self, seed: int) -> str:
        """Gives every block its site, as an attribute that nextpnr obeys; a sentence for the notes.

        What was placed before, with another seed, is taken back.
        """
        for pins, pin, bits in reversed(self.undo):
            pins[pin] = bits
        for name in self.copies:
            del self.cells[name]
        self.undo, self.copies, at = [], [], self.places(seed)
        for name, site in at.items():
            self.cells[name]["attributes"]["BEL"] = site.name
        self._copy_registers(at)
        told = f"{len(self.blocks)} multipliers and block RAMs placed first, by what they are connected with"
        return f"{told}; {len(self.copies)} registers made again near them" if self.copies else told

    def _copy_registers(self, at: Mapping[str, Site]) -> None:
        """Gives each group of blocks that lie together its own copy of a register that goes to several groups."""
        readers: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for name in at:
            for pin, bits in self.cells[name]["connections"].items():
                if self.cells[name]["port_directions"].get(pin) != "output" and isinstance(bits[0], int):
                    readers[bits[0]].append((name, pin))
        free = 1 + max(
            (
                bit
                for c in self.cells.values()
                for b in c["connections"].values()
                for bit in b
                if bit != "x" and isinstance(bit, int)
            ),
            default=0,
        )
        for name, cell in list(self.cells.items()):
            mine = readers.get(cell["connections"]["Q"][0], []) if cell["type"] == REGISTER else []
            for number, group in enumerate(_groups([(at[block], block, pin) for block, pin in mine])):
                if not number:
                    continue  # the register itself
                self.copies.append(f"{name}_near{number}")
                self.cells[self.copies[-1]] = cell | {"connections": cell["connections"] | {"Q": [free]}}
                for _, block, pin in group:
                    pins = self.cells[block]["connections"]
                    self.undo.append((pins, pin, pins[pin]))
                    pins[pin] = [free]
                free += 1


def _groups(pins: list[tuple[Site, str, str]]) -> list[list[tuple[Site, str, str]]]:
    """Pins of blocks, parted in halves across the longer side until each part is within `REACH`."""
    if not pins:
        return []
    wide, high = (max(values) - min(values) for values in ([p[0].x for p in pins], [p[0].y for p in pins]))
    if wide + high <= REACH:
        return [pins]
    pins = sorted(pins, key=lambda pin: (pin[0].x, pin[0].y) if wide >= high else (pin[0].y, pin[0].x))
    middle = len(pins) // 2
    return _groups(pins[:middle]) + _groups(pins[middle:])


def _springs(nets: Sequence[tuple[list[int], bool]], count: int) -> tuple[int, list[float], list[int], list[int]]:
    """The springs of nets, each in both directions: how many points there are, with the middles of nets of many pins
    behind the given ones; stiffness, and the points at both ends."""
    rows, columns, values = [], [], []
    for pins, chain in nets:
        size = len(pins)
        if not 2 <= size <= MOST_PINS:
            continue
        if size <= PAIRS:
            ends = [(one, other) for k, one in enumerate(pins) for other in pins[:k]]
            each = (CHAIN if chain else 1.0) / (size - 1)
        else:  # the springs to its middle have the same energy as those between all pins
            ends, each, count = [(pin, count) for pin in pins], size / (size - 1), count + 1
        rows += [end for pair in ends for end in pair]
        columns += [end for pair in ends for end in pair[::-1]]
        values += [each] * (2 * len(ends))
    return count, values, rows, columns


@jit
def _anneal(pulls, x, y, place, first, number, moves, draw):
    """Moves the blocks from their `place` among the sites `x, y`; each may lie on `number` of them from `first` on."""
    count = len(place)
    owner = np.full(len(x), -1)
    for block in range(count):
        owner[place[block]] = block
    hot, trials = 0.0, min(moves, 1000)
    for move in range(-trials, moves):  # the first ones only tell the size of a change
        block = draw.integers(0, count)
        here, there = place[block], first[block] + draw.integers(0, number[block])
        other = owner[there]
        change = 0
        for k in range(count):
            pull = pulls[block, k] - (pulls[other, k] if other >= 0 else 0)
            if pull != 0 and k != block and k != other:
                at = place[k]
                change += pull * (
                    (x[there] - x[at]) ** 2 + (y[there] - y[at]) ** 2 - (x[here] - x[at]) ** 2 - (y[here] - y[at]) ** 2
                )
        if move < 0:
            hot += abs(change) / trials
        elif here != there and (change <= 0 or draw.random() < np.exp(-change / (hot * COLD ** (move / moves)))):
            place[block], owner[there], owner[here] = there, block, other
            if other >= 0:
                place[other] = here
