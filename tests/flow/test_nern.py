"""Generated kernels from the command line: counted, toured, trained, evaluated, quantised, booted in golden."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from jinja2 import Environment, StrictUndefined

from bittrue.flow import stages
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine import registry
from bittrue.flow.systems.nern import boot
from bittrue.flow.systems.nern import config as configurations
from bittrue.flow.systems.nern import run as running
from bittrue.flow.systems.nern.section import Generated
from bittrue.models.data import sets
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.networks import Resnet
from bittrue.models.nern.settings import TargetSettings
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program
from bittrue.sim.system import Link, System
from tests.helpers.generated import few

RECIPE = """
system: nern
dataset: {name: digits}
network: {stem_stride: 2}
train: {epochs: 8, batch: 32, seed: 1}
nern:
  num_blocks: 5
  hidden_layer_size: 8
  embeddings: {enc_levels: 16, base: 0.76, permutations: {permute_mode: infilter}}
  weights_batch_method: random_batch
  weights_batch_size: 128
optim: {optimizer_type: adamw, lr: 1.0e-2}
generate: {epochs: null, num_iterations: 200, loss_warmup_iterations: 198, batch_size: 64, warmup_on_batch: true}
integers: {num_iterations: 4, eval_iterations_interval: 2, images: 64}
"""
#: As published, but for what is trained, on which images, and how long.
CONFIG = """
logging:
  exp_name: small_permute_crossfilter_12
  log_dir: outputs/small
original_model_path: network.pt
nern:
  distillation_loss_type: StableKLDivLoss
  num_blocks: 5
  hidden_layer_size: 12
  weights_batch_method: random_weighted_batch
  embeddings:
    enc_levels: 16
    base: 0.76
    permutations:
      permute_mode: crossfilter
  weights_batch_size: 512
  task_loss_weight: 0
task:
  task_name: digits
  original_model_name: ResNet8
optim:
  optimizer_type: ranger
  lr: 5e-3
  ranger_use_gc: False
