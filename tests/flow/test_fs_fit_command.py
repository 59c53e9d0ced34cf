"""The command `bittrue fit`: the set that it writes, its picture, what it tells people, bad wishes in one sentence."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.systems.fs import fit as fits
from bittrue.models.fs import kernels as fs_kernels
from bittrue.models.fs import sets as fs_sets
from bittrue.models.fs.fit import FitSettings
from bittrue.models.fs.sets import PUBLISHED, NeuronSet
from bittrue.models.fs.target import target


@pytest.mark.long
def test_the_command_writes_a_set_that_is_found_and_a_picture(run, tmp_path):
    out = tmp_path / "mine.json"
    words = ("tanh", "--steps", 8, "--range", -4, 4, "--bits", 8, "--restarts", 3, "--tries", 200)
    status, text, _ = run("fit", *words, "--out", out, "--json")
    assert status == 0
    result = json.loads(text)
    made = fs_sets.find(out)
    assert isinstance(made, NeuronSet)
    assert (made.name, made.function, made.steps, made.low, made.high) == ("mine", "tanh", 8, -4, 4)
    assert made.fit["mse"] == result["mse"] < 0.01
    picture = (tmp_path / "mine.svg").read_text()
    assert picture.startswith("<svg")
    for title in ("error", "spikes", "parameters of each step"):
        assert title in picture
    repeated = made.fit["command"].split()[1:]
    status, _, _ = run(*repeated[:-1], tmp_path / "again.json")
    assert status == 0
    assert fs_sets.find(tmp_path / "again.json").h.tobytes() == made.h.tobytes()


def test_people_are_told_the_published_figure_and_the_time(run, tmp_path):
    out = tmp_path / "s.json"
    status, text, _ = run("fit", "silu", "--restarts", 3, "--tries", 200, "--importance", "0,1.5", "--out", out)
    assert status == 0
    assert "3.4459e-03" in text
    assert re.search(r"[\d.]+ s; set in", text)
    assert "seed" in text
    assert fs_sets.find(out).fit["importance"] == [0, 1.5]


def test_the_raster_shows_every_spike():
    """Each bar read back: the inputs that fire lie below it, at their step, in the middle of the step's row."""
    published = PUBLISHED["sigmoid"]
    drawn = fits.draw(published, target("sigmoid"))
    x = fs_kernels.grid(-10, 10, 2 * (fits.WIDTH - fits.LEFT - fits.RIGHT) + 1)
    spikes = fs_kernels.respond(published, x).spikes.astype(int)
    pattern = r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" rx="0" fill="([^"]+)" stroke="([^"]+)"'
    rects = [([float(v) for v in found[:4]], *found[4:]) for found in re.findall(pattern, drawn)]
    (panel,) = [box for box, *_ in rects if box[3] == fits.PANELS[2]]
    pixel, row = panel[2] / len(x), panel[3] / published.steps
    seen = np.zeros_like(spikes)
    for (left, top, width, height), fill, stroke in rects:
        if (fill, stroke) == (fits.INK, "none"):
            step = int((top - panel[1]) / row)
            assert top + height / 2 == pytest.approx(panel[1] + (step + 0.5) * row, abs=0.02)
            assert 0.75 * row < height < row
            first, end = (round((at - panel[0]) / pixel) for at in (left, left + width))
            assert not seen[first:end, step].any()
            seen[first:end, step] = 1
    np.testing.assert_array_equal(seen, spikes)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("swoosh",), "no function is named 'swoosh'"),
        (("gelu", "--range", 3, -3), "the lower one first"),
        (("gelu", "--importance", "often"), "expected 'uniform', or MEAN,SIGMA"),
        (("gelu", "--importance", "0,-1"), "a positive standard deviation"),
        (("log",), "choose a range on which it is finite"),
    ],
)
def test_bad_wishes_cost_one_sentence_and_no_file(words, sentence, run, tmp_path):
    out = tmp_path / "x.json"
    status, _, err = run("fit", *words, "--out", out)
    assert status == 1
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(run):
    status, out, _ = run("fit", "--help")
    assert status == 0
    assert "Examples" in out


