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
    "bittrue.rtl.dataflow.pipeline.Element",
    "bittrue.flow.verify.verify.Verification",
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
