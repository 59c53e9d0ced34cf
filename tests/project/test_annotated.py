"""Functions give back what their annotations say, over what everything is made of: see `tests.helpers.annotated`."""

import sys
import types
from functools import cached_property

import pytest

from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.light.design import PhotonicDesign
from bittrue.rtl.light.jobs import Geometry
from bittrue.sim.conformance import make
from tests.helpers.annotated import watched
from tests.helpers.photonic_programs import photonic_network
from tests.helpers.programs import resmlp, spiking
from tests.helpers.stages import OPERATIONS, planned

DESIGNS = {
    "pipeline": lambda: PipelineDesign(plan(resmlp(tokens=2, channels=4, features=4, hidden=4))),
    "spikes": lambda: PipelineDesign(plan(spiking(shape=(3, 4), halving=False, steps=2, seed=11))),
    "light": lambda: PhotonicDesign(photonic_network(noise=True), Geometry(4, 4, 2)),
}


def ask(thing: object) -> None:
    """Every property."""
    for name, member in ((name, getattr(type(thing), name)) for name in dir(type(thing))):
        if not name.startswith("__") and isinstance(member, property | cached_property):
            getattr(thing, name)


def test_a_value_of_another_type_is_seen(monkeypatch):
    odd = types.ModuleType("bittrue.sim.odd")
    exec(
        "def number() -> int: return 1.5\n"
        "def flag() -> int: return True\n"
        "def row() -> tuple[int, ...]: return [1]\n"
        "def nothing() -> str | None: return None\n"
        "def raises() -> int: raise KeyError\n"
        "def whole() -> float: return 1\n",
        vars(odd),
    )
    monkeypatch.setitem(sys.modules, odd.__name__, odd)
    with watched("bittrue.sim") as wrong:
        for name in ("number", "flag", "row", "nothing", "whole"):
            getattr(odd, name)()
        with pytest.raises(KeyError):
            odd.raises()
    assert [name.rpartition(".")[2] for name in wrong] == ["number", "flag", "row"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_stages(name):
    with watched("bittrue.sim", "bittrue.rtl") as wrong:
        ask(make(name, 1)[0])
        made, _ = planned(name, 1)
        ask(made)
        for element in made.network.elements:
            ask(element.stage)
            ask(element.stage.timing)
            element.stage.structure()
    assert wrong == {}


@pytest.mark.parametrize("name", DESIGNS)
def test_designs(name):
    with watched("bittrue.sim", "bittrue.rtl") as wrong:
        design = DESIGNS[name]()
        ask(design)
        design.describe()
        design.to_json()
    assert wrong == {}
