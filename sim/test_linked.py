"""Linked programs: what one makes the other holds."""

import numpy as np
import pytest

from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.system import Link, System
from tests.helpers.sets import codes


class TestSystem:
    """A generator of weights, and what it writes to."""

    def programs(self) -> dict[str, Program]:
        rng = np.random.default_rng(2)
        seed, kind = TensorType((4, 6), Format(3, signed=False)), TensorType((2, 3), INT8)
        make = Linear(seed, rng.integers(-8, 8, (3, 6)), Requantize(3, np.array(1), format=Format(5)))
        use = Linear(kind, Held("w", (4, 3), -16, 15, rng.integers(-16, 16, (4, 3))), Requantize(4, np.array(5)))
        return {
            "generator": Program({"z": seed}, (Node("w", make, ("z",)),), "w"),
            "network": Program({"x": kind}, (Node("y", use, ("x",)),), "y"),
        }

    def test_what_one_makes_the_other_holds(self):
        programs, rng = self.programs(), np.random.default_rng(0)
        system = System(programs, [Link("generator", "network", "w")])
        (z,), (x,) = codes(programs["generator"], 2, rng), codes(programs["network"], 10, rng)
        made = programs["generator"](z)
        expected = programs["network"](x, held=[(3, {"w": made[0]}), (8, {"w": made[1]})])
        results = system({"generator": [z], "network": [x]}, at={"generator": (3, 8)})
        np.testing.assert_array_equal(results["network"], expected)
        np.testing.assert_array_equal(results["generator"], made)
        booted = system({"generator": [z[:1]], "network": [x]})["network"]
        np.testing.assert_array_equal(booted, programs["network"](x, held={"w": made[0]}))
        assert not np.array_equal(booted[:3], expected[:3])

    def test_each_gets_what_is_linked_to_it(self):
        """Three programs that hold what is made, in any order of the links."""
        programs, rng = self.programs(), np.random.default_rng(0)
        programs |= {"other": programs["network"], "third": programs["network"]}
        (z,), (x,) = codes(programs["generator"], 1, rng), codes(programs["network"], 3, rng)
        links = [Link("generator", name, "w") for name in ("network", "other", "third")]
        batches = {"generator": [z]} | {name: [x] for name in ("network", "other", "third")}
        for order in (links, links[::-1], links[1:] + links[:1]):
            results = System(programs, order)(batches)
            made = results["generator"]
            for name in ("network", "other", "third"):
                np.testing.assert_array_equal(results[name], programs["network"](x, held={"w": made[0]}))

    def test_links_that_do_not_fit_are_refused(self):
        programs = self.programs()
        for link, message in (
            (Link("generator", "network", "v"), "no held input 'v' to be written; it has w"),
            (Link("network", "generator", "w"), "must stand before it"),
            (Link("writer", "network", "w"), "no program is named 'writer'"),
        ):
            with pytest.raises(BittrueError, match=message):
                System(programs, [link])
        with pytest.raises(BittrueError, match="written by two programs"):
            System(programs, [Link("generator", "network", "w")] * 2)
        narrow = programs["network"]["y"]
        op = Linear(narrow.input, Held("w", (4, 3), -16, 14), narrow.requantize)
        small = Program(programs["network"].inputs, (Node("y", op, ("x",)),), "y")
        with pytest.raises(BittrueError, match=r"makes codes -16\.\.15, but 'w' of 'network' takes -16\.\.14"):
            System(programs | {"network": small}, [Link("generator", "network", "w")])
        system = System(programs, [Link("generator", "network", "w")])
        rng = np.random.default_rng(0)
        batches = {name: codes(program, 2, rng) for name, program in programs.items()}
        with pytest.raises(BittrueError, match="made 2 results for 1 places"):
            system(batches)
