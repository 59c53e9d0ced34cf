"""Sweeps: every point against its own conversion, resuming, errors by name, the picture, the command."""

from __future__ import annotations

import contextlib
import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from distributed import LocalCluster

from bittrue.flow.cli import main as cli
from bittrue.flow.engine import cluster, grid, recipe, sweep
from bittrue.flow.report import sweep_figure
from bittrue.flow.systems.light.sweep import Conversions
from bittrue.models.data.sets import load
from bittrue.models.graph.lower import lower
from bittrue.models.light.convert import convert
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.transform import NonNegativeNetwork, transform
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from tests.helpers.sweeps import Watch

SMALL = ["network.hidden=[8]", "train.epochs=1", "array.images=60", "array.noise.thermal=0.3"]
GRID = ["array.adc_bits=3,8", "array.rows=16,64"]
IMAGES = 40


@pytest.fixture(scope="module")
def flow(tmp_path_factory, address):
    """The folder of a flow with a sweep of 2 x 2 settings and two seeds."""
    folder = tmp_path_factory.mktemp("flow")
    swept(folder, address)
    return folder


def swept(folder, address, over=GRID, seeds=2, **options):
    given = {"overrides": SMALL, "flow": folder, "scheduler": address} | options
    return sweep.run("photonic-mlp-digits", over, seeds, IMAGES, **given)


def drawn(result):
    return sweep_figure.draw(result, Conversions.names)


def expected(folder, changes, seed, calibrate=None):
    """Accuracy of a point, from the layers below and without the sweep."""
    array = recipe.load("photonic-mlp-digits", [*SMALL, *changes, f"array.seed={seed}"]).array
    data = load("digits")
    twin = storage.load(folder / "train" / "twin.pt", NonNegativeNetwork)
    if calibrate is not None:
        regular = storage.load(folder / "train" / "network.pt", SimpleMLP)
        twin = transform(regular, calibrate, images=data.train.images)
    network = convert(twin, data, array)
    images, labels = data.test.images[:IMAGES], data.test.labels[:IMAGES]
    return float((lower(network)(network.encode(images)).argmax(1) == labels).mean())


def check_every_point(folder, result):
    for row in result["points"]:
        changes = [f"{key}={value}" for key, value in row["values"].items()]
        for one in row["seeds"]:
            assert one["accuracy"] == expected(folder, changes, one["seed"]), (row["values"], one["seed"])
        scores = [one["accuracy"] for one in row["seeds"]]
        assert row["mean"] == pytest.approx(np.mean(scores))
        assert (row["lowest"], row["highest"]) == (min(scores), max(scores))


# -- what it measures ----------------------------------------------------------------------------------
def test_every_point_is_its_own_conversion(flow, address):
    result = swept(flow, address)
    assert [row["values"] for row in result["points"]] == [
        {"array.adc_bits": bits, "array.rows": rows} for bits in (3, 8) for rows in (16, 64)
    ]
    assert all([one["seed"] for one in row["seeds"]] == [1, 2] for row in result["points"])
    assert len({one["accuracy"] for row in result["points"] for one in row["seeds"]}) > 2  # settings and seeds matter
    check_every_point(flow, result)


def test_a_wrong_seed_would_be_seen(flow, address, tmp_path, monkeypatch):
    """The mutation: noise of the next seed in every point."""
    monkeypatch.setattr(
        "bittrue.models.light.convert.convert",
        lambda twin, data, array: convert(twin, data, array.model_copy(update={"seed": array.seed + 1})),
    )
    result = swept(flow, address, out=tmp_path)
    with pytest.raises(AssertionError):
        check_every_point(flow, result)


def test_alpha_is_swept_on_the_trained_network(flow, address, tmp_path):
    over = ["calibrate.method=constant", "calibrate.alpha=0.05,1"]
    result = swept(flow, address, over, 1, out=tmp_path)
    calibrations = [recipe.load("photonic-mlp-digits", [f"{k}={v}" for k, v in row["values"].items()][::-1]).calibrate
                    for row in result["points"]]  # fmt: skip
    found = [row["mean"] for row in result["points"]]
    assert found == [expected(flow, [], 1, calibrate) for calibrate in calibrations]
    assert found[0] != found[1]


def test_without_anything_random_there_is_one_seed(flow, address, tmp_path):
    result = swept(flow, address, ["array.noise.thermal=0,0.3", "array.drift=0"], 3, out=tmp_path)
    assert [len(row["seeds"]) for row in result["points"]] == [1, 3]


