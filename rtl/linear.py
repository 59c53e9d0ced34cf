"""Matrix product, folded: `simd` inputs times `pe` outputs a cycle, input vector double-buffered."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from rtl.buffered import BufferedStage
from rtl.requantize import RequantizePipe
from rtl.stage import Storage, Structure, Timing, counting, enough_credits, realises, register, shape_of, valid_chain
from sim.contract import Range
from sim.errors import BittrueError
from sim.linear import Linear


class Products:
    """Exact ranges of the products, of every node of the adder tree and of the running sums, per output lane.

    `weight[address, pe, simd]` is the content of the weight memory; `level[0]` are the products, the last level the
    sum of one step, `sums` the accumulator over the steps of an output.
    """

    def __init__(self, operation: Linear, simd: int, pe: int):
        outputs, inputs = operation.weight.shape
        self.steps = inputs // simd
        folded = operation.weight.reshape(outputs // pe, pe, self.steps, simd).transpose(0, 2, 1, 3)
        self.weight = folded.reshape(-1, pe, simd)
        fmt = operation.input.format
        ends = np.stack([self.weight * fmt.low, self.weight * fmt.high])
        low, high = ends.min(0), ends.max(0)
        self.levels: list[list[list[Range]]] = []
        while True:
            self.levels.append(
                [[Range.of(low[:, p, k], high[:, p, k]) for k in range(low.shape[2])] for p in range(pe)]
            )
            if low.shape[2] == 1:
                break
            pairs = range(0, low.shape[2], 2)
            low, high = (np.stack([v[:, :, k : k + 2].sum(2) for k in pairs], axis=2) for v in (low, high))
        running = (v[:, :, 0].reshape(-1, self.steps, pe).cumsum(1) for v in (low, high))
        low, high = running
        self.sums = [Range.of(low[:, :, p], high[:, :, p]) for p in range(pe)]

    @property
    def tree_depth(self) -> int:
        return len(self.levels) - 1


@realises(Linear)
class LinearStage(BufferedStage):
    """`y[n] = requantize(sum_k weight[n, k] x[k])`, one vector of K codes after the other.

    Latency     K / lanes + K / simd - 1 + depth cycles to the first output beat; depth = memory 1, operand register 1,
                product 1, log2(simd) adders, accumulator (when folded) 1, requantiser, output FIFO 1
    Throughput  one vector every max(K / lanes, (N / pe) * (K / simd)) cycles, no bubble
    Stall       back-pressure stops the issue of steps, never the pipeline
    """

    def __init__(self, operation: Linear, *, lanes: int, simd: int, pe: int):
        outputs, inputs = operation.weight.shape
        for name, value, total in (("simd", simd, inputs), ("pe", pe, outputs), ("lanes", lanes, inputs)):
            if value < 1 or total % value:
                divisors = ", ".join(str(d) for d in range(1, total + 1) if total % d == 0)
                raise BittrueError(f"linear: {name} = {value} does not divide {total}; choose one of {divisors}")
        if simd % lanes:
            raise BittrueError(f"linear: {lanes} input lanes do not divide simd = {simd}")
        self.operation, self.simd, self.pe = operation, simd, pe
        self.products = Products(operation, simd, pe)
        self.requantize = RequantizePipe(operation.requantize, *operation.sums, pe)
        self.folded = self.products.steps > 1
        depth = 3 + self.products.tree_depth + self.folded + self.requantize.cycles + 1
        spacing = max(self.products.steps, 1)
        self.timing = Timing(
            beats_in=inputs // lanes,
            beats_out=outputs // pe,
            steps=self.products.steps,
            blocks=2,
            depth=depth,
            credits=enough_credits(depth, spacing),
            frame=operation.input.tokens,
        )
        words = 1 << (self.products.steps - 1).bit_length()
        self.vectors = Storage(operation.input.format.bits * simd, 2 * words)
        self.weights = Storage(operation.weight_format.bits * simd * pe, len(self.products.weight), table=True)
        super().__init__([(operation.input.format, lanes)], (operation.output.format, pe))

    def structure(self) -> Structure:
        built = super().structure() + self.requantize.structure()
        op, simd, pe = self.operation, self.simd, self.pe
        built.multipliers += simd * pe
        built.registers += simd * op.input.format.bits + simd * pe * op.weight_format.bits
        for depth, ranges in enumerate(self.products.levels):
            for lane in ranges:
                for k, node in enumerate(lane):
                    summed = depth > 0 and 2 * k + 1 < len(self.products.levels[depth - 1][0])
                    if summed:
                        built.add(node.bits)
                    else:
                        built.registers += node.bits
        if self.folded:
            for total in self.products.sums:
                built.add(total.bits)
        if self.vectors.style == "block":
            built.store(self.vectors)
        else:
            part = Storage(self.lanes_in * op.input.format.bits, self.vectors.depth)
            built.store(part, simd // self.lanes_in)
        built.store(self.weights)
        built.count(self.timing.steps - 1, simd // self.lanes_in - 1)
        return built

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        outlet = self.outlet(m)
        control = self.control(m, outlet)
        x_shape = shape_of(self.operation.input.format)
        w_shape = shape_of(self.operation.weight_format)
        t, simd, pe, lanes = self.timing, self.simd, self.pe, self.lanes_in

        # Input vectors: two blocks of K / simd words, written lanes at a time.
        words = t.steps
        size = max(1, (words - 1).bit_length())
        m.submodules.vectors = vectors = self.vectors.memory(data.ArrayLayout(x_shape, simd))
        write = vectors.write_port(granularity=lanes)
        parts = simd // lanes
        if words > 1:
            word, part = Signal(counting(words)), Signal(counting(parts))
            part_last = Signal()
            m.d.comb += part_last.eq(part == parts - 1)
            with m.If(control.write):
                m.d.sync += part.eq(Mux(part_last, 0, part + 1))
                with m.If(part_last):
                    m.d.sync += word.eq(Mux(word == words - 1, 0, word + 1))
            m.d.comb += write.addr.eq(Cat(word[:size], control.write_block))
        else:
            part = control.write_beat
            m.d.comb += write.addr.eq(control.write_block)
        for k in range(simd):
            m.d.comb += write.data[k].eq(self.i.payload.data[k % lanes])
        for k in range(parts):
            m.d.comb += write.en[k].eq(control.write & (part == k))
        ends = Array(Signal(name=f"last_{k}") for k in range(2))
        with m.If(control.write_full):
            m.d.sync += ends[control.write_block].eq(self.i.payload.last)

        # Operands.
        read = vectors.read_port(domain="sync")
        address = Cat(control.step[:size], control.read_block) if words > 1 else control.read_block
        m.d.comb += [read.addr.eq(address), read.en.eq(1)]
        rows = [[[int(w) for w in lane] for lane in row] for row in self.products.weight]
        m.submodules.weights = weights = self.weights.memory(
            data.ArrayLayout(data.ArrayLayout(w_shape, simd), pe), rows
        )
        weight = weights.read_port(domain="sync")
        m.d.comb += [weight.addr.eq(control.word), weight.en.eq(1)]
        x = [register(m, read.data[k], x_shape, name=f"x{k}") for k in range(simd)]
        w = [[register(m, weight.data[p][k], w_shape, name=f"w{p}_{k}") for k in range(simd)] for p in range(pe)]

        # Products and adder trees, registered at every level.
        sums: list[Value] = []
        for p in range(pe):
            level: list[Value] = [w[p][k] * x[k] for k in range(simd)]
            for depth, ranges in enumerate(self.products.levels[: self.products.tree_depth + 1]):
                shapes = [shape_of(r) for r in ranges[p]]
                registered = [
                    register(m, v, s, name=f"tree{depth}_{p}_{k}")
                    for k, (v, s) in enumerate(zip(level, shapes, strict=True))
                ]
                level = [
                    registered[k] + registered[k + 1] if k + 1 < len(registered) else registered[k]
                    for k in range(0, len(registered), 2)
                ]
            sums.append(registered[0])
        at = 3 + self.products.tree_depth
        issued = valid_chain(m, control.issue, t.depth - 1)
        if self.folded:
            moved, first = Signal(), Signal()
            m.d.comb += [moved.eq(control.advance), first.eq(control.step == 0)]
            moving = valid_chain(m, moved, at)[at]
            starts = register(m, first, name="first", cycles=at)
            for p in range(pe):
                acc = Signal(shape_of(self.products.sums[p]), name=f"acc{p}", reset_less=True)
                with m.If(moving):
                    m.d.sync += acc.eq(Mux(starts, 0, acc) + sums[p])
                sums[p] = acc
            at += 1

        result = self.requantize.build(m, sums, issued[at - 1])
        ending = Signal()
        m.d.comb += ending.eq(control.release & ends[control.read_block])
        m.d.comb += [
            outlet.push.eq(issued[t.depth - 1]),
            outlet.payload.last.eq(register(m, ending, name="ending", cycles=t.depth - 1)),
        ]
        m.d.comb += [outlet.payload.data[p].eq(result[p]) for p in range(pe)]
        return m
