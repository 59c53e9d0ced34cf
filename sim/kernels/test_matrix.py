"""The back ends of the fast execution: each equal to the reference, on any geometry; fused equal to unfused."""

import sys

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels import blas as kernels_blas
from bittrue.sim.kernels import light_vnni
from bittrue.sim.kernels import matrix as kernels
from bittrue.sim.kernels.blas import Sgemm
from bittrue.sim.kernels.isa import BYTES, WORDS, Isa
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.kernels.vnni import BLOCK_BYTES, TILE_ROWS, Vnni
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.requantize import Requantize

GEOMETRIES = [(1, 1, 1), (1, 1, 17), (3, 2, 16), (8, 5, 48), (9, 3, 49), (41, 96, 96), (130, 7, 33), (64, 100, 64)]
FORMATS = ["s8", "u8", "s4", "u3", "s1", "u1"]


def linear(rng, k, n, fmt=INT8, weight_format=INT8, out=INT8, **more) -> Linear:
    weight = rng.integers(weight_format.low, weight_format.high + 1, (n, k))
    room = max(0, (int(np.sqrt(k)) * fmt.levels * weight_format.levels // 4).bit_length() - out.bits)
    requantize = Requantize(n, rng.integers(room, room + 3, n), rng.integers(-9, 10, n), format=out, **more)
    return Linear(TensorType((k,), fmt), weight, requantize, weight_format)


def codes(rng, fmt, *shape):
    x = rng.integers(fmt.low, fmt.high + 1, shape)
    x.reshape(-1)[::3] = fmt.low
    x.reshape(-1)[1::5] = fmt.high
    return x.astype(fmt.dtype)


def kernel(op: Linear, backend: str) -> MatrixKernel:
    return MatrixKernel(op.weight, op.input.format, op.sums, op.requantize, backend)


def check(op: Linear, backend: str, x: np.ndarray, rng) -> None:
    """Codes and counts equal the reference, with and without counting, with and without a table."""
    run, expected, out = kernel(op, backend), op.reference(x), op.requantize.format
    y, saturated = run(x)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == out.dtype
    assert saturated == op.saturated(x)
    y, saturated = run(x, count=False)
    np.testing.assert_array_equal(y, expected)
    assert saturated == 0
    if out.bits > 8:
        return
    for result in (INT8, Format(8, signed=False), Format(12)):
        table = codes(rng, result, len(op.weight), out.levels)
        looked_up = table[np.arange(len(op.weight)), expected.astype(int) - out.low]
        for count in (True, False):
            y, saturated = run(x, count, table)
            np.testing.assert_array_equal(y, looked_up)
            assert y.dtype == table.dtype
            assert saturated == (op.saturated(x) if count else 0)


def require(backend: str) -> None:
    if backend not in kernels.backends():
        pytest.skip(f"this CPU cannot run the back end {backend}")


@pytest.mark.parametrize("backend", kernels.BACKENDS)
class TestBackend:
    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "x".join(map(str, g)))
    def test_geometries(self, backend, geometry):
        require(backend)
        rows, k, n = geometry
        rng = np.random.default_rng(geometry)
        check(linear(rng, k, n), backend, codes(rng, INT8, rows, k), rng)

    @pytest.mark.parametrize("fmt", FORMATS)
    @pytest.mark.parametrize("out", ["s8", "u8", "s5", "s12"])
    def test_formats(self, backend, fmt, out):
        require(backend)
        rng = np.random.default_rng([FORMATS.index(fmt), len(out)])
        fmt, out = Format.parse(fmt), Format.parse(out)
        check(linear(rng, 19, 21, fmt, out=out), backend, codes(rng, fmt, 13, 19), rng)

    @pytest.mark.parametrize("seed", range(12))
    def test_random(self, backend, seed):
        require(backend)
        rng = np.random.default_rng([seed, 77])
        rows, k, n = (int(rng.integers(1, high)) for high in (200, 150, 110))
        more = {}
        if seed % 2:
            more = {"multiplier": rng.integers(1, 9, n), "bias_acc": rng.integers(-500, 500, n), "floor": 0}
        check(linear(rng, k, n, **more), backend, codes(rng, INT8, rows, k), rng)

    def test_corners(self, backend):
        """Every product at its extreme, in both signs, also where the shift to unsigned weighs most."""
        require(backend)
        rng = np.random.default_rng(5)
        for weight in (-128, 127):
            for code in (-128, 127):
                requantize = Requantize(17, np.full(17, 20), bias_acc=rng.integers(-(1 << 20), 1 << 20, 17))
                op = Linear(TensorType((1030,), INT8), np.full((17, 1030), weight), requantize)
                check(op, backend, np.full((3, 1030), code, np.int8), rng)

    def test_empty_batch(self, backend):
        require(backend)
        op = linear(np.random.default_rng(0), 5, 6)
        y, saturated = kernel(op, backend)(np.empty((0, 5), np.int8))
        assert y.shape == (0, 6)
        assert saturated == 0


@pytest.mark.parametrize("backend", ["sgemm", "numba"])
@pytest.mark.parametrize(("fmt", "weight_format"), [("s16", "s8"), ("u12", "s12"), ("s8", "s16"), ("s20", "s18")])
def test_wide_formats(backend, fmt, weight_format):
    rng = np.random.default_rng(len(fmt))
    fmt, weight_format = Format.parse(fmt), Format.parse(weight_format)
    check(linear(rng, 70, 9, fmt, weight_format), backend, codes(rng, fmt, 67, 70), rng)


@pytest.mark.parametrize("fmt", ["s9", "u9", "u10", "s15", "s16", "u16"])
@pytest.mark.parametrize("geometry", [*GEOMETRIES, (9, 250, 40)], ids=lambda g: "x".join(map(str, g)))
def test_vnni_takes_codes_of_two_bytes(fmt, geometry):
    require("vnni")
    rows, k, n = geometry
    fmt, rng = Format.parse(fmt), np.random.default_rng(geometry)
    check(linear(rng, k, n, fmt), "vnni", codes(rng, fmt, rows, k), rng)


@pytest.mark.parametrize(("fmt", "k"), [("s16", 511), ("u16", 255), ("u10", 16400), ("s9", 65535)])
def test_vnni_sums_of_two_byte_codes_next_to_the_largest(fmt, k):
    """Sums within a few products of 2^31: lanes wrap on the way, and the result is exact all the same."""
    require("vnni")
    fmt, rng = Format.parse(fmt), np.random.default_rng(k)
    for weight in (-128, 127):
        for code in (fmt.low, fmt.high):
            op = Linear(TensorType((k,), fmt), np.full((17, k), weight), Requantize(17, np.full(17, 24)))
            check(op, "vnni", np.full((3, k), code, fmt.dtype), rng)
    op = Linear(TensorType((2 * k,), fmt), np.full((2, 2 * k), -128), Requantize(2, np.full(2, 30)))
    assert op.by_row.backend != "vnni"


def test_split_products_are_used_and_exact():
    """K so large that a float32 sum could round: the terms are split, each part exact, the total too."""
    rng = np.random.default_rng(1)
    op = Linear(
        TensorType((4096,), INT8), rng.integers(100, 128, (5, 4096)), Requantize(5, np.zeros(5), format=Format(32))
    )
    run = kernel(op, "sgemm")
    assert run.product.real is np.float32
    assert len(run.product.parts) > 1
    x = np.full((3, 4096), 127, np.int8)
    x[:, ::7] = -128
    np.testing.assert_array_equal(run(x)[0], op.reference(x))
    x32 = x.astype(np.float32) @ op.weight.T.astype(np.float32)
    assert (x32.astype(np.int64) % 2 == 0).all(), "a plain float32 product cannot hold these odd sums"
    assert kernels_blas.split(np.full((1, 3), 1 << 24), 1 << 24) is None


@pytest.mark.parametrize(
    ("fmt", "weight"), [("s17", 1), ("s8", 128), ("s8", -129)], ids=["wide codes", "weight 128", "weight -129"]
)
def test_vnni_leaves_what_it_cannot_hold(fmt, weight):
    fmt = Format.parse(fmt)
    op = Linear(TensorType((3,), fmt), np.full((2, 3), weight), Requantize(2, np.zeros(2)), Format(10))
    with pytest.raises(BittrueError, match="back end vnni cannot run"):
        kernel(op, "vnni")
    assert op.by_row.backend != "vnni"


class TestChoice:
    def test_the_fastest_is_taken(self, monkeypatch):
        monkeypatch.delenv(kernels.VARIABLE, raising=False)
        op = linear(np.random.default_rng(0), 4, 4)
        assert op.by_row.backend == kernels.backends()[0]

    @pytest.mark.parametrize("name", ["sgemm", "numba"])
    def test_the_variable_decides(self, monkeypatch, name):
        monkeypatch.setenv(kernels.VARIABLE, name)
        assert linear(np.random.default_rng(0), 4, 4).by_row.backend == name

    def test_a_wrong_name_is_refused(self, monkeypatch):
        monkeypatch.setenv(kernels.VARIABLE, "cuda")
        with pytest.raises(BittrueError, match="BITTRUE_BACKEND=cuda: no such back end.*vnni, avx2, sgemm, numba"):
            _ = linear(np.random.default_rng(0), 4, 4).by_row

    def test_a_cpu_without_the_instruction(self, monkeypatch):
        monkeypatch.delenv(kernels.VARIABLE, raising=False)
        for avx2, expected in ((True, "avx2"), (False, "sgemm")):
            monkeypatch.setattr(Isa, "available", lambda isa, there=avx2: there and isa in (BYTES, WORDS))
            assert linear(np.random.default_rng(0), 4, 4).by_row.backend == expected
        for name, lacking in (("vnni", "no AVX512-VNNI"), ("avx2", "no AVX2")):
            monkeypatch.setenv(kernels.VARIABLE, name)
            with pytest.raises(BittrueError, match=lacking):
                _ = linear(np.random.default_rng(0), 4, 4).by_row


# -- fusion -------------------------------------------------------------------------------------------------
def chain(rng, follower: str, *, second_reader=False, result="y", out=INT8):
    kind = TensorType((3, 10), INT8)
    build = Builder({"x": kind})
    op = linear(rng, 10, 12, out=out)
    product = build.add("product", Linear(kind, op.weight, op.requantize), "x")
    middle = build.types[product]
    if follower == "lerp":
        function = Lerp(middle, rng.integers(-128, 128, (12, 9)))
    else:
        function = Affine(middle, rng.integers(-128, 128, 12), Requantize(12, rng.integers(2, 8, 12)))
    y = build.add("y", function, product)
    if second_reader:
        y = build.add("sum", Add(middle, build.types[y]), product, y)
    return build.program(product if result == "product" else y)


@pytest.mark.parametrize("follower", ["lerp", "affine"])
@pytest.mark.parametrize("case", ["fused", "second reader", "is the result", "wide"])
def test_fused_equals_unfused_equals_reference(follower, case):
    rng = np.random.default_rng(len(case))
    program = chain(
        rng,
        follower,
        second_reader=case == "second reader",
        result="product" if case == "is the result" else "y",
        out=Format(10) if case == "wide" else INT8,
    )
    x = codes(rng, INT8, 300, 3, 10)
    trace = program.trace(x)
    np.testing.assert_array_equal(program(x), trace.tensors[program.result])
    np.testing.assert_array_equal(program(x), program.reference(x))
    steps = len(program.nodes) - (1 if case == "fused" else 0)
    assert len(program._steps) == steps, "fusing happens exactly where the product has one element-wise reader"
    for node in program.nodes:
        operands = [trace.tensors[name] for name in node.operands]
        assert trace.saturation[node.name] == node.operation.saturated(*operands)


def test_a_changed_rounding_constant_is_caught():
    """The epilogue's rounding constant, off by one in one channel, must not survive the comparison."""
    rng = np.random.default_rng(0)
    op = linear(rng, 8, 4)
    x = codes(rng, INT8, 4000, 8)
    for backend in kernels.backends():
        run = kernel(op, backend)
        run.epilogue.vectors[2][1] += 1
        assert (run(x)[0][:, 1] != op.reference(x)[:, 1]).any(), backend
        np.testing.assert_array_equal(run(x)[0][:, 2], op.reference(x)[:, 2])


def test_vnni_with_more_outputs_than_rows_of_a_block():
    """A block has a sum of every output for each of its rows; of inputs whole words of four codes are held."""
    require("vnni")
    rng = np.random.default_rng(0)
    op = linear(rng, 3, 1100, Format(8))
    check(op, "vnni", codes(rng, Format(8), 70, 3), rng)
    for inputs, depth in ((1, 4), (4, 4), (5, 8), (8, 8), (9, 12)):
        assert Vnni(np.ones((2, inputs), np.int64), Format(8)).depth == depth


@pytest.mark.parametrize("outputs", [1, 16, 250, 1000, 3000, 20000])
def test_the_sums_of_a_block_stay_in_the_cache(outputs):
    """The most whole tiles that do, up to 256 rows; two tiles always."""
    made = Vnni(np.ones((outputs, 4), np.int64), INT8)
    row = 4 * made.columns
    assert made.rows % TILE_ROWS == 0
    assert made.rows * row <= BLOCK_BYTES or made.rows == 2 * TILE_ROWS
    assert made.rows == 256 or (made.rows + TILE_ROWS) * row > BLOCK_BYTES


# -- which back end takes what: each bound with its neighbour -------------------------------------------------
def _row(*runs: tuple[int, int]) -> np.ndarray:
    """One row of weights: so many of a value, and so on."""
    return np.concatenate([np.full(count, value) for count, value in runs])[None]


@pytest.mark.parametrize(
    ("kind", "taken", "left"),
    [
        (Vnni, (_row((1, 127)), INT8), (_row((1, 128)), INT8)),
        (Vnni, (_row((1, -128)), INT8), (_row((1, -129)), INT8)),
        (Vnni, (_row((1, 1)), Format(16)), (_row((1, 1)), Format(17))),
        (Vnni, (_row((66311, 127), (1, 7)), INT8), (_row((66311, -127), (1, -8)), INT8)),  # 255 times it: 2^31
        (Vnni, (_row((516, 127), (1, 3)), Format(16)), (_row((516, 127), (1, 4)), Format(16))),
        (Vnni, (_row((258, 127), (1, 2)), Format(16, False)), (_row((258, 127), (1, 3)), Format(16, False))),
        (Sgemm, (_row((1, (1 << 46) - 1)), INT8), (_row((1, 1 << 46)), INT8)),
        (Sgemm, (_row((2, -(1 << 45) + 1)), INT8), (_row((2, -(1 << 45))), INT8)),
        (kernels.Dot, (_row((1, 1)), Format(48)), (np.zeros((0, 1), int), INT8)),
    ],
)
def test_what_a_back_end_takes_and_what_it_leaves(kind, taken, left):
    assert kind.suits(*taken)
    assert not kind.suits(*left)


def test_wide_codes_need_the_order_of_bytes_they_are_packed_for(monkeypatch):
    assert Vnni.suits(_row((1, 1)), Format(9)) == (sys.byteorder == "little")
    monkeypatch.setattr(sys, "byteorder", "big")
    assert Vnni.suits(_row((1, 1)), Format(8))
    assert not Vnni.suits(_row((1, 1)), Format(9))


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ((_row((1, 1)), Format(15, False)), (_row((1, 1)), Format(16))),
        ((_row((1, 32767)), INT8), (_row((1, -32768)), INT8)),
        ((_row((2, 32767), (1, 4)), Format(15, False)), (_row((2, 32767), (1, 5)), Format(15, False))),
    ],
)
def test_sums_of_32_bits_where_they_fit(narrow, wide):
    assert (kernels.Dot(*narrow).term, kernels.Dot(*narrow).sum) == (np.int16, np.int32)
    assert (kernels.Dot(*wide).term, kernels.Dot(*wide).sum) == (np.int64, np.int64)


def test_converters_that_registers_take():
    half = np.zeros((1, 32), np.int32)
    assert light_vnni.suits(half, 255)
    assert not light_vnni.suits(half, 256)
    assert not light_vnni.suits(half.astype(np.int64), 255)


@pytest.mark.parametrize(
    ("weight", "columns", "parts", "real"),
    [
        (7, 73, 1, np.float32),  # sums below 2^24
        (8, 63, 1, np.float32),
        (8, 64, 1, np.float64),  # of 2^24
        (7, 127, 1, np.float64),  # two parts of 64 terms or more are wanted
        (7, 128, 2, np.float32),
        (8, 191, 1, np.float64),  # four parts
        (1 << 9, 500, 1, np.float64),  # one product alone is too much
    ],
)
def test_float32_takes_over_where_its_parts_are_not_short(weight, columns, parts, real):
    made = Sgemm(np.full((2, columns), weight), Format(16))
    assert (made.real, len(made.parts)) == (real, parts)
