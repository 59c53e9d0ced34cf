"""Noise drawn for blocks of rows: every source, alone and with others, on any number of outputs, rows and tokens."""

import numpy as np
import pytest

from bittrue.sim.contract import Format
from bittrue.sim.kernels.noise import TOGETHER, add_noise
from bittrue.sim.noise import INDICES, Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.photonic_mac import PhotonicMac

SOURCES = {
    "none": (0, 0, 0),
    "relative": (9000, 0, 0),
    "shot": (0, 40000, 0),
    "thermal": (0, 0, 3 << 18),
    "relative and thermal": (9000, 0, 3 << 18),
    "all": (9000, 40000, 3 << 18),
}
#: Outputs of a tile around the vectors' and the blocks' sizes.
OUTPUTS = (1, 10, 63, 64, 65, TOGETHER - 1, TOGETHER + 5)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("kinds", SOURCES)
@pytest.mark.parametrize("tokens", [1, 3])
def test_codes_and_clipping(outputs, kinds, tokens):
    rng = np.random.default_rng(outputs)
    relative, shot, thermal = SOURCES[kinds]
    noise = Noise(11, 3, relative, shot, thermal, shift=20, first=INDICES - 2)
    plus = rng.integers(0, 128, (outputs, 5))
    kind = TensorType((tokens, 5), Format(8, signed=False))
    offset = rng.integers(40_000, 45_000, (3, outputs))
    mac = PhotonicMac(kind, plus, 127 - plus, 2, 6, 9, offset, Format(7, signed=False), noise)
    images = 2 + 2 * TOGETHER // (outputs * tokens)
    x = rng.integers(0, 256, (min(images, 100), tokens, 5)).astype(np.uint8)
    codes, clipped = mac.run(x)
    np.testing.assert_array_equal(codes, mac.reference(x))
    assert clipped == mac.saturated(x)
    if outputs > 1:
        assert clipped > 0


@pytest.mark.parametrize("kinds", SOURCES)
def test_counts_in_place(kinds):
    relative, shot, thermal = SOURCES[kinds]
    noise = Noise(5, 1, relative, shot, thermal, shift=20, first=7)
    counts = np.random.default_rng(0).integers(0, 1 << 40, (67, 33))
    noisy = counts.copy()
    add_noise(noisy, noise, 1, 4, 3)
    image, token = np.divmod(np.arange(67)[:, None], 4)
    common = (token * 3 + 1) * 34 + 33
    expected = noise.added(counts, image, common, common - 33 + np.arange(33))
    np.testing.assert_array_equal(noisy, expected)
    assert np.array_equal(noisy, counts) == (kinds == "none")


def test_no_rows():
    add_noise(np.empty((0, 4), np.int64), Noise(1, 1, thermal=9), 0, 1, 1)