def test_where_everything_in_the_picture_is():
    """Four panels below each other; curves, bars and labels where the values say, in pixels worked out anew."""
    made = PUBLISHED["sigmoid"]
    picture = ET.fromstring(fits.draw(made, target("sigmoid")))
    named = lambda kind: [e for e in picture.iter() if e.tag.endswith(kind)]  # noqa: E731
    number = lambda e, *keys: [float(e.get(key)) for key in keys]  # noqa: E731
    frames = [number(e, "x", "y", "width", "height") for e in named("rect") if e.get("stroke") != "none"]
    inner, tops = 860 - 58 - 18, [30, 292, 464, 666]
    assert frames == [[58, top, inner, height] for top, height in zip(tops, (210, 120, 150, 170), strict=True)]
    assert picture.get("viewBox") == "0 0 860 872"
    texts = [(e.text, *number(e, "x", "y"), e.get("text-anchor")) for e in named("text")]
    assert [(x, y) for words, x, y, _ in texts if len(words) > 12] == [(58, top - 9) for top in tops]
    x = fs_kernels.grid(-10, 10, 2 * inner + 1)
    found, y = fs_kernels.respond(made, x), target("sigmoid")(x)
    lines = [np.array([p.split(",") for p in e.get("points").split()], float) for e in named("polyline")]
    curves, zeros = [one for one in lines if len(one) > 2], [one for one in lines if len(one) == 2]
    for one in lines:
        assert (one[0, 0], one[-1, 0]) == (58, 842)
    error = found.values - y
    for shapes, values, (top, height) in (
        (curves[:2], [y, found.values], (30, 210)),
        (curves[2:], [error], (292, 120)),
    ):
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        places = [top + height - 6 - (v - low) / (high - low) * (height - 12) for v in (*values, low, high, 0)]
        for shape, value in zip(shapes, places[:-3], strict=True):
            assert np.abs(shape[:, 1] - value).max() < 0.06
        labels = [(words, at) for words, x, at, anchor in texts if anchor == "end" and top <= at <= top + height + 4]
        at = places[-3:-1]
        assert labels == [(f"{v:.3g}", pytest.approx(p + 4, abs=0.01)) for v, p in zip((low, high), at, strict=True)]
        if low < 0 < high:
            assert np.abs(zeros.pop(0)[:, 1] - places[-1]).max() < 0.06
    wide = {len(e.get("points").split()) > 2: float(e.get("stroke-width")) for e in named("polyline")}
    assert wide[False] < wide[True]  # what marks zero stays behind the curves
    row = 150 / made.steps
    bars = [number(e, "x", "y", "width", "height") for e in named("rect") if e.get("fill") == fits.INK]
    fired = np.zeros_like(found.spikes, dtype=bool)
    for left, top, width, height in bars:
        t, first, last = (
            round((top - 464 - 0.8) / row),
            (left - 58) / inner * len(x),
            (left + width - 58) / inner * len(x),
        )
        assert height == pytest.approx(row - 1.6, abs=0.01)
        fired[round(first) : round(last), t] = True
    assert np.array_equal(fired, found.spikes.astype(bool))
    steps = [(words, at) for words, x, at, anchor in texts if anchor == "end" and 464 <= at <= 614]
    assert steps == [(str(t), pytest.approx(464 + (t + 0.5) * row + 4, abs=0.01)) for t in (0, made.steps - 1)]
    values = {fits.WARM: made.T, fits.ACCENT: made.h, fits.GOOD: made.d}
    low, high = min(0, *(v.min() for v in values.values())), max(0, *(v.max() for v in values.values()))
    place = lambda v: 666 + 170 - 6 - (v - low) / (high - low) * 158  # noqa: E731
    assert np.abs(zeros.pop()[:, 1] - place(0)).max() < 0.06
    assert zeros == []
    pitch = inner / made.steps
    for number_of, (colour, of) in enumerate(values.items()):
        drawn = [number(e, "x", "y", "width", "height") for e in named("rect") if e.get("fill") == colour]
        for t, (v, (left, upper, width, height)) in enumerate(zip(of.tolist(), drawn, strict=True)):
            assert left == pytest.approx(58 + (t + 0.14 + 0.24 * number_of) * pitch, abs=0.01)
            assert width == pytest.approx(0.22 * pitch, abs=0.01)
            assert upper == pytest.approx(min(place(v), place(0)), abs=0.01)
            assert height == pytest.approx(max(abs(place(v) - place(0)), 0.6), abs=0.01)
    ends = [(words, at) for words, x, at, anchor in texts if anchor == "end" and at > 660]
    assert ends == [(f"{v:.3g}", pytest.approx(place(v) + 4, abs=0.01)) for v in (low, high)]
    middle = [(words, x, at) for words, x, at, anchor in texts if anchor == "middle"]
    assert middle[-made.steps :] == [
        (str(t), pytest.approx(58 + (t + 0.5) * pitch, abs=0.01), 852) for t in range(made.steps)
    ]
    for k, (below, axis) in enumerate(zip((240, 412, 614), np.array_split(np.arange(18), 3), strict=True)):
        wanted = [
            (f"{v:.3g}", pytest.approx(58 + (v + 10) / 20 * inner, abs=0.01), below + 16)
            for v in np.linspace(-10, 10, 6)
        ]
        assert [middle[j] for j in axis] == wanted, k


def test_the_command_that_makes_the_same_set():
    asked = FitSettings(steps=5, low=-8.0, high=12.5, bits=8, importance=(0.0, 1.5), spike_cost=0.25, seed=3)
    begin = "bittrue fit sigmoid --steps 5 --range -8 12.5"
    end = f"--spike-cost 0.25 --restarts {asked.restarts} --tries {asked.tries} --seed 3 --out 'my set.json'"
    assert fits.command(target("sigmoid"), asked, "my set.json") == f"{begin} --bits 8 --importance 0,1.5 {end}"
    plain = replace(asked, bits=None, importance=None)
    assert fits.command(target("sigmoid"), plain, "my set.json") == f"{begin} {end}"


@pytest.mark.parametrize("value", [0.0, -3.5])
def test_one_value_alone_lies_at_the_bottom(value):
    low, high, place = fits._scale([np.full(3, value), np.full(2, value)], 10.0, 100.0)
    assert (low, high, place(value)) == (value, value, 10 + 100 - 6)
