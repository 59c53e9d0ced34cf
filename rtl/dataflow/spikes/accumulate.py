"""Sums over time: the accumulators of spiking layers, in distributed RAM, read and written back within a cycle."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Mux, Value
from amaranth.lib import data

from bittrue.rtl.dataflow.stage import Structure, register, shape_of
from bittrue.rtl.parts.state import state, structure
from bittrue.sim.contract import Range
from bittrue.sim.operations.spiking_linear import SpikingLinear


def running_ranges(operation: SpikingLinear, lanes: int) -> list[Range]:
    """Exact range of the accumulator after any part of any time step, per output lane.

    It starts anew with every train. A part of a step's sum lies between the sums of its negative and of its positive
    weights, so that the ranges at the ends of the steps hold for every order of the spikes.
    """
    step_low, step_high = operation.step_sums
    low = high = np.zeros_like(step_low)
    ends = [low]
    for worth in operation.decode:
        sign = int(np.sign(worth)) if operation.halving else int(worth)
        parts = np.stack([sign * step_low, sign * step_high])
        scale = 2 if operation.halving else 1
        low, high = scale * low + parts.min(0), scale * high + parts.max(0)
        ends += [low, high]
    every = np.stack(ends)
    return [Range.of(every[:, p::lanes], every[:, p::lanes]) for p in range(lanes)]


class Accumulators:
    """`acc[group] = (0 | acc | 2 acc)[group] +- term`, for groups of as many outputs as there are lanes.

    spacing   cycles from the terms of a group to those of the next, at least
    """

    def __init__(self, operation: SpikingLinear, lanes: int, spacing: int = 1):
        self.groups, self.spacing = len(operation.weight) // lanes, spacing
        self.ranges = running_ranges(operation, lanes)
        self.signed_steps = operation.halving and bool((operation.decode < 0).any())

    @property
    def bits(self) -> int:
        """Bits of the accumulators of all outputs."""
        return self.groups * sum(r.bits for r in self.ranges)

    def structure(self) -> Structure:
        built = Structure()
        for r in self.ranges:
            built.add(r.bits)
            built.select_bits += r.bits if self.signed_steps else 0
        return built + structure(sum(r.bits for r in self.ranges), self.groups, spacing=self.spacing)

    def build(
        self,
        m: Module,
        terms: list[Value],
        *,
        valid: Value,
        early: Value,
        group: Value,
        clear: Value,
        double: Value,
        falls: Value,
    ) -> list[Value]:
        """The accumulators after the terms, one cycle later.

        valid   there are terms; `group` says of which outputs, `early` does so a cycle before
        clear   they are the first of a train
        double  what was there counts twice
        falls   the terms are subtracted
        """
        shapes = [shape_of(r) for r in self.ranges]
        layout = data.StructLayout({f"lane{p}": shape for p, shape in enumerate(shapes)})
        acc, after = state(m, "acc", layout, self.groups, early, group, valid, spacing=self.spacing)
        results: list[Value] = []
        for p, term in enumerate(terms):
            held = acc[f"lane{p}"]
            before = Mux(clear, 0, Mux(double, held << 1, held))
            total = Mux(falls, before - term, before + term) if self.signed_steps else before + term
            m.d.comb += after[f"lane{p}"].eq(total)
            results.append(register(m, after[f"lane{p}"], shapes[p], name=f"total{p}"))
        return results
