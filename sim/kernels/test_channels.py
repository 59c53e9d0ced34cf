"""Windows whose channels stay apart: tiles of every CPU and the plain loops, against the reference."""

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format, Range
from bittrue.sim.kernels.channel_tiles import KINDS, ROWS
from bittrue.sim.kernels.channels import Largest, Weighted
from bittrue.sim.kernels.matrix import backends
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.depthwise import Depthwise
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.maximum import Maximum
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize

TILES = {name: (kind,) for name, kind in KINDS.items()} | {"loops": ()}
CHANNELS = (1, 3, 8, 16, 24, 32, 48, 64)


def window(rng, channels: int, fmt: Format) -> Window:
    pick = lambda low, high, n=2: tuple(int(v) for v in rng.integers(low, high, n))  # noqa: E731
    kind = TensorType((*pick(5, 9), channels), fmt)
    fill = int(rng.integers(fmt.low, fmt.high + 1))
    return Window(kind, pick(2, 4), pick(1, 3), pick(1, 3) if rng.random() < 0.3 else (1, 1), pick(0, 2, 4), fill)


def depthwise(rng, of: Window, weights: Format = INT8, **requantize) -> Depthwise:
    channels = of.input.channels
    weight = rng.integers(weights.low, weights.high + 1, of.output.shape[-2:])
    options = {"shift": np.full(channels, 7), "bias": rng.integers(-20, 20, channels), "format": INT8} | requantize
    return Depthwise(of.output, weight, Requantize(channels, **options), weights)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [16, 32, 48, 64, 96, 112, 208, 240])
def test_panels_are_as_few_as_their_widths_allow(name, channels):
    """The wider a panel, the more windows share what is read of them; the widest come first."""
    rng, kind, fmt = np.random.default_rng(0), KINDS[name], Format(8)
    of = Window(TensorType((4, 4, channels), fmt), (2, 2), fill=0)
    op = depthwise(rng, of)
    codes, total = Range(fmt.low, fmt.high), channels // 16
    if not kind.suits(of.reading, op.weight, op.by_row.epilogue, codes):
        assert total % kind.lanes[-1]
        return
    tiles = Weighted(of.reading, op.weight, op.by_row.epilogue, codes, (kind,)).tiles
    panels, fewest = tiles.copied[6].tolist(), [0]
    for lanes in range(1, total + 1):
        fewest.append(1 + min((fewest[lanes - wide] for wide in kind.lanes if wide <= lanes), default=10**6))
    assert sum(panels) == total
    assert len(panels) == fewest[total]
    assert panels == sorted(panels, reverse=True)


@pytest.mark.parametrize("name", KINDS)
def test_what_tiles_take_and_what_they_leave(name):
    """Weights and codes up to the ends of their types, and no more; whole panels of channels, but for one of a lane."""
    rng, kind = np.random.default_rng(0), KINDS[name]
    of = Window(TensorType((4, 4, 32), Format(8)), (2, 2))
    epilogue, held = depthwise(rng, of).by_row.epilogue, np.iinfo(kind.weight)

    def takes(weight=1, codes=(-128, 127), reading=of.reading, channels=32):
        weights = np.ones((4, channels), int)
        weights[1, 2] = weight
        return kind.suits(reading, weights, epilogue, Range(*codes))

    assert takes()
    assert takes(held.max)
    assert not takes(held.max + 1)
    assert takes(held.min + (not kind.turns))  # two products of the lowest in a step would not fit
    assert not takes(held.min - kind.turns)
    assert takes(channels=24) == (kind.lanes[-1] == 1)
    wide = Window(TensorType((4, 4, 32), Format(24)), (2, 2)).reading
    if np.dtype(kind.image).itemsize == 1:
        assert not takes(reading=wide)
        assert takes(codes=(0, 128)) == kind.turns
    else:
        assert takes(codes=(-32768, 32767), reading=wide)
        assert not takes(codes=(-32769, 0), reading=wide)
        assert not takes(codes=(0, 32768), reading=wide)


def images(of: Window, n: int, rng, codes: Range | None = None) -> np.ndarray:
    fmt = of.input.format
    low, high = (fmt.low, fmt.high) if codes is None else (codes.low, codes.high)
    x = rng.integers(low, high + 1, (n, *of.input.shape)).astype(fmt.dtype)
    if n:
        x[0], x[-1] = low, high
    return x


