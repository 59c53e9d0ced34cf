"""Threads over a batch: codes, tensors and counts are those of one thread, whatever samples a thread has."""

import threading

import numpy as np
import pytest

from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.noise import Noise
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.reshape import Reshape
from bittrue.sim.operations.window import Window
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from bittrue.sim.threads import pieces, spread

THREADS = (2, 3, 8, 1024)


def convolution(rng, weight=None) -> Program:
    build = Builder({"x": TensorType((6, 5, 3), INT8)})
    window = Window(build.types["x"], (3, 3), padding=(1, 1, 1, 1))
    w = build.add("w", window, "x")
    rows = build.add("rows", Reshape(window.output, (6, 5, 27)), w)
    weight = rng.integers(-128, 128, (16, 27)) if weight is None else weight
    return build.program(build.add("y", Linear(build.types[rows], weight, Requantize(16, np.full(16, 8))), rows))


def noisy(rng) -> Program:
    build = Builder({"x": TensorType((7,), Format(8, signed=False))})
    plus, minus = rng.integers(0, 64, (2, 4, 7))
    noise = Noise.from_physics(3, 0, thermal=2000.0)
    mac = PhotonicMac(build.types["x"], plus, minus, 4, 8, 8, np.zeros((2, 4), np.int64), noise=noise)
    return build.program(build.add("light", mac, "x"))


def batch(program: Program, n: int, rng) -> np.ndarray:
    (kind,) = program.inputs.values()
    return rng.integers(kind.format.low, kind.format.high + 1, (n, *kind.shape)).astype(kind.format.dtype)


def equal(program: Program, x: np.ndarray, threads: int, **options) -> None:
    expected, one = program.reference(x, **options), program.trace(x, **options)
    np.testing.assert_array_equal(program(x, threads=threads, **options), expected)
    trace = program.trace(x, threads=threads, **options)
    assert trace.saturation == one.saturation
    assert list(trace.tensors) == list(one.tensors)
    for name, codes in one.tensors.items():
        np.testing.assert_array_equal(trace.tensors[name], codes)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("n", [0, 1, 2, 37])
def test_a_program(threads, n):
    rng = np.random.default_rng(n)
    program = convolution(rng)
    x = batch(program, n, rng)
    assert n < 2 or program.trace(x).saturation["y"] > 0
    equal(program, x, threads)


@pytest.mark.parametrize("threads", THREADS)
def test_one_that_counts_its_samples(threads):
    """Every thread's first sample has its index in the run, not in the piece."""
    rng = np.random.default_rng(1)
    program = noisy(rng)
    x = batch(program, 1, rng).repeat(21, axis=0)
    assert len({codes.tobytes() for codes in program(x, first=5)}) == 21  # one image, each time with other noise
    equal(program, x, threads, first=5)


@pytest.mark.parametrize("threads", THREADS)
def test_weights_that_are_written_on_the_way(threads):
    rng = np.random.default_rng(2)
    program = convolution(rng, Held("w", (16, 27), -128, 127))
    sets = [(at, {"w": rng.integers(-128, 128, (16, 27))}) for at in (0, 4, 19)]
    equal(program, batch(program, 30, rng), threads, held=sets)


def test_every_thread_has_a_piece():
    for n, size, threads in ((64, 256, 2), (64, 10, 2), (5, 256, 8), (0, 8, 4), (7, 3, 2)):
        parts = list(pieces(slice(3, 3 + n), size, threads))
        assert [k for part in parts for k in range(part.start, part.stop)] == list(range(3, 3 + n))
        assert len(parts) >= min(n, threads)
        assert max((part.stop - part.start for part in parts), default=0) <= size


def test_they_run_beside_each_other():
    meet = threading.Barrier(3, timeout=20)
    assert sorted(spread(3, [meet.wait] * 3)) == [0, 1, 2]


def test_what_one_raises_is_raised():
    def fail():
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        spread(2, [int, fail, int])


def test_kernels_release_the_lock():
    """While a kernel runs, another thread of Python's moves on."""
    from bittrue.sim.kernels.jit import jit

    @jit
    def spin(steps):
        total = 0
        for k in range(steps):
            total ^= total * 31 + k
        return total

    spin(1)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (spin(400_000_000), done.set()))
    thread.start()
    moved = 0
    while not done.wait(0.001):
        moved += 1
    thread.join()
    assert moved > 20


@pytest.mark.parametrize("threads", [0, -1, 1.5, "4", True, None, 1025])
@pytest.mark.parametrize("verb", ["__call__", "run", "trace"])
def test_what_is_no_number_of_threads(threads, verb):
    rng = np.random.default_rng(0)
    program = convolution(rng)
    with pytest.raises(BittrueError, match="the threads of a run are a whole number from 1 to 1024"):
        getattr(program, verb)(batch(program, 2, rng), threads=threads)
