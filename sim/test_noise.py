"""The generator of noise against its published test vector, and its numbers against their moments."""

import numpy as np
import pytest

from bittrue.sim.errors import BittrueError
from bittrue.sim.noise import DEVIATION, Noise, encrypt, gaussian, root, round_keys


def test_published_vector():
    """Speck64/128: key 1b1a1918 13121110 0b0a0908 03020100, block 3b726574 7475432d."""
    keys = round_keys((0x03020100, 0x0B0A0908, 0x13121110, 0x1B1A1918))
    x, y = encrypt(keys, np.array(0x3B726574), np.array(0x7475432D))
    assert (int(x), int(y)) == (0x8C6FA548, 0x454E028B)


def test_moments():
    noise = Noise(5, 0)
    a, b = (gaussian(w) for w in noise.words(np.arange(300)[:, None], np.arange(300)))
    for g in (a, b):
        assert abs(g.mean()) < 5 * DEVIATION / 300
        assert abs(g.std() / DEVIATION - 1) < 0.01
        assert abs(np.corrcoef(g[:, 1:].ravel(), g[:, :-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_physics():
    noise = Noise.from_physics(1, 2, relative=0.01, photons=4.0, thermal=20.0)
    u = np.full((400, 400), 10_000)
    image, site = np.arange(400)[:, None], np.arange(400)
    for only, expected in (("relative", 100.0), ("shot", 50.0), ("thermal", 20.0)):
        factors = {name: getattr(noise, name) if name == only else 0 for name in ("relative", "shot", "thermal")}
        one = Noise(1, 2, **factors, shift=noise.shift)
        spread = (one.added(u, image, site, site) - u).std()
        assert abs(spread / expected - 1) < 0.02


def test_root_is_the_floor():
    k = np.arange(1, 1 << 12, dtype=np.int64)
    for around in (k, k + (1 << 23)):
        for d in (-1, 0, 1):
            u = around * around + d
            r = root(u)
            assert ((r * r <= u) & ((r + 1) ** 2 > u)).all()


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"layer": 1 << 32}, {"shot": -1}, {"shift": 41}, {"first": -1}, {"relative": 1 << 70}],
)
def test_bad_input(wrong):
    with pytest.raises(BittrueError, match="noise: "):
        Noise(**({"seed": 0, "layer": 0} | wrong))
    with pytest.raises(BittrueError, match="photons"):
        Noise.from_physics(0, 0, photons=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"photons": float("nan")}, "photons per count above 0"),
        ({"photons": 1e-300}, "photons makes a factor of more than 48 bits"),
        ({"relative": 1e308, "shift": 40}, "relative makes a factor of more than 48 bits"),
        ({"thermal": 1e308}, "thermal makes a factor of more than 48 bits"),
        ({"shift": -1}, "a shift of -1"),
    ],
)
def test_bad_physics(wrong, words):
    with pytest.raises(BittrueError, match=words):
        Noise.from_physics(0, 0, **wrong)
