"""Several images in one pass, from the command line: counted, trained, validated, and where it ends so far."""

import json

import pytest
import typer

from bittrue.flow.cli import systems as cli_systems
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine import registry, steps
from bittrue.flow.systems.mimo import beside, validate
from bittrue.models.data.sets import load
from bittrue.models.superposition import macs
from bittrue.models.superposition.networks import Superposition
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from bittrue.sim.operations.bundle import Bundle
from bittrue.sim.operations.linear import Linear

RECIPE = """
system: mimo
dataset: {name: digits}
network: {slots: 4}
train: {epochs: 1, batch: 256, lr: 0.1, mixup: 0.0, low: 1, frequency: 0.5, augment: flip, seed: 1}
qat: {epochs: 1, batch: 128, lr: 1.0e-3, seed: 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the recipe `small.yaml`, and an untrained `network.pt` of it."""
    folder = tmp_path_factory.mktemp("mimo")
    (folder / "small.yaml").write_text(RECIPE)
    settings = SuperpositionSettings(slots=4)
    storage.save(Superposition.for_data(settings, load("digits"), 1), folder / "network.pt")
    return folder


class TestMacs:
    @pytest.mark.parametrize("columns", ["", "80"])
    def test_the_published_table(self, run, columns, monkeypatch):
        """Every figure that was published, as it is printed, in a narrow terminal too."""
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        status, out, _ = run("mimo", "macs")
        assert status == 0
        for row in (
            "WideResNet-28 10 1 1 1 36.48 0.44 0.00 5242.88 0.00 0.01 5243.33 1.000",
            "MIMONet-28 10 4 1 1 36.98 1.77 4.19 5321.52 0.41 0.01 5327.90 0.984",
            "MIMONet-28 10 4 2 2 37.39 1.77 4.19 2660.76 0.41 0.01 2667.14 1.966",
            "MIMONet-28 10 4 4 1 38.21 1.77 16.78 5321.52 1.64 0.01 5341.71 0.982",
            "MIMONet-28 10 4 4 2 38.21 1.77 8.39 2660.76 0.82 0.01 2671.75 1.963",
            "MIMONet-28 10 4 4 4 38.21 1.77 4.19 1330.38 0.41 0.01 1336.76 3.922",
        ):
            assert row in " ".join(out.split())

    def test_one_network(self, run):
        words = ("MIMONet-10", "--width", 2, "--initial-width", 4, "--slots", 2, "--image", "28x28x1", "--json")
        status, out, _ = run("mimo", "macs", *words)
        assert status == 0
        rows = json.loads(out)
        assert [(row["network"], row["slots"], row["images"]) for row in rows] == [
            ("WideResNet-10", 1, 1), ("MIMONet-10", 2, 1), ("MIMONet-10", 2, 2)
        ]  # fmt: skip
        assert [f"{row['total'] / 1e6:.2f}" for row in rows[::2]] == ["33.83", "26.56"]
        assert f"{rows[2]['speed_up']:.2f}" == "1.27"
        summed = json.loads(run("mimo", "macs", *words, "--summed-keys")[1])
        assert [row["bound_by"] for row in rows] == ["None", "HRR", "HRR"]
        assert rows[1]["total"] - summed[1]["total"] == 64 * 64 * 28 * 28
        assert rows[2]["total"] == summed[2]["total"]

    def test_the_stem_and_the_binding_are_those_that_are_asked_for(self, run):
        """A stem of stride 2 leaves a quarter of the pixels, to the last of the convolutions."""
        words = (("--binding", "MBAT"), ("--binding", "MBAT", "--stem-stride", 2))
        plain, strided = (json.loads(run("mimo", "macs", "MIMONet-10", *w, "--json")[1])[-1] for w in words)
        assert plain["bound_by"] == strided["bound_by"] == "MBAT"
        assert [plain[part] / strided[part] for part in macs.PARTS] == [4, 4, 4, 1, 1]

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--slots", "2"], "mimo macs: --slots is of one network; name it in front, such as MIMONet-28"),
            (["MIMOnet-28"], "mimo macs MIMOnet-28: kind: input should be 'WideResNet', "),
            (["MIMONet-20"], "mimo macs MIMONet-20: depth: input should be 10, 16 or 28; a network is named by its"),
            (["MIMONet-28", "--binding", "FFT"], "binding: input should be 'HRR', 'MBAT' or 'None'"),
            (["--image", "32x32"], "--image '32x32': write height, width and channels, such as 32x32x3"),
            (["--image", "32x0x3"], "--image '32x0x3': write height"),
        ],
    )
    def test_what_cannot_be_counted(self, words, sentence, run):
        status, out, err = run("mimo", "macs", *words)
        assert (status, out) == (1, "")
        assert sentence in err


