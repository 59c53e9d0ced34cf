"""Photonic programs: golden, RTL under stalls, compiled RTL and HLS kernels see the same light and the same noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittrue.flow.verify.backends import Build, Stalls
from bittrue.flow.verify.verify import verify
from bittrue.hls import host, project
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.plan import Plan, fold_all, plan
from bittrue.rtl.dataflow.stages.photonic_mac import PhotonicMacStage
from bittrue.rtl.parts.noise import NoisePipe, Sites
from bittrue.rtl.verilog import emit
from bittrue.sim.builder import Builder
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import BLOCK, Program
from bittrue.sim.requantize import Requantize
from tests.helpers.exact import exact, exact_compiled
from tests.helpers.lengths import long_but
from tests.helpers.programs import photonic, stimulus
from tests.helpers.stage_bench import run

NOISE = pytest.mark.parametrize("noisy", [False, True], ids=["clean", "noisy"])
ARRAYS = ("hidden.array", "classifier.array")


def stage(planned: Plan, node: str) -> PhotonicMacStage:
    return next(e.stage for e in planned.network.elements if e.node == node)


def one(array: PhotonicMac) -> Program:
    """The array alone."""
    build = Builder({"x": array.input})
    return build.program(build.add("y", array, "x"))


def wide(array: PhotonicMac) -> PhotonicMac:
    """The array without noise whose converter loses nothing."""
    return replace(array, bits=24, shift=0, offset=np.zeros(1), noise=None)


def pair(array: PhotonicMac, summed: TileSum) -> tuple[Program, Program]:
    """An array whose converter loses nothing with the sum of its tiles, and the matrix product that it must equal."""
    lossless = wide(array)
    requantize = summed.requantize
    dark = lossless.pedestal.sum(axis=0)
    build = Builder({"x": array.input})
    codes = build.add("codes", lossless, "x")
    after = replace(requantize, bias_acc=requantize.bias_acc - dark)
    light = build.program(build.add("y", TileSum(lossless.output, 0, after), codes))
    build = Builder({"x": array.input})
    matrix = Linear(array.input, array.weight, requantize, array.weight_format)
    return light, build.program(build.add("y", matrix, "x"))


# -- the golden simulator ---------------------------------------------------------------------------------------
class TestGolden:
    @NOISE
    def test_the_codes_spread_and_some_are_clipped(self, noisy):
        program = photonic(noisy=noisy)
        trace = program.trace(*stimulus(program, 200, 0))
        for name, codes in trace.tensors.items():
            assert len(np.unique(codes)) >= 30, name
            assert trace.saturation.get(name, 0) <= 0.1 * codes.size, name
        assert all(trace.saturation[name] for name in ARRAYS)

    def test_noise_changes_codes_and_depends_on_the_image(self):
        program = photonic(noisy=True)
        x = [np.repeat(v[-1:], 8, axis=0) for v in stimulus(program, 4, 0)]
        codes = program.trace(*x).tensors["hidden.array"]
        assert len(np.unique(codes.reshape(8, -1), axis=0)) == 8
        assert len(np.unique(photonic(noisy=False).trace(*x).tensors["hidden.array"].reshape(8, -1), axis=0)) == 1

    @NOISE
    def test_blocks_and_parts_of_a_run_are_the_run(self, noisy):
        program = photonic(noisy=noisy)
        assert program.counts_frames == noisy
        x = stimulus(program, 2 * BLOCK + 40, 1)
        expected = program.reference(*x)
        np.testing.assert_array_equal(program(*x), expected)
        for start in (1, BLOCK - 3, 2 * BLOCK):
            part = [v[start:] for v in x]
            np.testing.assert_array_equal(program(*part, first=start), expected[start:])
            np.testing.assert_array_equal(program.trace(*part, first=start).tensors["classifier"], expected[start:])
            np.testing.assert_array_equal(program.reference(*part, first=start), expected[start:])
            assert np.array_equal(program(*part), expected[start:]) != noisy

    def test_the_index_wraps_wherever_a_run_is_cut(self):
        """As the counters of RTL and HLS do: in a run of several blocks, and in one cut after the last index."""
        program = photonic(noisy=True)
        x, first = stimulus(program, BLOCK + 50, 2), (1 << 32) - 30
        expected = program.reference(*x, first=first)
        np.testing.assert_array_equal(expected[30:], program.reference(*(v[30:] for v in x)))
        np.testing.assert_array_equal(program(*x, first=first), expected)
        np.testing.assert_array_equal(program.trace(*x, first=first).tensors["classifier"], expected)
        array = program["hidden.array"]
        late = one(replace(array, noise=replace(array.noise, first=first)))
        np.testing.assert_array_equal(late(*(v[40:] for v in x), first=40), late(*x)[40:])

    def test_indices_and_numbers_of_numpy(self, tmp_path):
        """As a loop over an array gives them: they do not overflow, and a file holds them."""
        program = photonic(noisy=True)
        x, first = stimulus(program, BLOCK + 9, 2), (1 << 32) - 5
        np.testing.assert_array_equal(program(*x, first=np.uint32(first)), program(*x, first=first))
        np.testing.assert_array_equal(program.reference(*x, first=np.uint32(first)), program(*x, first=first))
        array = program["hidden.array"]
        made = replace(array, rows=np.int64(array.rows), noise=replace(array.noise, seed=np.uint64(array.noise.seed)))
        assert one(made).sha256 == one(array).sha256
        np.testing.assert_array_equal(Program.load(one(made).save(tmp_path / "made.npz"))(*x), one(array)(*x))

    def test_no_image_at_all(self):
        program = photonic(noisy=True)
        x = stimulus(program, 0, 0)
        assert program(*x).shape == program.reference(*x).shape == (0, *program.output.shape)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_wide_converter_makes_it_the_matrix_product(self, seed):
        program = photonic(noisy=False, seed=seed)
        for layer in ("hidden", "classifier"):
            light, matrix = pair(program[f"{layer}.array"], program[layer])
            x = stimulus(light, 40, seed)
            np.testing.assert_array_equal(light(*x), matrix(*x))


# -- Amaranth's simulator ---------------------------------------------------------------------------------------
@NOISE
@pytest.mark.parametrize("interval", [36, 72, 200])
def test_networks_are_exact(noisy, interval):
    planned = plan(photonic(noisy=noisy), interval=interval)
    assert planned.estimated_interval <= interval
    exact(planned, interval)


LONG = [pytest.param(folding, marks=pytest.mark.long) for folding in ((1, 1, 1, 1), (4, 1, 2, 1))]


@pytest.mark.parametrize("folding", [(4, 6, 4, 3), (2, 3, 1, 3), *LONG])
def test_foldings_are_exact(folding):
    program = photonic(noisy=True, tokens=1, seed=3)
    chosen = {name: Folding(*folding[2 * k : 2 * k + 2]) for k, name in enumerate(ARRAYS)}
    exact(plan(program, folding=chosen), 0)


def test_a_wide_converter_in_hardware():
    program = photonic(noisy=False)
    light, matrix = pair(program["hidden.array"], program["hidden"])
    x = stimulus(light, 8, 0)
    np.testing.assert_array_equal(run(plan(light), x, 0.3, 0.3).outputs, matrix(*x))


@pytest.mark.parametrize("factors", [(0, 0, 0), (900, 0, 0), (0, 30_000, 0), (0, 0, 90_000), (900, 0, 90_000)])
def test_every_source_of_noise_alone(factors):
    """A source that is absent leaves its hardware out; the others stay exact."""
    base = photonic(noisy=True)["hidden.array"]
    names = ("relative", "shot", "thermal")
    noise = replace(base.noise, **dict(zip(names, factors, strict=True)), shift=20)
    exact(plan(one(replace(wide(base), noise=noise))), 0)


def test_images_are_counted_from_the_first_and_wrap():
    base = photonic(noisy=True)["hidden.array"]
    program = one(replace(base, noise=replace(base.noise, first=(1 << 32) - 2)))
    x = stimulus(program, 6, 0)
    np.testing.assert_array_equal(program(*x), program.reference(*x))
    exact(plan(program), 0)


# -- compiled RTL and HLS ---------------------------------------------------------------------------------------
@NOISE
def test_compiled_equals_golden(noisy):
    planned = plan(photonic(noisy=noisy))
    exact_compiled(planned, emit(planned), stimulus(planned.program, 300, 1))


@pytest.fixture(scope="module", params=[False, True], ids=["clean", "noisy"])
def built(request, tmp_path_factory) -> tuple[Program, host.HostKernel]:
    program = photonic(noisy=request.param)
    return program, host.build(project.write(program, tmp_path_factory.mktemp("photonic")))


#: What becomes what in the kernel of an array.
KERNEL_FAULTS = [
    ("    ++image;\n", ""),
    ("r < P::rounds", "r < P::rounds - 1"),
    ("value >= trial", "value > trial"),
    ("place + P::outputs).high", "place).high"),
    ("noise_t(offset[k][n])", "noise_t(offset[0][n])"),
]


@pytest.mark.needs("g++")
class TestKernels:
    def test_every_tensor(self, built):
        program, kernel = built
        x = stimulus(program, 300, 2)
        truth = program.trace(*x).tensors
        for name, codes in kernel.trace(*x).items():
            np.testing.assert_array_equal(codes, truth[name], err_msg=name)

    def test_every_call_is_a_run_of_its_own(self, built):
        program, kernel = built
        x = stimulus(program, 20, 3)
        expected = program(*x)
        for _ in range(2):
            np.testing.assert_array_equal(kernel.predict(*x), expected)
        part = [v[7:] for v in x]
        np.testing.assert_array_equal(kernel.predict(*part, first=7), expected[7:])
        told: list[int] = []
        (in_parts,) = kernel.run_in_parts(*x, progress=lambda done, _: told.append(done))
        np.testing.assert_array_equal(in_parts, expected)
        assert told[0] < told[-1] == 20

    @pytest.mark.parametrize(
        ("old", "new"),
        long_but(KERNEL_FAULTS, *KERNEL_FAULTS[3:]),
    )
    def test_a_fault_is_noticed(self, old, new, tmp_path):
        program = one(replace(photonic(noisy=True)["hidden.array"], bits=24, shift=0))
        folder = project.write(program, tmp_path)
        path = folder / "photonic_mac.hpp"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        x = stimulus(program, 100, 4)
        assert not np.array_equal(host.build(folder).predict(*x), program(*x))


@pytest.mark.needs("g++", "iverilog")
def test_verify_sees_no_difference(tmp_path):
    """Few images, so that they come again in the RTL's run: then each is another one, with noise of its own."""
    program = photonic(noisy=True)
    build = Build(program, folder=tmp_path)
    counts = {"reference": None, "compiled": None, "gxx": None, "icarus": 4}
    found = verify(build, stimulus(program, 5, 5), counts, Stalls(0.3, 0.3, 1), tmp_path / "verify")
    assert found.problems == []
    assert not found.skipped


