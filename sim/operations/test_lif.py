"""Integrate-and-fire neurons: trains known by hand, exact membranes, ranges over every input, bad parameters."""

import itertools

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lif import Lif


def kind(steps: int, channels: int = 1, fmt: Format = INT8) -> TensorType:
    return TensorType((steps, channels), fmt)


def spikes(op: Lif, x: list[int]) -> list[int]:
    return op(np.array(x)[None, :, None])[0, :, 0].tolist()


def every_input(op: Lif) -> np.ndarray:
    """All sequences of codes of a neuron: `[n, T, 1]`."""
    codes = op.input.format.codes().tolist()
    return np.array(list(itertools.product(codes, repeat=op.steps)))[:, :, None]


@pytest.mark.parametrize("threshold", [None, [90]])
def test_ranges_of_a_long_train_take_no_longer_than_membranes_take_to_settle(threshold, monkeypatch):
    """Half of a membrane of at most 255 stays: after eight steps nothing grows, and the others need not be walked."""
    walked, left = [], Lif._left
    monkeypatch.setattr(Lif, "_left", lambda self, *ends, fired: walked.append(1) or left(self, *ends, fired=fired))
    long, short = (Lif(kind(steps), threshold, threshold and [0], [1], shift=1) for steps in (5000, 20))
    assert long.ranges == short.ranges
    assert len(walked) <= 2 * 12


def test_trains_known_by_hand():
    one = kind(8)
    # Fires when the sum exceeds 2, strictly: at every third 1; what is left is thrown away or kept.
    assert spikes(Lif(one, [2], [0], [1]), [1] * 8) == [0, 0, 1, 0, 0, 1, 0, 0]
    assert spikes(Lif(one, [2], [2], [1], subtract=True), [1] * 8) == [0, 0, 1, 0, 1, 0, 1, 0]
    # Half of the membrane stays: 4, 6, 7, then round_shift(7) = 4 (half up), 8.
    assert spikes(Lif(one, [7], [0], [1], shift=1), [4] * 8) == [0, 0, 0, 1, 0, 0, 0, 1]
    # A bare threshold has no memory.
    assert spikes(Lif(one, [3], [100], [0]), [3, 4, -9, 4, 0, 0, 5, 3]) == [0, 1, 0, 1, 0, 0, 1, 0]
    # Reset to a negative value: two steps of 3 less.
    assert spikes(Lif(one, [2], [-3], [1]), [3] * 8) == [1, 0, 1, 0, 1, 0, 1, 0]


def test_a_delayed_reset_is_taken_from_what_has_decayed():
    # v: 8, 8/2 - 6 + 8 = 6, 6/2 + 8 = 11 (6 does not exceed 7), 11/2 (up: 6) - 6 + 8 = 8, ...
    op = Lif(kind(5), [7], [6], [1], shift=1, subtract=True, delayed=True)
    assert spikes(op, [8, 8, 8, 8, 0]) == [1, 0, 1, 1, 0]
    at_once = Lif(kind(5), [7], [6], [1], shift=1, subtract=True)  # v: 8, 2/2 + 8 = 9, 3/2 (up: 2) + 8 = 10, ...
    assert spikes(at_once, [8, 8, 8, 8, 0]) == [1, 1, 1, 1, 0]
    # nothing was fired before the first step, whatever the threshold
    assert spikes(Lif(kind(2), [-1], [5], [1], subtract=True, delayed=True), [0, 4]) == [1, 0]


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("threshold", "keep", "shift"), [(2, 3, 2), (-2, 1, 0), (1, 0, 0), (5, 7, 3)])
def test_range_of_a_delayed_reset(threshold, keep, shift, steps):
    """The membrane stays within it for every input, and reaches its ends, or one less for each step's rounding."""
    op = Lif(kind(steps, 1, Format(3)), [threshold], [3], [keep], shift, 0, subtract=True, delayed=True)
    x, m, due, seen = every_input(op)[:, :, 0], 0, 0, []
    for t in range(steps):
        left = (m * keep + (1 << shift >> 1) >> shift) - due
        assert op.ranges[3].low <= np.min(left) <= np.max(left) <= op.ranges[3].high
        m = left + x[:, t]
        due = 3 * (m > threshold)
        seen += [m.min(), m.max()]
    assert (min(seen), max(seen)) == (op.membrane.low, op.membrane.high)


def test_programs_without_a_delayed_reset_keep_their_hash():
    """Their files are those of before there was one."""
    build = Builder({"x": kind(4)})
    program = build.program(build.add("y", Lif(kind(4), [2], [0], [1]), "x"))
    assert program.sha256 == "1a375c1499974d6f20d08adfa5483dada61bb3aac8100d519434bacd6d5c98fb"
    delayed = Builder({"x": kind(4)})
    other = delayed.program(delayed.add("y", Lif(kind(4), [2], [2], [1], subtract=True, delayed=True), "x"))
    plain = Builder({"x": kind(4)})
    at_once = plain.program(plain.add("y", Lif(kind(4), [2], [2], [1], subtract=True), "x"))
    assert other.sha256 != at_once.sha256


