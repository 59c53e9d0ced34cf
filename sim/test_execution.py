"""What runs as one: a window, a matrix product and the table behind it, whatever lies between."""

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.execution import actions
from bittrue.sim.kernels import separable
from bittrue.sim.kernels.separable import BLOCK
from bittrue.sim.kernels.window import Reading
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.embedding import Embedding
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize

IMAGE = TensorType((6, 5, 3), INT8)


def convolution(rng, kind: str, table: bool = True, second: str | None = None, input_format: Format = INT8):
    """A window, what reads it and a table, and where wanted a second reader or result in between."""
    build = Builder({"x": TensorType(IMAGE.shape, input_format)})
    window = build.add("window", Window(build.types["x"], (3, 2), padding=(1, 1, 0, 1), fill=1), "x")
    shape = build.types[window].shape
    if kind == "linear":
        rows = build.add("rows", Reshape(build.types[window], (*shape[:2], shape[2] * shape[3])), window)
        weight = rng.integers(-128, 128, (4, shape[2] * shape[3]))
        y = build.add("y", Linear(build.types[rows], weight, Requantize(4, np.full(4, 8), format=INT8)), rows)
    elif kind == "depthwise":
        weight = rng.integers(-128, 128, shape[2:])
        y = build.add("y", Depthwise(build.types[window], weight, Requantize(3, np.full(3, 7))), window)
    elif kind == "mean":
        y = build.add("y", Mean(build.types[window], Requantize(3, np.full(3, 2))), window)
    else:
        y = build.add("y", Maximum(build.types[window]), window)
    if table:
        channels = build.types[y].channels
        fmt = build.types[y].format
        knots = rng.integers(-128, 128, (channels, 2 ** min(fmt.bits, 8) + 1))
        y = build.add("table", Lerp(build.types[y], knots), y)
    results = [y]
    if second == "result":
        results.append("window")
    if second == "reader":
        results.append(build.add("clamp", Clamp(build.types[window], -3, 3, Format(3)), window))
    return build.program(*results)


@pytest.mark.parametrize("kind", ["linear", "depthwise", "mean", "maximum"])
@pytest.mark.parametrize("second", [None, "result", "reader"])
@pytest.mark.parametrize("table", [True, False])
def test_a_window_is_not_made_where_one_reads_it(kind, second, table):
    rng = np.random.default_rng(5)
    program = convolution(rng, kind, table, second)
    x = rng.integers(-128, 128, (9, *IMAGE.shape)).astype(np.int8)
    results = program.run(x)
    tensors = program.trace(x).tensors
    for name, codes in zip(program.results, results, strict=True):
        np.testing.assert_array_equal(codes, tensors[name])
        np.testing.assert_array_equal(codes, program.reference(x)[program.results.index(name)] if second else codes)
    steps = [step.result for step in program._steps]
    assert ("window" in steps) == (second is not None)
    assert ("y" in steps) == (not table)
    assert "rows" not in steps


@pytest.mark.parametrize("read", [False, True])
def test_a_product_takes_codes_whatever_their_axes_are_called(read):
    """Renamed twice in front of it; a tensor between that somebody else reads, too, is made once."""
    rng = np.random.default_rng(3)
    build = Builder({"x": IMAGE})
    first = build.add("flat", Reshape(IMAGE, (90,)), build.add("same", Clamp(IMAGE, -100, 100, INT8), "x"))
    rows = build.add("rows", Reshape(build.types[first], (6, 15)), first)
    y = build.add("y", Linear(build.types[rows], rng.integers(-9, 9, (4, 15)), Requantize(4, np.full(4, 5))), rows)
    results = [y, build.add("z", Clamp(build.types[first], -5, 5, INT8), first)] if read else [y]
    program = build.program(*results)
    x = rng.integers(-128, 128, (9, *IMAGE.shape)).astype(np.int8)
    for codes, wanted in zip(program.run(x), (program.reference(x) if read else [program.reference(x)]), strict=True):
        np.testing.assert_array_equal(codes, wanted)
    assert [step.result for step in program._steps] == (["same", "flat", "y", "z"] if read else ["same", "y"])


@pytest.mark.parametrize("fmt", [Format(5), Format(8, signed=False), Format(12), Format(12, signed=False)])
@pytest.mark.parametrize("kind", ["linear", "maximum"])
def test_other_formats(fmt, kind):
    rng = np.random.default_rng(fmt.bits)
    program = convolution(rng, kind, table=False, input_format=fmt)
    x = rng.integers(fmt.low, fmt.high + 1, (4, *IMAGE.shape)).astype(fmt.dtype)
    np.testing.assert_array_equal(program(x), program.reference(x))