def test_an_override_may_need_what_an_axis_brings(flow, address, tmp_path):
    options = {"overrides": [*SMALL[:-1], "array.noise.bandwidth_hz=1e9"], "out": tmp_path, "trained": False}
    result = swept(flow, address, ["array.noise.rin_db_per_hz=-150,-110"], 1, **options)
    quiet, loud = result["points"]
    assert quiet["mean"] > loud["mean"]


def test_a_method_may_need_the_alpha_that_an_axis_brings(address, tmp_path):
    relu = ["network.hidden=[32]", "train.epochs=20", "network.activation=relu", "calibrate.method=constant"]
    axes = ["calibrate.alpha=3,60", "array.window=full"]
    near, far = swept(None, address, axes, 1, out=tmp_path, overrides=relu, trained=False)["points"]
    assert near["mean"] > far["mean"]  # an alpha far above the data takes the converter's codes


def test_training_in_every_point(flow, address, tmp_path):
    options = {"overrides": [*SMALL, "finetune.epochs=2", "finetune.lr=0.01"], "out": tmp_path}
    converted = swept(flow, address, ["array.adc_bits=4"], 1, **options)
    trained = swept(flow, address, ["array.adc_bits=4"], 1, trained=True, **options)
    assert trained["points"][0]["mean"] > converted["points"][0]["mean"]


# -- resuming ------------------------------------------------------------------------------------------
def test_an_interrupted_sweep_evaluates_only_the_rest(flow, address, tmp_path):
    whole = swept(flow, address)
    first = Watch(limit=1)
    with pytest.raises(KeyboardInterrupt):
        swept(flow, address, out=tmp_path, listener=first)
    assert len(list((tmp_path / "points").iterdir())) == 1
    assert not (tmp_path / sweep.JSON).exists()
    second, third = Watch(), Watch()
    swept(flow, address, out=tmp_path, listener=second)
    swept(flow, address, out=tmp_path, listener=third)
    assert (second.told, third.told) == ([*range(1, 9)], [8])
    for name in (sweep.JSON, sweep.PICTURE):
        assert (tmp_path / name).read_bytes() == (flow / "sweep" / name).read_bytes()
    assert whole["folder"] == str(flow / "sweep")


def test_points_are_shared_by_sweeps_and_only_where_nothing_changed(flow, address, tmp_path):
    shutil.copytree(flow / "sweep", tmp_path / "s")
    more, other = Watch(), Watch()
    swept(flow, address, ["array.rows=16,64", "array.adc_bits=8"], 3, out=tmp_path / "s", listener=more)
    assert more.evaluated == 2  # the third seed of both
    swept(flow, address, seeds=1, out=tmp_path / "s", listener=other, overrides=[*SMALL, "array.columns=8"])
    assert other.evaluated == 4


def test_a_cut_point_is_evaluated_again(flow, address, tmp_path):
    shutil.copytree(flow / "sweep", tmp_path / "s")
    files = sorted((tmp_path / "s" / "points").iterdir())
    files[0].write_text(files[0].read_text()[:50])
    changed = json.loads(files[1].read_text())
    changed["identity"]["images"] = "others"
    files[1].write_text(json.dumps(changed))
    watch = Watch()
    swept(flow, address, out=tmp_path / "s", listener=watch)
    assert watch.evaluated == 2
    assert (tmp_path / "s" / sweep.JSON).read_bytes() == (flow / "sweep" / sweep.JSON).read_bytes()


@pytest.mark.slow
def test_processes_of_this_machine_give_the_same(flow, tmp_path):
    swept(flow, None, out=tmp_path, workers=1)
    assert (tmp_path / sweep.JSON).read_bytes() == (flow / "sweep" / sweep.JSON).read_bytes()


# -- errors --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("over", "words"),
    [
        (
            ["array.adc_bit=4,5"],
            "override 'array.adc_bit=4': unknown key 'array.adc_bit'; did you mean 'array.adc_bits'",
        ),
        (["array.adc_bits=4,99"], "override 'array.adc_bits=99': array.adc_bits = 99 is not usable"),
        (["array.noise.power_w=1"], "alone makes no noise"),
        (["array.adc_bits"], "write key.sub=value,value"),
        (["array.adc_bits="], "write key.sub=value,value"),
        (["array.adc_bits=[4"], "not a YAML list"),
        (["array.adc_bits=4,4"], "a value is there twice"),
        (["array.rows=4", "array.rows=8"], "name a key twice"),
        (["array.seed=1,2"], "give their number with --seeds"),
        (["train.epochs=1,2"], "varies keys of array and calibrate"),
        ([], "give --over"),
    ],
)
def test_bad_axes_are_named(tmp_path, over, words):
    with pytest.raises(BittrueError, match=".*") as error:
        sweep.run("photonic-mlp-digits", over, 1, 10, flow=tmp_path / "f")
    assert words in str(error.value)
    assert not (tmp_path / "f").exists()


