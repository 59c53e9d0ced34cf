"""The chart of points: every point is drawn inside the axes, and the axes end at round numbers around the points."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bittrue.flow.report import figures


@pytest.mark.parametrize("seed", range(4))
def test_every_point_lies_inside_the_axes(seed):
    rng = np.random.default_rng(seed)
    points = (rng.normal(0, 10.0 ** rng.integers(-3, 5), 2) + rng.normal(size=(30, 2))).tolist()
    picture = ET.fromstring(figures.chart({"line": points[:10]}, {"a<b": points[10:]}, "x & y", "up", 720, 260))
    dots = [p for p in picture.iter() if p.tag.endswith("circle")]
    assert len(dots) == 20
    across, up = (np.array([float(dot.get(key)) for dot in dots]) for key in ("cx", "cy"))
    assert across.min() >= 60
    assert across.max() <= 720 - 18
    assert up.min() >= 40
    assert up.max() <= 40 + 260
    place = np.array(points[10:])
    for pixels, values, sign in ((across, place[:, 0], 1), (up, place[:, 1], -1)):
        slope, offset = np.polyfit(values, pixels, 1)
        assert slope * sign > 0
        assert np.allclose(slope * values + offset, pixels, atol=0.1)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 25, [0, 5, 10, 15, 20, 25]), (0.31, 0.99, [0.2, 0.4, 0.6, 0.8, 1.0]), (3, 3, [3, 3.5]), (0, 0, [0, 0.2])],
)
def test_ticks_are_round_and_enclose(low, high, ticks):
    assert figures._ticks(low, high) == ticks
