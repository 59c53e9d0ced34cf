"""Sweeps of generated kernels: every point against its own training, the smallest near the original, refusals."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from bittrue.flow import stages
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine import steps, sweep
from bittrue.flow.systems.nern.sweep import Generators
from bittrue.models.data import sets
from bittrue.models.nern import accelerator, exact, train
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.integers import Integers
from bittrue.models.nern.networks import Resnet
from bittrue.models.nern.sizes import size
from bittrue.models.nern.target import Target
from bittrue.models.nern.tours import tours
from bittrue.models.training import storage
from bittrue.models.training.loop import predict
from bittrue.models.training.precision import threads
from bittrue.sim.errors import BittrueError
from tests.helpers.generated import few
from tests.helpers.sweeps import Watch

RECIPE = """
system: nern
dataset: {name: digits}
network: {stem_stride: 2}
train: {epochs: 6, batch: 16, seed: 1}
nern:
  num_blocks: 2
  hidden_layer_size: 8
  embeddings: {enc_levels: 16, base: 0.76, permutations: {permute_mode: infilter}}
  weights_batch_method: random_batch
  weights_batch_size: 1024
optim: {optimizer_type: adamw, lr: 2.0e-2}
generate: {epochs: null, num_iterations: 60, loss_warmup_iterations: 58, batch_size: 32, warmup_on_batch: true, seed: 3}
integers: {num_iterations: 3, lr: 1.0e-3, eval_iterations_interval: 1, images: 32, seed: 7}
"""
HIDDEN, MODE = "nern.hidden_layer_size", "nern.embeddings.permutations.permute_mode"
GRID = [f"{HIDDEN}=4,8", f"{MODE}=infilter,null"]
IMAGES = 60


@pytest.fixture(scope="module", autouse=True)
def images():
    data = few()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "load", lambda name, folder=None: data)  # noqa: ARG005
        yield data


@pytest.fixture(scope="module")
def place(tmp_path_factory, address):
    """A folder with the recipe `small.yaml`, and its flow with a sweep of 2 x 2 settings."""
    folder = tmp_path_factory.mktemp("nern")
    (folder / "small.yaml").write_text(RECIPE)
    swept(folder, address)
    assert {path.name for path in (folder / "flow").iterdir() if path.is_dir()} == {"original", "sweep"}
    return folder


def swept(place, address, over=GRID, seeds=None, **options):
    given = {"flow": place / "flow", "scheduler": address} | options
    return sweep.run(place / "small.yaml", over, seeds, IMAGES, **given)


def expected(place, data, changes, offset):
    """Right images and bytes of a point, from the layers below, with torch instead of the program."""
    recipe = recipes.load(
        place / "small.yaml", [*changes, f"generate.seed={3 + offset}", f"integers.seed={7 + offset}"]
    )
    with threads(1):
        target = Target(storage.load(place / "flow/original/network.pt", Resnet))
        mode = recipe.nern.embeddings.permutations.permute_mode
        orders = [one.order for one in tours([w.numpy() for w in target.weights()], mode, keep=False)]
        generator = Generator.for_target(recipe.nern, target, orders, recipe.generate.seed)
        train.fit(generator, target, data, recipe.optim, recipe.generate)
        integers = Integers(generator, recipe.integers)
        made, units = exact.codes(integers, generator, target), integers.units.tolist()
        network = accelerator.convert(target, made, units, data, recipe.integers.images)
        exact.fit(integers, network, generator, target, data, recipe.integers)
        found = predict(network, data.test.images[:IMAGES]).argmax(1)
    bytes_ = sum(size(target.network, (1, 8, 8), recipe.nern).parts.values())
    return int((found == data.test.labels[:IMAGES]).sum()), bytes_


def changes_of(row):
    return [f"{key}={json.dumps(value)}" for key, value in row["values"].items()]


# -- what it measures ----------------------------------------------------------------------------------
def test_every_point_is_its_own_generator(place, images):
    result = json.loads((place / "flow/sweep" / sweep.JSON).read_text())
    assert [row["values"] for row in result["points"]] == [
        {HIDDEN: hidden, MODE: mode} for hidden in (4, 8) for mode in ("infilter", None)
    ]
    assert len({row["mean"] for row in result["points"]}) > 1  # settings matter
    assert len({row["bytes"] for row in result["points"]}) == 4
    for row in result["points"]:
        right, total = expected(place, images, changes_of(row), 0)
        assert row["seeds"] == [{"seed": 3, "accuracy": right / IMAGES}]
        assert row["bytes"] == total
        assert row["share"] == total / 73_872
    original = storage.load(place / "flow/original/network.pt", Resnet)
    found = predict(original, images.test.images[:IMAGES]).argmax(1)
    assert (result["reference"], result["images"]) == ("original", IMAGES)
    assert result["accuracy_original"] == (found == images.test.labels[:IMAGES]).mean()
    assert "trained" not in result


def test_the_recipe_itself_is_what_its_flow_makes(place, address, images, tmp_path):
    """With the recipe's own settings, on all images, a point is what the step `quantize` leaves."""
    base = recipes.load(place / "small.yaml")
    quantized = steps.run(stages.steps(base), base, place / "flow", "quantize", None)[-1].result
    given = {"flow": place / "flow", "out": tmp_path / "s", "scheduler": address}
    (row,) = sweep.run(place / "small.yaml", [f"{HIDDEN}=8"], None, None, **given)["points"]
    assert row["mean"] == quantized["accuracy"]
    assert row["bytes"] == sum(quantized["generated"]["bytes"].values())
    assert row["share"] == quantized["generated"]["share"]
    assert len(images.test) > IMAGES


