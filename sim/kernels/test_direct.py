"""Tiles that read windows where they lie: every instruction set, width, run length and block border, against the plain
product of gathered rows."""

import numpy as np
import pytest
from numba.core import config

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.execution import codes_of
from bittrue.sim.kernels.direct import KINDS, SUMS, Direct, alone
from bittrue.sim.kernels.epilogue import Epilogue
from bittrue.sim.kernels.groups import HIGH, LOW, choose, loads
from bittrue.sim.kernels.isa import BYTES, VNNI, WORDS, Isa
from bittrue.sim.kernels.matrix import MatrixKernel
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize

ISAS = {"vnni": VNNI, "words": WORDS, "bytes": BYTES}
#: Codes of a test where it asks for none: those that a set of instructions is for.
FORMATS = {"vnni": INT8, "words": INT8, "bytes": Format(7, signed=False)}
#: Outputs of one, two and three vectors of either set, whole tiles or not; channels of runs of all remainders.
OUTPUTS, CHANNELS = (1, 8, 10, 16, 24, 32, 48, 64, 80), (1, 2, 3, 5, 8, 16)


def convolution(rng, channels: int, outputs: int, fmt: Format = INT8, weights: Format = INT8, **requantize):
    """A window, its rows, and a product."""
    pick = lambda high, n: tuple(int(v) for v in rng.integers(1, high, n))  # noqa: E731
    kind = TensorType((*(int(n) for n in rng.integers(5, 10, 2)), channels), fmt)
    dilation = pick(3, 2) if rng.random() < 0.3 else (1, 1)
    padding = tuple(int(v) for v in rng.integers(0, 2, 4))
    kernel = tuple(max(n, 2) for n in pick(4, 2))  # so that every window sees something of the image
    return behind(Window(kind, kernel, pick(3, 2), dilation, padding, fmt.high), rng, outputs, weights, **requantize)


def behind(window: Window, rng, outputs: int, weights: Format = INT8, **requantize):
    """A product behind a window."""
    build = Builder({"x": window.input})
    w = build.add("w", window, "x")
    shape = window.output.shape
    rows = build.add("rows", Reshape(window.output, (*shape[:2], shape[2] * shape[3])), w)
    weight = rng.integers(weights.low, weights.high + 1, (outputs, shape[2] * shape[3]))
    options = {"shift": np.full(outputs, 8), "bias": rng.integers(-20, 20, outputs), "format": INT8} | requantize
    linear = Linear(build.types[rows], weight, Requantize(outputs, **options), weights)
    return build.program(build.add("y", linear, rows))


def made(program, isa: Isa, codes: Range | None = None) -> Direct:
    """The tiles of a product and of the window in front of it."""
    window, linear = program["w"], program["y"]
    fmt = window.input.format
    assert Direct.suits(isa, linear.weight, fmt, codes)
    ranges = linear.accumulator | linear.ranges[2]
    epilogue = Epilogue(linear.requantize, ranges, Direct.offset(isa, linear.weight, fmt))
    return Direct(isa, window.reading, linear.weight, fmt, epilogue, codes)


def runs(program, isa: Isa, images: int, rng, codes: Range | None = None) -> Direct:
    """Codes and saturations of the tiles are the reference's."""
    window, linear = program["w"], program["y"]
    fmt = window.input.format
    direct = made(program, isa, codes)
    low, high = (fmt.low, fmt.high) if codes is None else (codes.low, codes.high)
    x = rng.integers(low, high + 1, (images, *window.input.shape)).astype(fmt.dtype)
    if images:
        x[0], x[-1] = low, high
    expected = program.reference(x).reshape(-1, len(linear.weight))
    for count in (True, False):
        beyond = np.full((len(expected) + 16, expected.shape[1]), 77, expected.dtype)
        out = beyond[8:-8]
        saturated = direct.run(x, out, count)
        np.testing.assert_array_equal(out, expected)
        assert (beyond[:8] == 77).all()  # nothing is written beside it
        assert (beyond[-8:] == 77).all()
        if count:
            rows = window.reference(x).reshape(-1, linear.weight.shape[1])
            assert saturated == linear.saturated(rows)
    return direct


