"""Confidence intervals, means and spreads against scipy and numpy; what is said of a training."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bittrue.flow.engine import statistics
from bittrue.flow.engine.training import history, trained
from bittrue.models.training.loop import Epoch, History


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (0, 450), (439, 450), (450, 450), (8765, 10_000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_wilson_is_that_of_scipy(right, images, level):
    found = statistics.wilson(right / images, images, level)
    assert found == pytest.approx(tuple(binomtest(right, images).proportion_ci(level, "wilson")), abs=1e-12)


def test_spread_is_that_of_a_sample():
    values = [0.9756, 0.9778, 0.9667]
    assert statistics.spread(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert statistics.spread([0.5]) == (0.5, None)


def epochs(*accuracies):
    return tuple(Epoch(1.0, accuracy, 1.0, 0.1) for accuracy in accuracies)


def test_the_epoch_of_a_training_in_two_phases():
    first, second = History(epochs(0.5, 0.7), 0.1, 1), History(epochs(0.8, 0.6), 0.5, 1)
    ruined = History(epochs(0.2), 0.5, 0)
    assert history(first, second) == {
        "history": [{"loss": 1.0, "accuracy": accuracy} for accuracy in (0.5, 0.7, 0.8, 0.6)],
        "kept": 3,
    }
    assert history(first, None)["kept"] == 1
    assert history(None, second)["kept"] == 1
    assert history(first, ruined)["kept"] == 1  # what the second phase began with is that
    assert history(None) == {"history": [], "kept": 0}


@pytest.mark.parametrize(
    ("trainings", "words"),
    [
        (
            History(epochs(0.6, 0.7, 0.5), 0.6, 2),
            "trained in integers 96.67 % (95 %: 94.57 to 97.97), epoch 2 of 3, the best on validation images",
        ),
        (History(epochs(0.6, 0.7, 0.5), 0.6, 2), "quantised 97.56 %, trained in integers"),
        (History(epochs(0.5), 0.6, 0), "as before, since none of 1 epochs did better on validation images"),
        (None, "integers 96.67 % (95 %: 94.57 to 97.97), not trained"),
    ],
)
def test_a_status_has_both_accuracies(trainings, words):
    result = history(trainings) | {"accuracy": 435 / 450, "accuracy_converted": 439 / 450}
    assert words in trained(result, 450)