def test_seeds_are_those_of_generator_and_integers(place, address, images, tmp_path):
    """Points of the first seed are there; only those of the second are evaluated."""
    out = tmp_path / "s"
    (out / "points").mkdir(parents=True)
    for path in (place / "flow/sweep/points").iterdir():
        (out / "points" / path.name).write_bytes(path.read_bytes())
    watch = Watch()
    (row,) = swept(place, address, [f"{HIDDEN}=4"], 2, out=out, listener=watch)["points"]
    assert watch.told == [1, 2]
    right, total = expected(place, images, changes_of(row), 1)
    assert row["seeds"][1] == {"seed": 4, "accuracy": right / IMAGES}
    assert row["bytes"] == total


def test_what_a_point_is_given(place):
    """One thread, its seeds, and nothing that decides no figure."""
    changes = ["generate.threads=2", "integers.threads=2", "nern.embeddings.permutations.num_workers=1"]
    changes.append("nern.embeddings.permutations.path=/kept")
    plain, other = (recipes.load(place / "small.yaml", given) for given in ([], changes))
    settings, identity = Generators().task(other, other, 5, False)
    assert (settings.generate.seed, settings.integers.seed) == (5, 9)
    assert (settings.generate.threads, settings.integers.threads) == (1, 1)
    assert identity == Generators().task(plain, plain, 5, False)[1]
    assert set(identity) == {"nern", "optim", "generate", "integers"}
    assert settings.nern.embeddings.permutations.permute_mode == "infilter"


# -- the smallest --------------------------------------------------------------------------------------
@pytest.fixture
def counted(place, address, tmp_path):
    """The sweep again with other counts of right images: (4, infilter), (4, null), (8, infilter), (8, null)."""

    def run(counts, **options):
        out = tmp_path / "s"
        (out / "points").mkdir(parents=True, exist_ok=True)
        for path in (place / "flow/sweep/points").iterdir():
            content = json.loads(path.read_text())
            order = [(4, "infilter"), (4, None), (8, "infilter"), (8, None)]
            content["correct"] = counts[order.index((content["values"][HIDDEN], content["values"][MODE]))]
            (out / "points" / path.name).write_text(json.dumps(content))
        watch = Watch()
        result = swept(place, address, out=out, listener=watch, **options)
        assert watch.told == [4]  # nothing is evaluated
        return result

    return run


def test_the_smallest_within_some_points_of_the_original(place, counted):
    told = json.loads((place / "flow/sweep" / sweep.JSON).read_text())
    right = round(told["accuracy_original"] * IMAGES)
    sizes = [row["bytes"] for row in told["points"]]
    assert sorted(sizes) == [sizes[1], sizes[3], sizes[0], sizes[2]]  # permutations are the larger part
    assert right > 12
    assert told["within"] == 1.5

    def smallest(counts, **options):
        one = counted(counts, **options)["smallest"]
        return one and (one["values"][HIDDEN], one["values"][MODE])

    assert smallest([right] * 4) == (4, None)
    assert smallest([right, right - 1, right, right]) == (8, None)  # 1.67 points are more than 1.5
    assert smallest([right, right - 1, right, right], within=1.7) == (4, None)
    assert smallest([right, right - 4, right + 1, right - 4]) == (4, "infilter")
    assert smallest([right, right - 3, right, right], within=5) == (4, None)  # 3 of 60 are 5 points, and 5 is within
    assert smallest([right, right - 3, right, right], within=4.99) == (8, None)
    assert smallest([right - 1] * 4) is None
    assert smallest([right - 1] * 4, within=100) == (4, None)
    one = counted([right, right - 4, right, right - 1])["smallest"]
    row = told["points"][0]
    assert one == {"values": row["values"], "mean": right / IMAGES, "bytes": row["bytes"], "share": row["share"]}


def test_of_equal_ones_the_best_and_means_are_exact():
    rows = [{"values": k, "mean": 0.0, "bytes": size, "share": 0.5} for k, size in enumerate((9, 5, 5))]
    right = [Fraction(10), Fraction(19, 2), Fraction(29, 3)]
    assert sweep.smallest(rows, right, Fraction(9), Generators())["values"] == 2
    assert sweep.smallest(rows, right, Fraction(29, 3), Generators())["values"] == 2
    assert sweep.smallest(rows, right, Fraction(29, 3) + Fraction(1, 10**9), Generators())["values"] == 0
    assert sweep.smallest(rows, right, Fraction(11), Generators()) is None


