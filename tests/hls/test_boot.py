"""Systems that boot as HLS kernels: the boot makes what golden makes, the network computes with it, faults are told."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from bittrue.hls import boot, boot_host, host
from bittrue.hls.boot_host import Again
from bittrue.sim.errors import BittrueError
from bittrue.sim.system import Link, System
from bittrue.sim.written import held_only, written
from tests.helpers import programs
from tests.helpers.booted import GENERATOR, NETWORK, generator, system
from tests.helpers.sets import codes

pytestmark = [pytest.mark.needs("g++"), pytest.mark.slow]


def counted() -> System:
    """Samples of three inputs that counters make, kernels that are permuted, a generator with weights of its own."""
    return system(0, 3, ((4, 2), (4, 4)), held=True)


def listed() -> System:
    """Samples of one input in an order that nothing counts, ten codes each. In the first layer the kernels of odd
    samples lie backwards, so that there is no arithmetic; some codes of the second go nowhere, and its tenth ones to
    the matrix behind it: two held inputs a sample."""
    s = system(2, 1, ((3, 2), (4, 3)))
    (link,), rng = s.links, np.random.default_rng(2)
    names = (*link.names, "head.weight")
    order = np.concatenate([rng.permutation(6), 6 + rng.permutation(12)])
    where = np.concatenate([link.places[order], np.full((18, 1), -1)], axis=1)
    where[1:6:2, :9] = where[1:6:2, 8::-1]
    where[9:, 4] = -1
    use = held_only(written(s.programs[NETWORK], ["conv0", "conv1", "head"]), names)
    first = sum(use.written[name].size for name in link.names)
    where[6:, 9] = first + np.arange(7, 19)
    made = {GENERATOR: generator(2, 1, codes=10), NETWORK: use}
    return System(
        made, [Link(GENERATOR, NETWORK, names, where, partial=True)], {GENERATOR: [s.boots[GENERATOR][0][order]]}
    )


SYSTEMS = {"counted": counted, "listed": listed}


@pytest.fixture(scope="module", params=SYSTEMS)
def made(request, tmp_path_factory):
    """A system, its folder and its kernels."""
    s = SYSTEMS[request.param]()
    folder = boot.write(s, tmp_path_factory.mktemp("boot"))
    return s, folder, boot_host.build(folder)


def test_a_boot_makes_what_golden_makes(made):
    s, _, kernel = made
    (link,) = s.links
    made_codes = s.boot(GENERATOR)
    expected = s.scattered(link, made_codes)
    for _ in range(2):  # a second one begins as the first
        for name, values in kernel.boot().items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
    assert kernel.checksum == s.checksum(link, made_codes)


def test_the_network_computes_with_it(made):
    """Every tensor is that of the network that golden booted, and nothing of it that of one that did not boot."""
    s, _, kernel = made
    network = s.programs[NETWORK]
    (x,) = codes(network, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(kernel.predict(x), s({NETWORK: [x]})[NETWORK])
    traced, expected = kernel.trace(x), network.trace(x, held=s.booted(NETWORK)).tensors
    for name, tensor in expected.items():
        np.testing.assert_array_equal(traced[name], tensor, err_msg=name)
    assert not np.array_equal(kernel.predict(x), network(x))


@pytest.mark.parametrize("made", ["listed"], indirect=True)
def test_the_test_bench_passes_and_fails(made):
    """What csim and cosim run; with an entry that is another one it fails."""
    _, folder, _ = made
    place = folder / boot.BOOT
    flags = ["-std=c++14", "-fwrapv", "-DBITTRUE_HOST", "-w", f"-I{place / 'host'}", f"-I{place}"]
    flags += [f"-I{host.find_headers()}", str(place / "tb.cpp"), str(place / "top.cpp")]
    subprocess.run([host.find_compiler(), *flags, "-o", str(place / "tb")], check=True)

    def status() -> int:
        return subprocess.run([place / "tb", place / "vectors"], capture_output=True, check=False).returncode

    assert status() == 0
    path = min((place / "vectors").glob("made_*.txt"))
    first, _, others = path.read_text().partition(" ")
    path.write_text(f"{int(first) ^ 1} {others}")
    assert status() == 1
    path.unlink()
    assert status() == 2


@pytest.mark.parametrize("made", ["counted"], indirect=True)
def test_it_boots_again_with_another_generator(made):
    """In the middle of a run, and then as it was; what a wrong one makes is no answer."""
    (s, _, kernel), rng = made, np.random.default_rng(4)
    (link,) = s.links
    first = s.programs[GENERATOR].initial
    other = {name: rng.permutation(v.reshape(-1)).reshape(v.shape) for name, v in first.items()}
    checksum = s.checksum(link, s.boot(GENERATOR, other))
    (x,) = codes(s.programs[NETWORK], 9, rng)
    again = [Again(3, other, checksum), Again(6), Again(7, first, kernel.checksum)]
    expected = s({NETWORK: [x]}, at={GENERATOR: (0, 3, 7)}, held={GENERATOR: [first, other, first]})[NETWORK]
    np.testing.assert_array_equal(kernel.predict(x, boots=again), expected)
    assert not np.array_equal(kernel.predict(x), expected)
    written = {name: rng.integers(-128, 128, held.shape) for name, held in kernel.written.items()}
    sets = {at: s.programs[NETWORK](x, held=values) for at, values in ((0, s.booted(NETWORK)), (4, written))}
    np.testing.assert_array_equal(kernel.predict(x, held=[(4, written)]), np.concatenate([sets[0][:4], sets[4][4:]]))
    with pytest.raises(BittrueError, match=f"the checksum {checksum:08x}, and {kernel.checksum:08x} was expected"):
        kernel.predict(x, boots=[Again(3, other)])
    with pytest.raises(BittrueError, match="and 00000001 was expected.*is not used"):
        kernel.boot(expected=1)
    with pytest.raises(BittrueError, match="the set lacks"):
        kernel.boot({})


def test_what_is_written(tmp_path):
    """Kernels that are permuted keep their number alone, in the bits that it needs; the network waits to be started."""
    folder = boot.write(counted(), tmp_path / "counted")
    places = (folder / boot.BOOT / "places.h").read_text()
    assert [f"typedef ap_uint<{bits}> words_t;" in places for bits in (2, 3, 4, 5)] == [False, True, True, False]
    assert "int runs = 2;" in places
    assert "INTERFACE ap_ctrl_hs" in (folder / boot.NETWORK / "top.cpp").read_text()
    assert "set_top bittrue_boot" in (folder / boot.BOOT / "run_hls.tcl").read_text()
    places = (boot.write(listed(), tmp_path / "listed") / boot.BOOT / "places.h").read_text()
    assert "values[18][3]" in places


def test_refused(tmp_path):
    s = counted()
    with pytest.raises(BittrueError, match="two programs and one link with places, this one has 2 and 0"):
        boot.write(System(s.programs, []), tmp_path)
    with pytest.raises(BittrueError, match="holds no complete HLS project"):
        boot_host.build(tmp_path)
    noisy = {GENERATOR: programs.photonic(noisy=True), NETWORK: s.programs[NETWORK]}
    kind, made = next(iter(noisy[GENERATOR].inputs.values())), noisy[GENERATOR].output.size
    link = Link(GENERATOR, NETWORK, "conv0.weight", np.arange(made)[None], partial=True)
    counts = System(noisy, [link], {GENERATOR: [np.zeros((1, *kind.shape), kind.format.dtype)]})
    with pytest.raises(BittrueError, match="'generator' counts its samples or takes them in groups"):
        boot.write(counts, tmp_path)


def test_a_boot_beside_another_network(tmp_path, monkeypatch):
    """What does not belong together is told before anything is compiled."""
    for name, make in SYSTEMS.items():
        boot.write(make(), tmp_path / name)
    (tmp_path / "counted" / boot.NETWORK).rename(tmp_path / "listed" / "other")
    (tmp_path / "listed" / boot.BOOT).rename(tmp_path / "boot")
    (tmp_path / "counted" / boot.BOOT).rename(tmp_path / "listed" / boot.BOOT)
    monkeypatch.setattr(host, "compile_library", lambda *_: pytest.fail("it was compiled"))
    with pytest.raises(BittrueError, match="do not belong together; write both again"):
        boot_host.build(tmp_path / "listed")
