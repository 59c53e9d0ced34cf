"""Samples that go in groups: fast run, trace and reference agree, whatever the groups are and whoever fills them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittrue.sim import groups
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.bundle import Bundle, circulant
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.unbundle import Unbundle
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.written import written


def network(seed: int, slots: int = 4, images=None, results: int = 1) -> Program:
    """A stem, images together, a product and images apart; with two results, the second is a tensor of groups."""
    rng = np.random.default_rng([seed, slots])
    tokens, d, c = (int(rng.integers(1, high)) for high in (4, 7, 5))
    n = groups.written(slots) if images is None else np.array(images)
    build = Builder({"x": TensorType((tokens, 3), INT8)})

    def linear(name: str, x: str, outputs: int) -> str:
        kind = build.types[x]
        weight = rng.integers(-30, 31, (outputs, kind.channels))
        return build.add(name, Linear(kind, weight, Requantize.example(rng, outputs, 3000)), x)

    stem = linear("stem", "x", d)
    weight = circulant(rng.integers(-90, 91, (slots, d)))
    z = build.add("z", Bundle(build.types[stem], weight, Requantize.example(rng, d, 30000), n), stem)
    wide = linear("wide", z, slots * c)
    apart = build.add("apart", Unbundle(build.types[wide], slots, n), wide)
    return build.program(linear("classes", apart, 3), *(["z"] if results > 1 else []))


def codes(program: Program, count: int, seed: int = 0) -> np.ndarray:
    (kind,) = program.inputs.values()
    return np.random.default_rng(seed).integers(-128, 128, (count, *kind.shape)).astype(np.int8)


def drawn(program: Program, count: int, rng: np.random.Generator) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Sets at random places, within groups too."""
    places = np.unique(rng.integers(0, count, 6))
    return [(int(at), {"images": np.array(rng.choice(program.grouping.modes))}) for at in places]


