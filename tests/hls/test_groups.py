"""Samples that go in groups through the HLS kernels: a stream of groups, each of another size."""

import ctypes
import itertools
import json
import re
import subprocess

import numpy as np
import pytest

from bittrue.hls import depth, host, project
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim import groups
from bittrue.sim.errors import BittrueError
from bittrue.sim.naming import slave_prefixes
from tests.helpers.framing import flags
from tests.helpers.grouped import changed, network
from tests.helpers.lengths import long_but
from tests.helpers.sets import codes

pytestmark = pytest.mark.needs("g++")

#: By name: seed, slots, n where it is constant, and whether one more result is a tensor of groups.
PROGRAMS = {
    "2": (0, 2, None, False),
    "3": (1, 3, None, True),
    "4": (2, 4, None, False),
    "6": (3, 6, None, False),
    "6 by 3": (4, 6, 3, True),
}
#: What is planted in the sources of "4": file, an expression of it, what it becomes. A fault is chosen by its number
#: when the kernels run, so that one compilation does for all; the sources of the others are as they are written.
FAULTS = [
    ("bundle.hpp", "image == 0 ? accumulator_t(0) : together[t][j]", "together[t][j]"),
    ("bundle.hpp", "image == images - 1", "image == P::slots - 1"),
    ("bundle.hpp", "turn == image", "turn == 0"),
    ("bundle.hpp", "turn + 1 == images", "turn + 1 == P::slots"),
    ("bundle.hpp", "summed_t(weight[s][j][k + i])", "summed_t(weight[s % images][j][k + i])"),
    ("unbundle.hpp", "V(2 * sum + R)", "V(2 * sum + R - 1)"),
    ("unbundle.hpp", "V(~V(V(~twice) / (2 * R)))", "V(twice / (2 * R))"),
    ("unbundle.hpp", "turn == image", "turn == images - 1 - image"),
    ("unbundle.hpp", "turn + 1 == images", "turn + 1 == P::slots"),
    ("unbundle.hpp", "image < images", "image < P::slots"),
    ("top.cpp", "f < frames", "f < 1"),
    ("contract.hpp", "told != 0 && SLOTS % int(told) == 0 ? told : T(INITIAL)", "T(INITIAL)"),
]
#: What no frame shows: of four slots, three images are not taken for three.
HARMLESS = len(FAULTS) + 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name -> the program, its folder and its kernels, which record their accesses."""
    built = {}

    def build(name: str):
        if name not in built:
            program = network(*PROGRAMS[name])
            folder = project.write(program, tmp_path_factory.mktemp("groups"))
            if name == "4":
                plant(folder)
            built[name] = program, folder, host.build(folder, ("BITTRUE_LOG",))
        return built[name]

    return build


def plant(folder) -> None:
    """Every fault of `FAULTS`; the variable `planted` chooses one by its number, counted from 1."""
    for number, (file, old, new) in enumerate(FAULTS, 1):
        text = (folder / file).read_text()
        assert text.count(old) == 1 or (file == "top.cpp" and old in text), (file, old)
        (folder / file).write_text(text.replace(old, f"(planted == {number} ? ({new}) : ({old}))"))
    text, old = (folder / "host" / "batch.cpp").read_text(), "frames[ahead], true"
    assert text.count(old) == 2  # in a batch, and in beats
    new = f"planted == {HARMLESS} && frames[ahead] == 4 ? 3 : {old}"
    (folder / "host" / "batch.cpp").write_text(text.replace(old, new))
    text, variable = (folder / "contract.hpp").read_text(), 'extern "C" {\nint planted = 0;\n}\n'
    (folder / "contract.hpp").write_text(text.replace("namespace bittrue {", f"{variable}namespace bittrue {{", 1))


def agree(program, kernel, x, first=0, held=None) -> None:
    """AssertionError unless the kernels give every tensor and every result as the program does."""
    results, truth = kernel.run(*x, first=first, held=held), program.run(*x, first=first, held=held)
    for made, tensor in zip(results, truth, strict=True):
        np.testing.assert_array_equal(made, tensor)
    traced, expected = kernel.trace(*x, first=first, held=held), program.trace(*x, first=first, held=held).tensors
    for name, tensor in expected.items():
        np.testing.assert_array_equal(traced[name], tensor, err_msg=name)
        assert traced[name].dtype == tensor.dtype


@pytest.mark.parametrize("name", long_but(PROGRAMS, "3", "4"))
def test_every_tensor(made, name):
    """n as it is at first, constant for a run, and changed at random; the last group complete or not."""
    program, _, kernel = made(name)
    rng = np.random.default_rng(7)
    x = codes(program, 29, rng)
    for count in (0, 1, program.grouping.size, 29):
        agree(program, kernel, [v[:count] for v in x])
    if program.grouping.held is None:
        with pytest.raises(BittrueError, match="takes no set"):
            kernel.predict(*x, held={"images": np.array(3)})
        return
    for n in program.grouping.modes:
        agree(program, kernel, x, held={"images": np.array(n)})
    for _ in range(3):
        held = changed(program, 29, rng)
        assert len({g.size for g in groups.walk(program.grouping, 29, 0, held)}) > 1
        agree(program, kernel, x, held=held)
    agree(program, kernel, x, first=5, held=[(at + 3, values) for at, values in held])
    assert not np.array_equal(program(*x)[0], program(*x, held=held)[0])


def test_sizes_that_do_not_fill_the_slots_are_refused(made):
    program, _, kernel = made("6")
    x = codes(program, 4, np.random.default_rng(0))
    for bad, message in ((4, "4 is none of its values 1, 2, 3, 6"), (0, "outside its bounds"), (7, "outside")):
        with pytest.raises(BittrueError, match=message):
            kernel.predict(*x, held={"images": np.array(bad)})
    with pytest.raises(BittrueError, match="expected shape"):
        kernel.predict(*x, held={"images": np.array([3])})


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1))
def test_a_planted_fault_is_seen(made, number):
    program, _, kernel = made("4")
    rng = np.random.default_rng(9)
    x, held = codes(program, 40, rng), changed(program, 40, rng)
    chosen = ctypes.c_int.in_dll(kernel._library, "planted")
    agree(program, kernel, x, held=held)
    chosen.value = number
    try:
        with pytest.raises((AssertionError, BittrueError)):
            agree(program, kernel, x, held=held)
    finally:
        chosen.value = 0


def test_a_number_that_does_not_divide_the_slots_is_taken_for_the_first(made):
    program, _, kernel = made("4")
    rng = np.random.default_rng(9)
    x, held = codes(program, 40, rng), changed(program, 40, rng)
    assert program.grouping.size == 4
    chosen = ctypes.c_int.in_dll(kernel._library, "planted")
    chosen.value = HARMLESS
    try:
        agree(program, kernel, x, held=held)
    finally:
        chosen.value = 0


@pytest.mark.parametrize("case", ["right", "never", "always", "early", "random"])
def test_frames_whose_last_is_wrong(made, case):
    """Each input finds the frames of its samples as ever, whatever groups they go in."""
    program, _, kernel = made("3")
    rng = np.random.default_rng(3)
    ports = [StreamPort(p, t, 1) for p, t in zip(slave_prefixes(program.inputs), program.inputs.values(), strict=True)]
    last = np.array(flags(case, ports[0].beats, rng))
    fmt = ports[0].tensor.format
    sent = rng.integers(fmt.low, fmt.high + 1, (-(-len(last) // ports[0].beats), *ports[0].tensor.shape))
    words = ports[0].pack(sent).reshape(-1, ports[0].beat_bytes)[: len(last)]
    frames, errors = ports[0].frames(words, last)
    (_, other), right = codes(program, len(frames), rng), np.arange(ports[1].beats) == ports[1].beats - 1
    sources = [(sent.reshape(-1)[: len(last)], last), (other.reshape(-1), np.tile(right, len(frames)))]
    held = changed(program, len(frames), rng)
    results, counted = kernel.beats(*sources, frames=len(frames), held=held)
    for got, expected in zip(results, program.run(ports[0].unpack(frames), other, held=held), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert counted == [errors, 0]


def test_depths_cannot_deadlock(made):
    """Groups of any two sizes after each other; a residual around the groups needs the frames of the largest."""
    program, folder, _ = made("3")
    depths = json.loads((folder / "project.json").read_text())["streams"]
    calls = {n: depth.record(folder, n) for n in program.grouping.modes}
    for sizes in itertools.product(calls, repeat=2):
        depth.check(depth.follow(*(calls[n] for n in sizes)), depths)
    size = program.types["early"].size
    (name,) = (k for k, codes in depths.items() if "early" in k and codes == 3 * size)
    with pytest.raises(BittrueError, match="deadlock, .*bundle<node_4_bind> reads empty"):
        depth.check(calls[3], depths | {name: size})
    depth.check(calls[1], depths | {name: size})


def test_streams_of_sizes_cannot_deadlock_and_keep_nothing_waiting(made):
    """A number for everything that works on several frames, each through a stream of its own, of any depth."""
    program, folder, _ = made("3")
    project_of = json.loads((folder / "project.json").read_text())
    call, reads, told = project_of["processes"][0]
    assert (call, reads) == ("bittrue::tell<ap_uint<2>, 3, 3>", ["s_axis_images"])
    depths = project_of["streams"]
    assert {depths[name] for name in told} == {2 * (len(project_of["processes"]) - 1)}
    calls = {n: depth.record(folder, n) for n in program.grouping.modes}
    for sizes in itertools.product(calls, repeat=2):
        depth.check(depth.follow(*(calls[n] for n in sizes)), depths | dict.fromkeys(told, 1))
    with pytest.raises(BittrueError, match="deadlock, bittrue::tell"):
        depth.check(calls[3], depths | {told[0]: 0})


def test_how_many_go_together_comes_on_a_stream(made):
    _, folder, _ = made("3")
    top, header = (folder / "top.cpp").read_text(), (folder / "top.hpp").read_text()
    assert "hls::stream<s_axis_images_beat>& s_axis_images," in header
    assert "typedef ap_uint<2> s_axis_images_code;" in header
    assert "held_" not in top + header
    assert "#pragma HLS INTERFACE axis port=s_axis_images\n" in top
    _, folder, _ = made("6 by 3")
    assert "s_axis_images" not in (folder / "top.hpp").read_text()
    assert re.search(r"each_0_unpack\(s_axis_a, \w+, s_axis_a_framing_errors, 3\);", (folder / "top.cpp").read_text())


def test_the_test_bench_takes_every_size(made, tmp_path):
    """It passes, and fails where the sizes of its groups are others, or do not add up."""
    _, folder, _ = made("3")
    include = [f"-I{folder / 'host'}", f"-I{folder}", f"-I{host.find_headers()}"]
    command = [host.find_compiler(), "-std=c++14", "-fwrapv", "-w", "-DBITTRUE_HOST", *include]
    sources = ["-include", str(folder / "top.cpp"), str(folder / "tb.cpp")]
    subprocess.run([*command, *sources, "-o", str(tmp_path / "tb")], check=True)

    def status() -> tuple[int, str]:
        run = [tmp_path / "tb", folder / "vectors"]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()[-1]

    path = folder / "vectors" / "s_axis_images.txt"
    sizes = path.read_text()
    assert sizes == "3\n1\n3\n1\n"
    assert status() == (0, "8 frames, 0 mismatches")
    path.write_text("1\n3\n1\n3\n")
    assert status()[0] == 1
    path.write_text("3\n1\n3\n")
    assert status()[0] == 2
    path.write_text(sizes)
