"""The digital twin of the photonic array alone, driven as a controller may drive it, against `PhotonicMac`."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from bittrue.rtl.dataflow.stage import shape_of
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.noise import TwinNoise
from bittrue.rtl.light.twin import CONVERTING, PhotonicTwin
from bittrue.rtl.parts.noise import NoiseLanes
from bittrue.sim.contract import round_shift
from bittrue.sim.errors import BittrueError
from bittrue.sim.noise import Noise
from bittrue.sim.program import Program
from tests.helpers.lengths import long_but
from tests.helpers.photonic_twin_bench import PATIENCE, Bench, exact, network, part

# -- what the array makes of the light --------------------------------------------------------------------------
ARRAY = Geometry(4, 4, 2)


@pytest.mark.parametrize(
    ("sizes", "geometry", "options"),
    [
        ((10, 7, 5), ARRAY, {}),
        ((10, 7, 5), ARRAY, {"parallel": 2, "simd": 2, "settling": 1, "conversion": 0}),
        ((8, 13, 3), Geometry(8, 12, 2), {"parallel": 6, "simd": 4, "dac_cycles": 3}),
        ((8, 13, 3), Geometry(8, 12, 2), {"parallel": 4, "simd": 8, "conversion": 9}),
        ((6, 5, 4), Geometry(3, 3, 1), {"parallel": 1, "settling": 5}),
        ((6, 9, 3), Geometry(6, 8, 2), {"parallel": 8, "simd": 2}),
        ((5, 1, 2), Geometry(1, 1, 1), {}),
        ((16, 9), Geometry(64, 8, 8), {"conversion": 1}),
    ],
)
@pytest.mark.parametrize("noise", long_but([False, True], True), ids=["clean", "noisy"])
def test_geometries(sizes, geometry, options, noise):
    kinds = ("relative shot thermal",) * (len(sizes) - 1) if noise else None
    exact(network(geometry, kinds, sizes), geometry, **options)


@pytest.mark.parametrize(
    "kinds",
    [
        ("relative", "relative"),
        ("shot", "shot"),
        ("thermal", "thermal"),
        ("relative", "shot thermal"),
        ("", "relative shot thermal"),
        ("relative shot thermal", ""),
        ("thermal", ""),
        ("shot", "relative"),
    ],
    ids=lambda kinds: "+".join(k.replace(" ", "-") or "none" for k in kinds),
)
def test_sources_of_noise(kinds):
    program = network(ARRAY, kinds)
    silent = network(ARRAY, ("", ""))
    for kind, layer, other in zip(kinds, Jobs.of(program, ARRAY).layers, Jobs.of(silent, ARRAY).layers, strict=True):
        x = np.random.default_rng(0).integers(0, 16, (20, layer.mac.input.channels))
        assert np.array_equal(layer.mac.reference(x), other.mac.reference(x)) == (not kind)
    exact(program, ARRAY, images=3)


def test_every_count_becomes_the_code_of_its_distance_from_the_offset():
    """The converter alone, with the shift of each layer: from counts below the offset to those beyond the last code."""
    jobs = Jobs.of(network(ARRAY), ARRAY)
    twin, m = PhotonicTwin(jobs), Module()
    count, offset = Signal(range(twin.highest + 1)), Signal(shape_of(jobs.offset))
    code, dark = twin.convert(m, count, offset, "code"), jobs.light.high // 4

    async def bench(ctx):
        ctx.set(offset, dark)
        for layer in jobs.layers:
            counts = np.arange(layer.mac.light.high + 1)
            codes = round_shift(counts - dark, layer.mac.shift)
            assert codes.min() < -1
            assert codes.max() > jobs.adc.high + 1
            ctx.set(twin.front.shift, layer.mac.shift)
            for light, wanted in zip(counts, np.clip(codes, 0, jobs.adc.high), strict=True):
                ctx.set(count, int(light))
                await ctx.tick().repeat(CONVERTING)
                assert ctx.get(code) == wanted, f"{light} with shift {layer.mac.shift}"

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def dim_behind_bright() -> Program:
    """A bright layer without relative noise, and a dim one with noise in fine steps: their product has no meaning."""
    program = network(ARRAY, ("shot", "relative"), codes=8, cells=8)
    nodes = list(program.nodes)
    (k,) = (k for k, node in enumerate(nodes) if node.name == "mac1")
    mac = nodes[k].operation
    noise = Noise.from_physics(5, 1, relative=0.01, photons=20.0, thermal=3.0, shift=40)
    mac = replace(mac, plus=np.minimum(mac.plus, 1), minus=np.minimum(mac.minus, 1), noise=noise, shift=4, offset=[0])
    nodes[k] = replace(nodes[k], operation=mac)
    assert mac.light.high * 100 < nodes[0].operation.light.high
    return replace(program, nodes=tuple(nodes))


def test_every_layer_has_the_light_and_the_noise_of_its_own():
    """No width of the hardware that they share is the product of the one's light with the other's factor."""
    program = dim_behind_bright()
    sums = PhotonicTwin(Jobs.of(program, ARRAY)).noise.sums
    mac = program["mac1"]
    assert sums.relative_bounds[1].high == 510 * mac.noise.relative * mac.light.high
    exact(program, ARRAY, images=3)


def test_light_that_no_converter_of_48_bits_takes():
    mac = network(ARRAY, ("thermal",) * 2)["mac0"]
    with pytest.raises(BittrueError, match="light with its noise: the result needs 49 bits"):
        replace(mac, offset=np.full_like(mac.offset, -(1 << 46)), noise=Noise(0, 0, thermal=(1 << 46) // 510, shift=0))
    nodes = list(network(ARRAY, ("thermal",) * 2).nodes)
    for k, (name, change) in enumerate(
        [("mac0", {"noise": Noise(0, 0, thermal=(1 << 46) // 510, shift=0)}), ("mac1", {"offset": [-(1 << 46)]})]
    ):
        assert nodes[3 * k].name == name
        nodes[3 * k] = replace(nodes[3 * k], operation=replace(nodes[3 * k].operation, **change))
    with pytest.raises(BittrueError, match="photonic twin: light and offsets of all layers: the result needs 49 bits"):
        PhotonicTwin(Jobs.of(replace(network(ARRAY), nodes=tuple(nodes)), ARRAY))


@pytest.mark.parametrize("shift", [0, 1, 8])
def test_the_converter_holds_the_brightest_light_and_the_darkest(shift):
    """The lowest offset of 10 bits takes the light next to the end of 11 bits; half a step leads beyond it."""
    program = network(ARRAY, sizes=(4, 4))
    (k,) = (k for k, node in enumerate(program.nodes) if node.name == "mac0")
    mac = program.nodes[k].operation
    plus, minus = np.zeros((2, 4, 4), np.int64)
    plus[:2] = 7
    mac = replace(mac, plus=plus, minus=minus, offset=np.array([[-512, 0, 511, 3]]), shift=shift)
    nodes = (*program.nodes[:k], replace(program.nodes[k], operation=mac), *program.nodes[k + 1 :])
    jobs = Jobs.of(replace(program, nodes=nodes), ARRAY)
    (job,) = jobs.work
    wanted = mac.reference(np.array([[15] * 4, [0] * 4]))
    assert wanted[0, 0, 0] == min(63, 4 * 7 * 15 + 512 + (1 << shift >> 1) >> shift)

    async def script(bench):
        bench.fill(job)
        await bench.filled()
        await bench.swap(job)
        for image, code in enumerate((15, 0)):
            await bench.light(np.full(4, code), image)
            np.testing.assert_array_equal(await bench.measure(3), wanted[image, 0])

    Bench(jobs, settling=3).run(script)


@pytest.mark.parametrize("noise", [False, True], ids=["clean", "noisy"])
def test_a_sample_too_early_is_blind(noise):
    """Also of a later image; the next one, in time, sees the light."""
    jobs = Jobs.of(network(ARRAY, ("relative shot thermal",) * 2 if noise else None), ARRAY)
    job = jobs.work[0]
    mac = jobs.layers[0].mac
    blank = replace(mac, plus=np.zeros_like(mac.plus), minus=np.zeros_like(mac.minus), offset=mac.offset)
    x = np.random.default_rng(5).integers(1, 16, (3, mac.input.channels))
    seen, blind = (made.reference(x)[:, 0, : job.columns] for made in (mac, blank))
    assert (seen != blind).any(axis=1).all()

    async def script(bench):
        bench.fill(job)
        await bench.filled()
        await bench.swap(job, x[0, :4], 0)
        for image, (wait, wanted) in enumerate([(4, seen), (3, blind), (4, seen)]):
            if image:
                await bench.light(x[image, :4], image)
            codes = await bench.measure(wait)
            np.testing.assert_array_equal(codes[: job.columns], wanted[image], f"image {image}")

    Bench(jobs, settling=5).run(script)


def test_inputs_of_a_sample_stay():
    """The next inputs and their image may come as soon as the sample is taken."""
    jobs = Jobs.of(network(ARRAY, ("relative shot thermal",) * 2), ARRAY)
    job, mac = jobs.work[1], jobs.layers[0].mac
    x = np.random.default_rng(6).integers(0, 16, (2, mac.input.channels))
    wanted = mac.reference(x)

    async def script(bench):
        bench.fill(job)
        await bench.filled()
        rows = slice(4 * job.row_tile, 4 * job.row_tile + job.rows)
        await bench.swap(job, x[0, rows], 0)
        await bench.cycle(1)
        bench.ctx.set(bench.twin.front.sample, 1)
        await bench.cycle()
        bench.ctx.set(bench.twin.front.sample, 0)
        await bench.light(x[1, rows], 1)
        while len(bench.codes) < 2:
            await bench.cycle()
        codes = np.array([code for _, lanes in bench.codes for code in lanes])
        np.testing.assert_array_equal(codes[: job.columns], part(wanted[0], job, jobs))
        codes = await bench.measure(0)
        np.testing.assert_array_equal(codes[: job.columns], part(wanted[1], job, jobs))

    Bench(jobs, settling=2).run(script)


# -- time -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("geometry", "options", "clean", "noisy"),
    [
        # from the sample on, without noise passes * (rows / simd + 2 + conversion + parallel / lanes) + 3
        (Geometry(8, 8, 2), {"conversion": 3}, 8 + 2 + 3 + 4 + 3, None),
        (Geometry(8, 8, 2), {"conversion": 0, "parallel": 4, "simd": 4}, 2 * (2 + 2 + 0 + 2) + 3, None),
        # with noise passes * (rows / simd + 2 + conversion + parallel) + 4 + rest: root and 6 where the words are early
        (Geometry(64, 8, 2), {"conversion": 3}, None, 64 + 2 + 3 + 8 + 4),
    ],
)
def test_time_of_a_measurement(geometry, options, clean, noisy):
    program = network(geometry, None if noisy is None else ("relative shot thermal",) * 2, (8, 7, 5))
    jobs = Jobs.of(program, geometry)
    bench = Bench(jobs, **options)
    if noisy is not None:
        noisy += bench.twin.noise.sums.root_bits + NoiseLanes.TAIL

    async def script(bench):
        bench.ctx.set(bench.twin.front.sample, 1)
        await bench.cycle()
        bench.ctx.set(bench.twin.front.sample, 0)
        await bench.cycle(PATIENCE)

    bench.run(script)
    times = [now for now, _ in bench.codes]
    assert times[-1] == (clean or noisy)
    assert len(times) == geometry.groups
    if bench.twin.passes == 1:
        first, pace = bench.twin.answers
        assert times == [first + pace * k for k in range(geometry.groups)]
    else:
        with pytest.raises(BittrueError, match="its codes come in 2 passes, so they have no one pace"):
            _ = bench.twin.answers


@pytest.mark.parametrize(
    ("sizes", "geometry"),
    [
        ((10, 7, 5), ARRAY),
        ((8, 13, 3), Geometry(8, 12, 2)),
        ((5, 1, 2), Geometry(1, 1, 1)),
        ((16, 9), Geometry(64, 8, 8)),
    ],
)
def test_sites_are_counted_as_far_as_they_go_and_no_further(sizes, geometry):
    """A row of tiles has a site for each output and one for all; those of a tile go on as far as its columns."""
    noise = ("relative shot thermal",) * (len(sizes) - 1)
    twin = TwinNoise(Jobs.of(network(geometry, noise, sizes), geometry), arrival=1)
    seen = []
    for inputs, outputs in itertools.pairwise(sizes):
        tiles, groups = -(-inputs // geometry.rows), -(-outputs // geometry.columns)
        for row in range(tiles):
            seen += [row * (outputs + 1) + column for column in range(groups * geometry.columns + 1)]
            seen.append(row * (outputs + 1) + outputs)
    assert twin.sites - 1 == max(seen)


# -- bad input --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parallel": 3}, "parallel = 3 columns"),
        ({"parallel": 8}, "parallel = 8 columns"),
        ({"parallel": 0}, "parallel = 0 columns"),
        ({"simd": 3}, "simd = 3 rows"),
        ({"simd": 8}, "simd = 8 rows"),
        ({"settling": 0}, "0 cycles of settling"),
        ({"dac_cycles": 0}, "0 for a beat"),
        ({"conversion": -1}, "-1 of conversion"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(BittrueError, match=words):
        PhotonicTwin(Jobs.of(network(ARRAY), ARRAY), **options)


@pytest.mark.parametrize("simd", range(1, 9))
def test_rows_at_once_are_a_power_of_two_that_divides_the_rows(simd):
    array = Geometry(60, 4, 2)
    jobs = Jobs.of(network(array), array)
    if simd in (1, 2, 4):
        assert PhotonicTwin(jobs, simd=simd).simd == simd
        return
    with pytest.raises(BittrueError, match=f"simd = {simd} rows; it is a power of two that divides 60 rows"):
        PhotonicTwin(jobs, simd=simd)


# -- the tests can fail -----------------------------------------------------------------------------------------
class TestMutations:
    """`exact` holds, and does not once something is broken."""

    @pytest.fixture
    def program(self) -> Program:
        program = network(ARRAY, ("relative shot thermal",) * 2)
        exact(program, ARRAY)
        return program

    @staticmethod
    def fails(program: Program, **options) -> None:
        with pytest.raises(AssertionError, match="job"):
            exact(program, ARRAY, **options)

    def test_keys_of_another_layer(self, program, monkeypatch):
        numbers = TwinNoise.numbers

        def spoiled(self, m, layer):
            first, second = self.noises
            self.noises = [first, replace(second, seed=first.seed, layer=first.layer)]
            return numbers(self, m, layer)

        monkeypatch.setattr(TwinNoise, "numbers", spoiled)
        self.fails(program)

    def test_numbers_that_do_not_follow_the_layer(self, program, monkeypatch):
        numbers = TwinNoise.numbers
        monkeypatch.setattr(TwinNoise, "numbers", lambda self, m, layer: numbers(self, m, layer & 0))
        self.fails(program)

    @pytest.mark.parametrize("which", [1, 2], ids=["column", "common"])
    def test_a_site_of_another_job(self, program, monkeypatch, which):
        place = TwinNoise.place

        def spoiled(self, m):
            found = place(self, m)
            with m.If(self.start):
                m.d.sync += found[which].eq(0)
            return found

        monkeypatch.setattr(TwinNoise, "place", spoiled)
        self.fails(program)

    def test_a_g0_of_the_measurement_before(self, program, monkeypatch):
        elaborate = PhotonicTwin.elaborate

        def spoiled(self, platform):
            m = elaborate(self, platform)
            m.d.comb += self.noise.common.eq(0)
            return m

        monkeypatch.setattr(PhotonicTwin, "elaborate", spoiled)
        self.fails(program)

    def test_an_image_that_stays(self, program, monkeypatch):
        elaborate = PhotonicTwin.elaborate

        def spoiled(self, platform):
            m = elaborate(self, platform)
            m.d.comb += self.noise.image.eq(0)
            return m

        monkeypatch.setattr(PhotonicTwin, "elaborate", spoiled)
        self.fails(program)

    def test_a_root_that_is_one_too_large(self, monkeypatch):
        program = network(ARRAY, ("shot", "shot"))
        root = NoiseLanes.root
        monkeypatch.setattr(NoiseLanes, "root", lambda self, m, name, u: root(self, m, name, u) | 1)
        self.fails(program, images=8)

    def test_weights_of_the_wrong_pass(self, monkeypatch):
        program = network(ARRAY)
        exact(program, ARRAY, parallel=2)
        taken = PhotonicTwin.taken

        def spoiled(self, m):
            strobe, member, number = taken(self, m)
            return strobe, member, number & 0

        monkeypatch.setattr(PhotonicTwin, "taken", spoiled)
        self.fails(program, parallel=2)
