"""Fitting: the search's error is the neuron's error, and fits beat the published sets."""

import re

import numpy as np
import pytest
import torch

from bittrue.models.fs import fit as fs_fit
from bittrue.models.fs import kernels as fs_kernels
from bittrue.models.fs import search as fs_search
from bittrue.models.fs import sets as fs_sets
from bittrue.models.fs.fit import FitSettings
from bittrue.models.fs.sets import PUBLISHED
from bittrue.models.fs.target import importance, target
from bittrue.sim.errors import BittrueError


def prefix_sums(x, y, weight):
    mass, moment = (np.concatenate([[0.0], np.cumsum(v)]) for v in (weight, weight * y))
    return (float(x[0]), float((x[-1] - x[0]) / (len(x) - 1)), mass, moment, float((weight * y * y).sum()))


def plain_spikes(h, threshold, x):
    """The definition, in float64."""
    v, spikes = x.copy(), []
    for t in range(len(h)):
        z = v > threshold[t]
        v = v - h[t] * z
        spikes.append(z)
    return np.stack(spikes, -1).astype(np.float64)


# -- the search's error --------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("price", [0.0, 0.2])
def test_error_from_pieces_is_that_of_least_squares_on_every_point(seed, price):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 9))
    h, threshold = rng.uniform(-2, 3, (2, steps))
    x = np.linspace(-4, 5, 3001)
    y, weight = np.sin(x) + x / 3, rng.uniform(0.5, 2, len(x))
    spikes = plain_spikes(h, threshold, x)
    d, *_ = np.linalg.lstsq(spikes * np.sqrt(weight)[:, None], y * np.sqrt(weight), rcond=None)
    expected = np.average((y - spikes @ d) ** 2, weights=weight)
    expected *= 1 + price * np.average(spikes.sum(-1), weights=weight)
    error, found = fs_search.judge(h, threshold, *prefix_sums(x, y, weight), 0, price)
    assert error == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(spikes @ found, spikes @ d, atol=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_quantised_error_is_that_of_the_quantised_values(seed):
    rng = np.random.default_rng(seed)
    steps = 8
    h, threshold = np.round(rng.uniform(-2, 3, (2, steps)) * 8) / 8
    x = np.linspace(-4, 5, 3001)
    y = np.tanh(x)
    error, d = fs_search.judge(h, threshold, *prefix_sums(x, y, np.ones_like(x)), 128, 0.0)
    spikes = plain_spikes(h, threshold, x)
    assert error == pytest.approx(np.mean((y - spikes @ d) ** 2), rel=1e-9)
    codes = [d * 2.0**f for f in range(20) if np.array_equal(np.rint(d * 2.0**f), d * 2.0**f)][0]
    assert codes.min() >= -128
    assert codes.max() <= 127
    free, _ = fs_search.judge(h, threshold, *prefix_sums(x, y, np.ones_like(x)), 0, 0.0)
    assert free <= error < free + 1e-3


@pytest.mark.parametrize(("name", "low", "high", "printed"), [("swish", -8, 12, ".0032069"), ("sigmoid", -10, 10, "")])
def test_least_squares_of_the_published_sets(name, low, high, printed):
    """Known figures: with the published h and T and the best d, .0032069 and 1.0850e-4."""
    x = np.linspace(low, high, 100_000)
    published = PUBLISHED[name]
    parameters = published.h.astype(np.float64), published.T.astype(np.float64)
    error, _ = fs_search.judge(*parameters, *prefix_sums(x, target(name)(x), np.ones_like(x)), 0, 0.0)
    assert (f"{error:.7f}"[1:] if printed else f"{error:.4e}") == (printed or "1.0850e-04")


def test_too_many_pieces_are_refused_not_overrun():
    h = np.exp2(-np.arange(1.0, 13.0))
    x = np.linspace(0, 1, 100_000)
    error, _ = fs_search.judge(h, h, *prefix_sums(x, x, np.ones_like(x)), 0, 0.0)
    assert error == np.inf


# -- fits ----------------------------------------------------------------------------------------------
QUICK = {"restarts": 6, "tries": 1000}


@pytest.mark.long
def test_a_quick_fit_of_swish_beats_the_published_set_on_both_intervals():
    fitted = fs_fit.fit(target("swish"), FitSettings(16, -8, 12, **QUICK))
    for low, high, published in ((-8, 12, 0.0034459), (-2, 2, 0.0023940)):
        x = fs_kernels.grid(low, high)
        assert fs_kernels.mean_squared_error(fitted, target("swish")(x), x) < published
    assert fitted.fit["mse"] == fs_kernels.mean_squared_error(
        fitted, target("swish")(fs_kernels.grid(-8, 12)), fs_kernels.grid(-8, 12)
    )
    assert (fitted.low, fitted.high, fitted.steps) == (-8, 12, 16)


@pytest.mark.parametrize("bits", [None, 8])
def test_a_quick_fit_of_sigmoid_beats_the_published_set(bits):
    fitted = fs_fit.fit(target("sigmoid"), FitSettings(12, -10, 10, bits, **QUICK))
    assert fitted.fit["mse"] < 1.1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_parameters_are_codes_of_that_many_bits(bits):
    fitted = fs_fit.fit(target("tanh"), FitSettings(8, -4, 4, bits, restarts=4, tries=500))
    for array in ("h", "d", "T"):
        codes = getattr(fitted, array) * 2.0 ** fitted.fit["fraction_bits"][array]
        assert np.array_equal(codes, np.rint(codes))
        assert codes.min() >= -(1 << (bits - 1))
        assert codes.max() < 1 << (bits - 1)


def test_fraction_bits_keep_a_quantised_set_exact():
    fitted = fs_fit.fit(target("tanh"), FitSettings(8, -4, 4, 6, restarts=3, tries=300))
    most = max(fitted.fit["fraction_bits"].values())
    same = fitted.quantized(max(most, 0))
    for array in ("h", "d", "T"):
        np.testing.assert_array_equal(getattr(same, array), getattr(fitted, array))


def test_the_same_seed_gives_the_same_set():
    asked = FitSettings(6, -3, 3, restarts=3, tries=300, seed=5)
    first, again = (fs_fit.fit(target("gelu"), asked) for _ in range(2))
    other = fs_fit.fit(target("gelu"), FitSettings(6, -3, 3, restarts=3, tries=300, seed=6))
    for array in ("h", "d", "T"):
        assert getattr(first, array).tobytes() == getattr(again, array).tobytes()
    assert first.T.tobytes() != other.T.tobytes()


def test_importance_moves_the_error_to_where_it_matters_less():
    asked = {"steps": 8, "low": -8, "high": 12, "restarts": 8, "tries": 1500}
    uniform = fs_fit.fit(target("swish"), FitSettings(**asked))
    weighted = fs_fit.fit(target("swish"), FitSettings(**asked, importance=(0.0, 1.0)))
    x = fs_kernels.grid(-2, 2)
    y = target("swish")(x)
    assert fs_kernels.mean_squared_error(weighted, y, x) < fs_kernels.mean_squared_error(uniform, y, x)
    assert weighted.fit["weighted_mse"] < weighted.fit["mse"]


def test_a_price_on_spikes_makes_them_fewer():
    asked = {"steps": 8, "low": -4, "high": 4, "restarts": 4, "tries": 1000}
    free = fs_fit.fit(target("tanh"), FitSettings(**asked, spike_cost=0.0))
    dear = fs_fit.fit(target("tanh"), FitSettings(**asked, spike_cost=1.0))
    assert dear.fit["spikes_per_value"] < free.fit["spikes_per_value"]


@pytest.mark.parametrize("bits", [None, 8])
def test_clipped_inputs_find_a_good_value_at_both_ends(bits):
    """The first grid point alone hardly counts in the mean, but all inputs below the interval are worth what it is."""
    fitted = fs_fit.fit(target("tanh"), FitSettings(10, -4, 4, bits, restarts=4, tries=800))
    ends = fs_kernels.respond(fitted, np.array([-50, -4, 4, 50], np.float32)).values
    np.testing.assert_allclose(ends, [-1, -1, 1, 1], atol=0.1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(steps):
    fitted = fs_fit.fit(target("relu"), FitSettings(steps, -1, 1, restarts=3, tries=300))
    assert fitted.steps == steps
    assert fitted.fit["mse"] < np.var(np.maximum(fs_kernels.grid(-1, 1), 0))


# -- importance and targets ----------------------------------------------------------------------------
def test_importance_passes_through_its_knots():
    x = np.array([-10, -6, -4, 0, 4, 6, 10.0])
    assert importance(x, 0, 2).tolist() == [0.5, 1, 10, 11, 10, 1, 0.5]
    assert importance(np.array([-3.0, 0, 3.0]), 0, 2).tolist() == [10.25, 11, 10.25]


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("swish", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
        ("softplus", torch.nn.functional.softplus),
        ("sin", torch.sin),
        ("exp", torch.exp),
        ("erf", torch.erf),
        ("x * sigmoid(x)", torch.nn.functional.silu),
        ("where(x > 0, x, 0.1 * x)", lambda x: torch.where(x > 0, x, 0.1 * x)),
        ("x**2 / 3 - -pi", lambda x: x**2 / 3 + torch.pi),
        ("clamp(x, -1, 1)", lambda x: x.clamp(-1, 1)),
        ("leaky_relu(x, 0.2)", lambda x: torch.nn.functional.leaky_relu(x, 0.2)),
        ("maximum(x, 0) + minimum(x, 0) % 2", lambda x: x.clamp_min(0) + x.clamp_max(0) % 2),
    ],
)
def test_functions_by_name_and_expression(text, function):
    x = np.linspace(-3, 3, 101)
    np.testing.assert_allclose(target(text)(x), function(torch.from_numpy(x)).numpy(), rtol=1e-15)


@pytest.mark.parametrize("body", ["return x * x", "import math; return math.cos(x)", "return x.clamp(0, 1)"])
def test_a_users_function(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"mine_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def f(x):\n    {body}\n")
    x = np.linspace(-1, 1, 11)
    expected = {"return x * x": x * x, "return x.clamp(0, 1)": x.clip(0, 1)}.get(body, np.cos(x))
    np.testing.assert_allclose(target(f"{name}:f")(x), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("swoosh", "no function is named 'swoosh'"),
        ("__import__", "no function is named"),
        ("load", "no function is named"),
        ("__import__('os')", "is no call of a known function"),
        ("__import__('os').system('true')", "is not allowed"),
        ("open(x)", "is no call of a known function"),
        ("x.real", "is not allowed"),
        ("(lambda: x)()", "is not allowed"),
        ("[x for x in x]", "is not allowed"),
        ("sin(x, 3)", "is no call of a known function"),
        ("y + x", "y is not allowed"),
        ("x +", "neither a function's name nor an expression"),
        ("3 + 4", "does not contain x"),
        ("nowhere_at_all:f", "cannot be imported"),
        ("math:nothing", "has no function nothing"),
    ],
)
def test_what_is_no_function_is_refused(text, sentence):
    with pytest.raises(BittrueError, match=re.escape(sentence)):
        target(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("log", "at x = -1; choose a range"),
        ("1 / x", "at x = 0; choose a range"),
        ("softmax", "more than each number alone"),
        ("x ** 9 ** 9 ** 9", "choose a range"),
    ],
)
def test_values_that_cannot_be_fitted_are_refused(text, sentence):
    with pytest.raises(BittrueError, match=sentence):
        target(text)(np.linspace(-1, 2, 4))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps 0: expected an integer of 1 to 32"),
        ({"steps": 33}, "steps 33"),
        ({"low": 3.0, "high": 3.0}, "range 3 3"),
        ({"low": float("nan")}, "range nan"),
        ({"bits": 1}, "bits 1: expected an integer of 2 to 16"),
        ({"restarts": 0}, "restarts 0"),
        ({"spike_cost": -1.0}, "spike cost -1"),
    ],
)
def test_bad_settings_are_refused(change, sentence):
    with pytest.raises(BittrueError, match=re.escape(sentence)):
        FitSettings(**change)


