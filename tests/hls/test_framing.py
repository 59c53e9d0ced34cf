"""Frames at the ports of the HLS kernels: the rule of the RTL, through the compiled host build."""

import numpy as np
import pytest

from bittrue.hls import host, project
from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.errors import BittrueError
from bittrue.sim.naming import slave_prefixes
from bittrue.sim.program import Program
from tests.helpers import programs
from tests.helpers.framing import CASES, flags
from tests.helpers.lengths import long_but

pytestmark = pytest.mark.needs("g++")

#: By name: the program, and the input whose TLAST is wrong.
PROGRAMS = {
    "first of two": (programs.two_inputs, 0),
    "second of two": (programs.two_inputs, 1),
    "several results": (programs.several, 1),
    "spiking": (lambda: programs.spiking(halving=True, steps=3), 0),
    "photonic": (lambda: programs.photonic(noisy=True), 0),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """Name of a program -> its compiled kernels."""
    built = {}

    def build(name: str) -> tuple[Program, int, host.HostKernel]:
        make, bad = PROGRAMS[name]
        program = make()
        if program.sha256 not in built:
            built[program.sha256] = host.build(project.write(program, tmp_path_factory.mktemp("kernel")))
        return program, bad, built[program.sha256]

    return build


def check(program: Program, bad: int, made: host.HostKernel, case: str) -> None:
    """Right frames come out of these beats, and the errors are counted."""
    rng = np.random.default_rng([bad, CASES.index(case)])
    ports = [StreamPort(p, t, 1) for p, t in zip(slave_prefixes(program.inputs), program.inputs.values(), strict=True)]
    last = np.array(flags(case, ports[bad].beats, rng))

    def send(port: StreamPort, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Random codes, and the same as the bytes of beats."""
        fmt = port.tensor.format
        codes = rng.integers(fmt.low, fmt.high + 1, (-(-len(last) // port.beats), *port.tensor.shape))
        return codes.reshape(-1)[: len(last)], port.pack(codes).reshape(-1, port.beat_bytes)[: len(last)]

    codes, words = send(ports[bad], last)
    frames, errors = ports[bad].frames(words, last)
    sources, x = [], []
    for k, port in enumerate(ports):
        if k == bad:
            sources.append((codes, last))
            x.append(port.unpack(frames))
        else:
            right = np.tile(np.arange(port.beats) == port.beats - 1, len(frames))
            sources.append((send(port, right)[0], right))
            x.append(sources[-1][0].reshape(len(frames), *port.tensor.shape))
    results, counted = made.beats(*sources, frames=len(frames))
    for codes, expected in zip(results, (program.trace(*x).tensors[name] for name in program.results), strict=True):
        np.testing.assert_array_equal(codes, expected)
    assert counted == [errors if k == bad else 0 for k in range(len(ports))]


@pytest.mark.parametrize("case", long_but(CASES, *[*CASES][::2]))
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_frame_is_right(kernel, name, case):
    check(*kernel(name), case)


def test_every_run_counts_for_itself(kernel):
    program, bad, made = kernel("first of two")
    check(program, bad, made, "never")
    x = programs.stimulus(program, 3, 0)
    np.testing.assert_array_equal(made.predict(*x), program.reference(*x))


#: What becomes what in the reader of a stream, and the frames that show it.
SPOILT = [
    ("if (!ended) {", "if (true) {", "early"),
    ("T code = 0;", "T code = 1;", "early"),
    ("ended = bool(beat.last);", "ended = i == SIZE - 1;", "missing"),
    ("ended == (i == SIZE - 1)", "ended", "right"),
    ("static framing_errors_t count = 0;", "framing_errors_t count = 0;", "never"),
]


@pytest.mark.parametrize(
    ("old", "new", "case"),
    long_but(SPOILT, *SPOILT[1:3]),
)
def test_a_planted_fault_is_seen(old, new, case, tmp_path):
    program = programs.two_inputs()
    folder = project.write(program, tmp_path)
    text = (folder / "contract.hpp").read_text()
    assert text.count(old) == 1
    (folder / "contract.hpp").write_text(text.replace(old, new))
    made = host.build(folder)
    with pytest.raises((AssertionError, BittrueError)):
        check(program, 0, made, case)


def test_counts_that_are_not_0_are_an_error(tmp_path):
    program = programs.two_inputs()
    folder = project.write(program, tmp_path)
    text = (folder / "contract.hpp").read_text()
    (folder / "contract.hpp").write_text(text.replace("ended == (i == SIZE - 1)", "ended"))
    with pytest.raises(BittrueError, match="s_axis_a_framing_errors is not 0 for right frames"):
        host.build(folder).predict(*programs.stimulus(program, 2, 0))