@pytest.mark.parametrize("name", ISAS)
class TestTiles:
    @pytest.fixture(autouse=True)
    def here(self, name):
        if not ISAS[name].available():
            pytest.skip(f"this CPU has no {name}")

    @pytest.mark.parametrize("outputs", OUTPUTS)
    def test_every_width(self, name, outputs):
        rng = np.random.default_rng(outputs)
        runs(convolution(rng, 4, outputs, FORMATS[name]), ISAS[name], 3, rng)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_every_run(self, name, channels):
        rng = np.random.default_rng(100 + channels)
        for _ in range(4):
            runs(convolution(rng, channels, 16, FORMATS[name]), ISAS[name], 2, rng)

    @pytest.mark.parametrize("images", [0, 1, 65, 200])
    def test_blocks_of_images(self, name, images):
        """A block of sums or images ends anywhere; the last tile of the last block reads beyond the last image."""
        rng = np.random.default_rng(images)
        runs(convolution(rng, 2, 32, FORMATS[name]), ISAS[name], images, rng)

    @pytest.mark.parametrize("fmt", [Format(8, signed=False), Format(5), Format(1, signed=False)])
    def test_other_codes(self, name, fmt):
        """Some are not for bytes: signed ones, and those of 8 bits whose products leave a word."""
        rng = np.random.default_rng(fmt.bits)
        program = convolution(rng, 3, 16, fmt)
        if name == "bytes" and (fmt.signed or fmt.bits == 8):
            assert not Direct.suits(BYTES, program["y"].weight, fmt)
            program = convolution(rng, 3, 16, Format(fmt.bits - fmt.signed, signed=False), Format(6))
        runs(program, ISAS[name], 3, rng)

    @pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (2, 1), (7, 2)])
    @pytest.mark.parametrize("fill", [0, 9])
    def test_rows_that_see_only_padding(self, name, kernel, fill):
        """Windows at the top and at the bottom are made without them, whatever the padding is."""
        rng = np.random.default_rng(kernel[0] + fill)
        kind = TensorType((7, 6, 4), FORMATS[name])
        above, left = (size // 2 for size in kernel)
        window = Window(kind, kernel, (1, 1), (1, 1), (above, kernel[0] - 1 - above, left, kernel[1] - 1 - left), fill)
        direct = runs(behind(window, rng, 16), ISAS[name], 5, rng)
        seen = {(max(0, above - row), min(kernel[0], 7 + above - row)) for row in range(7)}  # kernel rows, from and to
        assert len(direct.kinds) == (len(seen) if len(seen) <= KINDS else 1)

    @pytest.mark.parametrize("floor", [None, -128, 0, 60])
    def test_requantisers(self, name, floor):
        rng = np.random.default_rng(7)
        numbers = {"multiplier": rng.integers(1, 9, 16), "bias_acc": rng.integers(-99, 99, 16), "floor": floor}
        runs(convolution(rng, 4, 16, FORMATS[name], **numbers), ISAS[name], 3, rng)
        runs(convolution(rng, 4, 16, FORMATS[name], floor=floor), ISAS[name], 3, rng)
        apart = convolution(rng, 4, 48, FORMATS[name], floor=floor, shift=rng.integers(5, 12, 48))
        assert runs(apart, ISAS[name], 3, rng).least

    @pytest.mark.parametrize("fmt", [Format(8, signed=False), Format(5), Format(3, signed=False)])
    def test_formats_of_results(self, name, fmt):
        rng = np.random.default_rng(fmt.bits)
        direct = runs(convolution(rng, 4, 16, FORMATS[name], format=fmt), ISAS[name], 3, rng)
        assert direct.least

    @pytest.mark.parametrize("stride", [1, 2])
    def test_images_that_are_read_where_they_are(self, name, stride):
        """Nothing around them, nothing negative in them, runs of whole steps: no copy, and nothing read beside them."""
        rng = np.random.default_rng(stride)
        for channels, kernel, codes in ((4, 1, 127), (8, 2, 90), (3, 1, 127)):
            window = Window(TensorType((5, 5, channels), INT8), (kernel, kernel), (stride, stride))
            direct = runs(behind(window, rng, 16), ISAS[name], 70, rng, Range(0, codes))
            assert bool(direct.bare.size) == (name != "words" and channels % 4 == 0)
            if direct.bare.size:
                assert direct.sorted.max() + direct.reach.max() + 4 <= direct.images * window.input.size

    def test_biases_that_do_not_fit_before_the_shift(self, name):
        """What is added after a shift joins what is added before it, where 32 bits hold that."""
        rng = np.random.default_rng(5)
        for shift, registers in ((22, True), (25, False)):
            bias = np.full(16, 100)
            program = convolution(rng, 4, 16, FORMATS[name], shift=np.full(16, shift), bias=bias)
            assert bool(runs(program, ISAS[name], 3, rng).least) == registers


@pytest.mark.skipif(not WORDS.available(), reason="this CPU has no avx2")
@pytest.mark.parametrize("fmt", [Format(12), Format(16), Format(15, signed=False)])
def test_words(fmt):
    """Codes and weights beyond bytes, whose sums have 32 bits."""
    rng = np.random.default_rng(fmt.bits)
    runs(convolution(rng, 2, 16, fmt, Format(9), shift=np.full(16, 14)), WORDS, 3, rng)


@pytest.mark.parametrize(
    ("isa", "weight", "fmt", "suits"),
    [
        (BYTES, 127, Format(7, signed=False), True),
        (BYTES, -128, Format(7, signed=False), True),
        (BYTES, 128, Format(7, signed=False), False),
        (BYTES, 1, INT8, False),
        (BYTES, 64, Format(8, signed=False), True),
        (BYTES, 65, Format(8, signed=False), False),
        (BYTES, -65, Format(8, signed=False), False),
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


@pytest.mark.parametrize(
    ("low", "high", "suits"), [(-32768, 5, True), (-32769, 5, False), (-5, 32767, True), (-5, 32768, False)]
)
def test_words_hold_the_codes_that_occur_however_wide_their_format_is(low, high, suits):
    assert Direct.suits(WORDS, np.array([[1]]), Format(24), Range(low, high)) == suits


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("images", [1, 2, 5, 200])
@pytest.mark.parametrize("seed", range(6))
def test_all_that_is_read_lies_in_the_buffer(name, images, seed):
    """By every row of every tile of every block, those that fill the last tile included; of one pixel and of many."""
    rng, isa = np.random.default_rng(seed), ISAS[name]
    program = convolution(rng, int(rng.integers(1, 6)), int(rng.choice([8, 16, 48, 80])), FORMATS[name])
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
            for entry, first, each in direct.kinds if 0 < direct.least <= here else ():
                tiles = range(0, each * here, isa.rows)
                begins = [first + min(r, each * here - isa.rows) for r in tiles]
                assert min(begins) >= first
                made = {row for at in begins for row in range(at, at + isa.rows)}
                assert made == set(range(first, first + each * here))
                assert direct.place[list(made)].max() < here * direct.rows
                assert entry < direct.table.size
        panels = direct.table.reshape(-1, 2 + len(isa.groups))
        steps = panels[:, 2:] @ isa.groups
        assert (panels[:, 0] + steps <= direct.reach.size).all()
        wide = np.tile(direct.widths, len(panels) // len(direct.widths))
        assert (panels[:, 1] + 4 * isa.lanes * wide * steps <= direct.packed.nbytes).all()


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("outputs", [8, 48, 640, 5000])
def test_the_sums_of_a_block_stay_in_the_cache(name, outputs):
    """The most whole tiles that do, and one tile always; no more than there are windows of the images together."""
    rng, isa = np.random.default_rng(0), ISAS[name]
    window = Window(TensorType((40, 40, 2), FORMATS[name]), (1, 2), fill=0)
    direct = made(behind(window, rng, outputs), isa)
    row = 4 * direct.columns
    assert direct.block % isa.rows == 0
    assert direct.block * row <= SUMS or direct.block == isa.rows
    more = direct.block + isa.rows
    assert more * row > SUMS or more > direct.images * direct.rows


@pytest.mark.parametrize(("isa", "largest"), [(VNNI, 255), (WORDS, 128)])
def test_sums_have_32_bits(isa, largest):
    terms = (1 << 31) // (100 * largest)
    assert Direct.suits(isa, np.full((1, terms), 100), INT8)
    assert not Direct.suits(isa, np.full((1, terms + 1), 100), INT8)


# -- sums of 16 bits ----------------------------------------------------------------------------------------
def worst(program, codes: Range) -> np.ndarray:
    """Two images on which every word of every group holds the most, or the least, that it ever can: for outputs in
    turn, the largest code where its weight is positive (or negative), the smallest elsewhere."""
    weight = program["y"].weight
    kind = program["w"].input
    images = [np.where(sign * row > 0, codes.high, codes.low) for row in weight for sign in (1, -1)]
    return np.array(images).reshape(-1, *kind.shape).astype(kind.format.dtype)


@pytest.mark.skipif(not BYTES.available(), reason="this CPU has no avx2")
class TestGroups:
    @pytest.mark.parametrize("codes", [Range(0, 127), Range(0, 1), Range(0, 100)])
    @pytest.mark.parametrize("spread", ["uniform", "bell", "largest", "lowest", "small"])
    def test_no_word_ever_leaves_16_bits(self, codes, spread):
        """Kernels as large as the image, so that every image drives one output to its ends."""
        rng = np.random.default_rng(len(spread))
        window = Window(TensorType((4, 4, 8), INT8), (4, 4))
        program = behind(window, rng, 24)
        weight = {
            "uniform": rng.integers(-128, 128, (24, 128)),
            "bell": np.clip(np.round(rng.normal(0, 42, (24, 128))), -128, 127),
            "largest": np.full((24, 128), 127),
            "lowest": np.full((24, 128), -128),
            "small": rng.integers(-3, 4, (24, 128)),
        }[spread].astype(np.int64)
        linear = Linear(program["y"].input, weight, program["y"].requantize)
        program = Builder({"x": window.input})
        w = program.add("w", window, "x")
        program.add("rows", Reshape(window.output, linear.input.shape), w)
        program = program.program(program.add("y", linear, "rows"))
        direct, x = made(program, BYTES, codes), worst(program, codes)
        out = np.empty((len(x), 24), np.int8)
        direct.run(x, out, count=False)
        np.testing.assert_array_equal(out, program.reference(x).reshape(-1, 24))
        counts = direct.table.reshape(-1, 6)[:, 2:]
        if spread == "small" or (spread == "bell" and codes.high == 1):
            assert counts[:, 1:].sum() == 0  # groups of four
        if spread in ("largest", "lowest") and codes.high == 127:
            assert counts[:, :3].sum() == 0  # single steps

    def test_every_step_once_and_no_group_too_heavy(self):
        rng = np.random.default_rng(0)
        for steps, largest in ((1, 127), (7, 127), (36, 127), (36, 60), (5, 255)):
            most = HIGH // (2 * largest)
            weight = np.clip(np.round(rng.normal(0, most / 3, (16, steps, 4))), -most, most).astype(np.int8)
            order, counts = choose(weight, largest, (4, 3, 2, 1))
            assert sorted(order) == list(range(steps))
            assert counts @ np.array([4, 3, 2, 1]) == steps
            at = 0
            for size, count in zip((4, 3, 2, 1), counts, strict=True):
                for _ in range(count):
                    pairs = weight[:, order[at : at + size]].astype(np.int64).transpose(0, 2, 1).reshape(16, 2, -1)
                    assert largest * np.maximum(pairs, 0).sum(-1).max() <= HIGH
                    assert largest * np.minimum(pairs, 0).sum(-1).min() >= LOW
                    at += size

    def test_what_a_step_adds_to_each_word(self):
        rng = np.random.default_rng(2)
        weight = rng.integers(-128, 128, (3, 5, 4)).astype(np.int8)
        for step, (most, least) in enumerate(zip(*loads(weight, 77), strict=True)):
            pairs = [(int(row[k]), int(row[k + 1])) for row in weight[:, step] for k in (0, 2)]
            assert most.tolist() == [77 * (max(a, 0) + max(b, 0)) for a, b in pairs]
            assert least.tolist() == [77 * (min(a, 0) + min(b, 0)) for a, b in pairs]

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_word_is_filled_to_its_end_and_no_further(self, sign):
        """Of three steps with codes up to 64 the last takes what the first two leave, or goes by itself."""
        end = 127 if sign > 0 else 128
        left = (1 << 15) // 64 - 4 * end - (sign > 0)
        for word in (0, 2):
            for more, counts in ((0, [0, 1, 0, 0]), (1, [0, 0, 1, 1])):
                weight = np.zeros((2, 3, 4), np.int64)
                weight[1, :, word : word + 2] = sign * np.array([[end, end], [end, end], [left + more, 0]])
                order, found = choose(weight, 64, (4, 3, 2, 1))
                assert sorted(order) == [0, 1, 2]
                assert found == counts

    def test_codes_are_known_by_what_makes_them(self):
        """A convolution behind a ReLU has bytes, one behind no ReLU has words; both are exact."""
        rng = np.random.default_rng(3)
        for floor, isa in ((0, BYTES), (None, WORDS), (-1, WORDS)):
            program = convolution(rng, 4, 16, floor=floor)
            build = Builder(program.inputs)
            for node in program.nodes:
                build.add(node.name, node.operation, *node.operands)
            window = Window(build.types["y"], (2, 2))
            build.add("w2", window, "y")
            rows = Reshape(window.output, (*window.windows, 64))
            build.add("rows2", rows, "w2")
            linear = Linear(rows.output, rng.integers(-128, 128, (16, 64)), Requantize(16, np.full(16, 9)))
            program = build.program(build.add("z", linear, "rows2"))
            assert codes_of(program)["w2"] == Range(min(floor, 0) if floor is not None else -128, 127)
            kernel = MatrixKernel(linear.weight, INT8, linear.sums, linear.requantize, backend="avx2")
            assert kernel.direct(window.reading, codes_of(program)["w2"]).isa is isa
            x = rng.integers(-128, 128, (9, *program.inputs["x"].shape)).astype(np.int8)
            np.testing.assert_array_equal(program(x), program.reference(x))


def test_features_that_numba_compiles_for(monkeypatch):
    """NUMBA_CPU_FEATURES decides: what it leaves out is not there, whatever the CPU has."""
    for features, expected in (("+avx2,+fma,-avx512f", (False, True, True)), ("-avx2", (False, False, False))):
        monkeypatch.setattr(config, "CPU_FEATURES", features)
        assert tuple(isa.available() for isa in (VNNI, WORDS, BYTES)) == expected
    monkeypatch.setattr(config, "CPU_FEATURES", ",".join(f"+{name}" for name in VNNI.needs))
    assert VNNI.available()
