"""Systems that boot: what a generator makes of a sequence of samples is scattered into what a network holds."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.system import Link, System
from bittrue.sim.written import held_only, written
from tests.helpers.booted import GENERATOR, NETWORK, coordinates, generator, network, system
from tests.helpers.sets import codes

LAYERS = [(4, 2), (4, 4)]


def scattered(s: System, made: np.ndarray) -> dict[str, np.ndarray]:
    """Code after code to its place, in plain Python."""
    (link,) = s.links
    parts = {name: s.programs[NETWORK].initial[name].copy() for name in link.names}
    for sample in range(len(made)):
        for code, place in enumerate(link.places[sample]):
            for part in parts.values():
                if 0 <= place < part.size:
                    part.reshape(-1)[place] = made[sample].reshape(-1)[code]
                place -= part.size
    return parts


@pytest.mark.parametrize(("seed", "inputs"), [(0, 3), (1, 1)])
def test_a_network_that_booted_is_the_one_with_these_weights(seed, inputs):
    s, rng = system(seed, inputs), np.random.default_rng(seed)
    (x,) = codes(s.programs[NETWORK], 6, rng)
    made = s.programs[GENERATOR](*s.boots[GENERATOR])
    expected = scattered(s, made)
    booted = s.booted(NETWORK)
    assert set(booted) == {"conv0.weight", "conv1.weight"}
    for name, values in expected.items():
        np.testing.assert_array_equal(booted[name], values)
        assert len(np.unique(values)) > 10
    result = s({NETWORK: [x]})[NETWORK]
    np.testing.assert_array_equal(result, s.programs[NETWORK].bind(booted)(x))
    np.testing.assert_array_equal(result, s({NETWORK: [x], GENERATOR: s.boots[GENERATOR]})[NETWORK])
    assert not np.array_equal(result, s.programs[NETWORK](x))


def test_a_kernel_lands_in_its_filter_and_channel():
    """The weights `[filter, tap, channel]` of a layer are those of the kernel of that filter and channel."""
    s = system(2)
    (link,) = s.links
    made = s.boot(GENERATOR)
    second = s.booted(NETWORK)["conv1.weight"].reshape(4, 9, 4)
    sample = next(k for k in range(8, 24) if link.places[k, 0] == 72 + 2 * 36 + 3)  # filter 2, channel 3
    np.testing.assert_array_equal(second[2, :, 3], made[sample])


def test_boots_in_the_middle_of_a_run():
    """Another set of the generator holds from a sample on; each boot is a whole one."""
    s, rng = system(3, held=True), np.random.default_rng(3)
    own = s.programs[GENERATOR]
    other = {name: rng.permutation(v.reshape(-1)).reshape(v.shape) for name, v in own.initial.items()}
    (x,) = codes(s.programs[NETWORK], 9, rng)
    result = s({NETWORK: [x]}, at={GENERATOR: (2, 5)}, held={GENERATOR: [other, own.initial]})
    second, first = s.booted(NETWORK), s.booted(NETWORK, {GENERATOR: other})
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    expected = s.programs[NETWORK](x, held=[(2, first), (5, second)])
    np.testing.assert_array_equal(result[NETWORK], expected)
    assert len(result[GENERATOR]) == 2 * 24
    np.testing.assert_array_equal(s.boot(GENERATOR, other), result[GENERATOR][:24])
    with pytest.raises(BittrueError, match="'generator' boots 2 times, but 1 sets are given"):
        s({NETWORK: [x]}, at={GENERATOR: (2, 5)}, held={GENERATOR: [other]})
    with pytest.raises(BittrueError, match="sets are given for the boots of 'network', which has none"):
        s({NETWORK: [x]}, held={NETWORK: [other]})


def test_the_checksum_is_of_the_codes_that_are_written():
    s = system(4)
    (link,) = s.links
    made = s.boot(GENERATOR)
    assert s.checksum(link, made) == zlib.crc32(made.astype(np.int8).tobytes())
    wrong = made.copy()
    wrong[3, 4] ^= 1
    assert s.checksum(link, wrong) != s.checksum(link, made)
    where = link.places.copy()
    where[3, 4] = -1
    part = System(s.programs, [replace(link, places=where, partial=True)], s.boots)
    assert part.checksum(part.links[0], wrong) == part.checksum(part.links[0], made) != s.checksum(link, made)


def test_wide_codes_are_summed_in_whole_bytes():
    make = generator(5, 3, bits=11)
    held = {f"conv{k}.weight": Held(f"conv{k}.weight", (4, 9 * n), -1024, 1023) for k, n in enumerate((2, 4))}
    use = system(5).programs[NETWORK]
    nodes = [
        replace(n, operation=replace(n.operation, weight=held[f"{n.name}.weight"], weight_format=Format(11)))
        if n.name in ("conv0", "conv1")
        else n
        for n in use.nodes
    ]
    s = system(5)
    wide = System({GENERATOR: make, NETWORK: type(use)(use.inputs, tuple(nodes), use.results)}, s.links, s.boots)
    made = np.random.default_rng(5).integers(-1024, 1024, (24, 9))
    assert wide.checksum(wide.links[0], made) == zlib.crc32(made.astype("<i2").tobytes())


def test_what_is_left_out_keeps_what_it_holds():
    s = system(6)
    (link,) = s.links
    where = link.places.copy()
    gone = where[5].copy()
    where[5] = -1
    with pytest.raises(BittrueError, match=r"nothing to entry \[\d, \d+\] of 'conv0.weight' \(9 are left.*partial"):
        System(s.programs, [replace(link, places=where)], s.boots)
    held = s.programs[NETWORK].written["conv0.weight"]
    partly = System(s.programs, [replace(link, places=where, partial=True)], s.boots)
    left, whole = (x.booted(NETWORK)["conv0.weight"].reshape(-1) for x in (partly, s))
    kept = np.isin(np.arange(held.size), gone)
    np.testing.assert_array_equal(left[kept], held.initial.reshape(-1)[kept])
    np.testing.assert_array_equal(left[~kept], whole[~kept])


class TestRefused:
    def test_places_that_are_no_permutation(self):
        s = system(0)
        (link,) = s.links

        def with_place(value, sample=3, code=2):
            where = link.places.copy()
            where[sample, code] = value
            return lambda: System(s.programs, [replace(link, places=where)], s.boots)

        other = int(link.places[9, 0])
        index = rf"\[{(other - 72) // 36}, {(other - 72) % 36}\]"
        with pytest.raises(BittrueError, match=rf"entry {index} of 'conv1.weight' twice, with samples 3 and 9"):
            with_place(other)()
        with pytest.raises(BittrueError, match="code 2 of sample 3 to place 216; the places of .* are 0 to 215, and"):
            with_place(216)()
        with pytest.raises(BittrueError, match="to place -2"):
            with_place(-2)()
        assert with_place(int(link.places[3, 2]))()

    def test_places_that_do_not_fit_the_source(self):
        s = system(0)
        (link,) = s.links
        with pytest.raises(BittrueError, match=r"with places \[24, 8\], but a sample of 'generator' has 9 codes"):
            System(s.programs, [replace(link, places=link.places[:, :8])], s.boots)
        with pytest.raises(BittrueError, match=r"integers \[samples, codes\], not float64"):
            replace(link, places=link.places / 1.0)
        with pytest.raises(BittrueError, match="a link without places writes one"):
            System(s.programs, [replace(link, places=None)])

    def test_samples_that_are_none_of_the_source(self):
        s = system(0)
        (link,) = s.links
        batches = s.boots[GENERATOR]
        with pytest.raises(BittrueError, match="23 samples of 'l', but places for 24"):
            System(s.programs, s.links, {GENERATOR: [v[:23] for v in batches]})
        with pytest.raises(BittrueError, match="2 batches for 3 inputs"):
            System(s.programs, s.links, {GENERATOR: batches[:2]})
        with pytest.raises(BittrueError, match="'f' of a boot of 'generator'.*do not fit u7"):
            System(s.programs, s.links, {GENERATOR: [batches[0], batches[1] + 125, batches[2]]})
        with pytest.raises(BittrueError, match="'network' has samples for a boot, but no link with places"):
            System(s.programs, s.links, {NETWORK: batches})
        with pytest.raises(BittrueError, match="'network' has no boot; those that have are generator"):
            s.boot(NETWORK)
        with pytest.raises(BittrueError, match="made 23 results, and a boot is one of 24"):
            System(s.programs, s.links)({GENERATOR: [v[:23] for v in batches], NETWORK: [np.zeros((1, 5, 5, 2), int)]})

    def test_codes_beyond_the_bounds(self):
        s = system(0)
        programs = dict(s.programs) | {GENERATOR: generator(0, bits=9)}
        with pytest.raises(BittrueError, match=r"makes codes -256\.\.255, but 'conv0.weight' .* takes -128\.\.127;"):
            System(programs, s.links, s.boots)

    def test_an_input_of_two_links(self):
        s = system(0)
        with pytest.raises(BittrueError, match=r"'conv0.weight' of 'network' is written by two programs"):
            System(s.programs, [*s.links, *s.links], s.boots)
        (link,) = s.links
        with pytest.raises(BittrueError, match="no held input 'v' to be written; it has conv0.weight, conv1.weight"):
            System(s.programs, [Link(GENERATOR, NETWORK, ("conv0.weight", "v"), link.places)], s.boots)


def test_the_helpers_are_what_they_say():
    assert coordinates(LAYERS)[9].tolist() == [1, 0, 1]
    assert network(0, LAYERS).output.shape == (3,)


def test_what_is_not_held_any_more_is_constant():
    program = written(network(7, LAYERS))
    some = held_only(program, ["conv1.weight", "head.shift"])
    assert set(some.written) == {"conv1.weight", "head.shift"}
    (x,) = codes(program, 3, np.random.default_rng(7))
    np.testing.assert_array_equal(some(x), program(x))
    assert held_only(some, some.written) is some
    with pytest.raises(BittrueError, match="no held input 'conv9.weight' can be written"):
        held_only(program, ["conv9.weight"])
