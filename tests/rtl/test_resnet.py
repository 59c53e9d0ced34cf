"""ResNet-8, planned for multipliers that take two products: a plan in full size, and a small one in every cycle."""

import pytest

from bittrue.rtl.dataflow.plan import plan
from tests.helpers.exact import exact
from tests.helpers.lengths import long_but
from tests.helpers.resnet import resnet


@pytest.mark.long
def test_resnet8_at_thirty_thousand_images_a_second():
    """250 MHz and 8,333 cycles: beats of three taps where a pixel has too few channels, and no multiplier idle."""
    program = resnet(32, (16, 32, 64))
    made = plan(program, interval=8333, architecture="packed")
    assert made.estimated_interval == 8192
    assert 250e6 / made.estimated_interval >= 30_000
    lanes = {name: f.simd for name, f in made.folding.items() if name.endswith(".window")}
    assert lanes["in.window"] == 9
    assert lanes["block0.a.window"] == lanes["block0.b.window"] == 3 * 16
    assert max(lanes["block1.a.window"], lanes["block2.a.window"]) <= 8
    assert {f.architecture for name, f in made.folding.items() if name not in lanes} == {"packed"}
    assert made.estimate.dsp == 764
    assert program.macs / made.estimated_interval >= 0.99 * 2 * 764


@pytest.mark.parametrize("rings", long_but([False, True], True))
def test_a_small_one_to_the_cycle(rings):
    """Windows that give a row of taps, whole windows, strides of two, a shortcut: equal, and when the plan says."""
    made = plan(resnet(4, (2, 4), 2), interval=32, architecture="packed", rings=rings)
    if rings:
        assert made.estimated_interval == 32
        reading = {name for name, f in made.folding.items() if f.ring}
        assert reading == {"in", "block1.a", "block1.b", "block1.short"}  # beats of 9 are no rows of taps of 2 channels
        exact(made, 1)
        return
    lanes = {name: f.simd for name, f in made.folding.items() if name.endswith(".window")}
    assert made.estimated_interval == 32
    assert lanes["in.window"] == 27
    assert lanes["block0.a.window"] == lanes["block0.b.window"] == 18
    exact(made, 1)
