"""Photonic recipes: from recipe to golden, one key for a scenario, and what is wrong said when the recipe is read."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.engine import recipe, steps
from bittrue.flow.systems.light import alphas
from bittrue.models.light import price, train, transform
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError

QUICK = ["network.hidden=[16,12]", "train.epochs=3", "finetune.epochs=1", "beside.full_scale=converted"]
QUICK += ["beside.relu_epochs=1"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["train.scenario=post", "train.non_negative_epochs=2", "train.optimizer=csgd", "array.window=full"],
        ["train.scenario=scratch", "train.epochs=null", "train.non_negative_epochs=3", "array.rows=20"],
        ["array.noise={relative: 0.01, photons: 1.0e+4}", "array.extinction_db=20"],
    ],
)
def test_the_flow_from_recipe_to_golden(tmp_path, more):
    made = recipe.load("photonic-mlp-digits", QUICK + more)
    outcomes = {o.step: o for o in steps.run(stages.steps(made), made, tmp_path, until="simulate")}
    trained, found = outcomes["train"].result, outcomes["quantize"].result
    assert trained["agreement"]["agree"] == trained["agreement"]["images"] == 450
    assert outcomes["simulate"].result["mismatches_with_network"] == 0
    assert outcomes["simulate"].result["accuracy"] == found["accuracy"]
    saturation = outcomes["simulate"].result["saturation"]
    assert {row["name"]: row["clipped"] for row in found["converters"]} == {
        name: count for name, count in saturation.items() if name.endswith("_array")
    }
    assert ("full_scale" in found) == (made.array.window == "pedestal")
    assert found["noise"] == made.array.noise.on
    assert ("accuracy_without_noise" in found) == made.array.noise.on
    built = [row for row in found["light"] if "as built" in row["alpha_from"]]
    assert [row["name"] for row in built] == ["hidden.0", "hidden.1", "classifier"]
    assert {row["network"] for row in found["light"]} == {"sinusoid", "relu"}
    published = {
        row["alpha"]: row for row in found["light"] if row["name"] == "classifier" and "for" in row["alpha_from"]
    }
    assert sorted(published) == [14, 25, 100]
    assert published[14]["power"] < published[25]["power"] < published[100]["power"]
    assert published[14]["fine_adc_bits"] < published[100]["fine_adc_bits"]


class TestAlphas:
    """Which rows the table of alphas has, and which of its layers."""

    BUILT = {"bound": "bound, as published", "percentile": "percentile 99 of the data", "constant": "constant of the"}
    work = SimpleNamespace(upstream={"train": Path("train")}, progress=lambda *_: None)
    data = SimpleNamespace(name="digits", train=SimpleNamespace(images=None), test=SimpleNamespace(images=np.ones(1)))

    @pytest.fixture
    def table(self, monkeypatch):
        """The origins of the rows, with the ReLU network that was compared."""

        def trained(data, settings, network, calibrate, progress):  # noqa: ARG001
            assert (network.activation, calibrate.method) == ("relu", "percentile")
            return SimpleNamespace(regular=f"trained {settings.epochs}")

        def table(function, method, epochs, dark=False):
            def found(*_, images):  # noqa: ARG001
                if dark:
                    raise BittrueError("dark")
                return SimpleNamespace(layers=[SimpleNamespace(name="a", alpha=2)])

            monkeypatch.setattr(transform, "transform", found)
            words = [f"network.activation={function}", f"calibrate.method={method}", f"beside.relu_epochs={epochs}"]
            words += ["calibrate.percentile=99"] + ["calibrate.alpha=2.0"] * (method == "constant")
            made = recipe.load("photonic-mlp-digits", words)
            return alphas.table(made, self.work, None, self.data)

        monkeypatch.setattr(train, "train", trained)
        monkeypatch.setattr(storage, "load", lambda path, _: path.as_posix())
        monkeypatch.setattr(alphas, "_rows", lambda *given: [given[3:]])
        monkeypatch.setattr(alphas, "_compared", lambda *given: [given[2]])
        return table

    @pytest.mark.parametrize("method", ["percentile", "constant"])
    def test_of_a_relu_network(self, table, method):
        (origin, chosen), compared = table("relu", method, 2)
        assert origin.startswith(self.BUILT[method])
        assert (origin.endswith(" (as built)"), chosen, compared) == (True, {}, "train/network.pt")

    @pytest.mark.parametrize("method", ["bound", "percentile", "constant"])
    @pytest.mark.parametrize("epochs", [0, 1, 3])
    @pytest.mark.parametrize("dark", [False, True])
    def test_of_another(self, table, method, epochs, dark):
        (origin, chosen), *others = table("sinusoid", method, epochs, dark)
        assert (origin.startswith(self.BUILT[method]), origin.endswith(" (as built)"), chosen) == (True, True, {})
        from_data = [] if method == "percentile" or dark else [("percentile 99 of the data", {"a": 2.0})]
        assert others == from_data + [f"trained {epochs}"] * (epochs > 0)

    @pytest.mark.parametrize(("given", "kept"), [({}, ["a", "b"]), ({"a": 1.0, "b": 2.0}, ["b"])])
    def test_the_first_layer_is_as_built(self, monkeypatch, given, kept):
        asked = []

        def prices(twin, images, chosen, **bits):  # noqa: ARG001
            asked.append((chosen, bits))
            return [price.Price(name, *[1.0] * 5, 8, 8, 8) for name in ("a", "b")]

        monkeypatch.setattr(price, "prices", prices)
        made = recipe.load("photonic-mlp-digits", ["array.input_bits=6", "array.weight_bits=5"])
        twin = SimpleNamespace(layers=[SimpleNamespace(name=name) for name in "ab"])
        rows = alphas._rows(made, twin, self.data, "from here", given)
        assert asked == [({k: v for k, v in given.items() if k == "b"}, {"input_bits": 6, "weight_bits": 5})]
        assert [row["name"] for row in rows] == kept
        assert {row["alpha_from"] for row in rows} == {"from here"}


@pytest.mark.parametrize("name", [name for name in recipe.shipped() if name.startswith("photonic-")])
@pytest.mark.parametrize("which", ["transform", "post", "scratch"])
def test_a_scenario_alone_is_enough(name, which):
    made = recipe.load(name, [f"train.scenario={which}"])
    settings = made.train.settings(made.dataset.name, made.network.activation)
    assert (settings.epochs > 0, settings.non_negative_epochs > 0) == (which != "scratch", which != "transform")
    assert (made.array.rows, made.array.columns, made.array.adc_bits, made.array.noise.on) == (64, 64, 8, False)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("array.adc_bit=8", "did you mean 'array.adc_bits'"),
        ("array.noise.photon=8", "did you mean 'array.noise.photons'"),
        ("array.rows=0", "array.rows = 0 is not usable"),
        ("train.scenario=posts", "did you mean 'post'"),
        ("train.epochs=0", "digits: section 'train': scenario transform: `epochs` is 0; give 1"),
        ("train={scenario: scratch, epochs: 5}", "`epochs` is 5; it has no such phase, so give 0 or leave it out$"),
        ("network.activation=relu", "a ReLU has no bound to take alpha from; calibrate by `percentile`"),
        ("network.activation=relu train.scenario=post", "no settings of scenario post were published for ReLU"),
        ("train.scenario=scratch calibrate.method=percentile", "nothing is trained yet to take a percentile of"),
        ("calibrate.method=constant", "the method `constant` needs its number, `alpha`"),
        ("calibrate.alpha=3", "`alpha` is the number of the method `constant`, not of `bound`"),
        ("network.activation=swish", "network.activation = 'swish' is not usable"),
        ("dataset.name=cifar100", "no photonic settings for the data set 'cifar100'"),
    ],
)
def test_a_recipe_says_what_is_wrong(override, says):
    overrides = [override] if "{" in override else override.split()
    with pytest.raises(BittrueError, match=says) as error:
        recipe.load("photonic-mlp-digits", overrides)
    assert "description" not in str(error.value), "one sentence, not the whole recipe"