epochs: 2
batch_size: 32
loss_warmup_iterations: 2
num_gpus: 2
num_workers: 12
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with `small.yaml`, a published configuration, and the original that it names; images are few."""
    data = few()
    (tmp_path / "small.yaml").write_text(CONFIG)
    storage.save(Resnet.for_data(TargetSettings(stem_stride=2), data, 1), tmp_path / "network.pt")
    monkeypatch.setattr(sets, "load", lambda name, folder=None: data)  # noqa: ARG005
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestSizes:
    @pytest.mark.parametrize("columns", ["", "80"])
    def test_the_published_table(self, run, columns, monkeypatch):
        """Of each target the first and the last row, as they are printed, in a narrow terminal too."""
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        status, out, _ = run("nern", "sizes")
        assert status == 0
        for row in (
            "140 94,229 35.20 % 2.84 1.96 2.32 93,660 2,786 69",
            "180 142,749 53.33 % 1.88 1.45 1.63 142,020 4,224 104",
            "240 233,529 27.53 % 3.63 2.31 2.81 232,560 21,920 175",
            "400 581,209 68.51 % 1.46 1.19 1.31 579,600 54,631 435",
            "1,024 3,404,809 30.99 % 3.23 1.82 2.33 3,400,704 4,150,927 2,288",
            "1,372 5,994,277 54.57 % 1.83 1.27 1.50 5,988,780 7,309,953 4,030",
        ):
            assert row in " ".join(out.split())
        assert out.count("kernels)") + out.count("29,744") >= 1

    def test_one_target(self, run):
        words = ("ResNet8", "--hidden", "80,96", "--levels", 16, "--image", "28x28x1", "--option", "B", "--json")
        status, out, _ = run("nern", "sizes", *words)
        assert status == 0
        rows = json.loads(out)
        assert [(row["target"], row["hidden"], row["parameters"]) for row in rows] == [
            ("ResNet8-B", 80, 27_929), ("ResNet8-B", 96, 38_121)
        ]  # fmt: skip
        assert rows[0]["weights"] == 73_872 + 512 + 2_048
        assert rows[0]["permutation_bytes"]["crossfilter"] > rows[0]["permutation_bytes"]["infilter"] > 5_000

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--levels", "16"], "nern sizes: options are of one target; name it in front, such as ResNet20"),
            (["ResNet9"], "nern ResNet9: architecture = 'ResNet9' is not usable: input should be 'ResNet8', "),
            (["ResNet20", "--option", "C"], "option = 'C' is not usable: input should be 'A' or 'B'"),
            (["ResNet8"], "nern sizes ResNet8: no sizes of it are published; give --hidden, such as --hidden 80,96"),
            (["ResNet8", "--hidden", "8,x"], "--hidden '8,x': write whole numbers from 1 to 16384, such as 140,180"),
            (["ResNet8", "--hidden", "8", "--image", "8x8"], "--image '8x8': write height, width and channels"),
        ],
    )
    def test_what_cannot_be_counted(self, words, sentence, run):
        status, out, err = run("nern", "sizes", *words)
        assert (status, out) == (1, "")
        assert sentence in err


class TestTours:
    def test_of_random_weights(self, run):
        totals = {}
        for mode in ("crossfilter", "infilter"):
            status, out, err = run("nern", "tours", "ResNet8", "--mode", mode, "--json")
            assert status == 0, err
            told = json.loads(out)
            assert [row["kernels"] for row in told["layers"]] == [48, 256, 256, 512, 1_024, 2_048, 4_096]
            totals[mode] = sum(row["after"] for row in told["layers"])
            assert abs(sum(row["before"] for row in told["layers"])) < 300
        assert totals["crossfilter"] > 0.8 * 8_240 > totals["infilter"] > 4_000

    def test_of_a_file_in_words(self, run, place):
        status, out, _ = run("nern", "tours", place / "network.pt", "--folder", place / "kept")
        assert status == 0
        assert "crossfilter: total similarity " in out
        assert " over 8,208 kernels, in " in out
        assert len(list((place / "kept").iterdir())) == 7
        status, _, err = run("nern", "tours", "ResNet8", "--mode", "cross")
        assert (status, err) == (1, "error: --mode 'cross': take crossfilter or infilter")


class TestConfigurations:
    def test_trained_and_evaluated(self, run, place, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        status, out, err = run("nern", "train", "--config", "small.yaml", "--nern.hidden_layer_size", 10, "--json")
        assert status == 0, err
        told = json.loads(out)
        folder = place / "outputs/small/small_permute_crossfilter_12"
        assert sorted(path.name for path in folder.iterdir()) == [
            "config.yaml", "generator.pt", "log.jsonl", "result.json"
        ]  # fmt: skip
        generator = storage.load(folder / "generator.pt", Generator)
        assert generator.settings.hidden_layer_size == 10
        assert generator.settings.embeddings.permutations.permute_mode == "crossfilter"
        assert told["images"] == 64
        assert told["share"] == sum(told["bytes"].values()) / told["target_bytes"]
        assert [row["path"] for row in told["layers"]][:2] == ["conv1", "layer1.0.conv1"]
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1]  # of 6 steps the first, and every twentieth
        written = yaml.safe_load((folder / "config.yaml").read_text())
        assert written["nern"]["hidden_layer_size"] == 10
        again = configurations.load(folder / "config.yaml")
        assert again.optim.lr == 5e-3
        words = ("--nern.init", "checkpoint", f"--nern.checkpoint_path={folder / 'generator.pt'}")
        status, out, err = run("nern", "evaluate", "--config", folder / "config.yaml", *words)
        assert status == 0, err
        assert f"generated {100 * told['generated']:.2f} %; generator of" in " ".join(out.split())
        shown = [re.findall(r"[\w.-]+", line) for line in out.splitlines()]
        for row in told["layers"]:
            assert [row["path"], *(f"{row[key]:.4f}" for key in ("rms", "difference", "neighbours"))] in shown
        status, out, _ = run("nern", "evaluate", "--config", folder / "config.yaml", *words, "--json")
        evaluated = json.loads(out)
        assert evaluated == {key: told[key] for key in evaluated}

    def test_figures_go_to_tensorboard_where_it_is_asked_for(self, run, place, monkeypatch):
        words = ("nern", "train", "--config", "small.yaml", "--logging.use_tensorboard", "true")
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        status, _, err = run(*words)
        assert status == 1
        assert "logging.use_tensorboard" in err
        assert "TensorBoard is not installed" in err
        written, lines = [], place / "figures.jsonl"
        told = SimpleNamespace(logging=SimpleNamespace(disable_logging=False))
        log = running._Log(lines, told, lambda *given: written.append(given))
        log(3, {"loss": 0.5})
        assert written == [(3, {"loss": 0.5})]
        assert json.loads(lines.read_text()) == {"step": 3, "loss": 0.5}
        told.logging.disable_logging = True
        running._Log(lines, told, log.board)(4, {"loss": 0.4})
        assert len(written) == len(lines.read_text().splitlines()) == 1

    def test_interrupted_and_continued(self, place):
        config = configurations.load(place / "small.yaml", ["--logging.exp_name", "a", "--logging.log_interval", "1"])
        other = configurations.load(place / "small.yaml", ["--logging.exp_name", "b", "--logging.log_interval", "1"])

        def interrupt(p):
            if p.epoch == 2:
                raise KeyboardInterrupt

        whole = running.train(config, "small", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            running.train(other, "small", interrupt, device="cpu")
        parted = running.train(other, "small", device="cpu")
        different = {"generator"}
        assert {k: v for k, v in whole.items() if k not in different} == {
            k: v for k, v in parted.items() if k not in different
        }
        states = [
            storage.load(place / "outputs/small" / name / "generator.pt", Generator).state_dict() for name in "ab"
        ]
        assert all((states[0][key] == states[1][key]).all() for key in states[0])

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (
                ["--nern.hiden_layer_size", "9"],
                "override '--nern.hiden_layer_size 9': unknown key 'nern.hiden_layer_size'; did you mean 'nern.hidden_",
            ),
            (["--epoch=9"], "unknown key 'epoch'; did you mean 'epochs'? a configuration has batch_size,"),
            (
                ["--nern.hidden_layer_size", "0"],
                "override '--nern.hidden_layer_size 0': nern.hidden_layer_size = 0 is not",
            ),
            (["--num_iterations", "5"], "give either epochs or num_iterations, and null for the other"),
            (["--optim.optimizer_type", "rangers"], "did you mean 'ranger'?"),
            (["--optim.min_lr", "1"], "min_lr 1 is not below lr 0.005"),
            (["--nern.num_blocks"], "--nern.num_blocks: its value is missing; write --nern.num_blocks VALUE"),
            (["9"], "'9': a value without a key; write --key value, such as --nern.hidden_layer_size 180"),
            (["--task.task_name", "imagenet"], "bittrue reads no ImageNet (task.task_name); take cifar10,"),
            (
                ["--task.original_model_name", "VGG8"],
                "no original is named 'VGG8' (task.original_model_name); those are",
            ),
            (
                ["--original_model_path", "null"],
                "it names no original_model_path; train one with bittrue nern original",
            ),
            (["--original_model_path", "a.pt"], "original a.pt: cannot be read (No such file or directory)"),
            (["--task.original_model_name", "ResNet20"], "it is a ResNet8, and task.original_model_name says ResNet20"),
            (["--nern.embeddings.base", "1.0"], "base 1 with 16 levels gives the same for layer 0 and layer 2"),
            (
                ["--nern.output_size", "5"],
                "conv1 (3 x 3), layer1.0.conv1 (3 x 3), layer1.0.conv2 (3 x 3), layer2.0.conv1 (3 x 3), layer2.0.conv2",
            ),
            (["--nern.keep", "[conv9]"], "keep: 'conv9' is no convolution of this network; those are conv1,"),
        ],
    )
    def test_what_is_refused(self, words, sentence, run, place):  # noqa: ARG002
        status, out, err = run("nern", "train", "--config", "small.yaml", *words)
        assert (status, out) == (1, "")
        assert sentence in err

    def test_files_that_are_none(self, run, place):
        for content, sentence in (
            (None, "configuration a.yaml: cannot be read"),
            ("[1", "configuration a.yaml: not YAML"),
            ("- 1", "configuration a.yaml: it holds a list; expected keys such as nern, optim"),
            ("", "configuration a.yaml: it names no original_model_path"),
        ):
            if content is not None:
                (place / "a.yaml").write_text(content)
            status, _, err = run("nern", "train", "--config", "a.yaml")
            assert status == 1
            assert sentence in err

    def test_evaluation_needs_a_generator_of_the_same_target(self, run, place):
        status, _, err = run("nern", "evaluate", "--config", "small.yaml")
        assert status == 1
        assert "small.yaml: to evaluate it, give nern.init checkpoint and nern.checkpoint_path, a generator.pt" in err
        made = Resnet.for_data(TargetSettings(stem_stride=2), few(), 5)
        config = configurations.load(place / "small.yaml")
        running.train(config, "small", device="cpu")
        storage.save(made, place / "network.pt")
        path = place / "outputs/small/small_permute_crossfilter_12/generator.pt"
        words = ("--nern.init", "checkpoint", "--nern.checkpoint_path", path)
        status, _, err = run("nern", "evaluate", "--config", "small.yaml", *words)
        assert status == 1
        assert (
            "it was trained for another original of the same layers, whose normalisations and classifier are not" in err
        )

    def test_an_original_is_trained(self, run, place):
        words = ("--dataset", "digits", "--epochs", 1, "--augment", "none", "--smoothness", "Cosine")
        status, out, err = run("nern", "original", "ResNet8", *words, "--out", place / "other.pt", "--json")
        assert status == 0, err
        assert json.loads(out)["network"].endswith("other.pt")
        assert storage.load(place / "other.pt", Resnet).network.architecture == "ResNet8"
        status, _, err = run("nern", "original", "ResNet8", "--smoothness", "cosine", "--out", place / "other.pt")
        assert status == 1
        assert (
            "smoothness = 'cosine' is not usable: input should be 'none', 'Cosine' or 'L2'; did you mean 'Cosine'?"
            in err
        )


class TestFlow:
    def test_it_is_trained_quantised_and_boots(self, run, place):
        (place / "small-recipe.yaml").write_text(RECIPE)
        status, said, err = run("train", "small-recipe.yaml", "--out", "flow", "--json")
        assert status == 0, err
        result = json.loads(said)
        assert result["size"]["target"] == 73_872
        original = json.loads((place / "flow/original/step.json").read_text())
        assert original["result"]["history"] == result["history"][:8]
        assert original["result"]["accuracy"] == result["accuracy_original"]
        assert result["kept"] > 8
        assert len(result["history"]) == 8 + 100  # epochs of the original, and those of two steps of the generator
        assert 0 <= result["accuracy"] <= 1
        assert f"generator of {result['size']['parameters']:,} parameters for 73,872 weights" in result["status"]
        generator = storage.load(place / "flow/train/generator.pt", Generator)
        assert result["size"]["parameters"] == sum(p.numel() for p in generator.parameters())
        assert not {"bytes", "parts"} & result["size"].keys(), "which depend on the integers"
        generator.belongs_to(_target(place / "flow/original/network.pt"))
        status, _, err = run("flow", "small-recipe.yaml", "--out", "flow", "--until", "simulate")
        assert status == 0, err
        assert json.loads((place / "flow/original/step.json").read_text()) == original
        told = json.loads((place / "flow/quantize/step.json").read_text())["result"]
        _holds(told, place / "flow/lower", generator)
        self._verified(place, result, told)

    @pytest.mark.parametrize(
        ("change", "again"),
        [
            ("nern.hidden_layer_size=3", False),
            ("optim.lr=1.0e-3", False),
            ("generate.seed=5", False),
            ("integers.lr=1.0e-3", False),
            ("nern.keep=[stem]", True),
            ("nern.output_size=5", True),
            ("network.stem_stride=1", True),
            ("train.seed=9", True),
        ],
    )
    def test_what_trains_the_original_again(self, tmp_path, change, again):
        (tmp_path / "small.yaml").write_text(RECIPE)
        now, then = (recipes.load(tmp_path / "small.yaml", given) for given in ([], [change]))
        step = stages.steps(now)[0]
        assert (step.name, step.needs) == ("original", ())
        assert (now.part(*step.sections) != then.part(*step.sections)) == again

    def _verified(self, place, trained, quantized):
        """The step `generator`, by the slow reference alone, and what the report shows of it."""
        recipe = recipes.load(place / "small-recipe.yaml", ["boot.reference=6", "boot.compiled=0", "boot.gxx=0"])
        for name in ("step", "scratch"):
            (place / name).mkdir()
        where = {"folder": place / "step", "scratch": place / "scratch", "upstream": {"lower": place / "flow/lower"}}
        found = boot.run(recipe, SimpleNamespace(progress=lambda *_: None, **where))
        assert found["golden"]["mismatches"] == 0
        assert found["golden"]["images"] == 6
        assert found["kernels"] == 8_208
        cycles = found["cycles"]
        assert cycles["all"] == cycles["latency"] + 8_207 * cycles["kernel"]
        section = Generated()
        results = {"train": trained, "quantize": quantized, "generator": found}
        told = section.collect(results)
        rows = told["generated"]["pictures"]
        assert [sum(row["errors"]) for row in rows] == [16 * 9, *(n * 9 for n in (256, 256, 512, 1024, 2048, 4096))]
        assert all(row["along"] > row["plain"] for row in rows)  # tours
        assert [row["tour"] is not None for row in rows] == [True] * 3 + [False] * 4
        assert sorted(rows[1]["tour"]) == list(range(256))
        assert list(told["generated"]["accuracies"].values()) == [
            trained["accuracy_original"], trained["accuracy"], quantized["accuracy_converted"], quantized["accuracy"]
        ]  # fmt: skip
        assert [row[0].split()[0] for row in told["generated"]["rows"]] == [row[0] for row in trained["rms"]]
        assert all(len(row) == 5 for row in told["generated"]["rows"])
        for content in (told, section.collect({"train": trained, "quantize": quantized})):
            environment = Environment(undefined=StrictUndefined)
            environment.filters |= {"n": "{:,}".format, "percent": lambda share: f"{100 * share:.2f} %"}
            page = environment.from_string(section.template.read_text()).render(section.context(content))
            assert f"{sum(quantized['generated']['bytes'].values()):,} bytes" in page
            assert (f"{cycles['all']:,} cycles" in page) == (content["generator"] is not None)
        assert section.collect({"quantize": {}}) == {}
        kernels = np.load(place / "flow/lower/kernels.npy")
        kernels[5, 3] += 1 if kernels[5, 3] < 0 else -1
        np.save(place / "flow/lower/kernels.npy", kernels)
        with pytest.raises(BittrueError, match="makes 1 codes that are not those it was quantised with"):
            boot.run(recipe, SimpleNamespace(progress=lambda *_: None, **where))

    def test_the_shipped_recipe(self):
        """At most 70 % of the target in INT8, permutations, biases and scales counted."""
        from bittrue.models.nern.sizes import size

        recipe = recipes.load("nern-resnet8-fashion-mnist")
        found = size(Resnet(recipe.network, (28, 28, 1), 10), (1, 28, 28), recipe.nern)
        assert found.share < 0.7
        assert recipe.nern.embeddings.permutations.permute_mode == "crossfilter"
        assert recipes.read_by(registry.find("nern"), "train") == ("nern", "optim", "generate")

    def test_keys_that_belong_together(self):
        with pytest.raises(
            BittrueError, match="generate.*give either epochs or num_iterations, and null for the other"
        ):
            recipes.load("nern-resnet8-fashion-mnist", ["generate.epochs=3"])


def _target(path):
    from bittrue.models.nern.target import Target

    return Target(storage.load(path, Resnet))


def _holds(told: dict, folder: Path, generator: Generator) -> None:
    """What a flow left: sizes, checksum, and, from the files alone, that a boot makes the program of its constants."""
    sizes = told["generated"]
    assert sizes["bytes"]["weights"] == sum(layer.weight.numel() for layer in [*generator.hidden, generator.final])
    assert sizes["share"] == sum(sizes["bytes"].values()) / 73_872
    assert len(told["history"]) == 2
    make, use, program = (Program.load(folder / f"{name}.npz") for name in ("generator", "accelerator", "program"))
    where, coordinates, kernels = (np.load(folder / f"{name}.npy") for name in ("places", "coordinates", "kernels"))
    np.testing.assert_array_equal(make(coordinates), kernels)
    link = Link("generator", "network", tuple(sizes["held"]), where)
    system = System({"generator": make, "network": use}, [link], {"generator": [coordinates]})
    assert set(system.booted("network")) == set(use.written) == set(sizes["held"])
    assert use.bind(system.booted("network")).sha256 == program.sha256
    assert system.checksum(link, kernels.reshape(len(kernels), -1).astype(np.int64)) == sizes["checksum"]
    assert (make.sha256, sizes["kernels"]) == (sizes["sha256"], len(kernels))