# -- what is broken is seen -------------------------------------------------------------------------------------
class TestMutations:
    @pytest.fixture
    def planned(self) -> Plan:
        return plan(photonic(noisy=True, tokens=1))

    def test_a_square_root_that_is_one_too_large(self, monkeypatch):
        """A converter that shows every count, since the root of one more or less is little noise."""
        base = photonic(noisy=True)["hidden.array"]
        noise = replace(base.noise, relative=0, shot=1 << 20, thermal=0, shift=20)
        planned = plan(one(replace(wide(base), noise=noise)))
        exact(planned, 0)
        larger = lambda self, m, name, u, right=NoisePipe.root: right(self, m, name, u) | 1  # noqa: E731
        monkeypatch.setattr(NoisePipe, "root", larger)
        with pytest.raises(AssertionError):
            exact(planned, 0)

    @pytest.mark.parametrize("node", ARRAYS)
    @pytest.mark.parametrize("number", [0, 13, 26])
    def test_a_round_key(self, planned, node, number):
        stage(planned, node).noise.keys[number] ^= 1 << 31
        with pytest.raises(AssertionError):
            exact(planned, 0)

    def test_an_image_counter_that_stands_still(self, planned, monkeypatch):
        def stuck(self, m, issue, original=NoisePipe.sites):
            made = original(self, m, issue)
            return Sites(made.image & 0, made.common, made.lanes)

        monkeypatch.setattr(NoisePipe, "sites", stuck)
        with pytest.raises(AssertionError):
            exact(planned, 0)

    def test_an_offset_of_the_converter(self, planned):
        pipe = stage(planned, "hidden.array").convert
        pipe.numbers["before"] = pipe.numbers["before"].copy()
        pipe.numbers["before"][-1] += 8 << stage(planned, "hidden.array").operation.shift
        with pytest.raises(AssertionError):
            exact(planned, 0)

    def test_a_pedestal(self, planned):
        made = stage(planned, "hidden.array")
        made.pedestal = made.pedestal.copy()
        made.pedestal[0] += 1 << made.operation.shift
        with pytest.raises(AssertionError):
            exact(planned, 0)

    def test_a_tile_that_reads_the_one_before(self, planned):
        stage(planned, "hidden.array").tiles -= 1
        with pytest.raises(AssertionError):
            exact(planned, 0)


