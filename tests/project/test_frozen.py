"""What is handed about cannot be changed behind its owner's back: every dataclass is frozen but those that collect."""

import dataclasses
import importlib
import pkgutil

import pytest

import bittrue

#: What is filled while something is built or measured.
FILLED = {
    "bittrue.rtl.dataflow.structure.Structure",
    "bittrue.rtl.dataflow.effort.Effort",
    "bittrue.rtl.dataflow.network.Element",
    "bittrue.flow.verify.verify.Verification",
}
#: What is filled, and what holds functions of arrays and no array.
COMPARED = {
    "bittrue.flow.verify.verify.Verification",
    "bittrue.sim.execution.Action",
    "bittrue.sim.kernels.channel_tiles.Kind",
}


def declared(package: str) -> list[type]:
    """The dataclasses of a package's modules, those without an import that is optional."""
    found = []
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        parts = module.name.split(".")
        if parts[-1].startswith(("test_", "conftest", "__main__")) or "bench" in parts[-1]:
            continue
        loaded = vars(importlib.import_module(module.name)).values()
        found += [c for c in loaded if dataclasses.is_dataclass(c) and getattr(c, "__module__", "") == module.name]
    return found


@pytest.mark.parametrize("package", ["bittrue.sim", "bittrue.rtl", "bittrue.flow"])
def test_dataclasses_are_frozen(package):
    assert bittrue
    kinds = [c for c in declared(package) if isinstance(c, type)]
    assert len(kinds) > 15
    open_ones = {f"{c.__module__}.{c.__qualname__}" for c in kinds if not c.__dataclass_params__.frozen}
    assert open_ones == {name for name in FILLED if name.startswith(package + ".")}


@pytest.mark.parametrize("package", ["bittrue.sim", "bittrue.rtl", "bittrue.flow"])
def test_what_holds_arrays_is_equal_to_itself_alone(package):
    """Arrays have no truth, and no hash: such a dataclass compares by identity, and can be a key."""
    types = {c: " ".join(str(f.type) for f in dataclasses.fields(c)) for c in declared(package)}
    holding = [c for c, text in types.items() if "ndarray" in text or "Parameter" in text]
    assert len(holding) >= 3
    compared = {f"{c.__module__}.{c.__qualname__}" for c in holding if c.__dataclass_params__.eq}
    assert compared == {name for name in COMPARED if name.startswith(package + ".")}
