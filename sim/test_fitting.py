"""What does not fit together: programs of a system, and a program whose constants are to be a set of another."""

import numpy as np
import pytest

from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.clamp import Clamp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.system import Link, System
from bittrue.sim.written import set_of, written

KIND = TensorType((2, 3), INT8)
LAYER = Linear(KIND, Held("w", (4, 3), -128, 127, np.zeros((4, 3), int)), Requantize(4, np.array(5)))
CONSTANT = Linear(KIND, np.ones((4, 3), int), LAYER.requantize)


def chain(*operations: Operation) -> Program:
    names = [f"y{k}" for k in range(len(operations))]
    nodes = [Node(n, op, (before,)) for n, op, before in zip(names, operations, ["x", *names], strict=False)]
    return Program({"x": operations[0].inputs[0]}, tuple(nodes), names[-1])


def test_what_one_program_makes_is_of_the_shape_that_the_other_holds():
    def made(shape: tuple[int, int]) -> System:
        maker = chain(Clamp(TensorType(shape, INT8), -5, 5, INT8))
        return System({"a": maker, "b": chain(LAYER)}, [Link("a", "b", "w")])

    with pytest.raises(BittrueError, match=r"'a' makes .*, but 'w' of 'b' has shape \(4, 3\)"):
        made((3, 4))
    system = made((4, 3))
    with pytest.raises(BittrueError, match="system: give inputs of a, b; given were a$"):
        system({"a": [np.zeros((1, 4, 3), np.int8)]})


def test_constants_of_a_program_with_other_operations_are_no_set():
    np.testing.assert_array_equal(set_of(chain(LAYER), chain(CONSTANT))["w"], 1)
    with pytest.raises(BittrueError, match="have other operations; only constants may differ"):
        set_of(
            chain(LAYER, Clamp(LAYER.output, -5, 5, INT8)),
            chain(CONSTANT, Linear(LAYER.output, np.ones((4, 4), int), LAYER.requantize)),
        )
    with pytest.raises(BittrueError, match="have other inputs or other results"):
        set_of(chain(LAYER), chain(CONSTANT, Clamp(LAYER.output, -5, 5, INT8)))
    with pytest.raises(BittrueError, match="'w' is no constant of the other program"):
        set_of(chain(LAYER), chain(LAYER))


def test_what_is_held_already_stays_as_it_is():
    once = written(chain(CONSTANT))
    assert once.written
    assert written(once).sha256 == once.sha256
    mixed = written(chain(LAYER, Linear(LAYER.output, np.ones((4, 4), int), LAYER.requantize)))
    assert mixed["y0"].weight is LAYER.weight
    assert {"w", "y1.weight"} <= set(mixed.written)
    assert {"y0.shift", "y1.shift"} <= set(mixed.written)


def test_what_is_given_as_a_list_is_kept_as_a_tuple():
    assert Add(KIND, KIND, INT8, [KIND]).more == (KIND,)
    assert Program({"x": KIND}, [Node("y", CONSTANT, ("x",))], ["y"]).results == ("y",)
    assert chain(CONSTANT).results == ("y0",)


def test_one_held_rail_is_enough_to_keep_both_apart():
    kind, cells = TensorType((2,), Format(4, signed=False)), np.ones((1, 2), int)
    held = Held("plus", (1, 2), 0, 3)
    rails = [PhotonicMac(kind, *both, 1, 4, 0, 0).rails for both in ((cells, cells), (held, cells), (cells, held))]
    assert rails == [False, True, True]
