"""Tours over kernels: the greedy rule, exactly; what is kept on disk; large layers in seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bittrue.models.nern import tours
from bittrue.models.nern.nearest import LEAF, greedy
from bittrue.sim.errors import BittrueError
from tests.helpers.generated import resnet, target


def plain(similar) -> np.ndarray:
    """The published rule, word for word: of those that are left the first of the largest similarity."""
    tour, left = [0], list(range(1, len(similar)))
    while left:
        tour.append(left.pop(int(np.argmax([similar[tour[-1]][k] for k in left]))))
    return np.array(tour)


def units(count: int, axes: int = 9, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, axes))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# -- the nearest of those that are left ------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 2, 3, LEAF, LEAF + 1, LEAF + 2, 2 * LEAF + 3, 5 * LEAF + 1])
@pytest.mark.parametrize("axes", [1, 2, 9, 25])
def test_the_greedy_rule_is_kept_exactly(count, axes):
    vectors = units(count, axes) if axes > 1 else np.sign(units(count, axes))
    assert (greedy(vectors) == plain(products(vectors))[:count]).all()


def products(vectors) -> np.ndarray:
    """Every product, summed in the order in which the tree sums it."""
    total = np.zeros((len(vectors), len(vectors)))
    for axis in vectors.T:
        total += np.outer(axis, axis)
    return total


def test_of_equal_vectors_the_first_and_zeros_last():
    rng = np.random.default_rng(1)
    vectors = units(40)[rng.integers(0, 40, 900)]  # each some twenty times
    vectors[rng.random(900) < 0.2] = 0
    assert (greedy(vectors) == plain(products(vectors))).all()
    assert (greedy(np.zeros((300, 9))) == np.arange(300)).all()


def test_few_leaves_are_looked_at():
    """Vectors in clusters, as kernels of a trained network are: a walk through the tree is fast."""
    rng = np.random.default_rng(2)
    vectors = units(64)[rng.integers(0, 64, 40_000)] + 0.05 * rng.standard_normal((40_000, 9))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    greedy(vectors[:300])  # compiled
    begin = time.process_time()
    tour = greedy(vectors)
    seconds = time.process_time() - begin
    assert (np.sort(tour) == np.arange(40_000)).all()
    assert (vectors[tour[1:]] * vectors[tour[:-1]]).sum() > 0.97 * 39_999
    assert seconds < 5  # measured: 0.5; every product would be 7e9 multiplications


# -- orders of layers ------------------------------------------------------------------------------------
def test_crossfilter_by_the_published_rule():
    weight = np.random.default_rng(0).standard_normal((12, 10, 3, 3))
    (found,) = tours.tours([weight], "crossfilter", keep=False)
    vectors = weight.reshape(120, 9)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = plain(vectors @ vectors.T)
    assert (found.order == expected).all()
    assert found.similarity == pytest.approx((vectors[expected[1:]] * vectors[expected[:-1]]).sum())


def test_infilter_by_the_published_rule():
    """Tours over the channels of each filter; then over the filters, by the sum of their toured kernels' cosines."""
    weight = np.random.default_rng(1).standard_normal((7, 5, 3, 3))
    (found,) = tours.tours([weight], "infilter", keep=False)
    unit = tours.unit(weight)
    inner = [plain(one @ one.T) for one in unit]
    toured = np.array([one[tour].ravel() for one, tour in zip(unit, inner, strict=True)])
    outer = plain(toured @ toured.T)
    assert (found.order == [5 * f + c for f in outer for c in inner[f]]).all()
    # kernel (f, c) has the coordinate (rank of f, rank of c within f)
    rank = np.argsort(found.order)
    assert rank[5 * 3 + 2] == 5 * list(outer).index(3) + list(inner[3]).index(2)