# -- shipped sets --------------------------------------------------------------------------------------
#: What a shipped set must stay below, on its own interval.
BOUNDS = {"swish": 0.0034, "sigmoid": 1.1e-4, "gelu": 0.0034, "tanh": 4e-4}


def test_sets_are_shipped_for_each_function_in_float_and_8_bits():
    found = {(fs_sets.find(name).function, fs_sets.find(name).fit["bits"]) for name in fs_sets.shipped()}
    assert found >= {(function, bits) for function in BOUNDS for bits in (None, 8)}


@pytest.mark.parametrize("name", fs_sets.shipped())
def test_a_shipped_set_measures_what_it_says(name):
    shipped = fs_sets.find(name)
    low, high = shipped.fit["range"]
    x = fs_kernels.grid(low, high)
    assert shipped.fit["mse"] == pytest.approx(
        fs_kernels.mean_squared_error(shipped, target(shipped.function)(x), x), rel=1e-9
    )
    assert shipped.fit["mse"] < BOUNDS[shipped.function]
    assert max(shipped.fit["error_at_ends"]) < 0.1
    assert shipped.name == name
    assert shipped.fit["command"].startswith(f"bittrue fit {shipped.function} ")
    if shipped.fit["bits"]:
        for array in ("h", "d", "T"):
            codes = getattr(shipped, array) * 2.0 ** shipped.fit["fraction_bits"][array]
            assert np.array_equal(codes, np.rint(codes))
            assert np.abs(codes + 0.5).max() < 1 << (shipped.fit["bits"] - 1)


@pytest.mark.parametrize("name", [name for name in fs_sets.shipped() if name.startswith("swish")])
def test_shipped_swish_on_the_inner_interval(name):
    x = fs_kernels.grid(-2, 2)
    assert fs_kernels.mean_squared_error(fs_sets.find(name), target("swish")(x), x) < 0.0024
