"""A graph of adders in hardware: registers after every few of them, values as wide as their exact range."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Shape, Signal, Value

from bittrue.rtl.dataflow.adders.graph import Adder, Graph
from bittrue.rtl.dataflow.stage import Structure, register
from bittrue.sim.contract import Format, Range

#: Adders one after the other between two registers.
EVERY = 3


def shape_of_value(kept: Range) -> Shape:
    """The narrowest shape: unsigned where nothing is negative, for here nothing takes the sign away later."""
    fmt = Format.covering(kept.low, kept.high)
    return Shape(fmt.bits, fmt.signed)


class AdderPipe:
    """The results of a graph in its last cycle, without a register behind them.

    graph   what is added
    fmt     of the codes
    behind  what follows the results before the next register, counted in adders

    `cycles` are those in which adders work; a result is there in the last of them, `cycles` - 1 after its codes.
    """

    def __init__(self, graph: Graph, fmt: Format, behind: int = 0):
        self.graph, self.format = graph, fmt
        self.ranges = graph.ranges(fmt)
        self.cycles = max(1, -(-(graph.depth + behind) // EVERY))
        #: By value: the cycle in which it is worked out, and the last in which it is read.
        self.made = [max(level - 1, 0) // EVERY for level in graph.levels]
        self.read = list(self.made)
        for k, adder in enumerate(graph.adders, graph.first):
            for operand in (adder.a, adder.b):
                self.read[operand] = max(self.read[operand], self.made[k])
        for output in graph.outputs:
            if output.node is not None:
                self.read[output.node] = self.cycles - 1

    def result(self, n: int) -> Range:
        """The exact range of a result."""
        output = self.graph.outputs[n]
        if output.node is None:
            return Range(0, 0)
        kept = self.ranges[output.node]
        return Range(kept.low << output.shift, kept.high << output.shift)

    def sum_bits(self, k: int) -> int:
        """Bits that the adder of a value adds: the lowest of its first operand pass, unless that is subtracted.

        None where the two operands only stand side by side.
        """
        adder, bits = self.graph.adders[k - self.graph.first], shape_of_value(self.ranges[k]).width
        first = shape_of_value(self.ranges[adder.a])
        if not (adder.minus_a or adder.minus_b or first.signed or first.width > adder.shift):
            return 0
        return bits - (0 if adder.minus_a else adder.shift)

    def structure(self) -> Structure:
        """Adders, and the registers of values that are read in later cycles."""
        built, graph = Structure(), self.graph
        for k in range(graph.first, graph.first + len(graph.adders)):
            if bits := self.sum_bits(k):
                built.add(bits, registered=False)
        for k in (*range(graph.inputs), *range(graph.first, len(self.made))):
            built.registers += (self.read[k] - self.made[k]) * shape_of_value(self.ranges[k]).width
        return built

    def build(self, m: Module, codes: Sequence[Value]) -> list[Value]:
        """The results, `cycles` - 1 after the codes."""
        graph = self.graph
        #: By value: what it is in the cycle in which it is made, and in those after it.
        values: list[list[Value]] = [[code] for code in codes]
        values += [[Const(c, shape_of_value(Range(c, c)))] for c in graph.constants]

        def at(value: int, cycle: int) -> Value:
            kept = values[value]
            if graph.inputs <= value < graph.first:
                return kept[0]
            while len(kept) <= cycle - self.made[value]:
                name = f"value{value}_after{len(kept)}"
                kept.append(register(m, kept[-1], shape_of_value(self.ranges[value]), name=name))
            return kept[cycle - self.made[value]]

        for k, adder in enumerate(graph.adders, graph.first):
            total = Signal(shape_of_value(self.ranges[k]), name=f"value{k}")
            m.d.comb += total.eq(_added(adder, at(adder.a, self.made[k]), at(adder.b, self.made[k])))
            values.append([total])
        last = self.cycles - 1
        return [
            Const(0, 1) if output.node is None else at(output.node, last) << output.shift for output in graph.outputs
        ]


def _added(adder: Adder, a: Value, b: Value) -> Value:
    """The sum; the low bits of an operand that is not shifted are taken as they are."""
    if adder.minus_a:
        return (b << adder.shift) - a
    if not adder.shift:
        return a - b if adder.minus_b else a + b
    signed = a.shape().signed
    more = max(0, adder.shift + 1 - len(a))
    whole = Cat(a, (a[-1] if signed else Const(0, 1)).replicate(more))
    upper = whole[adder.shift :]
    upper = upper.as_signed() if signed else upper
    upper = upper - b if adder.minus_b else upper + b
    return Cat(whole[: adder.shift], upper).as_signed() if upper.shape().signed else Cat(whole[: adder.shift], upper)
