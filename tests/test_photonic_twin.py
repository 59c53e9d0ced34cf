"""The digital twin of the photonic array alone, driven as a controller may drive it, against `sim.photonic_mac`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from photonic_programs import photonic_network

from rtl.noise import NoiseLanes
from rtl.photonic_jobs import Geometry, Job, Jobs
from rtl.photonic_noise import TwinNoise
from rtl.photonic_twin import PhotonicTwin
from sim.errors import BittrueError
from sim.noise import Noise
from sim.photonic_mac import PhotonicMac
from sim.program import Program

#: Cycles in which codes have to come.
PATIENCE = 2000


def network(
    geometry: Geometry, kinds: tuple[str, ...] | None = None, sizes: tuple[int, ...] = (10, 7, 5), **options
) -> Program:
    """A network whose layers have these kinds of noise: the names of its sources, "" for none."""
    program = photonic_network(sizes, geometry.rows, noise=kinds is not None, **options)
    nodes, wanted = [], iter(kinds or ())
    for node in program.nodes:
        operation = node.operation
        if isinstance(operation, PhotonicMac) and kinds is not None:
            names = next(wanted).split()
            # Strong enough that every source alone changes codes; images of the layers start elsewhere.
            factors = {
                name: getattr(operation.noise, name) * 4 if name in names else 0
                for name in ("relative", "shot", "thermal")
            }
            first = (1 << 32) - 2 - operation.noise.layer
            operation = replace(operation, noise=replace(operation.noise, first=first, **factors) if names else None)
        nodes.append(replace(node, operation=operation))
    return replace(program, nodes=tuple(nodes))


class Bench:
    """The twin, cycle by cycle, as the controller sees it.

    codes     groups of codes that came, with the cycle of each
    """

    def __init__(self, jobs: Jobs, seed: int = 0, **options):
        self.jobs, self.twin = jobs, PhotonicTwin(jobs, **options)
        self.rng = np.random.default_rng(seed)
        self.now, self.codes = 0, []
        self.beats: list[dict] = []

    def run(self, script) -> Bench:
        async def main(ctx):
            self.ctx = ctx
            await script(self)

        sim = Simulator(self.twin)
        sim.add_clock(1e-8)
        sim.add_testbench(main)
        sim.run()
        return self

    async def cycle(self, count: int = 1) -> None:
        ctx, front = self.ctx, self.twin.front
        for _ in range(count):
            offered = bool(self.beats) and self.rng.random() < 0.8
            ctx.set(front.weight.valid, offered)
            if offered:
                ctx.set(front.weight.payload, self.beats[0])
                if ctx.get(front.weight.ready):
                    self.beats.pop(0)
            if ctx.get(front.adc_valid):
                self.codes.append((self.now, [ctx.get(code) for code in front.adc_data]))
            await ctx.tick()
            self.now += 1

    def fill(self, job: Job) -> None:
        """Weights and offsets of a job are to go to the other bank; what it does not use is 0."""
        g, mac = self.jobs.geometry, self.jobs.layers[job.layer].mac
        left, top = job.column_tile * g.columns, job.row_tile * g.rows
        plus, minus = np.zeros((2, g.rows, g.columns), np.int64)
        for rail, cells in ((plus, mac.plus), (minus, mac.minus)):
            rail[: job.rows, : job.columns] = cells[left : left + job.columns, top : top + job.rows].T
        offset = np.zeros(g.columns, np.int64)
        offset[: job.columns] = mac.offset[job.row_tile, left : left + job.columns]
        dark = [0] * g.lanes
        for row in range(g.rows + 1):
            for group in range(g.groups):
                part, bias = slice(group * g.lanes, (group + 1) * g.lanes), row == g.rows
                cells = {"plus": dark, "minus": dark, "offset": offset[part].tolist()}
                if not bias:
                    cells = {"plus": plus[row, part].tolist(), "minus": minus[row, part].tolist(), "offset": dark}
                self.beats.append({"row": 0 if bias else row, "group": group, "bias": int(bias), **cells})

    async def filled(self) -> None:
        while self.beats:
            await self.cycle()

    async def swap(self, job: Job, inputs: np.ndarray | None = None, image: int = 0) -> None:
        """The banks change places, in the same cycle as the inputs of the first image if there are any."""
        front = self.twin.front
        self.ctx.set(front.swap, 1)
        if inputs is None:
            await self.cycle()
        else:
            await self.light(inputs, image)
        self.ctx.set(front.swap, 0)
        self.ctx.set(front.job, job.number)
        self.ctx.set(front.shift, self.jobs.layers[job.layer].mac.shift)

    async def light(self, inputs: np.ndarray, image: int) -> None:
        """Codes of the inputs of an image."""
        ctx, front = self.ctx, self.twin.front
        codes = np.zeros(self.jobs.geometry.rows, np.int64)
        codes[: len(inputs)] = inputs
        ctx.set(front.input_data, codes.tolist())
        ctx.set(front.input_valid, 1)
        await self.cycle()
        ctx.set(front.input_valid, 0)
        ctx.set(front.input_data, [0] * len(codes))
        ctx.set(front.image, image)

    async def measure(self, wait: int) -> np.ndarray:
        """The codes of all columns, sampled after so many cycles without light or change."""
        ctx, front, first = self.ctx, self.twin.front, len(self.codes)
        await self.cycle(wait)
        ctx.set(front.sample, 1)
        await self.cycle()
        ctx.set(front.sample, 0)
        begin = self.now
        while len(self.codes) - first < self.jobs.geometry.groups:
            await self.cycle()
            assert self.now - begin < PATIENCE, "no codes come"
        return np.array([code for _, lanes in self.codes[first:] for code in lanes])


def part(codes: np.ndarray, job: Job, jobs: Jobs) -> np.ndarray:
    """What a job measures of `[tiles, outputs]`."""
    left = job.column_tile * jobs.geometry.columns
    return codes[job.row_tile, left : left + job.columns]


def exact(program: Program, geometry: Geometry, images: int = 2, settling: int = 3, seed: int = 0, **options) -> Bench:
    """All jobs of some images, each with one set of weights for all images; the next weights come meanwhile."""
    jobs = Jobs.of(program, geometry)
    bench = Bench(jobs, seed, settling=settling, **options)
    rng = np.random.default_rng(seed + 1)
    inputs = [rng.integers(0, jobs.codes.high + 1, (images, layer.mac.input.channels)) for layer in jobs.layers]
    expected = [layer.mac.reference(x) for layer, x in zip(jobs.layers, inputs, strict=True)]

    async def script(bench):
        bench.fill(jobs.work[0])
        for job in jobs.work:
            await bench.filled()
            rows = slice(job.row_tile * geometry.rows, job.row_tile * geometry.rows + job.rows)
            for image in range(images):
                x = inputs[job.layer][image, rows]
                if image:
                    await bench.light(x, image)
                elif job.number % 2:  # inputs later than weights
                    await bench.swap(job)
                    await bench.cycle(2)
                    await bench.light(x, image)
                else:
                    await bench.swap(job, x, image)
                if image == 0 and job.number + 1 < len(jobs.work):
                    bench.fill(jobs.work[job.number + 1])
                codes = await bench.measure(settling - 1)
                wanted = part(expected[job.layer][image], job, jobs)
                np.testing.assert_array_equal(codes[: job.columns], wanted, f"job {job.number}, image {image}")

    return bench.run(script)


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
@pytest.mark.parametrize("noise", [False, True], ids=["clean", "noisy"])
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
