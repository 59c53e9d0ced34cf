"""Tiles that read windows where they lie: every instruction set, width, run length and block border, against the plain
product of gathered rows."""

import numpy as np
import pytest

from bittrue.sim.contract import INT8, Format
from bittrue.sim.kernels.direct import Direct, alone
from bittrue.sim.kernels.epilogue import Epilogue
from bittrue.sim.kernels.isa import BYTES, VNNI, WORDS, Isa
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Builder
from bittrue.sim.requantize import Requantize

ISAS = {"vnni": VNNI, "words": WORDS}
#: Outputs of one, two and three vectors of either set, whole tiles or not; channels of runs of all remainders.
OUTPUTS, CHANNELS = (1, 8, 10, 16, 24, 32, 48, 64, 80), (1, 2, 3, 5, 8, 16)


def convolution(rng, channels: int, outputs: int, fmt: Format = INT8, weights: Format = INT8, **requantize):
    """A window, its rows, and a product."""
    pick = lambda high, n: tuple(int(v) for v in rng.integers(1, high, n))  # noqa: E731
    kind = TensorType((*(int(n) for n in rng.integers(5, 10, 2)), channels), fmt)
    dilation = pick(3, 2) if rng.random() < 0.3 else (1, 1)
    padding = tuple(int(v) for v in rng.integers(0, 2, 4))
    kernel = tuple(max(n, 2) for n in pick(4, 2))  # so that every window sees something of the image
    window = Window(kind, kernel, pick(3, 2), dilation, padding, fmt.high)
    build = Builder({"x": kind})
    w = build.add("w", window, "x")
    shape = window.output.shape
    rows = build.add("rows", Reshape(window.output, (*shape[:2], shape[2] * shape[3])), w)
    weight = rng.integers(weights.low, weights.high + 1, (outputs, shape[2] * shape[3]))
    options = {"shift": np.full(outputs, 8), "bias": rng.integers(-20, 20, outputs)} | requantize
    linear = Linear(build.types[rows], weight, Requantize(outputs, **options, format=INT8), weights)
    return build.program(build.add("y", linear, rows))


def runs(program, isa: Isa, images: int, rng) -> None:
    """Codes and saturations of the tiles are the reference's."""
    window, linear = program["w"], program["y"]
    fmt = window.input.format
    assert Direct.suits(isa, linear.weight, fmt)
    ranges = linear.accumulator | linear.ranges[2]
    epilogue = Epilogue(linear.requantize, ranges, Direct.offset(isa, linear.weight, fmt))
    direct = Direct(isa, window.reading, linear.weight, fmt, epilogue)
    x = rng.integers(fmt.low, fmt.high + 1, (images, *window.input.shape)).astype(fmt.dtype)
    if images:
        x[0], x[-1] = fmt.low, fmt.high
    expected = program.reference(x).reshape(-1, len(linear.weight))
    for count in (True, False):
        out = np.empty(expected.shape, np.int8)
        saturated = direct.run(x, out, count)
        np.testing.assert_array_equal(out, expected)
        if count:
            rows = window.reference(x).reshape(-1, linear.weight.shape[1])
            assert saturated == linear.saturated(rows)


@pytest.mark.parametrize("name", ISAS)
class TestTiles:
    @pytest.fixture(autouse=True)
    def here(self, name):
        if not ISAS[name].available():
            pytest.skip(f"this CPU has no {name}")

    @pytest.mark.parametrize("outputs", OUTPUTS)
    def test_every_width(self, name, outputs):
        rng = np.random.default_rng(outputs)
        runs(convolution(rng, 4, outputs), ISAS[name], 3, rng)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_every_run(self, name, channels):
        rng = np.random.default_rng(100 + channels)
        for _ in range(4):
            runs(convolution(rng, channels, 16), ISAS[name], 2, rng)

    @pytest.mark.parametrize("images", [0, 1, 65, 200])
    def test_blocks_of_images(self, name, images):
        """A block of sums or images ends anywhere; the last tile of the last block reads beyond the last image."""
        rng = np.random.default_rng(images)
        runs(convolution(rng, 2, 32), ISAS[name], images, rng)

    @pytest.mark.parametrize("fmt", [Format(8, signed=False), Format(5), Format(1, signed=False)])
    def test_other_codes(self, name, fmt):
        rng = np.random.default_rng(fmt.bits)
        runs(convolution(rng, 3, 16, fmt), ISAS[name], 3, rng)

    @pytest.mark.parametrize("floor", [None, -128, 0, 60])
    def test_requantisers(self, name, floor):
        rng = np.random.default_rng(7)
        numbers = {"multiplier": rng.integers(1, 9, 16), "bias_acc": rng.integers(-99, 99, 16), "floor": floor}
        runs(convolution(rng, 4, 16, **numbers), ISAS[name], 3, rng)
        runs(convolution(rng, 4, 16, floor=floor), ISAS[name], 3, rng)


@pytest.mark.skipif(not WORDS.available(), reason="this CPU has no avx2")
@pytest.mark.parametrize("fmt", [Format(12), Format(16), Format(15, signed=False)])
def test_words(fmt):
    """Codes and weights beyond bytes, whose sums have 32 bits."""
    rng = np.random.default_rng(fmt.bits)
    runs(convolution(rng, 2, 16, fmt, Format(9), shift=np.full(16, 14)), WORDS, 3, rng)


@pytest.mark.parametrize(
    ("isa", "weight", "fmt", "suits"),
    [
        (VNNI, 127, INT8, True),
        (VNNI, -128, INT8, True),
        (VNNI, 128, INT8, False),
        (VNNI, 1, Format(9), False),
        (WORDS, -32767, INT8, True),
        (WORDS, -32768, INT8, False),  # two products of it and -32768 are one more than 32 bits hold
        (WORDS, 32768, INT8, False),
        (WORDS, 1, Format(16), True),
        (WORDS, 1, Format(16, signed=False), False),
        (WORDS, 32767, Format(16), True),
    ],
)
def test_what_suits(isa, weight, fmt, suits):
    assert Direct.suits(isa, np.array([[weight]]), fmt) == suits


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("images", [1, 2, 5, 200])
@pytest.mark.parametrize("seed", range(6))
def test_all_that_is_read_lies_in_the_buffer(name, images, seed):
    """By every row of every tile of every block, those that fill the last tile included; of one pixel and of many."""
    rng, isa = np.random.default_rng(seed), ISAS[name]
    program = convolution(rng, int(rng.integers(1, 6)), 16)
    linear, fmt = program["y"], program["w"].input.format
    ranges = linear.accumulator | linear.ranges[2]
    epilogue = Epilogue(linear.requantize, ranges, Direct.offset(isa, linear.weight, fmt))
    pixel = alone(linear.weight.shape[1], fmt)
    for reading in (program["w"].reading, pixel):
        direct = Direct(isa, reading, linear.weight, fmt, epilogue)
        block = max(1, min(direct.images, images))
        for here in {block, images % block or block}:
            rows = -(-here * direct.rows // isa.rows) * isa.rows
            last = int(direct.where[:rows].max()) + int(direct.reach.max()) + 4
            assert last <= direct.room(block) * np.dtype(isa.image).itemsize
            assert len(direct.where) >= rows


@pytest.mark.parametrize(("isa", "largest"), [(VNNI, 255), (WORDS, 128)])
def test_sums_have_32_bits(isa, largest):
    terms = (1 << 31) // (100 * largest)
    assert Direct.suits(isa, np.full((1, terms), 100), INT8)
    assert not Direct.suits(isa, np.full((1, terms + 1), 100), INT8)