class TestErrors:
    def test_an_interval_that_is_too_short(self):
        with pytest.raises(BittrueError, match="2 tokens on 3 tiles need at least 6 cycles a frame"):
            fold_all(photonic(noisy=False), 5)

    @pytest.mark.parametrize(("simd", "pe"), [(3, 1), (1, 4), (8, 1)])
    def test_a_folding_that_does_not_divide(self, simd, pe):
        with pytest.raises(BittrueError, match=r"photonic_mac: (simd|pe) = \d does not divide"):
            plan(photonic(noisy=False), folding={"hidden.array": Folding(simd, pe)})

    @pytest.mark.parametrize("first", [-1, 1 << 32])
    def test_an_index_beyond_the_counter(self, first):
        program = photonic(noisy=True)
        for execute in (program, program.trace, program.reference):
            with pytest.raises(BittrueError, match="the first image"):
                execute(*stimulus(program, 2, 0), first=first)

    @pytest.mark.parametrize(("codes", "cells", "cell"), [(40, 30, (1 << 30) - 1), (48, 48, (1 << 48) - (1 << 16) + 1)])
    def test_light_that_wraps_64_bits(self, codes, cells, cell):
        """Modulo 2^64 it would be negative, or 65,535."""
        kind, cells = TensorType((1,), Format(codes, signed=False)), Format(cells, signed=False)
        with pytest.raises(BittrueError, match=r"photonic_mac: the result needs \d+ bits"):
            PhotonicMac(kind, np.full((2, 1), cell), np.zeros((2, 1)), 1, 8, 0, np.zeros(1), cells)

    def test_an_offset_whose_magnitude_wraps(self):
        array = photonic(noisy=False)["hidden.array"]
        with pytest.raises(BittrueError, match="photonic_mac: the result needs 64 bits"):
            replace(array, offset=np.array([-(1 << 63)]))

    @pytest.mark.parametrize(("tiles", "bits", "shift"), [(1, 24, 40), (1 << 23, 1, 40), (1 << 24, 1, 40)])
    def test_a_sum_that_wraps_64_bits(self, tiles, bits, shift):
        codes = TensorType((tiles, 1), Format(bits, signed=False))
        with pytest.raises(BittrueError, match=r"tile_sum: the result needs \d+ bits"):
            TileSum(codes, shift, Requantize(1, np.array(0)))