def runs(of: Window, op: Depthwise, tiles: tuple, n: int, rng, codes: Range | None = None) -> Weighted:
    codes = Range(of.input.format.low, of.input.format.high) if codes is None else codes
    kernel = Weighted(of.reading, op.weight, op.by_row.epilogue, codes, tiles)
    x = images(of, n, rng, codes)
    rows = of.reference(x)
    expected = op.reference(rows).reshape(-1, of.input.channels)
    for count in (True, False):
        beyond = np.full((len(expected) + 16, expected.shape[1]), 77, expected.dtype)
        saturated = kernel.run(x, beyond[8:-8], count)
        np.testing.assert_array_equal(beyond[8:-8], expected)
        assert saturated == (op.saturated(rows) if count else 0)
        assert (beyond[:8] == 77).all()  # nothing is written beside it
        assert (beyond[-8:] == 77).all()
    return kernel


@pytest.mark.parametrize("name", TILES)
class TestWeighted:
    @pytest.fixture(autouse=True)
    def here(self, name):
        if not all(kind.isa.available() for kind in TILES[name]):
            pytest.skip(f"this CPU has no {name}")

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_every_width(self, name, channels):
        rng = np.random.default_rng(channels)
        for n in (0, 1, 3):
            of = window(rng, channels, INT8)
            kernel = runs(of, depthwise(rng, of), TILES[name], n, rng)
            assert (kernel.tiles is not None) == (name != "loops" and (name != "vnni words" or channels % 32 == 0))

    @pytest.mark.parametrize("channels", CHANNELS)
    @pytest.mark.parametrize("fmt", [Format(7, signed=False), Format(8), Format(8, signed=False)])
    def test_bytes_of_every_kind(self, name, channels, fmt):
        """Images that are read where they are, and fewer than these; codes are so many that AVX2 has no signed byte."""
        rng = np.random.default_rng(channels)
        for n in (3, 4, 9):
            of = window(rng, channels, fmt)
            kernel = runs(of, depthwise(rng, of), TILES[name], n, rng)
            where_they_are = kernel.tiles is not None and kernel.tiles.bare is not None
            signed = name != "avx2 bytes" or fmt.high <= 127
            assert where_they_are == (name.endswith("bytes") and signed and channels % 16 == 0)

    def test_codes_that_are_known_to_be_few(self, name):
        """The format has signed codes, of which none is negative."""
        rng = np.random.default_rng(5)
        of = Window(TensorType((7, 7, 48), INT8), (3, 3), (2, 2), padding=(1, 1, 1, 1))
        kernel = runs(of, depthwise(rng, of), TILES[name], 5, rng, Range(0, 127))
        assert (kernel.tiles is not None) == (name not in ("loops", "vnni words"))

    @pytest.mark.parametrize("fmt", [Format(8, signed=False), Format(12), Format(1, signed=False), Format(16)])
    def test_other_codes(self, name, fmt):
        rng = np.random.default_rng(fmt.bits)
        of = window(rng, 32, fmt)
        runs(of, depthwise(rng, of, Format(9) if fmt.bits == 12 else INT8), TILES[name], 4, rng)

    @pytest.mark.parametrize("fmt", [Format(8, signed=False), Format(5), Format(12)])
    @pytest.mark.parametrize("floor", [None, 0, 3])
    def test_requantisers(self, name, fmt, floor):
        rng = np.random.default_rng(fmt.bits)
        numbers = {"multiplier": rng.integers(1, 9, 32), "bias_acc": rng.integers(-99, 99, 32)}
        for more in ({}, numbers, {"shift": rng.integers(5, 10, 32)}):
            of = window(rng, 32, INT8)
            kernel = runs(of, depthwise(rng, of, floor=floor, format=fmt, **more), TILES[name], 3, rng)
            assert (kernel.tiles is not None) == (name != "loops" and fmt.bits <= 8)

    def test_blocks_of_images(self, name):
        """More images than a block has, the last of which has few."""
        rng = np.random.default_rng(9)
        of = Window(TensorType((4, 4, 32), INT8), (3, 3), padding=(1, 1, 1, 1))
        kernel = runs(of, depthwise(rng, of), TILES[name], 150, rng, Range(0, 127))
        assert kernel.plain.images < 150

    def test_fewer_windows_than_a_tile(self, name):
        rng = np.random.default_rng(10)
        of = Window(TensorType((3, 3, 32), INT8), (3, 3))
        assert of.output.tokens // of.taps < ROWS
        for n in (1, 2, ROWS, ROWS + 1):
            runs(of, depthwise(rng, of), TILES[name], n, rng, Range(0, 127))

    def test_all_that_is_read_lies_in_the_buffer(self, name):
        rng = np.random.default_rng(11)
        for channels in CHANNELS:
            of = window(rng, channels, INT8)
            op = depthwise(rng, of, Format(1, signed=False))
            kernel = Weighted(of.reading, op.weight, op.by_row.epilogue, Range(-128, 127), TILES[name])
            for taps in (kernel.plain, kernel.tiles and kernel.tiles.taps):
                if taps is not None:
                    for n in (1, taps.images):
                        last = int(taps.where[: n * taps.padded.rows].max() + taps.reach.max()) + taps.padded.channels
                        assert last <= taps.room(n)


