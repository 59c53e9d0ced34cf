"""The step `boot`: what it reads, plans, verifies and tells; its energies, and the pictures of generated kernels."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bittrue.flow.engine import recipe as recipes
from bittrue.flow.stages import write_design
from bittrue.flow.systems.nern import booted, energy, figures
from bittrue.flow.systems.nern.section import Generated
from bittrue.rtl.boot.design import BootDesign
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.reading import sealed
from tests.helpers.booted import GENERATOR, NETWORK, system
from tests.helpers.sets import codes

IMAGES = 6


@pytest.fixture
def recipe():
    """One that runs nothing that has to be compiled."""
    changes = ("booted.compiled=0", "booted.gxx=0", "booted.reference=4", "booted.interval=300", "boot.interval=60")
    return recipes.load("nern-resnet8-fashion-mnist", list(changes))


@pytest.fixture
def lowered(tmp_path):
    """A small system as `lower` leaves it, and itself."""
    s = system(6, 1, ((2, 1), (2, 2)), side=3)
    folder = tmp_path / "lower"
    folder.mkdir()
    network = s.programs[NETWORK]
    program = network.bind(s.booted(NETWORK))
    s.programs[GENERATOR].save(folder / "generator.npz")
    network.save(folder / "accelerator.npz")
    program.save(folder / "program.npz")
    (x,) = codes(program, IMAGES, np.random.default_rng(0))
    for name, array in (
        ("places", s.links[0].places),
        ("coordinates", s.boots[GENERATOR][0]),
        ("inputs", x),
        ("labels", program(x).reshape(IMAGES, -1).argmax(1)),
    ):
        np.save(folder / f"{name}.npy", array)
    write_whole(folder / "boot.json", sealed({"held": list(s.links[0].names)}))
    return folder, s


def work(tmp_path, folder) -> SimpleNamespace:
    for name in ("rtl", "boot.part", "scratch"):
        (tmp_path / name).mkdir(exist_ok=True)
    upstream = {"lower": folder, "rtl": tmp_path / "rtl"}
    return SimpleNamespace(
        folder=tmp_path / "boot.part", scratch=tmp_path / "scratch", upstream=upstream, progress=lambda *_: None
    )


def test_what_lower_left_is_read(lowered):
    folder, s = lowered
    found = booted.read(folder)
    assert found.checksum(found.links[0], found.boot(GENERATOR)) == s.checksum(s.links[0], s.boot(GENERATOR))
    assert not found.links[0].partial
    expected = s.booted(NETWORK)
    assert {name: v.tolist() for name, v in found.booted(NETWORK).items()} == {
        name: v.tolist() for name, v in expected.items()
    }
    where = s.links[0].places.copy()
    where[0, 0] = -1
    np.save(folder / "places.npy", where)
    assert booted.read(folder).links[0].partial
    (folder / "boot.json").unlink()
    with pytest.raises(BittrueError, match="holds no complete boot .*; run the flow from quantize on"):
        booted.read(folder)


@pytest.mark.parametrize("banks", [1, 2])
def test_it_is_planned_verified_and_told(lowered, recipe, tmp_path, banks):
    """Read back from the step `rtl`; the program of the flow, whose weights are constants, is that of the boot."""
    folder, s = lowered
    recipe = recipe.model_copy(update={"booted": recipe.booted.model_copy(update={"banks": banks})})
    made = booted.design(recipe, booted.read(folder))
    assert (made.banks, made.interval <= 300, made.generator.estimated_interval <= 60) == (banks, True, True)
    place = work(tmp_path, folder)
    write_design(made, place.upstream["rtl"], name="boot")
    found = booted.run(recipe, place)
    assert found["problems"] == []
    assert (found["golden"]["images"], found["golden"]["mismatches"]) == (4, 0)
    assert (found["cycles"], found["checksum"], found["banks"]) == (made.boot_cycles, made.checksum, banks)
    assert found["place_bits"] == 2 * 1 + 4 * 2
    assert found["estimated"]["bram"] == made.estimate.bram
    pj = found["energy"]["boot"]["pj"]["total"]
    assert pj > found["energy"]["inference"] > 0
    assert found["beside"] == json.loads(json.dumps(energy.beside(pj, 8 * 54)))
    told = {"generated": None, "generator": None, "boot": found}
    section = Generated()
    assert section.collect({"quantize": {"generated": {"layers": []}}, "boot": found})["boot"] is found
    assert (section.rows(told), section.skipped(told)) == (found["rows"], [])
    ((_, cycles, _),) = section.tiles(told)
    assert cycles == f"{made.boot_cycles:,}"


def test_without_an_interval_it_is_fitted(lowered, recipe, monkeypatch):
    asked = []
    monkeypatch.setattr("bittrue.rtl.boot.fit.fit", lambda *given, **_: asked.append(given) or "fitted")
    free = recipe.model_copy(update={"booted": recipe.booted.model_copy(update={"interval": None})})
    assert booted.design(free, lowered[1]) == "fitted"
    ((_, generator, device, banks),) = asked
    assert (generator.estimated_interval <= 60, device, banks) == (True, "ecp5-85k", 1)
    none = free.model_copy(update={"rtl": free.rtl.model_copy(update={"device": None})})
    assert isinstance(booted.design(none, lowered[1]), BootDesign)
    assert len(asked) == 1


def test_energies_by_hand():
    rows = {row["memory"]: row for row in energy.beside(1e9, 8 * 73_872)}
    assert rows["DRAM, least"]["once"] == pytest.approx(590_976 * 20.3125)
    assert rows["DRAM, most"]["once"] == pytest.approx(590_976 * 40.625)
    assert rows["serial flash"]["pj"] == pytest.approx(183.33, abs=0.01)  # 66 mW over 360 Mbit/s
    assert [row["inferences"] for row in rows.values()] == [84, 42, 10]
    for row in rows.values():
        assert row["times"] == pytest.approx(1e9 / row["once"])
        assert row["inferences"] == math.ceil(row["times"])
    assert energy.beside(1.0, 1000)[0]["inferences"] == 1


ROWS = [
    {
        "path": "conv1", "filters": 2, "channels": 1, "side": 3, "original": [[0.5, *[0.0] * 8], [-1.0, *[0.25] * 8]],
        "generated": [[0.5, *[0.0] * 8], [-0.5, *[0.25] * 8]], "along": 0.75, "plain": -0.25, "tour": [1, 0],
        "errors": [0] * 12 + [17] + [0] * 11 + [1], "rms": 0.1,
    },
    {
        "path": "conv2", "filters": 2, "channels": 1, "side": 1, "original": [[1.0], [0.0]],
        "generated": [[1.0], [0.0]], "along": 1.0, "plain": 1.0, "tour": None, "errors": [0] * 12 + [2] + [0] * 12,
        "rms": 0.0,
    },
]  # fmt: skip


class TestPictures:
    def test_kernels(self):
        """A square for every weight of both, as strong as it is; a negative one is red."""
        drawn = figures.kernels(ROWS)
        assert drawn.count("<g fill-opacity") == 2 * (18 + 2)
        assert drawn.count('<g fill-opacity="1.00"><rect') == 1 + 2  # -1 of conv1, 1 in both rows of conv2
        red = drawn.count(figures.BAD)
        nothing = figures.kernels([ROWS[1] | {"original": [[0.0]], "generated": [[0.0]]}])
        assert red - 2 * 8 - 2 == 2  # all of exactly 0 are as faint as can be, whatever their colour; -1 and -0.5
        assert 'fill-opacity="0.00"' in nothing

    def test_neighbours_tours_errors(self):
        drawn = figures.neighbours(ROWS)
        assert all(number in drawn for number in ("0.750", "-0.250", "1.000"))
        tours = figures.tours(ROWS)
        assert tours.count("<polyline") == 1
        assert "conv2" not in tours
        (points,) = (part.split('"')[1] for part in tours.split("<polyline ")[1:])
        first, second = (tuple(map(float, point.split(","))) for point in points.split())
        assert first[1] > second[1]  # from the second filter to the first
        errors = figures.errors(ROWS)
        assert errors.count("<rect") == 2 * 25
        assert "rms 0.1000" in errors
        assert figures.tours([ROWS[1]]).startswith("<svg")


def test_the_page(recipe, lowered, tmp_path):
    """Bytes, cycles and what does not pay, in words."""
    folder, _ = lowered
    place = work(tmp_path, folder)
    write_design(booted.design(recipe, booted.read(folder)), place.upstream["rtl"], name="boot")
    found = booted.run(recipe, place)
    section = Generated()
    generated = {
        "bytes": {"weights": 1, "biases": 2}, "target": 54, "share": 0.5, "kernels": 6, "macs": 9, "layers": [],
    }  # fmt: skip
    content = section.collect({"quantize": {"generated": generated, "pictures": ROWS}, "boot": found})
    own = section.context(content)
    environment = Environment(undefined=StrictUndefined, autoescape=True)  # as the report's
    environment.filters |= {"n": "{:,}".format, "percent": lambda share: f"{100 * share:.2f} %"}
    page = environment.from_string(section.template.read_text()).render(
        {name: (lambda *rows, f=value: Markup(f(*rows))) if callable(value) else value for name, value in own.items()}
    )
    assert f"{found['cycles']:,} cycles" in page
    assert f"{found['checksum']:08x}" in page
    assert page.count("<svg") == 4
    assert "&lt;" not in page
    for row in found["beside"]:
        assert f"has paid after {row['inferences']:,} image" in page
    assert ("does not pay" in page) == any(row["times"] >= 1 for row in found["beside"])