# -- errors --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("over", "changes", "words"),
    [
        (
            ["train.epochs=1,2"],
            [],
            "one original, so it varies keys of nern, optim, generate and integers; change train.epochs for all points",
        ),
        (["network.stem_stride=1,2"], [], "--over network.stem_stride: a sweep trains generators of one original"),
        (["booted.banks=1,2"], [], "--over booted.banks: a sweep trains generators of one original"),
        (["generate.seed=1,2"], [], "--over generate.seed: seeds are no axis; give their number with --seeds"),
        (["integers.seed=1,2"], [], "--over integers.seed: it moves along with generate.seed, so it is no axis"),
        (["integers.threads=1,2"], [], "--over integers.threads: a point has one thread, so it is no axis"),
        (["nern.hidden_layer_size=0,8"], [], "nern.hidden_layer_size = 0 is not usable"),
        (["nern.hidden_layer=4,8"], [], "did you mean 'nern.hidden_layer_size'"),
        (
            ["nern.hidden_layer_size=4,8"],
            ["nern.init=checkpoint", "nern.checkpoint_path=a.pt"],
            "a point trains a generator of its own, and nern.checkpoint_path names one to begin with; leave it out",
        ),
        ([], [], "sweep: no axis; give --over key.sub=value,value with a key of nern, optim, generate and integers"),
    ],
)
def test_bad_axes_are_named(tmp_path, over, changes, words):
    (tmp_path / "small.yaml").write_text(RECIPE)
    with pytest.raises(BittrueError, match=".*") as error:
        sweep.run(tmp_path / "small.yaml", over, 1, 10, overrides=changes, flow=tmp_path / "f")
    assert words in str(error.value)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("source", "over", "options", "words"),
    [
        (None, GRID, {"trained": True}, "--qat: points of the system 'nern' are trained as the recipe says; leave the"),
        (None, GRID, {"within": -0.1}, "--within -0.1: take from 0 to 100 points of accuracy, such as 1.5"),
        (None, GRID, {"within": 100.1}, "--within 100.1: take from 0 to 100 points of accuracy, such as 1.5"),
        (None, GRID, {"within": float("nan")}, "--within nan: take from 0 to 100 points of accuracy, such as 1.5"),
        (
            "photonic-mlp-digits",
            ["array.rows=4"],
            {"within": 1.5},
            "--within: points of the system 'photonic' have no size of which the smallest could be told; leave the",
        ),
    ],
)
def test_options_that_say_nothing_are_refused(tmp_path, source, over, options, words):
    (tmp_path / "small.yaml").write_text(RECIPE)
    with pytest.raises(BittrueError, match=".*") as error:
        sweep.run(source or tmp_path / "small.yaml", over, 1, 10, flow=tmp_path / "f", **options)
    assert words in str(error.value)
    assert not (tmp_path / "f").exists()


def test_a_point_that_fails_is_named(place, address, tmp_path):
    """Two levels tell not all coordinates apart, which is found where the generator is made."""
    levels = "nern.embeddings.enc_levels"
    with pytest.raises(BittrueError, match=rf"sweep: at {levels}=1, seed 3: .*gives? the same for"):
        swept(place, address, [f"{levels}=1"], out=tmp_path)


# -- for people ----------------------------------------------------------------------------------------
def test_the_command(place, address, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["sweep", place / "small.yaml", "--images", IMAGES, "--flow", place / "flow", "--scheduler", address]
    words += [f"--over={text}" for text in GRID]
    status, out, err = run(*words, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told.pop("folder") == str(place / "flow/sweep")
    assert told == json.loads((place / "flow/sweep" / sweep.JSON).read_text())
    status, out, _ = run(*words, "--within", 100)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert status == 0
    assert "hidden_layer_size permute_mode seeds mean deviation lowest highest bytes share" in lines
    for row in told["points"]:
        values = f"{row['values'][HIDDEN]} {row['values'][MODE] or 'none'} 1"
        mean = f"{100 * row['mean']:.2f} %"
        assert f"{values} {mean} – {mean} {mean} {row['bytes']:,} {100 * row['share']:.2f} %" in lines
    assert f"original: {100 * told['accuracy_original']:.2f} %" in lines
    row = told["points"][1]
    size = f"bytes {row['bytes']:,}, share {100 * row['share']:.2f} %"
    near = "smallest within 100 points of the original: hidden_layer_size = 4, permute_mode = none"
    assert f"{near}; mean {100 * row['mean']:.2f} %, {size}" in lines
    picture = (place / "flow/sweep" / sweep.PICTURE).read_text()
    assert f"hidden size of the generator  ({HIDDEN})" in picture
    assert "dashed: original, " in picture
    assert "tours = none" in picture