@pytest.mark.parametrize(
    ("channels", "fmt"), [*((n, INT8) for n in (1, 15, 16, 48, 64, 80, 144)), (80, Format(8, signed=False))]
)
def test_the_largest_of_every_width(channels, fmt):
    """Panels of 64 channels, of 16, and what is left; windows that fill tiles, and fewer."""
    rng = np.random.default_rng(channels)
    of = window(rng, channels, fmt)
    for n in (0, 1, 9):
        x = images(of, n, rng)
        expected = Maximum(of.output).reference(of.reference(x)).reshape(-1, channels)
        beyond = np.full((len(expected) + 16, channels), 77, fmt.dtype)
        Largest(of.reading).run(x, beyond[8:-8])
        np.testing.assert_array_equal(beyond[8:-8], expected)
        assert (beyond[:8] == 77).all()  # nothing is written beside it
        assert (beyond[-8:] == 77).all()


def pooled(rng, kind: str, channels: int, function: bool, fmt: Format = INT8):
    """A window, a pool, and where asked a function of each code."""
    of = window(rng, channels, fmt)
    build = Builder({"x": of.input})
    build.add("w", of, "x")
    op = {
        "maximum": lambda: Maximum(of.output),
        "mean": lambda: Mean(of.output, Requantize(channels, np.full(channels, 2))),
        "depthwise": lambda: depthwise(rng, of),
    }[kind]()
    last = build.add("pool", op, "w")
    if function:
        last = build.add("f", Lerp(op.output, np.sort(rng.integers(-128, 128, (channels, 5)), axis=1)), last)
    return build.program(last)


@pytest.mark.parametrize("backend", ["vnni", "avx2", "sgemm"])
@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("kind", ["maximum", "mean", "depthwise"])
def test_programs(kind, function, backend, monkeypatch):
    if backend not in backends():
        pytest.skip(f"this CPU has no {backend}")
    monkeypatch.setenv("BITTRUE_BACKEND", backend)
    rng = np.random.default_rng(len(kind))
    for channels in (1, 5, 16, 32):
        program = pooled(rng, kind, channels, function)
        x = rng.integers(-128, 128, (5, *program.inputs["x"].shape)).astype(np.int8)
        np.testing.assert_array_equal(program(x), program.reference(x))
        assert set(program.trace(x).tensors) == set(program.types)


def test_rows_that_are_split_otherwise():
    """A window's row whose axes are renamed has other channels: it is not read as a window of these."""
    rng = np.random.default_rng(4)
    of = Window(TensorType((6, 6, 8), INT8), (2, 2))
    build = Builder({"x": of.input})
    build.add("w", of, "x")
    build.add("rows", Reshape(of.output, (5, 5, 8, 4)), "w")
    program = build.program(build.add("y", Maximum(build.types["rows"]), "rows"))
    x = rng.integers(-128, 128, (3, 6, 6, 8)).astype(np.int8)
    np.testing.assert_array_equal(program(x), program.reference(x))