@pytest.mark.parametrize("slots", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
class TestRuns:
    def test_all_executions_agree(self, slots, seed):
        program, rng = network(seed, slots, results=2), np.random.default_rng(seed)
        for count in (1, slots, 23):
            x, held = codes(program, count, seed), drawn(network(seed, slots), count, rng)
            expected = program.reference(x, held=held)
            trace = program.trace(x, held=held)
            for threads in (1, 2):
                for got, right in zip(program(x, held=held, threads=threads), expected, strict=True):
                    np.testing.assert_array_equal(got, right)
            for name, right in zip(program.results, expected, strict=True):
                np.testing.assert_array_equal(trace.tensors[name], right)
            made = list(groups.walk(program.grouping, count, 0, held))
            assert len(expected[0]) == count
            assert len(expected[1]) == len(trace.tensors["wide"]) == len(made)
            assert sum(group.present for group in made) == count
            assert all(group.present == group.size for group in made[:-1])

    def test_every_group_is_what_it_is_alone(self, slots, seed):
        """The n of a group is that of its first sample, and what lacks at the end counts as code 0."""
        program = network(seed, slots)
        held = [(0, {"images": np.array(1)}), (2, {"images": np.array(slots)}), (3, {"images": np.array(1)})]
        x = codes(program, 3 + slots)
        sizes = [group.size for group in groups.walk(program.grouping, len(x), 0, held)]
        assert sizes == [1, 1, slots, 1]
        parts, at = [], 0
        for n in sizes:
            parts.append(program.in_groups_of(n)(x[at : at + n]))
            at += n
        np.testing.assert_array_equal(program(x, held=held), np.concatenate(parts))
        short = x[:1]
        whole = np.concatenate([short, np.zeros((slots - 1, *x.shape[1:]), np.int8)])
        of = program.in_groups_of(slots)
        np.testing.assert_array_equal(of(short), of(whole)[:1])
        np.testing.assert_array_equal(of.reference(short), of(whole)[:1])
        np.testing.assert_array_equal(of.trace(short).tensors["classes"], of(whole)[:1])

    def test_one_image_in_all_slots_is_bound_by_the_sum_of_its_keys(self, slots, seed):
        program = network(seed, slots)
        bundle = program["z"]
        x = codes(program, 1)
        stem = program.trace(x).tensors["stem"]
        literal = sum(stem.astype(int) @ bundle.weight[s].T for s in range(slots))
        alone = program.in_groups_of(1).trace(x).tensors["z"]
        np.testing.assert_array_equal(alone, np.clip(
            bundle.requantize.wide(literal), bundle.requantize.format.low, bundle.requantize.format.high
        ))  # fmt: skip
        np.testing.assert_array_equal(bundle.summed(1)[0], bundle.weight.sum(0))

    def test_images_moved_with_their_keys_change_nothing(self, slots, seed):
        program = network(seed, slots, images=slots)
        rng = np.random.default_rng(seed)
        order, x = rng.permutation(slots), codes(program, slots, seed)
        bundle = program["z"]
        moved = [
            replace(node, operation=replace(bundle, weight=bundle.weight[order])) if node.name == "z" else node
            for node in program.nodes
        ]
        other = Program(program.inputs, tuple(moved), program.results)
        np.testing.assert_array_equal(other.trace(x[order]).tensors["z"], program.trace(x).tensors["z"])


class TestMeaning:
    def test_saved_and_loaded(self, tmp_path):
        program = network(1)
        again = Program.load(program.save(tmp_path / "p.npz"))
        assert again.sha256 == program.sha256
        assert again.grouping.modes == (1, 2, 4)
        assert again.held["images"].among == (1, 2, 4)

    def test_multiply_accumulates_are_those_of_a_sample(self):
        program = network(2)
        by = {node.name: node.operation.macs for node in program.nodes}
        alone = by["stem"] + by["z"] + by["classes"]
        assert {n: program.in_groups_of(n).macs for n in (1, 2, 4)} == {
            n: alone + -(-by["wide"] // n) for n in (1, 2, 4)
        }
        assert program.macs == program.in_groups_of(4).macs

    def test_ranges_hold_every_size_and_no_more(self):
        """Of keys that cancel, sums of one image's copies are small; those of several images are not."""
        keys = np.array([[100, 0], [-100, 0]])
        kind = TensorType((1, 2), INT8)
        free = Requantize(2, np.array(0), format=Format(20))
        both = Bundle(kind, circulant(keys), free, groups.written(2))
        assert int(both.sums[1].max()) == 100 * 127 + 100 * 128
        alone = Bundle(kind, circulant(keys), free, np.array(1))
        assert int(alone.sums[1].max()) == 0
        assert (both.summed_format.bits, both.circulant) == (8, True)
        same = Bundle(kind, circulant(np.abs(keys)), free, groups.written(2))
        assert same.summed_format == Format(9)

    def test_what_is_circulant(self):
        weight = circulant(np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(weight[0], [[0, 2, 1], [1, 0, 2], [2, 1, 0]])
        kind = TensorType((1, 3), INT8)
        broken = weight.copy()
        broken[1, 2, 0] += 1
        assert Bundle(kind, weight, Requantize(3, np.array(0)), np.array(1)).circulant
        assert not Bundle(kind, broken, Requantize(3, np.array(0)), np.array(1)).circulant
        assert not Bundle(kind, weight[:, :2], Requantize(2, np.array(0)), np.array(1)).circulant

    @pytest.mark.parametrize("r", [1, 2, 3, 5, 6])
    def test_means_round_half_up(self, r):
        """Also below zero, and for every sum that there can be of small codes."""
        apart = Unbundle(TensorType((r,), Format(3)), r, np.array(1))
        x = np.stack(np.meshgrid(*[np.arange(-4, 4)] * min(r, 3), indexing="ij"), -1).reshape(-1, min(r, 3))
        x = np.pad(x, ((0, 0), (0, r - x.shape[1])))
        right = np.floor(x.sum(1) / r + 0.5).astype(int)
        np.testing.assert_array_equal(apart.run(x.astype(np.int8))[0][:, 0], right)
        np.testing.assert_array_equal(apart.reference(x)[:, 0], right)


class TestRefused:
    @pytest.mark.parametrize(
        ("images", "sentence"),
        [
            (3, "3 images do not fill 4 slots evenly; give one of 1, 2, 4"),
            (0, "0 images do not fill"),
            (1.5, "1.5 images do not fill"),
            (Held("n", (), 1, 4), "held input 'n' must be one number, any of 1, 2, 4"),
            (Held("n", (2,), 1, 4, among=(1, 2, 4)), "held input 'n' must be one number"),
        ],
    )
    def test_numbers_that_do_not_divide(self, images, sentence):
        with pytest.raises(BittrueError, match=sentence):
            Unbundle(TensorType((8,), INT8), 4, images)

    def test_what_is_written(self):
        program = network(0)
        with pytest.raises(BittrueError, match="3 is none of its values 1, 2, 4; take one of these"):
            program(codes(program, 4), held={"images": np.array(3)})
        with pytest.raises(BittrueError, match="do not go 3 at a time; it takes 1, 2, 4"):
            program.in_groups_of(3)
        with pytest.raises(BittrueError, match="its values .* must ascend from 1 to 4"):
            Held("n", (), 1, 4, among=(1, 3))
        with pytest.raises(BittrueError, match="holds no other input"):
            written(program, ["stem"])
        fixed = network(0, images=2)
        with pytest.raises(BittrueError, match="takes no set"):
            fixed(codes(fixed, 4), held={"images": np.array(2)})

    def test_samples_that_meet_groups(self):
        build = Builder({"x": TensorType((2, 2), INT8)})
        weight = circulant(np.ones((2, 2), np.int64))
        bundle = Bundle(build.types["x"], weight, Requantize(2, np.array(0)), np.array(2))
        z = build.add("z", bundle, "x")
        build.add("sum", Add(build.types["x"], build.types[z]), "x", z)
        with pytest.raises(BittrueError, match="'sum' reads a tensor of samples and one of groups"):
            build.program("sum")
        twice = Builder({"x": TensorType((2, 2), INT8)})
        twice.add("again", bundle, twice.add("z", bundle, "x"))
        with pytest.raises(BittrueError, match="that 'again' reads are together already"):
            twice.program("again")
        alone = Builder({"x": TensorType((2,), INT8)})
        alone.add("y", Unbundle(alone.types["x"], 2, np.array(2)), "x")
        with pytest.raises(BittrueError, match="that 'y' reads are not together"):
            alone.program("y")
        other = Builder({"x": TensorType((2, 2), INT8)})
        z = other.add("z", bundle, "x")
        other.add("y", Unbundle(other.types[z], 2, groups.written(2)), z)
        with pytest.raises(BittrueError, match="'z' and 'y' have other slots or images"):
            other.program("y")

    def test_weights(self):
        kind, r = TensorType((1, 2), INT8), Requantize(2, np.array(0))
        with pytest.raises(BittrueError, match="weights have shape"):
            Bundle(kind, np.ones((2, 2)), r, np.array(1))
        with pytest.raises(BittrueError, match="2 outputs, but the requantiser has 3 channels"):
            Bundle(kind, np.ones((2, 2, 2)), Requantize(3, np.array(0)), np.array(1))
        with pytest.raises(BittrueError, match="weights 200..200 do not fit s8"):
            Bundle(kind, np.full((2, 2, 2), 200), r, np.array(1))
        with pytest.raises(BittrueError, match="bundle: shift is a constant"):
            Bundle(kind, np.ones((2, 2, 2)), Requantize(2, Held("s", (2,), 0, 3)), np.array(1))
        with pytest.raises(BittrueError, match="5 channels are not those of 2 slots"):
            Unbundle(TensorType((5,), INT8), 2, np.array(1))