class TestTraining:
    def test_it_is_trained_validated_and_made_integers(self, run, place, tmp_path):
        recipe, out = place / "small.yaml", tmp_path / "flow"
        status, said, err = run(
            "mimo", "validate", recipe, "--pairings", 3, "--images", "1,2,4", "--out", out, "--json"
        )
        assert status == 0, err
        modes = json.loads(said)["modes"]
        assert [(mode["images"], mode["trained"], len(mode["accuracies"])) for mode in modes] == [
            (1, True, 1), (2, False, 3), (4, True, 3)
        ]  # fmt: skip
        assert modes[0]["deviation"] is None
        assert all(mode["seconds_per_image"] > 0 for mode in modes)
        status, said, _ = run("train", recipe, "--out", out, "--json")
        result = json.loads(said)
        assert result["accuracy"] == result["modes"]["4"] == modes[2]["accuracies"][0]  # not trained again
        assert result["modes"].keys() == {"1", "2", "4"}
        assert result["kept"] == 1
        assert result["figures"][0]["Accuracy/validation_at_sup_low"] > 0
        status, _, err = run("flow", recipe, "--out", out, "--until", "simulate")
        assert status == 0, err
        found = {step: steps.stamp(out / step)["result"] for step in ("quantize", "simulate")}
        modes = found["quantize"]["modes"]
        assert modes.keys() == {"1", "2", "4"}
        for n, one in modes.items():
            assert one.keys() == {"float", "converted", "quantized", "golden"}
            assert one["golden"] == one["quantized"]
            assert one["converted"] == pytest.approx(one["float"], abs=0.1), n
        assert found["simulate"]["mismatches_with_network"] == 0
        assert found["simulate"]["accuracy"] == found["quantize"]["accuracy"] == modes["4"]["golden"]
        assert len(found["quantize"]["history"]) == 1

    def test_networks_that_take_one_image_stand_beside_it(self, place):
        """Of drawn weights, planned for as many cycles of a pass; what they multiply is what is counted."""
        words = ["network.slots=2", "train.low=null", "train.frequency=1.0"]
        recipe, data = recipes.load(place / "small.yaml", words), load("digits")
        found = beside.of(recipe, data, 20000)
        assert [row["name"] for row in found] == ["ordinary network", "one slot"]
        for row, settings in zip(found, beside.networks(recipe.network).values(), strict=True):
            nodes = beside.program(settings, recipe, data).nodes
            matrices = [node.operation for node in nodes if isinstance(node.operation, (Linear, Bundle))]
            assert row["macs"] == sum(operation.macs for operation in matrices)
            assert row["macs"] / row["cycles"] <= row["products"]
            assert row["cycles"] <= 20000
            assert row["pj"]["total"] > 0
            assert row["estimated"]["dsp"] > 0
        assert beside.networks(macs.baseline(recipe.network)) == {}

    def test_a_file_in_words(self, run, place, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        words = ("--network", place / "network.pt", "--images", "4,1", "--pairings", 2, "--split", "val")
        status, out, err = run("mimo", "validate", place / "small.yaml", *words)
        assert status == 0, err
        assert "Accuracy of small on 150 images (val)" in out
        rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["1"], ["4"])]
        assert [row[:3] for row in rows] == [["4", "yes", "2"], ["1", "yes", "1"]]
        assert rows[1][5] == "–"  # one pairing has no deviation

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--images", "3"], "--images: 3 at a time do not divide the 4 slots of small; take some of 1, 2, 4"),
            (["--images", "1,x"], "--images '1,x': write numbers of images at a time, from 1, such as 1,2,4"),
            (["--images", "0"], "--images '0': write numbers"),
            (["--images", "2,2"], "--images '2,2': a number is there twice; give each once"),
            (["--split", "train"], "--split 'train': take test or val"),
            (
                ["network.slots=2", "network.width=2"],
                "is not that of recipe small: width is 1 there and 2 here, slots is 4",
            ),
            (["dataset.name=watch"], "network.pt: it is not that of recipe small: shape is [8, 8, 1] there and"),
            (["train.low=3"], "train.low = 3 does not divide the 4 slots; take one that does"),
            (["qat.batch=126"], "qat.batch = 126 is no multiple of 4, the images of one pass; take one"),
            (["train.low=null"], "frequency below 1 leaves updates to another mode; name it as low"),
            (
                ["network.kind=WideResNet", "network.relu_parameter=0.1"],
                "relu_parameter does not belong to kind WideResNet",
            ),
        ],
    )
    def test_what_cannot_be_validated(self, words, sentence, run, place):
        status, out, err = run("mimo", "validate", place / "small.yaml", *words, "--network", place / "network.pt")
        assert (status, out) == (1, "")
        assert sentence in err

    def test_keys_of_several_widths(self, run, place, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        words = ("--network", place / "network.pt", "--bits", "8,2", "--pairings", 2, "--split", "val")
        status, out, err = run("mimo", "keys", place / "small.yaml", *words, "--json")
        assert status == 0, err
        found = json.loads(out)
        assert found["modes"] == [1, 2, 4]
        assert [row["bits"] for row in found["rows"]] == [8, 2]
        for accuracies in (found["float"], *(row["accuracies"] for row in found["rows"])):
            assert [len(accuracies[n]) for n in ("1", "2", "4")] == [1, 2, 2]
        for n in ("1", "2", "4"):  # keys of 8 bits change next to nothing
            assert found["rows"][0]["accuracies"][n] == pytest.approx(found["float"][n], abs=0.1)
        words = (*words, "--bits", "4", "convert.dynamic=false")
        status, out, err = run("mimo", "keys", place / "small.yaml", *words)
        assert status == 0, err
        assert "Accuracy of small in integers on 150 images (val)" in " ".join(out.split())
        assert "4 at a time" in out
        assert "1 at a time" not in out
        assert [line.split()[:2] for line in out.splitlines() if " bits " in line] == [["4", "bits"]]
        assert "mean and standard deviation over 2 pairings" in " ".join(out.split())
        one = {n: [0.5] for n in ("1", "2", "4")}
        few = found | {"float": one, "rows": [{"bits": 8, "accuracies": one}]}
        monkeypatch.setattr("bittrue.flow.systems.mimo.keys.run", lambda *_, **__: few)
        status, out, err = run("mimo", "keys", place / "small.yaml", "--pairings", 1)
        assert status == 0, err
        assert "50.00 %" in out
        assert "deviation" not in out

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--bits", "9"], "--bits '9': write widths of keys from 2 to 8, such as 8,4,2"),
            (["--bits", "4,x"], "--bits '4,x': write widths"),
            (["--bits", "4,4"], "--bits '4,4': a width is there twice; give each once"),
            (["network.slots=2"], "is not that of recipe small: slots is 4 there and 2 here"),
        ],
    )
    def test_keys_that_cannot_be_compared(self, words, sentence, run, place):
        status, out, err = run("mimo", "keys", place / "small.yaml", *words, "--network", place / "network.pt")
        assert (status, out) == (1, "")
        assert sentence in err

    def test_keys_of_a_network_that_has_none(self, run, place, tmp_path):
        settings = SuperpositionSettings(slots=1, binding="None")
        storage.save(Superposition.for_data(settings, load("digits"), 1), tmp_path / "network.pt")
        words = ("network.slots=1", "network.binding=None", "train.low=null", "train.frequency=1.0")
        status, _, err = run("mimo", "keys", place / "small.yaml", *words, "--network", tmp_path / "network.pt")
        assert status == 1
        assert "the network of small has one slot and binds nothing, so it has no keys; give it a binding" in err

    def test_which_modes_integers_have(self, place):
        def modes(*overrides):
            return recipes.load(place / "small.yaml", overrides).modes

        assert modes() == (1, 2, 4)
        assert modes("convert.dynamic=false") == (4,)
        assert modes("train.low=null", "train.frequency=1.0") == (4,)
        assert modes("train.low=null", "train.frequency=1.0", "convert.dynamic=true") == (1, 2, 4)
        assert modes("train.frequency=0.0") == (1,)

    def test_whoever_listens_is_told_mode_by_mode(self, place):
        told = []

        class Ear(steps.Silent):
            def begin(self, step):
                told.append(step)

            def progress(self, *words):
                told.append(words)

        validate.run(place / "small.yaml", [], [4, 2], 1, network=place / "network.pt", listener=Ear())
        assert told == ["validate", ("4 at a time", 0, 2), ("2 at a time", 1, 2)]

    def test_a_recipe_of_another_system(self, run):
        status, _, err = run("mimo", "validate", "cnn-digits")
        assert status == 1
        assert "recipe cnn-digits is of the system 'cnn', whose networks take one image at a time; take one of" in err

    def test_where_figures_are_logged_decides_nothing(self):
        """A training is not done again for a folder of logs."""
        system = registry.find("mimo")
        assert "log" not in recipes.read_by(system, "train")
        assert recipes.load("mimonet-fashion-mnist", ["log.tensorboard=logs"]).log.tensorboard.name == "logs"


def test_a_group_of_commands_whose_name_is_taken():
    """A system's group is refused as a command would be, and its name is free of those of commands."""
    app = typer.Typer()
    app.command("mimo")(lambda: None)
    before = list(app.registered_commands)
    registry.find("mimo").register(app)
    with pytest.raises(BittrueError, match="a command `bittrue mimo` is there already; register another name"):
        cli_systems._refuse_twins(before, app.registered_groups)