def test_only_a_subtraction_can_be_delayed():
    for reset, subtract in (([0], False), (None, True)):
        with pytest.raises(BittrueError, match="only a reset by subtraction can be delayed"):
            Lif(kind(4), reset and [1], reset, [1], subtract=subtract, delayed=True)


def test_integrator_is_the_membrane():
    op = Lif(kind(4), None, None, [1], shift=1, guard=3)
    assert op(np.array([8, 0, 0, 0])[None, :, None])[0, :, 0].tolist() == [64, 32, 16, 8]
    assert op.output.format.bits == op.membrane.bits


def test_every_sample_starts_at_zero():
    op = Lif(kind(2), [2], [0], [1])
    x = np.array([[2, 0], [1, 1], [2, 1]])[:, :, None]
    assert op(x)[:, :, 0].tolist() == [[0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("subtract", [False, True])
def test_dyadic_decay_with_enough_guard_bits_is_exact(subtract):
    rng = np.random.default_rng(0)
    steps, channels, guard = 8, 6, 16
    keep = np.array([0, 1, 2, 3, 3, 4])  # quarters: two more bits after the point with every step
    threshold = rng.integers(1, 12, channels)
    op = Lif(kind(steps, channels, Format(5)), threshold << guard, threshold << guard, keep, 2, guard, subtract)
    x = rng.integers(-16, 16, (200, steps, channels))
    m, expected = np.zeros((200, channels)), []
    for t in range(steps):
        v = m * keep / 4 + x[:, t]
        z = v > threshold
        m = np.where(z, v - threshold if subtract else threshold, v)
        expected.append(z)
    np.testing.assert_array_equal(op(x), np.stack(expected, axis=1))
    assert 0.1 < np.mean(expected) < 0.9


@pytest.mark.parametrize("fmt", [Format(2), Format(2, signed=False), Format(1)])
@pytest.mark.parametrize(("keep", "shift", "guard"), [(1, 0, 0), (3, 2, 2), (7, 3, 1), (0, 0, 0)])
def test_range_of_an_integrator_is_exact(fmt, keep, shift, guard):
    op = Lif(kind(5, 1, fmt), None, None, [keep], shift, guard)
    membranes = op(every_input(op))
    assert (op.membrane.low, op.membrane.high) == (membranes.min(), membranes.max())


@pytest.mark.parametrize("seed", range(30))
def test_no_membrane_leaves_its_range(seed):
    rng = np.random.default_rng(seed)
    fmt = Format(2, bool(rng.random() < 0.7))
    shift = int(rng.integers(0, 4))
    keep = rng.integers(0, (1 << shift) + 1, 1)
    op = Lif(
        kind(5, 1, fmt), rng.integers(-4, 9, 1), rng.integers(-4, 9, 1), keep, shift, int(rng.integers(0, 3)), seed % 2
    )
    x, m = every_input(op), 0
    v_range, m_range, product, kept = op.ranges
    for t in range(op.steps):
        assert product.low <= (m * op.keep).min()
        assert (m * op.keep + (1 << shift >> 1)).max() <= product.high
        decayed = (m * op.keep + (1 << shift >> 1)) >> shift
        assert kept.low <= decayed.min() <= decayed.max() <= kept.high
        v = decayed + (x[:, t] << op.guard)
        assert v_range.low <= v.min() <= v.max() <= v_range.high
        m = np.where(v > op.threshold, v - op.reset if op.subtract else op.reset, v)
        assert m_range.low <= m.min() <= m.max() <= m_range.high


def test_leak_bounds_the_membrane_for_any_number_of_steps():
    long, longer = (Lif(kind(steps), None, None, [7], 3).membrane for steps in (1000, 100_000))
    assert long == longer
    assert long.high <= 127 * 8 + 4
    assert Lif(kind(1000), None, None, [1]).membrane.high == 127_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3], [0], [1]), r"threshold has shape \(3,\), expected \(2,\)"),
        (([1], None, [1]), "a threshold and a reset, or neither"),
        (([1], [0], [3], 1), r"keep 3\.\.3 lies outside 0\.\.2"),
        (([1], [0], [-1]), "outside"),
        (([1], [0], [1], 21), "shift is 0 to 20"),
        (([1], [0], [1], 0, 33), "guard 0 to 32"),
        (([0.5], [0], [1]), "parameters are integers"),
        (([1 << 50], [0], [1]), "lif threshold: the result needs 5"),
        (([1], [0], [1 << 19], 20, 30), "at most 48 are supported"),
    ],
)
def test_bad_parameters_are_refused(arguments, message):
    with pytest.raises(BittrueError, match=message):
        Lif(kind(4, 2), *arguments)


def test_only_time_and_channels():
    with pytest.raises(BittrueError, match="expected time, channels"):
        Lif(TensorType((2, 3, 4), Format(8)), [1], [0], [1])
