"""All tiles of a photonic array in one pass: every back end, alone and with the sum of the tiles, on any geometry."""

import numpy as np
import pytest

from sim import kernels
from sim.contract import Format
from sim.kernels_photonic import TileKernel
from sim.operation import TensorType
from sim.photonic_mac import PhotonicMac
from sim.program import Builder, Program
from sim.requantize import Requantize
from sim.tile_sum import TileSum

GEOMETRIES = [
    # inputs, outputs, rows of a tile, bits of a code, bits of the converter
    (37, 19, 16, 8, 8),
    (36, 96, 5, 8, 6),
    (64, 100, 64, 4, 8),
    (7, 1, 1, 8, 3),
    (40, 33, 16, 8, 12),
]


def program(inputs, outputs, rows, bits, adc, *, cells=7, most=127) -> Program:
    rng = np.random.default_rng(inputs)
    weight = rng.integers(-most, most + 1, (outputs, inputs))
    fmt = Format(bits, signed=False)
    span = rows * fmt.high * most
    shift = max(0, span.bit_length() - adc - 2)
    offset = rng.integers(0, span // 3 + 1, (-(-inputs // rows), outputs))
    plus, minus = np.maximum(weight, 0), np.maximum(-weight, 0)
    kind, cell = TensorType((3, inputs), fmt), Format(cells, signed=False)
    mac = PhotonicMac(kind, plus, minus, rows, adc, shift, offset, cell)
    middle = (mac.tiles << adc + shift) // 2
    total = TileSum(mac.output, shift, Requantize(outputs, np.array(middle.bit_length() - 7), np.array(-middle)))
    build = Builder(x=kind)
    return build.program(build.add("sum", total, build.add("mac", mac, "x")))


def check(made: Program) -> None:
    mac = made["mac"]
    x = np.random.default_rng(1).integers(0, mac.input.format.high + 1, (300, *mac.input.shape))
    x = x.astype(mac.input.format.dtype)
    y, clipped = mac.run(x)
    assert y.dtype == mac.output.format.dtype
    np.testing.assert_array_equal(y, mac.reference(x))
    assert clipped == mac.saturated(x) > 0
    np.testing.assert_array_equal(made(x), made.reference(x))


@pytest.mark.parametrize("backend", kernels.backends())
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
    ],
)
def test_wide_codes_and_wide_cells(geometry, more):
    check(program(*geometry, **more))


@pytest.mark.parametrize("backend", kernels.backends())
def test_a_changed_offset_is_caught(backend, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, backend)
    made = program(*GEOMETRIES[0])
    made["mac"].fast.half[1, 2] += 1 << made["mac"].shift
    with pytest.raises(AssertionError):
        check(made)
