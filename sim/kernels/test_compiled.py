"""Loops over codes are compiled: one that is not gives the same codes, a hundred times slower."""

import ast
import importlib
import inspect
from pathlib import Path
from types import FunctionType

import pytest

FOLDER = Path(__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("test_", "__")))


def loops(function: FunctionType) -> bool:
    """Whether it goes from element to element of an array: a loop in a loop over an axis."""
    tree = ast.parse(inspect.getsource(function).strip())
    outer = [node for node in ast.walk(tree) if isinstance(node, ast.For) and ".shape[" in ast.unparse(node.iter)]
    return any(isinstance(inner, ast.For) for node in outer for part in node.body for inner in ast.walk(part))


def plain(module) -> list[FunctionType]:
    """What Python itself runs of a module: its functions that nobody compiled."""
    return [f for f in vars(module).values() if isinstance(f, FunctionType) and f.__module__ == module.__name__]


@pytest.mark.parametrize("name", MODULES)
def test_no_loop_over_codes_is_left_to_python(name):
    module = importlib.import_module(f"bittrue.sim.kernels.{name}")
    assert [function.__name__ for function in plain(module) if loops(function)] == []


def test_such_a_loop_is_seen():
    from bittrue.sim.kernels import spikes

    assert loops(spikes._decode_steps.py_func)
    assert not isinstance(spikes._decode_steps, FunctionType)
