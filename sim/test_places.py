"""Places of a boot as arithmetic: they are those of the link, in the fewest bits."""

import numpy as np
import pytest

from bittrue.sim.places import sections
from bittrue.sim.sequence import columns
from bittrue.sim.system import Link, System
from tests.helpers.booted import GENERATOR, NETWORK, system


def told(s: System) -> np.ndarray:
    """What the sections say of every code, as flat entries of all held inputs."""
    (link,) = s.links
    firsts = np.cumsum([0, *(part.size for part in s.held(link))])
    found, at = np.full(link.places.shape, -1), 0
    for section in sections(s, link):
        assert section.first == at
        rows = slice(at, at + section.count)
        for part in section.parts:
            places = part.places
            assert (found[rows][places >= 0] == -1).all()
            found[rows] = np.where(places >= 0, places + firsts[part.held], found[rows])
        np.testing.assert_array_equal(section.live, found[rows] >= 0)
        at += section.count
    assert at == len(link.places)
    return found


@pytest.mark.parametrize("layers", [((4, 2), (4, 4)), ((1, 1), (5, 1), (3, 5)), ((7, 3), (1, 7), (6, 1))])
def test_permuted_kernels_keep_their_number(layers):
    s = system(len(layers), 3, layers)
    np.testing.assert_array_equal(told(s), s.links[0].places)
    found = sections(s, s.links[0])
    assert [part.bits for section in found for part in section.parts] == [
        n * c * (n * c - 1).bit_length() for n, c in layers
    ]


def test_kernels_without_arithmetic_and_codes_that_go_nowhere():
    s = system(0, 3, ((4, 2), (4, 4)))
    (link,) = s.links
    where = link.places.copy()
    where[3] = where[3, ::-1]
    where[8:, 2] = -1
    changed = System(s.programs, [Link(GENERATOR, NETWORK, link.names, where, partial=True)], s.boots)
    np.testing.assert_array_equal(told(changed), where)
    first, second = sections(changed, changed.links[0])
    assert first.parts[0].words is None
    assert first.parts[0].bits == 8 * 9 * 7  # 72 entries and none
    assert second.parts[0].bits == 16 * 4
    some = np.array([0, 1, 2, 4, 5, 6, 7, 9])  # not every kernel, so that their numbers are no grid: the entries
    where = link.places[8:][some] - 72
    boots = {GENERATOR: [v[8:][some] for v in s.boots[GENERATOR]]}
    few = System(s.programs, [Link(GENERATOR, NETWORK, "conv1.weight", where, partial=True)], boots)
    np.testing.assert_array_equal(told(few), where)
    (section,) = sections(few, few.links[0])
    assert section.parts[0].bits == 8 * int(where[:, 0].max()).bit_length()


def test_samples_side_by_side():
    found, firsts = columns([np.arange(6).reshape(3, 2, 1), np.arange(3)[:, None]])
    assert found.tolist() == [[0, 1, 0], [2, 3, 1], [4, 5, 2]]
    assert firsts == [0, 2]