def test_other_systems_and_empty_sweeps_are_refused(flow, tmp_path):
    known = (
        "of the system 'lerp-psa', which has nothing to sweep; take a recipe of the system 'photonic' or 'nern', for"
    )
    with pytest.raises(BittrueError, match=f"recipe lerp-psa-digits is {known} example photonic-mlp-digits"):
        sweep.run("lerp-psa-digits", ["array.rows=4"], 1, 10, flow=tmp_path / "f")
    with pytest.raises(BittrueError, match="0 seeds on 10 images"):
        sweep.run("photonic-mlp-digits", GRID, 0, 10, flow=tmp_path / "f")
    with pytest.raises(BittrueError, match="digits has 450 test images, not 451"):
        sweep.run("photonic-mlp-digits", GRID, 1, 451, overrides=SMALL, flow=flow)


def test_a_point_that_fails_is_named_and_the_others_stay(flow, address, tmp_path, monkeypatch):
    def failing(twin, data, array):
        if array.adc_bits == 8:
            raise BittrueError("the converter is on fire")
        return convert(twin, data, array)

    monkeypatch.setattr("bittrue.models.light.convert.convert", failing)
    with pytest.raises(BittrueError, match="at array.rows=16, array.adc_bits=8, seed 1: the converter is on fire"):
        swept(flow, address, ["array.rows=16", "array.adc_bits=3,8"], 1, out=tmp_path)


def test_a_worker_of_another_version_is_refused(flow, address, tmp_path, monkeypatch):
    task = {}
    monkeypatch.setattr(grid, "Task", lambda *values: task.setdefault("made", _aged(values)))
    with pytest.raises(BittrueError, match="other sources of bittrue"):
        swept(flow, address, ["array.rows=16"], 1, out=tmp_path)


def _aged(values, kind=grid.Task):
    return kind(*values[:-1], "of last year")


