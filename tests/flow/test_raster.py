"""Rasters: golden and RTL spikes are equal, bit by bit; a difference is found, named, red, and status 1."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bittrue.flow.cli import main as cli
from bittrue.flow.report.figures import BAD
from bittrue.flow.systems.fs import raster
from bittrue.flow.systems.fs.raster import Raster
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from tests.helpers.lengths import long_but
from tests.helpers.programs import resmlp, spiking, stimulus
from tests.helpers.spiking import silent

PROGRAM = spiking(shape=(3, 4), halving=False, steps=5, seed=11)
X = stimulus(PROGRAM, 5, 2)


def test_golden_rasters_are_the_spike_trains():
    found = raster.of_program(PROGRAM, X, 3)
    tensors = PROGRAM.trace(*(v[3:4] for v in X)).tensors
    assert [r.name for r in found] == ["encode", "block.fire", "fire"]
    for r in found:
        assert np.array_equal(r.golden, tensors[r.name][0])
        assert r.golden.shape == tensors[r.name][0].shape
    assert raster.problems(found) == []


@pytest.mark.parametrize("image", [-1, 5])
def test_an_image_that_does_not_exist(image):
    with pytest.raises(BittrueError, match=rf"no image {image}; the inputs hold images 0 to 4"):
        raster.of_program(PROGRAM, X, image)


def test_a_program_without_spikes():
    program = resmlp()
    with pytest.raises(BittrueError, match="no spike trains"):
        raster.of_program(program, stimulus(program, 2, 0))


@pytest.mark.needs("verilator", "g++")
class TestRtl:
    @pytest.mark.long
    @pytest.mark.parametrize("architecture", long_but(["parallel", "events"], "events"))
    def test_equal_in_both(self, architecture, tmp_path):
        planned = plan(PROGRAM, interval=600, architecture=architecture)
        verilog = emit(planned)
        piped = raster.of_rtl(planned, verilog, X, 4)
        waves = tmp_path / "w.vcd"
        stored = raster.of_rtl(planned, verilog, X, 4, waves)
        assert "$enddefinitions" in waves.read_text()
        for golden, *both in zip(raster.of_program(PROGRAM, X, 4), piped, stored, strict=True):
            for r in both:
                assert np.array_equal(r.rtl, golden.golden)
                assert not r.missing.any()

    def test_a_wrong_threshold_is_red_and_status_1(self, tmp_path, capsys):
        """Outputs are equal whatever these neurons do, so nothing but the raster can show it."""
        right, wrong = silent(64), silent(40)
        x = np.full((2, 2, 6), 50, np.int8)
        x[:, 0, 1:] = 10
        right.save(tmp_path / "p.npz")
        np.save(tmp_path / "x.npy", x)
        (tmp_path / "wrong.v").write_text(emit(plan(wrong)))
        (tmp_path / "right.v").write_text(emit(plan(right)))
        words = ["raster", str(tmp_path / "p.npz"), str(tmp_path / "x.npy"), "--rtl", "--image", "1", "--json"]
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, "--out", str(tmp_path / "r.svg"), "--verilog", str(tmp_path / "wrong.v")])
        assert stop.value.code == 1
        said = json.loads(capsys.readouterr().out)
        expected = wrong.trace(x[1:2]).tensors["fire"] != right.trace(x[1:2]).tensors["fire"]
        token, step, neuron = np.argwhere(expected[0])[0]
        assert said["problems"] == [
            f"fire: {expected.sum()} of 36 spikes differ in the RTL, first neuron {neuron}, step {step}, token {token}"
        ]
        assert f'fill="{BAD}" fill-opacity' in (tmp_path / "r.svg").read_text()
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, "--out", str(tmp_path / "r.svg"), "--verilog", str(tmp_path / "right.v")])
        assert stop.value.code == 0
        assert f'fill="{BAD}" fill-opacity' not in (tmp_path / "r.svg").read_text()


@pytest.mark.parametrize("asked", [[], ["--rtl"], ["--waves", "w.vcd"], ["--verilog", "p.v"]])
def test_what_asks_for_the_rtl(asked, tmp_path, capsys, monkeypatch):
    """Each of three options alone; what the RTL is asked for is the image and the waveform that were given."""
    made = []

    def of_rtl(planned, text, x, image, waves):
        made.append((planned.program.sha256, text, len(x), image, waves and waves.name))
        return [
            Raster(r.name, r.kind, r.golden, r.golden, ~r.golden & False) for r in raster.of_program(PROGRAM, x, image)
        ]

    monkeypatch.setattr(raster, "of_rtl", of_rtl)
    monkeypatch.chdir(tmp_path)
    PROGRAM.save(tmp_path / "p.npz")
    np.save(tmp_path / "x.npy", X[0])
    (tmp_path / "p.v").write_text("// mine\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["raster", "p.npz", "x.npy", "--out", "r.svg", "--image", "2", *asked])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "picture in r.svg" in said
    assert ("waveform in w.vcd" in said) == ("--waves" in asked)
    assert len(made) == bool(asked)
    if asked:
        ((program, text, inputs, image, waves),) = made
        assert (program, inputs, image, waves) == (PROGRAM.sha256, 1, 2, "w.vcd" if "--waves" in asked else None)
        assert (text == "// mine\n") == ("--verilog" in asked)
        assert text == "// mine\n" or "bittrue_top" in text


class TestPicture:
    rng = np.random.default_rng(0)
    golden = rng.random((30, 4, 7)) < 0.3

    def test_json_keeps_every_spike(self):
        rtl, missing = self.golden.copy(), np.zeros_like(self.golden)
        rtl[3, 2, 1] ^= True
        missing[5, 0, 0] = True
        back = Raster.from_json(json.loads(json.dumps(Raster("a", "fsneuron", self.golden, rtl, missing).to_json())))
        assert np.array_equal(back.golden, self.golden)
        assert np.array_equal(back.rtl, rtl)
        assert np.argwhere(back.differs).tolist() == [[3, 2, 1], [5, 0, 0]]

    def test_one_bar_a_spike_and_tokens_that_differ_are_drawn(self):
        none = np.zeros_like(self.golden)
        rtl = self.golden.copy()
        rtl[29, 2, 1] ^= True
        r = Raster("a", "fsneuron", self.golden, rtl, none)
        shown = raster.drawn(r)
        assert shown == [*range(raster.TOKENS - 1), 29]
        picture = ET.fromstring(raster.layer(r))
        paths = [p for p in picture.iter() if p.tag.endswith("path")]
        bars = sum(p.get("d").count("M") for p in paths if p.get("fill") != BAD)
        assert bars == 2 * (self.golden[shown].sum() - self.golden[29, 2, 1])
        red = [(p.get("d").count("M"), p.get("fill-opacity")) for p in paths if p.get("fill") == BAD]
        assert sorted(red) == [(1, "0.3"), (1, "1")]  # a spike on one side, and its place on the other

    def test_a_page_of_several_layers_is_well_formed(self):
        layers = [Raster("a<b", "encode", self.golden), Raster("c", "lif", self.golden[:1])]
        page = ET.fromstring(raster.page(layers, "t&t"))
        words = " ".join("".join(e.itertext()) for e in page.iter() if e.tag.endswith("text"))
        spikes, first = int(self.golden.sum()), int(self.golden[0].sum())
        told = f"{spikes} spikes, {spikes / 210:.2f} a neuron, {spikes / 8.4:.1f} %; {raster.TOKENS} of 30 tokens drawn"
        alone = f"{first} spikes, {first / 7:.2f} a neuron, {first / 0.28:.1f} %"
        for shown in ("t&t", "a<b (encode)", "c (lif)", told, alone):
            assert shown in words
        assert words.count("tokens drawn") == 1
        places = {e.text: float(e.get("y")) for e in page.iter() if e.tag.endswith("text")}
        first = float(ET.fromstring(raster.layer(layers[0])).get("viewBox").split()[3])
        assert (places["t&t"], places["a<b (encode)"]) == (16, 30 + 13)
        assert places["c (lif)"] == 30 + first + 14 + 13
        bars = sum(p.get("d").count("M") for p in page.iter() if p.tag.endswith("path"))
        assert bars == self.golden[raster.drawn(layers[0])].sum() + self.golden[0].sum()

    @pytest.mark.parametrize(("tokens", "both"), [(30, True), (1, True), (3, False)])
    def test_where_everything_is_drawn(self, tokens, both):
        """Texts in lines of their own, panels below them, and every bar where its neuron and its step are."""
        golden = self.golden[:tokens]
        r = Raster("a", "lif", golden, *((golden, np.zeros_like(golden)) if both else ()))
        width = 900
        picture = ET.fromstring(raster.layer(r, width))
        height = float(picture.get("viewBox").split()[3])
        texts = [(e.text, float(e.get("x")), float(e.get("y"))) for e in picture.iter() if e.tag.endswith("text")]
        rects = [
            [float(e.get(key)) for key in ("x", "y", "width", "height")]
            for e in picture.iter()
            if e.tag.endswith("rect")
        ]
        shown = raster.drawn(r)
        lines = {y for _, _, y in texts}
        assert {y for words, _, y in texts if words.startswith("a (lif)") or "spikes" in words} == {13}
        assert {y for words, _, y in texts if words in ("golden", "RTL", "equal")} == {30}
        assert [words for words, *_ in texts if words in ("golden", "RTL", "equal")] == ["golden", "RTL", "equal"][
            : 1 + 2 * both
        ]
        assert len(rects) == len(shown) * (1 + both)
        tops, bottoms = {y for _, y, _, _ in rects}, {round(y + h, 6) for _, y, _, h in rects}
        assert tops == {36}
        (bottom,) = bottoms
        assert lines == {13, 30, bottom, 44, bottom + 11}
        assert height == bottom + 16
        assert {words for words, _, y in texts if y == bottom} == {"0"}
        assert {words for words, _, y in texts if y == 44} == {"6"}
        below = [words for words, _, y in texts if y == bottom + 11]
        first = [str(token) if k else f"token {token}" for k, token in enumerate(shown)]
        assert below == (first if tokens > 1 else ["time step 0 to 3"]) * (1 + both)
        for k, ((x, _, w, _), (after, *_)) in enumerate(
            zip(rects[: len(shown)], rects[1 : len(shown)] + [[width]], strict=True)
        ):
            assert x + w <= after, k
        assert all(x + w <= width for x, _, w, _ in rects)
        assert rects[0][0] == 34
        half = (width - 2 * 34 - 40) / 2 if both else width - 34  # of two panels, each with its labels, 40 between them
        assert rects[len(shown) :] == [] or rects[len(shown)][0] == 34 + half + 40 + 34
        assert rects[0][2] == pytest.approx(4 * min(40, (half - 5 * (len(shown) - 1)) / (4 * len(shown))), abs=0.01)
        paths = [p.get("d") for p in picture.iter() if p.tag.endswith("path") and p.get("d")]
        (x, y, w, h), (across, down) = rects[0], bars(paths[0])
        steps, neurons = np.nonzero(golden[shown[0]])
        assert np.allclose(across, x + steps * w / 4, atol=0.01)
        assert np.allclose(down, y + h - (neurons + 1) * h / 7, atol=0.01)


def bars(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the bars of a path begin."""
    found = np.array([[float(v) for v in start] for start in re.findall(r"M([-\d.]+)[ ,]([-\d.]+)", path)])
    return found[:, 0], found[:, 1]