@pytest.mark.parametrize("bits", [(8, 8, 8), (12, 3, 8), (16, 16, 12), (30, 31, 9), (8, 40, 33)])
@pytest.mark.parametrize("clamped", [True, False])
@pytest.mark.parametrize("operands", [2, 3])
def test_a_sum_and_its_limits(bits, clamped, operands):
    """Codes at the ends of their formats; the sum of two and a clamp behind it are one step."""
    rng = np.random.default_rng(sum(bits))
    kinds = [TensorType((5, 4), Format(n, bool(rng.random() < 0.7))) for n in (*bits[:2], bits[0])[:operands]]
    build = Builder({f"x{k}": kind for k, kind in enumerate(kinds)})
    y = build.add("sum", Add(*kinds[:2], Format(bits[2]), tuple(kinds[2:])), *build.inputs)
    if clamped:
        y = build.add("clamp", Clamp(build.types[y], -3, 100, Format(8)), y)
    program = build.program(y)
    x = [rng.choice([k.format.low, k.format.low + 1, 0, k.format.high], (8, 5, 4)) for k in kinds]
    np.testing.assert_array_equal(program(*x), program.reference(*x))
    assert len(program._steps) == 1 + (clamped and operands > 2)


@pytest.mark.parametrize("images", [0, 1, 7])
def test_blocks_of_rows_need_not_end_with_an_image(images, monkeypatch):
    """A block is cut off in the middle of a row of windows, and holds windows of two images."""
    monkeypatch.setattr(Reading, "block", property(lambda _: 17))
    rng = np.random.default_rng(images)
    program = convolution(rng, "linear")
    x = rng.integers(-128, 128, (images, *IMAGE.shape)).astype(np.int8)
    np.testing.assert_array_equal(program(x), program.reference(x))


class TestRowsOfATable:
    """A product of rows of a table is a sum of products that are made once."""

    @staticmethod
    def program(rng, table=True, second=False, tokens=2, rows=5, bits=3, wide=False):
        index = TensorType((tokens, 3), Format(bits, signed=False))
        build = Builder({"x": index})
        fmt = Format(16) if wide else INT8  # sums of 35 bits
        entries = rng.integers(fmt.low, fmt.high + 1, (rows, 4))
        build.add("rows", Embedding(index, entries, fmt), "x")
        build.add("side", Reshape(build.types["rows"], (tokens, 12)), "rows")
        weight_format = Format(16) if wide else INT8
        weight = rng.integers(weight_format.low, weight_format.high + 1, (7, 12))
        bias = rng.integers(-3000, 3000, 7)
        r = Requantize(7, 26 if wide else 8, bias_acc=bias, format=INT8, floor=0 if table else None)
        y = build.add("y", Linear(build.types["side"], weight, r, weight_format), "side")
        if table:
            y = build.add("table", Lerp(build.types[y], rng.integers(-128, 128, (7, 257))), y)
        results = [y]
        if second:
            results.append(build.add("clamp", Clamp(build.types["rows"], -3, 3, Format(3)), "rows"))
        return build.program(*results)

    @pytest.mark.parametrize("table", [True, False])
    @pytest.mark.parametrize(("wide", "rows"), [(False, 5), (True, 8), (False, 1)])
    def test_it_is_the_product(self, table, wide, rows):
        """Also of indices beyond the last row, of more rows than are added up at once, of one, and of none."""
        rng = np.random.default_rng(rows)
        program = self.program(rng, table, wide=wide, rows=rows)
        assert [step.operands for step in actions(program)] == [("x",)]
        for count in (0, 1, BLOCK + 3):
            x = rng.integers(0, 8, (count, 2, 3))
            x[count // 2 :, :, :2] = x[count // 2 :, :1, :2] // 4  # there the first ones stay for a while
            expected = program.reference(x)
            assert program(x).dtype == expected.dtype
            np.testing.assert_array_equal(program(x), expected)
            np.testing.assert_array_equal(program.trace(x).tensors[program.results[0]], expected)

    def test_where_it_is_not_taken(self, monkeypatch):
        """The rows have another reader; they do not fill the product's; they are too many."""
        rng = np.random.default_rng(0)
        second = self.program(rng, second=True)
        assert ("rows",) in [step.operands for step in actions(second)]
        x = rng.integers(0, 8, (5, 2, 3))
        for made, expected in zip(second.run(x), second.reference(x), strict=True):
            np.testing.assert_array_equal(made, expected)
        linear, table = (self.program(rng)[name] for name in ("y", "rows"))
        monkeypatch.setattr(separable, "MOST", 3 * 8 * 7)
        assert linear.by_index(table) is not None
        monkeypatch.setattr(separable, "MOST", 3 * 8 * 7 - 1)
        assert linear.by_index(table) is None
        assert not separable.SumOfRows.suits(linear.weight, 1, 5)
