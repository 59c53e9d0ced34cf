"""All tiles of a photonic array in one pass: every back end, alone and with the sum of the tiles, on any geometry."""

from dataclasses import replace

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.kernels import light_vnni
from bittrue.sim.kernels import matrix as kernels
from bittrue.sim.kernels.light import TileKernel
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

GEOMETRIES = [
    # inputs, outputs, rows of a tile, bits of a code, bits of the converter
    (37, 19, 16, 8, 8),
    (36, 96, 5, 8, 6),
    (64, 100, 64, 4, 8),
    (7, 1, 1, 8, 3),
    (40, 33, 16, 8, 12),
    (2100, 5, 2, 8, 8),  # tiles whose codes, of 8 bits, add up to more than 16
]


def program(inputs, outputs, rows, bits, adc, *, cells=7, most=127, shift=None) -> Program:
    rng = np.random.default_rng(inputs)
    weight = rng.integers(-most, most + 1, (outputs, inputs))
    fmt = Format(bits, signed=False)
    span = rows * fmt.high * most
    if shift is None:
        shift = max(0, span.bit_length() - adc - 2)
    offset = rng.integers(0, span // 3 + 1, (-(-inputs // rows), outputs))
    plus, minus = np.maximum(weight, 0), np.maximum(-weight, 0)
    kind, cell = TensorType((3, inputs), fmt), Format(cells, signed=False)
    mac = PhotonicMac(kind, plus, minus, rows, adc, shift, offset, cell)
    middle = (mac.tiles << adc + shift) // 2
    narrow = np.array(max(0, middle.bit_length() - 7))
    total = TileSum(mac.output, shift, Requantize(outputs, narrow, bias_acc=np.array(-middle // 2)))
    build = Builder({"x": kind})
    return build.program(build.add("sum", total, build.add("mac", mac, "x")))


def check(made: Program, images: int = 300) -> None:
    mac = made["mac"]
    x = np.random.default_rng(1).integers(0, mac.input.format.high + 1, (images, *mac.input.shape))
    x = x.astype(mac.input.format.dtype)
    y, clipped = mac.run(x)
    assert y.dtype == mac.output.format.dtype
    np.testing.assert_array_equal(y, mac.reference(x))
    assert clipped == mac.saturated(x) > 0
    results = made(x)
    np.testing.assert_array_equal(results, made.reference(x))
    assert len(np.unique(results)) > 3, "sums that are all alike show nothing"


#: Those that make sums which are converted while they are in cache.
BACKENDS = [name for name in kernels.backends() if name != "avx2"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_backend_equals_the_reference(geometry, backend, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, backend)
    made = program(*geometry)
    assert {kernel.backend for kernel in made["mac"].kernels} == {backend}
    assert isinstance(made["mac"].fast, TileKernel)
    assert len(made._steps) == 1, "no code is stored"
    check(made)


@pytest.mark.parametrize(
    ("geometry", "more"),
    [
        ((37, 9, 16, 12, 8), {}),
        ((600, 5, 300, 8, 8), {"cells": 8, "most": 255}),
        ((37, 9, 16, 8, 8), {"cells": 10, "most": 900}),
        ((64, 40, 64, 8, 8), {"shift": 0}),  # counts that 16 bits do not hold either
    ],
)
def test_wide_codes_wide_cells_and_wide_counts(geometry, more):
    check(program(*geometry, **more))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", [1, 2, 5, 43])
def test_any_number_of_rows(images, backend, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, backend)
    check(program(*GEOMETRIES[0]), images)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_changed_offset_is_caught(backend, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, backend)
    made = program(*GEOMETRIES[0])
    made["mac"].kernels[1].epilogue.vectors[2][2] += 1 << made["mac"].shift
    with pytest.raises(AssertionError):
        check(made)


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_formats_wider_than_what_they_hold(backend, monkeypatch):
    """Of counts, where the last tile has few rows; of results, where sums are small: int32 does not hold their ends."""
    monkeypatch.setenv(kernels.VARIABLE, backend)
    noise = Noise.from_physics(1, 2, photons=1.0)
    kind, cell = TensorType((33,), Format(16, signed=False)), Format(14, signed=False)
    plus = np.full((5, 33), 2000)
    plus[:, 32] = 3
    mac = PhotonicMac(kind, plus, np.zeros_like(plus), 32, 8, 24, np.zeros(1), cell, noise)
    assert mac.light.high >= 1 << 31
    x = np.random.default_rng(1).integers(0, 1 << 16, (20, 33)).astype(np.uint16)
    np.testing.assert_array_equal(mac.run(x)[0], mac.reference(x))
    plain = program(*GEOMETRIES[0])
    mac, total = plain["mac"], plain["sum"]
    for fmt in (Format(33), Format(32), Format(32, signed=False), Format(48, signed=False)):
        wide = replace(total, requantize=replace(total.requantize, format=fmt))
        build = Builder({"x": mac.input})
        made = build.program(build.add("sum", wide, build.add("mac", mac, "x")))
        x = np.random.default_rng(1).integers(0, 256, (20, *mac.input.shape)).astype(np.uint8)
        np.testing.assert_array_equal(made(x), made.reference(x))
        np.testing.assert_array_equal(made.trace(x).tensors["sum"], made.reference(x))


def test_more_outputs_than_images():
    """Two images on 40 outputs: loops over images and over outputs are not mistaken for each other."""
    rng = np.random.default_rng(0)
    kind, plus, minus = TensorType((5,), Format(4, signed=False)), *rng.integers(0, 16, (2, 40, 5))
    op = PhotonicMac(kind, plus, minus, 5, 6, 4, np.zeros(1, np.int64), Format(4, signed=False))
    x = rng.integers(0, 16, (2, 5)).astype(np.uint8)
    np.testing.assert_array_equal(op.run(x)[0], op.reference(x))


@pytest.mark.parametrize("images", [1, 2, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_vectors_than_outputs(backend, images, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, backend)
    made = program(*GEOMETRIES[2])
    x = np.random.default_rng(2).integers(0, 16, (images, 3, 64)).astype(np.uint8)
    np.testing.assert_array_equal(made["mac"].run(x)[0], made["mac"].reference(x))
    np.testing.assert_array_equal(made(x), made.reference(x))


@pytest.mark.parametrize(
    ("kind", "highest", "suits"), [(np.int32, 255, True), (np.int64, 255, False), (np.int32, 256, False)]
)
def test_registers_take_bytes_and_constants_of_32_bits(kind, highest, suits):
    assert light_vnni.suits(np.zeros((1, 1), kind), highest) == suits