def test_kernels_of_one_value():
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((6, 8, 1, 1))
    weight[1, 3], weight[2] = 0, 0
    (found,) = tours.tours([weight], "infilter", keep=False)
    inner = [plain(-np.square(one.reshape(-1, 1) - one.reshape(1, -1))) for one in weight]
    outer = plain(np.array([np.sign(w.ravel()[t]) for w, t in zip(weight, inner, strict=True)]) @ np.array(
        [np.sign(w.ravel()[t]) for w, t in zip(weight, inner, strict=True)]).T)  # fmt: skip
    assert (found.order == [8 * f + c for f in outer for c in inner[f]]).all()
    for count in (1, 2, 3, 7, 40):
        for _ in range(8):
            signs = rng.choice([-1.0, 0.0, 1.0], (1, count, 1, 1))
            (across,) = tours.tours([signs], "crossfilter", keep=False)
            assert (across.order == plain(np.outer(signs, signs))).all()


def test_none_is_as_they_are():
    (found,) = tours.tours([np.random.default_rng(3).standard_normal((4, 3, 3, 3))], None)
    assert (found.order == np.arange(12)).all()


def test_tours_make_neighbours_alike():
    weights = [weight.numpy() for weight in target().weights()]
    plain_total, infilter, crossfilter = (
        sum(tour.similarity for tour in tours.tours(weights, mode, keep=False))
        for mode in (None, "infilter", "crossfilter")
    )
    assert plain_total < 100 < 0.5 * 8_000 < infilter < crossfilter
    assert crossfilter > 0.8 * 8_208


def test_resnet20_in_seconds():
    weights = [weight.numpy() for weight in target(architecture="ResNet20", shape=(32, 32, 3)).weights()]
    tours.tours(weights[:1], "crossfilter", keep=False)  # compiled
    begin = time.process_time()
    found = tours.tours(weights, "crossfilter", keep=False, workers=2)
    assert sum(len(tour.order) for tour in found) == 29_744
    assert time.process_time() - begin < 5  # measured: 0.4


# -- kept on disk ----------------------------------------------------------------------------------------
def test_tours_are_kept_by_their_content(tmp_path, monkeypatch):
    weights = [weight.numpy() for weight in target().weights()][:3]
    told = []
    made = tours.tours(weights, "crossfilter", folder=tmp_path, progress=lambda *at: told.append(at))
    assert told[-1] == (528, 528)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    monkeypatch.setattr(tours, "greedy", None)  # nothing is toured again
    again = tours.tours(weights, "crossfilter", folder=tmp_path)
    assert all((a.order == b.order).all() for a, b in zip(made, again, strict=True))
    with pytest.raises(TypeError):
        tours.tours(weights, "infilter", folder=tmp_path)
    changed = [weights[0] + 1e-7, *weights[1:]]
    with pytest.raises(TypeError):
        tours.tours(changed, "crossfilter", folder=tmp_path)
    monkeypatch.undo()
    damaged = files[0].read_bytes()
    for content in (damaged[:-10], b"", damaged.replace(b"0, ", b"1, ", 1)):  # is made again
        files[0].write_bytes(content)
        mended = tours.tours(weights, "crossfilter", folder=tmp_path)
        assert all((a.order == b.order).all() for a, b in zip(made, mended, strict=True))
        assert files[0].read_bytes() == damaged


@pytest.mark.parametrize(
    ("weights", "mode", "sentence"),
    [
        ([np.ones((2, 2, 3, 3))], "cross", "'cross' is no mode; take infilter, crossfilter or None"),
        ([np.ones((2, 2, 3, 3)), np.ones((2, 9))], None, r"layer 1 has weights \(2, 9\); give square kernels"),
        ([np.ones((2, 2, 3, 1))], None, r"layer 0 has weights \(2, 2, 3, 1\)"),
        ([np.full((2, 2, 3, 3), np.inf)], "crossfilter", "a weight of layer 0 is not finite; train the original anew"),
    ],
)
def test_what_cannot_be_toured(weights, mode, sentence):
    with pytest.raises(BittrueError, match=sentence):
        tours.tours(weights, mode, keep=False)


def test_kernels_of_zeros_have_a_place():
    weight = resnet().layer1[0].conv1.weight.detach().numpy().copy()
    weight[3] = 0
    (found,) = tours.tours([weight], "crossfilter", keep=False)
    assert (np.sort(found.order) == np.arange(256)).all()
    assert np.isfinite(found.similarity)