def test_a_scheduler_that_is_not_there_is_an_error(flow, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(BittrueError, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        swept(tmp_path / "f", "tcp://127.0.0.1:9", out=tmp_path)
    assert not (tmp_path / "f").exists()  # before the training
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(BittrueError, match="has no worker"),
    ):
        swept(flow, empty.scheduler_address, out=tmp_path)


# -- for people ----------------------------------------------------------------------------------------
def test_the_picture_has_a_line_for_each_choice_and_a_dot_for_each_seed(flow):
    result = json.loads((flow / "sweep" / sweep.JSON).read_text())
    picture = drawn(result)
    ET.fromstring(picture)
    assert picture.count("<circle") == 8
    assert "rows of a tile = 16" in picture
    assert "rows of a tile = 64" in picture
    assert "bits of the ADC  (array.adc_bits)" in picture
    assert "test accuracy, %" in picture
    higher = json.loads(json.dumps(result))
    higher["points"][0]["mean"] += 0.01
    assert drawn(higher) != picture


def test_bars_are_deviations_and_further_axes_make_panels(flow):
    result = json.loads((flow / "sweep" / sweep.JSON).read_text())
    one = drawn(result)
    wider = json.loads(json.dumps(result))
    wider["points"][0]["deviation"] += 0.001
    assert drawn(wider) != one
    alone = json.loads(json.dumps(result))
    for row in alone["points"]:
        row["seeds"], row["deviation"] = row["seeds"][:1], 0.0
    lines = [drawn(each).count("<polyline") for each in (result, alone)]
    assert lines[0] - lines[1] >= 3 * 4  # a bar and its two ends for every point
    assert "dot: a seed" not in drawn(alone)
    more = json.loads(json.dumps(result))
    more["axes"].append({"key": "array.noise.thermal", "values": [0.1, 0.2]})
    more["points"] = [
        row | {"values": row["values"] | {"array.noise.thermal": value}}
        for row in result["points"]
        for value in (0.1, 0.2)
    ]
    picture = drawn(more)
    ET.fromstring(picture)
    assert picture.count("test accuracy, %") == 2
    assert "thermal noise, in full products = 0.2" in picture
    assert picture.count("bits of the ADC  (array.adc_bits)") == 2
    fixed = json.loads(json.dumps(result))
    fixed["axes"].insert(0, {"key": "array.window", "values": ["full"]})
    for row in fixed["points"]:
        row["values"] = {"array.window": "full"} | row["values"]
    picture = drawn(fixed)
    assert "window of the ADC = full" in picture
    assert "bits of the ADC  (array.adc_bits)" in picture  # what does not vary is no axis


def test_the_command(flow, address, capsys):
    words = ["sweep", "photonic-mlp-digits", *SMALL, "--seeds", "2", "--images", str(IMAGES), "--flow", str(flow)]
    words += ["--scheduler", address, *(f"--over={text}" for text in GRID)]
    with contextlib.suppress(SystemExit):
        cli.main([*words, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("folder") == str(flow / "sweep")
    assert printed == json.loads((flow / "sweep" / sweep.JSON).read_text())
    with contextlib.suppress(SystemExit):
        cli.main(words)
    table = capsys.readouterr().out
    assert len(printed["points"]) == 4
    for point in printed["points"]:
        assert f"{100 * point['mean']:.2f} %" in table


def test_a_point_is_named_by_what_decides_it():
    """Points that an earlier sweep kept are found again: the name has to stay."""
    one, other = (grid.Point({}, 1, None, identity) for identity in ({"b": 1, "a": [2]}, {"a": [2], "b": 1}))
    assert one.name == other.name == "41ff4104bc489a1b119b42f4"
    assert grid.Point({}, 1, None, {"a": [2], "b": 2}).name != one.name


@pytest.mark.parametrize(
    ("keys", "heads"),
    [
        (["array.rows", "array.noise.thermal"], ["rows", "thermal"]),
        (["array.seed", "calibrate.seed"], ["array.seed", "calibrate.seed"]),
    ],
)
def test_columns_have_short_names_where_these_differ(keys, heads, monkeypatch, capsys):
    row = {"values": dict.fromkeys(keys, 1), "seeds": [1], "mean": 0.5, "deviation": 0.0, "lowest": 0.5, "highest": 0.5}
    found = {"axes": [{"key": key} for key in keys], "points": [row], "recipe": "r", "images": 5, "folder": "here"}
    found |= {"reference": "float"}
    asked = {}
    monkeypatch.setattr(sweep, "run", lambda *_, **told: asked.update(told) or found | {"accuracy_float": 0.9})
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", "photonic-mlp-digits", "--over", f"{keys[0]}=1"])
    out = capsys.readouterr().out
    assert not stop.value.code
    line = next(line for line in out.splitlines() if "deviation" in line)
    assert list(asked["overrides"]) == []  # none are given
    assert [word for word in line.replace("│", " ").replace("┃", " ").split() if word != "seeds"][:2] == heads


@pytest.mark.parametrize(("seeds", "deviation"), [(1, "–"), (2, "1.25 %"), (3, "1.25 %")])
def test_every_column_of_the_table_has_its_figure(seeds, deviation, monkeypatch, capsys):
    """One seed has no deviation."""
    figures = {"mean": 0.5, "deviation": 0.0125, "lowest": 0.25, "highest": 0.75}
    row = {"values": {"array.rows": 7}, "seeds": [{}] * seeds} | figures
    found = {"axes": [{"key": "array.rows"}], "points": [row], "recipe": "r", "images": 1234, "folder": "here"}
    found |= {"reference": "float"}
    monkeypatch.setattr(sweep, "run", lambda *_, **__: found | {"accuracy_float": 0.875})
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main(["sweep", "photonic-mlp-digits", "--over", "array.rows=7"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"7 {seeds} 50.00 % {deviation} 25.00 % 75.00 %" in lines
    assert "Accuracy of r on 1,234 test images" in lines
    assert "float: 87.50 %" in lines
    assert "here/sweep.json and sweep.svg" in lines


def test_points_are_evaluated_on_one_thread(flow, address, tmp_path, monkeypatch):
    """Sums in floating point depend on their number; and processes share the cores."""
    torch, seen = pytest.importorskip("torch"), []

    def watched(*given):
        seen.append(torch.get_num_threads())
        return convert(*given)

    monkeypatch.setattr("bittrue.models.light.convert.convert", watched)
    swept(flow, address, ["array.rows=16"], 1, out=tmp_path)
    assert seen == [1]


@pytest.mark.parametrize(("array", "calibrate"), [(40, 30), (30, 40)])
def test_without_training_as_many_training_images_are_kept_as_any_point_looks_at(array, calibrate, flow):
    changes = [f"array.images={array}", f"calibrate.images={calibrate}"]
    base = recipe.load("photonic-mlp-digits", [*SMALL, *changes])
    shared = sweep._shared(Conversions(), base, flow / "train", [base], 10, trained=False)
    assert (len(shared.data.train), len(shared.data.val), len(shared.data.test)) == (40, 0, 10)
